"""The annotation tables recorded from a real materialization server (``me_toy/tables.json.gz``)."""

from __future__ import annotations

import gzip
import json
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any, Final, NamedTuple

import polars as pl

from ..tables import Table, Version, View, to_us

Json = Mapping[str, Any]

_TYPES: Final[dict[str, pl.DataType]] = {
    "int8": pl.Int64(),
    "int4": pl.Int32(),
    "float8": pl.Float64(),
    "bool": pl.Boolean(),
    "varchar": pl.String(),
    "text": pl.String(),
}

_VIEW_SQL: Final = {
    "nucleus_detection_lookup_v1": """
        SELECT n.id, n.volume, n.pt_position_x, n.pt_position_y, n.pt_position_z,
               COALESCE(a.pt_root_id, n.pt_root_id) AS pt_root_id,
               n.pt_root_id AS orig_root_id,
               COALESCE(a.pt_supervoxel_id, n.pt_supervoxel_id) AS pt_supervoxel_id,
               COALESCE(a.pt_position_x, n.pt_position_x) AS pt_position_lookup_x,
               COALESCE(a.pt_position_y, n.pt_position_y) AS pt_position_lookup_y,
               COALESCE(a.pt_position_z, n.pt_position_z) AS pt_position_lookup_z
        FROM nucleus_detection_v0 AS n LEFT JOIN nucleus_alternative_points AS a ON a.target_id = n.id
    """,
    "synapses_toy_in_degree": """
        SELECT post_pt_root_id, COUNT(*) AS n_syn, SUM(size) AS total_size,
               CAST(AVG(size) AS DECIMAL(20, 11)) AS mean_size, MAX(size > 4000) AS has_big,
               MAX(created) AS newest, 'in' AS direction
        FROM synapses_toy GROUP BY post_pt_root_id
    """,
}
"""The recorded server's views, in polars' dialect and over tables that have their root ids."""


class ToyTables(NamedTuple):
    """Everything that the tables of a world consist of."""

    tables: dict[str, Table]
    views: dict[str, View]
    versions: list[Version]


def toy_tables(folder: Path) -> ToyTables:
    """Read ``me_toy/tables.json.gz`` below ``folder``: the live tables and the registries, unchanged."""
    with gzip.open(folder / "me_toy" / "tables.json.gz") as file:
        databases = json.load(file)
    database = databases["toy_vol"]
    orders = {row["version"]: _merged_order(databases, row) for row in database["analysisversion"]["rows"]}
    tables = (_table(database, row) for row in database["annotation_table_metadata"]["rows"])
    views = (_view(row) for row in database["analysisviews"]["rows"])
    return ToyTables(
        {table.name: table for table in tables},
        {view.name: view for view in views},
        [
            _version(row, database["analysistables"]["rows"], orders[row["version"]])
            for row in database["analysisversion"]["rows"]
        ],
    )


def _merged_order(databases: Json, row: Json) -> dict[str, tuple[int, ...]]:
    """Ids in the order that a merged version has them: that of the join that froze it."""
    if not row["is_merged"]:
        return {}
    names = {table["table_name"] for table in databases["toy_vol"]["annotation_table_metadata"]["rows"]}
    frozen = databases[f"toy__mat{row['version']}"]
    return {name: tuple(r["id"] for r in frozen[name]["rows"]) for name in frozen.keys() & names}


def _table(database: Json, metadata: Json) -> Table:
    name = metadata["table_name"]
    names = ("schema_type", "description", "reference_table", "user_id", "notice_text", "read_permission", "id")
    more = ("write_permission", "flat_segmentation_source")
    return Table(
        name=name,
        rows=_rows(database, name),
        voxel_resolution=_resolution(metadata),
        created=datetime.fromisoformat(metadata["created"]),
        last_modified=datetime.fromisoformat(metadata["last_modified"]),
        **{field: metadata[field] for field in names + more},
    )


def _rows(database: Json, name: str) -> pl.DataFrame:
    """Rows in the order written; each bound point's supervoxel comes from the segmentation table."""
    record = database[name]
    segmentation = database.get(f"{name}__toy_v1", {"columns": [], "rows": []})
    supervoxels = {row["id"]: row for row in segmentation["rows"]}
    columns: list[pl.Series] = []
    for column, sql_type in record["columns"]:
        values = [row[column] for row in record["rows"]]
        if sql_type == "geometry":
            for number, axis in enumerate("xyz"):
                part = [value and value[number] for value in values]
                columns.append(pl.Series(f"{column}_{axis}", part, pl.Int32))
            bound = column.removesuffix("position") + "supervoxel_id"
            if any(bound == other for other, _ in segmentation["columns"]):
                found = [supervoxels.get(row["id"], {}).get(bound) for row in record["rows"]]
                columns.append(pl.Series(bound, found, pl.Int64))
        elif sql_type == "timestamp":
            times = [value and datetime.fromisoformat(value) for value in values]
            columns.append(pl.Series(column, times, pl.Datetime("us")))
        else:
            columns.append(pl.Series(column, values, _TYPES[sql_type], strict=False))
    return pl.DataFrame(columns).sort("created", maintain_order=True)


def _view(row: Json) -> View:
    name = row["table_name"]
    fields = ("description", "notice_text", "live_compatible", "id")
    return View(name, _VIEW_SQL[name], _resolution(row), **{field: row[field] for field in fields})


def _version(row: Json, analysis_tables: list[Json], order: Mapping[str, tuple[int, ...]]) -> Version:
    own = sorted((t for t in analysis_tables if t["analysisversion_id"] == row["id"]), key=lambda t: int(t["id"]))
    return Version(
        version=row["version"],
        datastack=row["datastack"],
        time_us=to_us(datetime.fromisoformat(row["time_stamp"])),
        tables=tuple(t["table_name"] for t in own),
        id=row["id"],
        first_table_id=own[0]["id"],
        parent=row["parent_version"],
        expires_on=datetime.fromisoformat(row["expires_on"]) if row["expires_on"] else None,
        valid=row["valid"],
        status=row["status"],
        is_merged=row["is_merged"],
        row_order=order,
    )


def _resolution(row: Json) -> tuple[float, float, float]:
    return tuple(float(row[f"voxel_resolution_{axis}"]) for axis in "xyz")  # type: ignore[return-value]
