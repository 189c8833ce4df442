"""What the routes of the materialization service share: versions, permissions, arguments, answers and failures.

In strict mode failures look as MaterializationEngine 5.26 makes them: a catch-all turns whatever a handler raises into
status 500, the true code only showing in the message. Otherwise they have the status that they deserve.
"""

from __future__ import annotations

import gzip
import json
import traceback
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from .. import arrow, costs
from ..calls import Call, Reply
from ..queries import Answer, Query, Refused
from ..query_body import FILTERS, Check, InvalidBody, checked
from ..tables import Table, Version

if TYPE_CHECKING:
    from ..world import World


class InvalidArgument(Exception):
    """A value in the query string that its parameter does not accept."""

    def __init__(self, name: str, problem: str) -> None:
        super().__init__(f"{name}: {problem}")
        self.name = name
        self.problem = problem


def json_reply(value: Any, status: int = 200, price: float = costs.REQUEST) -> Reply:
    """A JSON answer."""
    return Reply(json.dumps(value).encode() + b"\n", status, price=price)


def on_error(call: Call, error: Exception) -> Reply:
    """The answer for whatever a handler raised."""
    if isinstance(error, InvalidBody):
        hint = {} if call.strict else {"message": str(error)}
        return json_reply({"schema_errors": error.errors, **hint}, 500 if call.strict else 400)
    if isinstance(error, InvalidArgument):
        problem = {"errors": {error.name: error.problem}, "message": "Input payload validation failed"}
        return json_reply(problem, 500 if call.strict else 400)
    message, status = str(error), 500
    if isinstance(error, Refused):
        status = 500 if call.strict else error.status
        if call.strict and error.aborted:
            message = f"{error.status} {HTTPStatus(error.status).phrase}: {message}"
    body: dict[str, Any] = {"code": status, "message": message}
    if status == 500:
        body["traceback"] = traceback.format_exception(error)
    return json_reply(body, status)


def wrong_method(call: Call) -> Reply:
    """The answer for a known path under another method."""
    return on_error(call, Refused("The method is not allowed for the requested URL.", 405, aborted=True))


def flag(call: Call, name: str, *, default: bool = False) -> bool:
    """A boolean of the query string, in any spelling that Flask-RESTX accepts."""
    text = call.query.get(name)
    if text is None or text == "":
        return default
    if text.lower() not in ("true", "false", "1", "0"):
        raise InvalidArgument(name, f"Invalid literal for boolean(): {text}")
    return text.lower() in ("true", "1")


def sample_size(call: Call) -> int | None:
    """The argument ``random_sample``: a positive integer."""
    text = call.query.get("random_sample")
    if text is None:
        return None
    if not text.isdecimal() or int(text) == 0:
        raise InvalidArgument("random_sample", f"Invalid argument: {text}. argument must be a positive integer")
    return int(text)


def body_of(call: Call, fields: Mapping[str, Check]) -> dict[str, Any]:
    """The request body, checked. Its Content-Type matters to the real server only."""
    unreadable = Refused(
        "The browser (or proxy) sent a request that this server could not understand.", 400, aborted=True
    )
    if call.strict and not call.headers.get("content-type", "").startswith("application/json"):
        raise unreadable
    try:
        body = call.json()
    except ValueError:
        raise unreadable from None
    return checked(body, fields)


def query_of(call: Call, body: Mapping[str, Any]) -> Query:
    """The query that a checked body asks."""
    filters = {kind: body[kind] for kind in FILTERS if kind in body}
    if call.strict:  # the handlers read another name than clients send, so exclusion filters do nothing
        filters.pop("filter_notin_dict", None)
    resolution = body.get("desired_resolution")
    if resolution is not None and not all(resolution):
        raise Refused("Execution failed on sql '...': division by zero")
    return Query(
        filters=filters,
        offset=body.get("offset", 0),
        limit=body.get("limit"),
        resolution=tuple(resolution) if resolution is not None else None,
    )


