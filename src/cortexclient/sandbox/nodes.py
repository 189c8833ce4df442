"""An indexed, immutable block of a node table: parent cells and lineage, with vectorised look-ups.

Everything is answered by binary search in sorted columns, so a look-up of thousands of ids takes about a millisecond
in a block of millions of cells, and building a block is a handful of sorts.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Self

import numpy as np
import numpy.typing as npt

from .layout import Ids, as_ids

Bools = npt.NDArray[np.bool_]

NEVER: Final = int(np.iinfo(np.int64).max)
"""The time of what has not happened: the retirement of a current root, the creation of an unknown node."""


@dataclass(frozen=True, slots=True)
class Cells:
    """Parent cells: from ``time_ms`` on, ``parent`` is the parent of ``node``; int64 columns in any order."""

    node: Ids
    parent: Ids
    time_ms: Ids

    @classmethod
    def empty(cls) -> Self:
        """No cells."""
        return cls(*(np.empty(0, np.int64) for _ in range(3)))

    def __add__(self, other: Cells) -> Cells:
        return Cells(
            np.concatenate([self.node, other.node]),
            np.concatenate([self.parent, other.parent]),
            np.concatenate([self.time_ms, other.time_ms]),
        )


@dataclass(frozen=True, slots=True)
class Lineage:
    """Edges of the lineage: ``operation_id`` retired root ``former`` and made root ``new``. Columns as in `Cells`."""

    former: Ids
    new: Ids
    operation_id: Ids

    @classmethod
    def empty(cls) -> Self:
        """No edits."""
        return cls(*(np.empty(0, np.int64) for _ in range(3)))

    def __add__(self, other: Lineage) -> Lineage:
        return Lineage(
            np.concatenate([self.former, other.former]),
            np.concatenate([self.new, other.new]),
            np.concatenate([self.operation_id, other.operation_id]),
        )


@dataclass(frozen=True, slots=True)
class Groups:
    """A sorted key column with its value columns: which rows belong to a key is one binary search."""

    key: Ids
    values: tuple[Ids, ...]

    @classmethod
    def sort(cls, key: Ids, *values: Ids) -> Self:
        """Sort by key; rows of one key keep their order."""
        order = np.argsort(key, kind="stable")
        return cls(key[order], tuple(v[order] for v in values))

    def first(self, keys: Ids, column: int, missing: int) -> Ids:
        """The value in ``column`` of the first row of each key; ``missing`` for keys that have no row."""
        if not len(self.key):
            return np.full(len(keys), missing, np.int64)
        row = np.minimum(np.searchsorted(self.key, keys), len(self.key) - 1)
        return np.where(self.key[row] == keys, self.values[column][row], missing)

    def rows(self, keys: Ids) -> tuple[Ids, Ids]:
        """Every row of every key: row numbers, and the position in ``keys`` that each belongs to."""
        start, stop = np.searchsorted(self.key, keys, "left"), np.searchsorted(self.key, keys, "right")
        count = stop - start
        owner = np.repeat(np.arange(len(keys)), count)
        within = np.arange(len(owner)) - np.repeat(np.cumsum(count) - count, count)
        return as_ids(start[owner] + within), as_ids(owner)


class NodeTable:
    """Cells and lineage of one block.

    Parameters
    ----------
    cells, lineage
        In any order.
    lineage_ms
        Time of each row of ``lineage``.
    """

    def __init__(self, cells: Cells, lineage: Lineage, lineage_ms: Ids) -> None:
        order = np.lexsort((cells.time_ms, cells.node))
        self.cells = Cells(cells.node[order], cells.parent[order], cells.time_ms[order])
        self.lineage = lineage
        self.by_parent = Groups.sort(self.cells.parent, self.cells.node, self.cells.time_ms)
        self.by_former = Groups.sort(lineage.former, lineage.new, lineage.operation_id, lineage_ms)
        self.by_new = Groups.sort(lineage.new, lineage.former, lineage.operation_id, lineage_ms)

    def parents(self, ids: Ids, time_ms: int) -> Ids:
        """Parent of each id at a time (inclusive); 0 where there is none."""
        node, times = self.cells.node, self.cells.time_ms
        if not len(node):
            return np.zeros(len(ids), np.int64)
        row = np.searchsorted(node, ids, "right") - 1
        found = (row >= 0) & (node[row] == ids)
        late = np.flatnonzero(found & (times[row] > time_ms))
        if len(late):
            row[late], found[late] = self._rows_before(ids[late], row[late], time_ms)
        return np.where(found, self.cells.parent[row], 0)

    def _rows_before(self, ids: Ids, last: Ids, time_ms: int) -> tuple[Ids, Bools]:
        """The row of the newest cell until ``time_ms`` of ids whose ``last`` is too late, and whether there is one."""
        start = np.searchsorted(self.cells.node, ids, "left")
        low, high = start, last
        while (low < high).any():
            middle = (low + high) // 2
            written = (low < high) & (self.cells.time_ms[middle] <= time_ms)
            low, high = np.where(written, middle + 1, low), np.where(written, high, middle)
        return low - 1, low > start

    def has_cells(self, ids: Ids) -> Bools:
        """Whether each id has a parent cell at all."""
        node = self.cells.node
        if not len(node):
            return np.zeros(len(ids), bool)
        found: Bools = node[np.minimum(np.searchsorted(node, ids), len(node) - 1)] == ids
        return found

    def parent_cells(self, ids: Ids) -> tuple[Ids, Ids]:
        """Every parent cell of every id: row numbers in ``cells``, and the position in ``ids`` that each belongs to."""
        return Groups(self.cells.node, ()).rows(ids)
