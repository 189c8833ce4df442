"""The schema service: what kinds of annotation there are (emannotationschemas)."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from .. import costs
from ..calls import Call, Reply, Route, RouteTable
from ..schemas import documents

if TYPE_CHECKING:
    from ..world import World


def _json(value: Any, status: int = 200) -> Reply:
    return Reply(json.dumps(value).encode() + b"\n", status, price=costs.REQUEST)


def _versions(_: World, __: Call) -> Reply:
    return _json([2])


def _names(_: World, __: Call) -> Reply:
    return _json(list(documents()))


def _one(_: World, call: Call) -> Reply:
    document = documents().get(call.params["name"])
    return _json({"message": _unknown(call)}, 404) if document is None else _json(document)


def _several(_: World, call: Call) -> Reply:
    """Those named in the query string; one unknown name spoils the answer."""
    names = [name for name in call.query.get("schema_names", "").split(",") if name]
    if not set(names) <= documents().keys():
        return _json({"message": _unknown(call)}, 404)
    return _json({name: documents()[name] for name in names})


def _all(_: World, __: Call) -> Reply:
    return _json(documents())


def _unknown(call: Call) -> str:
    return (
        "The requested URL was not found on the server. If you entered the URL manually please check your spelling and "
        f"try again. You have requested this URI [{call.path}] but did you mean /schema/api/v2/type/"
        "<string:annotation_type> or /schema/api/v2/type or /schema/api/v2/types ?"
    )


TABLE = RouteTable(
    "schema",
    (
        Route(("GET",), "/schema/versions", _versions, permission=None),
        Route(("GET",), "/schema/api/v2/type", _names, permission=None),
        Route(("GET",), "/schema/api/v2/type/{name}", _one, permission=None),
        Route(("POST",), "/schema/api/v2/types", _several, permission=None),
        Route(("GET",), "/schema/api/v2/types_all", _all, permission=None),
    ),
)
