"""Level-2 nodes: the graph that they form within an object, and what the L2 cache knows about each of them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import polars as pl

from .graph import NEVER, Graph
from .layout import Ids

Floats = npt.NDArray[np.float64]

ATTRIBUTES: Final[Mapping[str, str]] = {
    "area_nm2": "uint32",
    "chunk_intersect_count": "uint16",
    "max_dt_nm": "uint16",
    "mean_dt_nm": "float16",
    "pca": "float16",
    "pca_val": "float32",
    "rep_coord_nm": "uint16",
    "size_nm3": "uint32",
}
"""What the cache keeps, and the type in which it keeps it."""

TOO_SMALL_NM3: Final = 10_000_000
"""Objects below this volume have no principal axes."""

COMPUTED_AFTER_MS: Final = 2_000
"""How long after its creation a node has a record."""

COLUMNS: Final[Mapping[str, tuple[str, ...]]] = {
    "area_nm2": ("area_nm2",),
    "chunk_intersect_count": tuple(
        f"chunk_intersect_count_{axis}_{end}" for end in ("bottom", "top") for axis in ("x", "y", "z")
    ),
    "max_dt_nm": ("max_dt_nm",),
    "mean_dt_nm": ("mean_dt_nm",),
    "pca": tuple(f"pca_{k}_{axis}" for k in range(3) for axis in ("x", "y", "z")),
    "pca_val": tuple(f"pca_val_{k}" for k in range(3)),
    "rep_coord_nm": tuple(f"rep_coord_nm_{axis}" for axis in ("x", "y", "z")),
    "size_nm3": ("size_nm3",),
}
"""The columns of each attribute in a table of recorded ones."""

NO_RECORDS: Final = pl.DataFrame(
    schema={"l2_id": pl.Int64} | {column: pl.Float64 for group in COLUMNS.values() for column in group}
)


def level2_graph(graph: Graph, node: int) -> Ids:
    """Pairs of level-2 nodes of ``node`` that an active edge between chunks joins, (n, 2): a < b, unique, sorted."""
    level2 = graph.leaves(node, 2)
    supervoxels, owner = graph.children_of(level2)
    order = np.argsort(supervoxels)
    supervoxels, parent = supervoxels[order], level2[owner[order]]
    edges = graph.edges_within(supervoxels, born(graph, node))
    ends = np.stack([parent[np.searchsorted(supervoxels, end)] for end in (edges.a, edges.b)], axis=1)
    ends = np.sort(ends[ends[:, 0] != ends[:, 1]], axis=1)
    return np.unique(ends, axis=0)


def born(graph: Graph, node: int) -> int:
    """When a node was created, ms; those of the first day with the graph itself."""
    created = int(graph.created([node])[0])
    return created if created != NEVER else graph.created_ms


def draws(ids: Ids, n: int) -> Floats:
    """``n`` numbers in [0, 1) for each id, (len(ids), n): always the same ones (SplitMix64 of the id)."""
    steps = np.arange(1, n + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    z = ids.astype(np.uint64)[:, None] + steps
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    scaled: Floats = ((z ^ (z >> np.uint64(31))) >> np.uint64(11)).astype(np.float64) / 2.0**53
    return scaled


class Level2Cache:
    """What is known about level-2 nodes: the recorded records, and made ones of the same kind for all others.

    Parameters
    ----------
    graph
        Whose nodes they are.
    recorded
        ``l2_id`` and the columns of `COLUMNS`; a null axis means that the object has none.
    """

    def __init__(self, graph: Graph, recorded: pl.DataFrame = NO_RECORDS) -> None:
        self._graph = graph
        ordered = recorded.sort("l2_id")
        self._ids: Ids = ordered["l2_id"].to_numpy()
        columns = [column for group in COLUMNS.values() for column in group]
        self._values: Floats = ordered.select(pl.col(columns).cast(pl.Float64)).to_numpy().astype(np.float64)
        self.missing: set[int] = set()
        """Nodes whose computation failed: they are answered with an empty record."""

    def computed(self, ids: Ids, now_ms: int) -> npt.NDArray[np.bool_]:
        """Which ids have a record: level-2 nodes, a little after their creation."""
        known: npt.NDArray[np.bool_] = (self._graph.layout.layer(ids) == 2) & self._graph.exists(ids)
        created = self._graph.created(ids)
        known &= (created == NEVER) | (created + COMPUTED_AFTER_MS <= now_ms)
        return known & ~np.isin(ids, list(self.missing))

    def table(self, ids: Ids) -> dict[str, Floats]:
        """Values by attribute, (n, k) each; NaN where an object has no axes."""
        values = self._made(ids)
        if len(self._ids):
            row = np.minimum(np.searchsorted(self._ids, ids), len(self._ids) - 1)
            recorded = self._ids[row] == ids
            values[recorded] = self._values[row[recorded]]
        cuts = np.cumsum([len(group) for group in COLUMNS.values()])[:-1]
        return dict(zip(COLUMNS, np.split(values, cuts, axis=1), strict=True))

    def points(self, ids: Ids) -> Floats:
        """Representative points, (n, 3) nm."""
        return self.table(ids)["rep_coord_nm"]

    def records(self, ids: Ids, names: Sequence[str], now_ms: int) -> dict[str, dict[str, Any]]:
        """The service's answer about distinct ids, ascending: by id as text, empty where nothing is computed."""
        known = self.computed(ids, now_ms)
        table = self.table(ids)
        columns = {name: _shaped(name, table[name]) for name in names}
        return {
            str(i): {name: values[k] for name, values in columns.items() if values[k] is not None} if there else {}
            for k, (i, there) in enumerate(zip(ids.tolist(), known.tolist(), strict=True))
        }

    def _made(self, ids: Ids) -> Floats:
        """Records of invented objects, with the columns of `COLUMNS`: plausible sizes, a point in the own chunk."""
        layout = self._graph.layout
        u = draws(ids, 16)
        voxel = float(np.prod(layout.resolution))
        size = np.rint(np.exp(10.5 + 1.5 * (u[:, 0] + u[:, 1] + u[:, 2] - 1.5))) * voxel
        mean = np.cbrt(size) / 4
        place = layout.voxel_offset + layout.chunk(ids) * layout.chunk_size
        place = (place + (u[:, 3:6] * layout.chunk_size).astype(np.int64)) * layout.resolution
        turn = 2 * np.pi * u[:, 6]
        zero, one = np.zeros_like(turn), np.ones_like(turn)
        axes = np.stack([np.cos(turn), np.sin(turn), zero, -np.sin(turn), np.cos(turn), zero, zero, zero, one], axis=1)
        spread = -np.sort(-u[:, 7:10], axis=1) * mean[:, None] * 50
        axes[size < TOO_SMALL_NM3] = np.nan
        spread[size < TOO_SMALL_NM3] = np.nan
        made = {
            "area_nm2": np.rint(6 * np.cbrt(size) ** 2 * (1 + u[:, 15]))[:, None],
            "chunk_intersect_count": np.floor(u[:, 10:16] * 500),
            "max_dt_nm": np.rint(2 * mean)[:, None],
            "mean_dt_nm": mean.astype(np.float16).astype(np.float64)[:, None],
            "pca": axes.astype(np.float16).astype(np.float64),
            "pca_val": spread.astype(np.float32).astype(np.float64),
            "rep_coord_nm": place.astype(np.float64),
            "size_nm3": size[:, None],
        }
        return np.concatenate([made[name] for name in COLUMNS], axis=1)


def _shaped(name: str, values: Floats) -> list[Any]:
    """One JSON value for each row, None where there is none."""
    numbers = values if name.startswith(("mean", "pca", "rep")) else values.astype(np.int64)
    if len(COLUMNS[name]) == 1:
        return _absent_where(values[:, 0], numbers[:, 0].tolist())
    shape = {"pca": (-1, 3, 3), "chunk_intersect_count": (-1, 2, 3)}.get(name, (-1, len(COLUMNS[name])))
    return _absent_where(values[:, 0], numbers.reshape(shape).tolist())


def _absent_where(first: Floats, items: Iterable[Any]) -> list[Any]:
    return [None if gone else item for gone, item in zip(np.isnan(first).tolist(), items, strict=True)]
