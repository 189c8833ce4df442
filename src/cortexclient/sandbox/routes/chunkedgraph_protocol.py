"""How the chunkedgraph service reads parameters and words its answers and failures (PyChunkedGraph 2.21)."""

from __future__ import annotations

import json
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import numpy.typing as npt
import orjson

from .. import costs
from ..calls import JSON, Call, Reply
from ..graph import NEVER, Graph
from ..layout import Ids

if TYPE_CHECKING:
    from ..world import World

HTML: Final = "text/html; charset=utf-8"
"""Content type of everything that is not JSON, binary answers included."""
EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_JSON_OPTIONS: Final = (
    orjson.OPT_SERIALIZE_NUMPY | orjson.OPT_SORT_KEYS | orjson.OPT_NON_STR_KEYS | orjson.OPT_APPEND_NEWLINE
)


class ChunkedGraphError(Exception):
    """A failure that the service answers.

    ``crash`` is the message of the exception with which the real server dies in this case, answering 500; strict mode
    does the same, otherwise the caller gets ``status`` and ``message``. Without ``crash`` both modes agree.
    """

    def __init__(self, status: int, message: str, *, crash: str | None = None, price: float = 0.0) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.crash = crash
        self.price = price


def pcg_error(
    call: Call, status: int, message: str, trace: list[str] | None = None, *, price: float = 0.0, headers: Any = ()
) -> Reply:
    """The service's error body; one with a traceback is an unforeseen exception, the others repeat their status."""
    body = {
        "code": status,
        "duration": price,
        "message": message if trace is not None else f"[{status}]: {message}",
        "timestamp": str(moment(call.now_ms).replace(tzinfo=None)),
    } | ({"traceback": trace} if trace is not None else {})
    return Reply(orjson.dumps(body, option=_JSON_OPTIONS), status, headers=headers, price=costs.REQUEST + price)


def on_error(call: Call, error: Exception) -> Reply:
    """The answer to an exception that a handler let through."""
    if isinstance(error, ChunkedGraphError):
        if error.crash is None or not call.strict:
            return pcg_error(call, error.status, error.message, price=error.price)
        return pcg_error(call, 500, error.crash, traceback.format_exception(error), price=error.price)
    return pcg_error(call, 500, str(error), traceback.format_exception(error))


@contextmanager
def malformed(what: str) -> Iterator[None]:
    """Turn the exceptions of reading a request into what the service answers: strictly 500, else 400."""
    try:
        yield
    except (ValueError, KeyError, TypeError, IndexError, OverflowError) as error:
        raise ChunkedGraphError(400, f"{what} cannot be read: {error}", crash=str(error)) from error


CONFIGURED: Final = {"minnie65_public_v117": ("minnie3_v1", 1_623_399_000_000)}
"""Virtual tables that the service itself is configured with: the real graph, and the ceiling in ms."""


def open_graph(world: World, call: Call, *, ids: Ids | None = None, edit: bool = False) -> tuple[Graph, Call]:
    """The graph behind the table of a call, and the call as its handler should see it.

    A virtual (public) table is the real graph with a ceiling: times are clamped to it or filled in; ids in the path,
    and ``ids`` of the body, that were created later are refused, and so are edits.
    """
    graph, name = world.graph, call.params["table"]
    if name == graph.table:
        return graph, call
    ceilings = {stack.segmentation: (graph.table, stack.ceiling_ms) for stack in world.datastacks.values()}
    real, ceiling_ms = (CONFIGURED | ceilings).get(name, (name, None))
    if real != graph.table:
        crash = f'404 table "projects/emulated/instances/emulated_instance/tables/{real}" not found'
        raise ChunkedGraphError(404, f"there is no graph {name}; this server has {graph.table}", crash=crash)
    if ceiling_ms is None:
        return graph, call
    if edit:
        raise ChunkedGraphError(401, "No edits allowed for virtual tables")
    named = [node_id(call, key) for key in ("node_id", "root_id") if key in call.params]
    created = graph.created(np.array([*named, *(() if ids is None else np.atleast_1d(ids).tolist())], np.int64))
    if ((created > ceiling_ms) & (created != NEVER)).any():
        raise ChunkedGraphError(401, "root_id not valid at timestamp")
    clamped = {name: _clamp(call.query.get(name), ceiling_ms) for name in ("timestamp", "timestamp_future")}
    return graph, replace(call, query={**call.query, **clamped})


def _clamp(text: str | None, ceiling_ms: int) -> str:
    ceiling = ceiling_ms / 1000
    if text is None:
        return str(ceiling)
    try:
        return text if float(text) <= ceiling else str(ceiling)
    except ValueError:
        return text