def refuse_other_tables(query: Query, names: Sequence[str]) -> None:
    """Refuse filters on tables that are not queried."""
    for by_table in query.filters.values():
        for name, by_column in by_table.items():
            if by_column and name not in names:
                raise Refused(repr(name))


def number_of(call: Call) -> int:
    """The version number in a path."""
    text = call.params["version"]
    try:
        return int(text)
    except ValueError:
        raise Refused(f"version {text} is not a number", 404, aborted=True) from None


def version_of(world: World, call: Call) -> Version:
    """The version that a path names, valid or not."""
    datastack, number = call.params["datastack"], number_of(call)
    found = world.annotations.version(datastack, number)
    if found is None:
        unknown = f"Analysis version {number} not found for datastack {datastack}"
        text = unknown if number < 1 else f"version {number} not found in {datastack}"
        raise Refused(text, 404, aborted=True)
    return found


def owner_of(world: World, version: Version) -> Version:
    """The version itself, or the one that a virtual version shows a part of."""
    return next((v for v in world.versions if v.id == version.parent), version)


def readable_table(world: World, call: Call, name: str, version: Version | None = None) -> Table:
    """A table that the caller may read, and that the version (if given) holds.

    Raises
    ------
    Refused
        404, 401, or 410 where the version is expired.
    """
    if version is not None:
        if name not in version.tables:
            where = f"version {version.version} in datastack {version.datastack}"
            raise Refused(f"Analysis table '{name}' not found for {where}", 404, aborted=True)
        refuse_expired(version, name)
    table = world.tables[name]
    if table.read_permission != "PUBLIC" and table.user_id != str(call.user_id):
        raise Refused("Unauthorized: The table can only be read by its owner", 401, aborted=True)
    return table


def refuse_expired(version: Version, name: str) -> None:
    """Refuse to read a version whose database is gone."""
    if not version.valid:
        expired = f'version {version.version} is expired: relation "{name}" does not exist'
        raise Refused(f"Execution failed on sql '... FROM {name}': {expired}", 410)


def row_limit(world: World, query: Query, source: str) -> int:
    """The number of rows that an answer may have."""
    if query.offset < 0 or (query.limit or 0) < 0:
        raise Refused(f"Execution failed on sql '... FROM {source}': LIMIT and OFFSET must not be negative")
    return world.row_cap if query.limit is None else min(query.limit, world.row_cap)


def notice(name: str, text: str | None) -> list[str]:
    """The warning that shows an owner's notice."""
    return [f"Table Owner Notice on {name}: {text}"] if text else []


@dataclass(frozen=True)
class Rendering:
    """How an answer is to be sent."""

    warnings: Sequence[str]
    price: float
    view: bool = False
    counted: bool = False
    index: npt.NDArray[np.int64] | None = None


def query_reply(call: Call, answer: Answer, rendering: Rendering) -> Reply:
    """The rows as Arrow or JSON, with the headers that caveclient reads."""
    frame = answer.frame if rendering.counted else arrow.wire_types(answer.frame, view=rendering.view)
    accepted = call.headers.get("accept-encoding", "")
    headers = [("Warning", " ".join(text.splitlines())) for text in rendering.warnings]
    headers += [("dataframe_resolution", str(float(nm))) for nm in answer.resolution]
    headers += [("column_names", repr(answer.names)), ("Cache-Control", "no-cache")]
    if flag(call, "return_pyarrow", default=True):
        codecs = accepted if flag(call, "ipc_compress", default=True) else ""
        body = arrow.to_stream(frame, codecs, index=rendering.index, nullable=not rendering.counted)
        content_type = arrow.CONTENT_TYPE
    else:
        body, content_type = arrow.to_records(frame), "application/json"
    if "gzip" in accepted:
        body = gzip.compress(body, compresslevel=1)
        headers += [("Content-Encoding", "gzip"), ("Vary", "Accept-Encoding")]
    return Reply(body, 200, content_type, tuple(headers), rendering.price)
