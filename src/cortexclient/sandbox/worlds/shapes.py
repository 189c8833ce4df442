"""Recorded level-2 records and skeletons, read into `Shapes`."""

from __future__ import annotations

import base64
import gzip
import json
from pathlib import Path
from typing import Any, Final

import numpy as np
import polars as pl

from ..level2 import COLUMNS
from ..skeletons import AXON, DENDRITE, SOMA, Shapes
from .neurons import SINGLE

FALLBACK_RADIUS: Final = 100.0
"""Radius (nm) of the vertices of skeletons that were recorded without."""


def minnie65_shapes(data: Path) -> Shapes:
    """The 84 real neurons; one with records of its level-2 nodes, radius and compartments, the others with an axon."""
    many, single = data / "neurons" / "minnie65_83", data / "neurons" / str(SINGLE)
    root = json.loads((single / "meta.json").read_text())["skeleton_root_vertex"]
    neurons = pl.read_parquet(many / "neurons.parquet").select("root_id", root=pl.col("skeleton_root_vertex"))
    members = pl.read_parquet(many / "l2.parquet")
    return Shapes(
        level2=_records(single),
        skeletons=_stack(neurons, pl.DataFrame({"root_id": [SINGLE], "root": [root]})),
        vertices=_stack(_vertices(many, members, neurons), _single_vertices(single)),
        edges=_stack(_edges(many), _of_single(pl.read_parquet(single / "skeleton_edges.parquet"), "a", "b")),
        members=_stack(
            members.select("root_id", level2="l2_id", vertex="skeleton_vertex"),
            _of_single(
                pl.read_parquet(single / "skeleton_l2_map.parquet"), level2=pl.col("l2_id"), vertex="skeleton_vertex"
            ),
        ),
    )


def _stack(*frames: pl.DataFrame) -> pl.DataFrame:
    reals = {"x", "y", "z", "radius"}
    return pl.concat(
        frame.select(pl.col(name).cast(pl.Float64 if name in reals else pl.Int64) for name in frame.columns)
        for frame in frames
    )


def _of_single(frame: pl.DataFrame, *names: str, **renamed: Any) -> pl.DataFrame:
    return frame.select(pl.lit(SINGLE).alias("root_id"), *names, **renamed)


def _records(folder: Path) -> pl.DataFrame:
    columns = [column for group in COLUMNS.values() for column in group]
    return pl.read_parquet(folder / "l2_attributes.parquet").select(
        pl.col("l2_id").cast(pl.Int64), pl.col(columns).cast(pl.Float64)
    )


def _single_vertices(folder: Path) -> pl.DataFrame:
    rows = pl.read_parquet(folder / "skeleton_vertices.parquet")
    place = {axis: f"{axis}_nm" for axis in "xyz"}
    return _of_single(rows, **place, radius=pl.col("radius_nm"), compartment=pl.col("compartment"))


def _vertices(folder: Path, members: pl.DataFrame, neurons: pl.DataFrame) -> pl.DataFrame:
    """Vertices; one is of the axon if most of its level-2 nodes are."""
    axon = members.group_by("root_id", vertex="skeleton_vertex").agg(axon=pl.col("is_axon").mean() > 0.5)
    rows = pl.read_parquet(folder / "skeleton.parquet").with_columns(
        vertex=pl.int_range(pl.len(), dtype=pl.Int32).over("root_id")
    )
    rows = rows.join(axon, on=["root_id", "vertex"], how="left", maintain_order="left")
    rows = rows.join(neurons, on="root_id", maintain_order="left")
    kind = pl.when(pl.col("vertex") == pl.col("root")).then(SOMA).when(pl.col("axon")).then(AXON).otherwise(DENDRITE)
    place = {axis: f"{axis}_nm" for axis in "xyz"}
    return rows.select("root_id", **place, radius=pl.lit(FALLBACK_RADIUS), compartment=kind)


def _edges(folder: Path) -> pl.DataFrame:
    rows = pl.read_parquet(folder / "skeleton.parquet").with_columns(
        a=pl.int_range(pl.len(), dtype=pl.Int64).over("root_id")
    )
    return rows.filter(pl.col("parent") >= 0).select("root_id", "a", b="parent")


def toy_shapes(data: Path) -> Shapes:
    """The three skeletons that the recorded service held, and the roots that it refused."""
    found: dict[int, dict[str, Any]] = {}
    refused: set[int] = set()
    path = data / "skeleton_toy" / "exchanges.jsonl.gz"
    if not path.exists():
        return Shapes()
    for line in gzip.decompress(path.read_bytes()).splitlines():
        exchange = json.loads(line).get("exchange", {})
        if "in the refusal list" in str(exchange.get("response_json")):
            refused.add(int(exchange["path"].split("/")[-2]))
        for body in _flatdicts(exchange):
            skeleton = json.loads(gzip.decompress(body))
            found[skeleton["meta"]["root_id"]] = skeleton
    return _collected(found, refused)


def _flatdicts(exchange: dict[str, Any]) -> list[bytes]:
    if "flatdict" not in exchange.get("path", "") or exchange["status"] != 200:
        return []
    if "response_body_b64" in exchange:
        return [base64.b64decode(exchange["response_body_b64"])]
    return [bytes.fromhex(text) for text in exchange["response_json"].values() if text.startswith("1f8b")]


def _collected(found: dict[int, dict[str, Any]], refused: set[int]) -> Shapes:
    """Skeletons in the service's own form, as columns."""
    vertices, edges, members = [], [], []
    for root_id, skeleton in found.items():
        x, y, z = np.array(skeleton["vertices"]).T
        columns = {"x": x, "y": y, "z": z, "radius": skeleton["radius"], "compartment": skeleton["compartment"]}
        vertices.append(pl.DataFrame({"root_id": np.full(len(x), root_id)} | columns))
        a, b = np.array(skeleton["edges"], np.int64).reshape(-1, 2).T
        edges.append(pl.DataFrame({"root_id": np.full(len(a), root_id), "a": a, "b": b}))
        level2 = np.array(skeleton["lvl2_ids"], np.int64)
        columns = {"level2": level2, "vertex": np.array(skeleton["mesh_to_skel_map"], np.int64)}
        members.append(pl.DataFrame({"root_id": np.full(len(level2), root_id)} | columns))
    roots = pl.DataFrame({"root_id": list(found), "root": [skeleton["root"] for skeleton in found.values()]})
    return Shapes(
        skeletons=roots,
        vertices=pl.concat(vertices),
        edges=pl.concat(edges),
        members=pl.concat(members),
        refused=pl.DataFrame({"root_id": sorted(refused)}),
    )
