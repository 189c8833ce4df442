"""What the materialization service tells viewers and menus about a table's contents."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import polars as pl

from .. import costs
from ..calls import Call, Reply
from ..queries import Refused
from .materialize_protocol import json_reply, readable_table, refuse_expired, version_of

if TYPE_CHECKING:
    from ..world import World

NUMBER_TYPES: Final = {True: "int32", False: "float32"}


def unique_string_values(world: World, call: Call) -> Reply:
    """Distinct values of each string column of the live table: deleted rows and nulls count."""
    table = world.tables.get(call.params["table"])
    if table is None:
        raise Refused(f"No table named '{call.params['table']}' exists.", 404)
    strings = [name for name, dtype in table.rows.schema.items() if dtype == pl.String]
    values = {name: table.rows[name].unique(maintain_order=True).to_list() for name in strings}
    return json_reply(values, price=costs.TABLE_QUERY)


def table_properties(world: World, call: Call) -> Reply:
    """Neuroglancer segment properties of a table."""
    version = version_of(world, call)
    table = readable_table(world, call, call.params["table"], version)
    rows = world.annotations.frozen(table.name, version)
    if table.reference_table and not table.bound_points:
        targets = world.annotations.frozen(table.reference_table, version)
        rows = rows.join(targets, left_on="target_id", right_on="id", suffix="_ref", maintain_order="left")
    return _segment_properties(world, call, table.name, rows)


def view_properties(world: World, call: Call) -> Reply:
    """Neuroglancer segment properties of a view."""
    version, name = version_of(world, call), call.params["view"]
    if name not in world.views:
        raise Refused("No row was found for one()", 404)
    refuse_expired(version, name)
    return _segment_properties(world, call, name, world.annotations.view(name, version))


def _segment_properties(world: World, call: Call, name: str, rows: pl.DataFrame) -> Reply:
    """One segment for each root id of the first point: strings as tags, numbers as numbers.

    (MaterializationEngine 5.26 fails on nulls in integer columns; outside strict mode such columns are left out.)
    """
    root = next((c for c in rows.columns if c.endswith("root_id")), None)
    if root is None:
        raise Refused(f"{name} has no root ids")
    if rows.height > world.row_cap:
        return json_reply("Table too large to return info", 400)
    incomplete = {c for c in rows.columns if rows[c].null_count() and not c.startswith("superceded_id")}
    if call.strict and any(rows.schema[c].is_integer() for c in incomplete):
        raise Refused("cannot convert NA to integer", 500)
    rows = rows.filter(pl.col(root) > 0).unique(root, keep="first", maintain_order=True)
    numbers = [c for c in rows.columns if rows.schema[c].is_numeric() and not c.endswith("id")]
    properties = [_number_property(rows, c) for c in numbers if c not in incomplete]
    tags = _tags_property(rows)
    inline = {"ids": rows[root].cast(pl.String).to_list(), "properties": [*tags, *properties]}
    return json_reply({"@type": "neuroglancer_segment_properties", "inline": inline}, price=costs.TABLE_QUERY)


def _number_property(rows: pl.DataFrame, column: str) -> dict[str, Any]:
    data_type = NUMBER_TYPES[rows.schema[column] == pl.Int32]
    return {"id": column, "type": "number", "data_type": data_type, "values": rows[column].to_list()}


def _tags_property(rows: pl.DataFrame) -> list[dict[str, Any]]:
    """All string columns as one property: each segment's tags are positions in a sorted list."""
    strings = [c for c in rows.columns if rows.schema[c] == pl.String]
    if not strings:
        return []
    tags = sorted({value for c in strings for value in rows[c].unique().to_list() if value is not None})
    position = {tag: number for number, tag in enumerate(tags)}
    values = [sorted({position[v] for v in row if v is not None}) for row in rows.select(strings).iter_rows()]
    return [{"id": "tags", "type": "tags", "tags": tags, "values": values}]