def moment(time_ms: int) -> datetime:
    """Milliseconds since the epoch as a UTC datetime."""
    return EPOCH + timedelta(milliseconds=time_ms)


def seconds(times_ms: Ids) -> npt.NDArray[np.float64]:
    """Milliseconds as the float seconds of the wire."""
    return times_ms / 1000.0


def timestamp_s(call: Call, name: str = "timestamp", default: float | None = None) -> float:
    """A query time in seconds, now by default.

    Raises
    ------
    ChunkedGraphError
        400: no number, or outside of the years 1 to 9999 (milliseconds given for seconds, for example).
    """
    text = call.query.get(name)
    if text is None:
        return call.now_ms / 1000 if default is None else default
    try:
        value = float(text)
        datetime.fromtimestamp(value, UTC)
    except (ValueError, OverflowError, OSError) as error:
        raise ChunkedGraphError(400, f"Timestamp parameter {name} is not a valid unix timestamp") from error
    return value


def timestamp_ms(call: Call, name: str = "timestamp", default: float | None = None) -> int:
    """A query time floored to milliseconds, the precision of the node table."""
    return (datetime.fromtimestamp(timestamp_s(call, name, default), UTC) - EPOCH) // timedelta(milliseconds=1)


def flag(call: Call, name: str, default: bool = False) -> bool:
    """A boolean of the query; text that is none silently means the default."""
    return {"true": True, "1": True, "false": False, "0": False}.get(call.query.get(name, "").lower(), default)


def node_id(call: Call, name: str = "node_id") -> int:
    """An id of the path as int64; negative ones wrap as the server's unsigned ids do."""
    with malformed("the id in the path"):
        return int(parse_ids(int(call.params[name])))


def body_ids(call: Call, key: str = "node_ids") -> Ids:
    """Ids of a JSON body, shape as given."""
    with malformed("the body"):
        return parse_ids(call.json()[key])


def binary_ids(call: Call) -> Ids:
    """Ids of a binary body: uint64, little-endian."""
    with malformed("the body"):
        return np.frombuffer(call.body, np.uint64).view(np.int64)


def parse_ids(value: Any) -> Ids:
    """JSON ids as int64: strings are read, floats truncated, negative ids wrap (as NumPy 1.26 does)."""
    if isinstance(value, list) and set(map(type, value)) <= {int}:
        array = np.array(value) if value else np.empty(0, np.int64)
        if array.dtype.kind in "iu":
            return array.view(np.int64)
    listed = value if isinstance(value, list) else [value]
    if any(isinstance(item, list) for item in listed):
        raise IndexError("too many indices for array: array is 1-dimensional, but 2 were indexed")
    whole = [int(item) for item in listed]
    if any(not -(2**63) <= item < 2**64 for item in whole):
        raise OverflowError("Python int too large to convert to C long")
    array = np.array([item % 2**64 for item in whole], np.uint64).view(np.int64)
    return array if isinstance(value, list) else array[0]


def distinct(ids: Ids) -> int:
    """How many different ids there are; what the service pays for."""
    if not len(ids):
        return 0
    return 1 + int(np.count_nonzero(np.diff(np.sort(ids))))


def wire(ids: npt.ArrayLike) -> npt.NDArray[np.uint64]:
    """Ids as the wire spells them: unsigned."""
    return np.ascontiguousarray(ids, np.int64).view(np.uint64)


def json_reply(
    call: Call, data: Any, *, price: float = 0.0, content_type: str = JSON, headers: tuple[tuple[str, str], ...] = ()
) -> Reply:
    """JSON as Flask writes it: compact, keys sorted as text. NumPy integers become strings if the call wants that."""
    if flag(call, "int64_as_str"):
        data = _numbers_as_text(data)
    body = orjson.dumps(data, option=_JSON_OPTIONS)
    return Reply(body, content_type=content_type, headers=headers, price=costs.REQUEST + price)


def binary_reply(ids: Ids, *, price: float = 0.0) -> Reply:
    """Ids as little-endian uint64, one after the other."""
    return Reply(wire(ids).tobytes(), content_type=HTML, price=costs.REQUEST + price)


def _numbers_as_text(data: Any) -> Any:
    if isinstance(data, dict):
        return {key: _numbers_as_text(value) for key, value in data.items()}
    if isinstance(data, list | tuple):
        return [_numbers_as_text(value) for value in data]
    if isinstance(data, np.ndarray) and data.dtype.kind in "iu":
        return data.astype(str).tolist()
    return str(data) if isinstance(data, np.integer) else data


def strict_json(data: Any) -> bytes:
    """JSON with the bare words ``Infinity`` and ``NaN``, which the service writes although no standard allows them."""
    return json.dumps(data, separators=(",", ":"), sort_keys=True).encode() + b"\n"
