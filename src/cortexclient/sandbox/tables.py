"""Annotation tables, their views, and what they hold at a materialized version or at any other time.

Rows are only ever added or marked as deleted, and a bound point keeps its supervoxel for ever. So the state of a table
at time ``t`` is: the rows created by then and not yet deleted, each with ``root_id = root(supervoxel_id, t)``.
A materialized version is that state at the version's time, a live query the state at the time asked.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Final, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt
import polars as pl

from .layout import unique_ids

Ids = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]

NOT_LOOKED_UP: Final = -1
"""Stands for the null ids of a point whose supervoxel is not known yet."""

EPOCH: Final = datetime(1970, 1, 1)  # noqa: DTZ001 - rows and registries hold naive UTC, as the databases behind CAVE do


def from_us(time_us: int) -> datetime:
    """Microseconds since the epoch as a naive UTC datetime."""
    return EPOCH + timedelta(microseconds=time_us)


def to_us(time: datetime) -> int:
    """A datetime as microseconds since the epoch; a naive one is UTC."""
    aware = time if time.tzinfo else time.replace(tzinfo=UTC)
    return (aware - EPOCH.replace(tzinfo=UTC)) // timedelta(microseconds=1)


@dataclass(eq=False)
class Table:
    """One annotation table: its metadata and every row it ever had.

    Parameters
    ----------
    name, schema_type
        ``schema_type`` is a name of the schema service.
    voxel_resolution
        Nanometres per voxel of the stored positions.
    rows
        In the order written, columns in the order of the database: ``id`` Int64, ``created`` Datetime(us), ``deleted``
        Datetime(us) or null, ``superceded_id`` Int64 or null, ``valid`` Boolean, and the schema's own. The three that
        tell a row's end may be left out: then no row was ever deleted. A point ``p`` is ``p_position_x``, ``_y``,
        ``_z`` (Int32, voxels); a bound one is followed by ``p_supervoxel_id`` (Int64; 0: outside the segmentation,
        null: not looked up yet). Root ids are not stored: they follow from the graph. Times are naive UTC.
    reference_table
        The table whose ids the ``target_id`` column holds.
    read_permission
        ``PUBLIC``, ``GROUP`` or ``PRIVATE``; the latter two are readable by ``user_id`` alone.
    last_modified
        Of the last write; None: follows from the rows.
    id
        Row id in the registry of tables.
    """

    name: str
    schema_type: str
    voxel_resolution: tuple[float, float, float]
    rows: pl.DataFrame
    description: str = ""
    reference_table: str | None = None
    user_id: str = "1"
    notice_text: str | None = None
    read_permission: str = "PUBLIC"
    write_permission: str = "PRIVATE"
    created: datetime = EPOCH
    last_modified: datetime | None = None
    flat_segmentation_source: str | None = None
    id: int = 0

    def __post_init__(self) -> None:
        ends = {
            "deleted": pl.lit(None, pl.Datetime("us")),
            "superceded_id": pl.lit(None, pl.Int64),
            "valid": pl.lit(True),
        }
        missing = [value.alias(name) for name, value in ends.items() if name not in self.rows.columns]
        if missing:
            first, rest = self.rows.columns[:2], self.rows.columns[2:]
            self.rows = self.rows.select(*first, *missing, *rest)

    @property
    def points(self) -> list[str]:
        """Stems of all points, e.g. ``pt``, ``bb_start``."""
        return [c.removesuffix("_position_x") for c in self.rows.columns if c.endswith("_position_x")]

    @property
    def bound_points(self) -> list[str]:
        """Stems of the points that carry a supervoxel and so a root id."""
        return [c.removesuffix("_supervoxel_id") for c in self.rows.columns if c.endswith("_supervoxel_id")]

    @property
    def modified(self) -> datetime:
        """Time of the last write."""
        if self.last_modified:
            return self.last_modified
        times = [self.rows[c].max() for c in ("created", "deleted")]
        return max((t for t in times if isinstance(t, datetime)), default=self.created)

    def alive(self, time_us: int) -> Mask:
        """Which rows are there at a time: created by then, not deleted by then."""
        time = pl.lit(from_us(time_us), pl.Datetime("us"))
        # a row that is invalid without a deletion time never was there
        present = (pl.col("created") <= time) & pl.when(pl.col("deleted").is_null()).then("valid").otherwise(
            pl.col("deleted") > time
        )
        return self.rows.select(present.fill_null(value=False)).to_series().to_numpy()


@dataclass(frozen=True, eq=False)
class View:
    """A view: polars SQL over the frozen tables of a version, each under its own name with its root id columns.

    Rows are sorted by the first column, so that paging is reliable. A column cast to DECIMAL is what the databases call
    numeric.
    """

    name: str
    sql: str
    voxel_resolution: tuple[float, float, float]
    description: str = ""
    notice_text: str | None = None
    live_compatible: bool = False
    id: int = 0


@dataclass(frozen=True, eq=False)
class Version:
    """One row of the registry of versions.

    A public (virtual) datastack has rows of its own, with the number and time of the parent's and fewer tables.

    Parameters
    ----------
    version, datastack
        What clients name it by.
    time_us
        The UTC microsecond at which rows were frozen and root ids looked up.
    tables
        Names of the tables it holds.
    id
        Row id in the registry of versions.
    first_table_id
        Row id of the first of ``tables`` in the registry of analysis tables; the others follow.
    parent
        Row id of the version that a virtual one shows a part of.
    expires_on
        Naive UTC; None: never.
    valid, status
        Whether it can be queried; ``AVAILABLE``, ``EXPIRED``, ``RUNNING`` or ``FAILED``.
    is_merged
        Whether the tables were merged with their segmentation columns ("flat"), which loses ``created``.
    row_order
        By table: the ids of its rows in the order this version keeps them, where that is not the order written.
    """

    version: int
    datastack: str
    time_us: int
    tables: tuple[str, ...]
    id: int = 0
    first_table_id: int = 1
    parent: int | None = None
    expires_on: datetime | None = None
    valid: bool = True
    status: str = "AVAILABLE"
    is_merged: bool = False
    row_order: Mapping[str, Sequence[int]] = field(default_factory=dict)

    @property
    def time(self) -> datetime:
        """Naive UTC."""
        return from_us(self.time_us)

    def table_id(self, name: str) -> int:
        """Row id of one of its tables in the registry of analysis tables."""
        return self.first_table_id + self.tables.index(name)


@dataclass(frozen=True, eq=False)
class Index:
    """Row numbers of a table in the order of an integer column; rows without a value are in none."""

    values: Ids
    numbers: Ids

    @classmethod
    def of(cls, column: pl.Series) -> Index:
        """Sort a column, once."""
        numbers = np.flatnonzero(column.is_not_null().to_numpy())
        values = column.drop_nulls().to_numpy()
        order = np.argsort(values, kind="stable")
        return cls(values[order], numbers[order])

    def find(self, values: Ids) -> Ids:
        """Numbers of the rows that hold one of some values, ascending."""
        wanted = np.unique(values)
        low, high = np.searchsorted(self.values, wanted), np.searchsorted(self.values, wanted, "right")
        counts = high - low
        before = np.cumsum(counts) - counts
        return np.sort(self.numbers[np.repeat(low - before, counts) + np.arange(counts.sum())])


class Roots(Protocol):
    """What tables need of the graph."""

    def roots(self, ids: Ids, time_ms: int) -> Ids:
        """Root of each supervoxel at a time, 0 where there is none."""

    def created(self, ids: Ids) -> Ids:
        """Creation time of each node (ms)."""

    def retired(self, ids: Ids) -> Ids:
        """When each root was replaced (ms); the greatest int64 where it is current."""


class Live(NamedTuple):
    """Rows alive at a time, and the supervoxels whose root had changed since the version they were compared with."""

    rows: pl.DataFrame
    looked_up: Ids


@dataclass
class Tables:
    """The tables of a world at any version or time. ``versions`` are in the order the server lists them."""

    graph: Roots
    tables: Mapping[str, Table]
    views: Mapping[str, View] = field(default_factory=dict)
    versions: Sequence[Version] = ()
    _roots: dict[tuple[str, str, int], Ids] = field(default_factory=dict, init=False, repr=False)
    _frames: dict[tuple[str, int], pl.DataFrame] = field(default_factory=dict, init=False, repr=False)
    _indices: dict[tuple[str, int, str], Index] = field(default_factory=dict, init=False, repr=False)
    _supervoxels: dict[tuple[str, str], Index] = field(default_factory=dict, init=False, repr=False)

    def version(self, datastack: str, number: int) -> Version | None:
        """The row of the registry for a datastack's version."""
        return next((v for v in self.versions if v.datastack == datastack and v.version == number), None)

    def frozen(self, name: str, version: Version) -> pl.DataFrame:
        """Rows of a table at a version: its columns less ``deleted``, supervoxel and root ids of bound points last.

        Cached: the first use looks up every root, later ones cost nothing.

        Raises
        ------
        LookupError
            The version is expired.
        """
        if not version.valid:
            raise LookupError(f"version {version.version} of {version.datastack} is not available")
        key = name, version.time_us
        if key not in self._frames:
            rows = np.flatnonzero(self.tables[name].alive(version.time_us))
            frame = self.state(name, rows, version.time_us, version).rows
            if name in version.row_order:
                order = pl.DataFrame({"id": version.row_order[name]}, schema={"id": pl.Int64})
                frame = order.join(frame, on="id", maintain_order="left").select(frame.columns)
            self._frames[key] = frame.rechunk()
        return self._frames[key]

    def index(self, name: str, version: Version, column: str) -> Index:
        """The rows of a table at a version by the values of an integer column, as a database keeps them. Cached."""
        key = name, version.time_us, column
        if key not in self._indices:
            self._indices[key] = Index.of(self.frozen(name, version)[column])
        return self._indices[key]

    def rows_by_supervoxel(self, name: str, point: str) -> Index:
        """All rows that a table ever had by the supervoxels of one of its points. Cached."""
        key = name, point
        if key not in self._supervoxels:
            self._supervoxels[key] = Index.of(self.tables[name].rows[f"{point}_supervoxel_id"])
        return self._supervoxels[key]

    def view(self, name: str, version: Version) -> pl.DataFrame:
        """Rows of a view at a version. Cached."""
        key = name, version.time_us
        if key not in self._frames:
            sql = self.views[name].sql
            sources = {t: self.frozen(t, version) for t in self.tables if re.search(rf"\b{t}\b", sql)}
            rows = pl.SQLContext(sources).execute(sql, eager=True)
            self._frames[key] = rows.sort(rows.columns[0], maintain_order=True)
        return self._frames[key]

    def live(self, name: str, time_us: int, base: Version) -> Live:
        """Rows of a table that are alive at a time, columns as in `frozen`; ``base`` is where root ids are known."""
        return self.state(name, np.flatnonzero(self.tables[name].alive(time_us)), time_us, base)

    def state(self, name: str, numbers: Ids, time_us: int, base: Version) -> Live:
        """Rows of a table, by number, as they are while they are alive, with their root ids at a time.

        Only supervoxels whose root at ``base`` is not their root at the time asked are looked up.
        """
        table, time_ms = self.tables[name], time_us // 1000
        ids: list[pl.Series] = []
        looked_up = [np.empty(0, np.int64)]
        for point in table.bound_points:
            supervoxels = _supervoxels(table, point)[numbers]
            roots = self.frozen_roots(name, point, base.time_us)[numbers]
            if time_us != base.time_us:
                stale = (supervoxels > 0) & ~self._current(roots, time_ms)
                roots[stale] = self.graph.roots(supervoxels[stale], time_ms)
                looked_up.append(supervoxels[stale])
            ids.append(pl.Series(f"{point}_supervoxel_id", supervoxels).replace(NOT_LOOKED_UP, None))
            ids.append(pl.Series(f"{point}_root_id", roots).replace(NOT_LOOKED_UP, None))
        bound = [f"{point}_supervoxel_id" for point in table.bound_points]
        own = [c for c in table.rows.columns if c not in bound and c != "deleted"]
        rows = table.rows.select(own)[numbers].with_columns(
            pl.lit(value=True).alias("valid"), pl.lit(None, pl.Int64).alias("superceded_id"), *ids
        )
        return Live(rows, unique_ids(np.concatenate(looked_up)))

    def frozen_roots(self, name: str, point: str, time_us: int) -> Ids:
        """Root at a version's time of every row the table ever had (read-only, cached)."""
        key = name, point, time_us
        if key not in self._roots:
            supervoxels = _supervoxels(self.tables[name], point)
            bound = supervoxels > 0
            roots = np.where(supervoxels == NOT_LOOKED_UP, NOT_LOOKED_UP, np.int64(0))
            roots[bound] = self.graph.roots(supervoxels[bound], time_us // 1000)
            roots.setflags(write=False)
            self._roots[key] = roots
        return self._roots[key]

    def _current(self, roots: Ids, time_ms: int) -> Mask:
        """Which of the roots are current at a time."""
        distinct, inverse = np.unique(roots, return_inverse=True)
        current = (self.graph.created(distinct) <= time_ms) & (self.graph.retired(distinct) > time_ms)
        return current[inverse]


def _supervoxels(table: Table, point: str) -> Ids:
    """Supervoxel of a point in every row."""
    return table.rows[f"{point}_supervoxel_id"].fill_null(NOT_LOOKED_UP).to_numpy().astype(np.int64)
