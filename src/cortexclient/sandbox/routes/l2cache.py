"""The level-2 cache: measures of level-2 nodes (PCGL2Cache)."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import numpy as np
import orjson

from .. import costs
from ..calls import Call, Reply, Route, RouteTable
from ..level2 import ATTRIBUTES

if TYPE_CHECKING:
    from ..world import World


def metadata(_: World, call: Call) -> Reply:  # noqa: ARG001 - handlers share one signature
    """The attributes, and the types they are kept in, as Python writes them."""
    return Reply(json.dumps({name: f"<class 'numpy.{kind}'>" for name, kind in ATTRIBUTES.items()}).encode())


def table_mapping(world: World, call: Call) -> Reply:
    """The segmentation tables that have a cache."""
    names = {world.graph.table, *(stack.segmentation for stack in world.datastacks.values())} - world.without_level2
    mapping = {
        name: {"cv_path": f"graphene://{call.origin}/segmentation/table/{name}", "l2cache_id": f"l2cache_{name}_v1"}
        for name in sorted(names)
    }
    return Reply(json.dumps(mapping).encode())


def attributes(world: World, call: Call) -> Reply:
    """The records of some level-2 nodes; an empty one where nothing is computed yet, and for what is no such node."""
    if call.params["table"] in world.without_level2:
        raise LookupError(f"{call.params['table']} has no cache")
    asked = call.json()["l2_ids"]
    names = [name for name in call.query.get("attribute_names", "").split(",") if name] or list(ATTRIBUTES)
    unknown = set(names) - ATTRIBUTES.keys()
    if unknown:
        raise LookupError(f"there is no attribute {min(unknown)}")
    ids = np.unique(np.array([int(i) for i in asked], np.int64))
    answer = world.level2.records(ids, names, call.now_ms)
    return Reply(orjson.dumps(answer), price=costs.LEVEL2_PER_ID * len(ids))


def on_error(call: Call, error: Exception) -> Reply:
    """Whatever goes wrong is a 500 (PCGL2Cache's error formatter itself fails: an HTML page); repaired, a 400."""
    if call.strict:
        page = "<!doctype html>\n<html lang=en>\n<title>500 Internal Server Error</title>\n"
        return Reply(page.encode(), 500, "text/html; charset=utf-8")
    return Reply(json.dumps({"message": str(error)}).encode(), 400)


_L = "/l2cache/api/v1"
TABLE = RouteTable(
    "l2cache",
    (
        Route(("GET",), f"{_L}/attribute_metadata", metadata, permission=None),
        Route(("GET",), f"{_L}/table_mapping", table_mapping, permission=None),
        Route(("POST",), f"{_L}/table/{{table}}/attributes", attributes, resource="table"),
    ),
    on_error=on_error,
)
