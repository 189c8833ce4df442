"""The small graph recorded from a real chunkedgraph server (``pcg_toy/graph.json``)."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

import numpy as np

from ..graph import Cells, Edges, Graph, Layout, Lineage, Operation

Json = Mapping[str, Any]


def toy_graph(folder: Path) -> Graph:
    """Read ``pcg_toy/graph.json`` below ``folder``: every node row and log record of the real server, unchanged."""
    record = json.loads((folder / "pcg_toy" / "graph.json").read_text())
    nodes = record["nodes"]
    cells = [(node["id"], parent, _ms(time)) for node in nodes for parent, time in node.get("parents", ())]
    lineage = [
        (former, node["id"], operation)
        for node in nodes
        for formers, time in node.get("former_parents", ())
        for operation, written in node["operation_ids"]
        if written == time
        for former in formers
    ]
    return Graph(
        _layout(record),
        table=record["table"],
        created_ms=_iso_ms(record["created"]),
        cells=Cells(*_columns(cells)),
        lineage=Lineage(*_columns(lineage)),
        operations=[_operation(int(name), columns) for name, columns in record["operation_log_cells"].items()],
        edges=_edges(record["edges"]),
        info={"data_dir": "PATH"},  # so it was recorded, without meshes
    )


def _ms(seconds: float) -> int:
    return round(seconds * 1000)


def _iso_ms(text: str) -> int:
    return _ms(datetime.fromisoformat(text).timestamp())


def _columns(rows: list[tuple[int, int, int]]) -> Iterable[np.ndarray[Any, np.dtype[np.int64]]]:
    return np.array(rows, np.int64).reshape(-1, 3).T.copy()


def _layout(record: Json) -> Layout:
    return Layout(
        n_layers=record["n_layers"],
        spatial_bits={int(layer): bits for layer, bits in record["spatial_bits"].items()},
        chunk_size=tuple(record["chunk_size"]),
        resolution=tuple(record["resolution"]),
        voxel_offset=tuple(record["voxel_offset"]),
        volume_size=tuple(record["volume_size"]),
        layer_bits=record["layer_id_bits"],
        fanout=record["fanout"],
    )


def _edges(records: list[Json]) -> Edges:
    return Edges(
        a=np.array([edge["sv"][0] for edge in records], np.int64),
        b=np.array([edge["sv"][1] for edge in records], np.int64),
        affinity=np.array([edge["affinity"] for edge in records], np.float32),
        area=np.array([edge["area"] for edge in records], np.int32),
        active=np.array([edge["active"] for edge in records], bool),
    )


def _operation(operation_id: int, columns: Json) -> Operation:
    """One log record from its newest cells."""
    newest = {name: cells[0][0] for name, cells in columns.items()}
    return Operation(
        id=operation_id,
        time_ms=_iso_ms(newest["operation_ts"]),
        user=newest["user"],
        kind=_kind(newest),
        status=newest["operation_status"],
        roots=tuple(newest["roots"]),
        added_edges=_pairs(newest, "added_edges"),
        removed_edges=_pairs(newest, "removed_edges"),
        source_ids=tuple(newest.get("source_ids", ())),
        sink_ids=tuple(newest.get("sink_ids", ())),
        source_coords=_pairs(newest, "source_coords"),
        sink_coords=_pairs(newest, "sink_coords"),
        bb_offset=tuple(newest["bb_offset"]) if "bb_offset" in newest else None,
        undo_operation_id=newest.get("undo_operation_id"),
        redo_operation_id=newest.get("redo_operation_id"),
        exception=newest["operation_exception"],
        logged_ms=_ms(columns["operation_status"][0][1]),
    )


def _kind(newest: Json) -> Literal["merge", "split", "undo", "redo"]:
    if "undo_operation_id" in newest:
        return "undo"
    if "redo_operation_id" in newest:
        return "redo"
    return "split" if "removed_edges" in newest else "merge"


def _pairs(newest: Json, name: str) -> tuple[Any, ...]:
    return tuple(tuple(row) for row in newest.get(name, ()))
