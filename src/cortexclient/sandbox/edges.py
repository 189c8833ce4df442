"""Supervoxel edges: what holds the parts of an object together, at any time of its history."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Self

import numpy as np
import numpy.typing as npt

from .layout import Ids
from .nodes import Bools, Groups

if TYPE_CHECKING:
    from .graph import Operation

FAKE_AFFINITY: Final = np.finfo(np.float32).tiny
"""Affinity of an edge that a merge made between supervoxels which do not touch; its area is 0."""


@dataclass(frozen=True, slots=True)
class Edges:
    """Supervoxel edges: ids ``a`` and ``b`` (int64), affinity (float32), contact area (int32), active (bool).

    An active edge holds its two supervoxels together; those between chunks make up the level-2 graph.
    """

    a: Ids
    b: Ids
    affinity: npt.NDArray[np.float32]
    area: npt.NDArray[np.int32]
    active: Bools

    @classmethod
    def empty(cls) -> Self:
        """No edges."""
        none = np.empty(0, np.int64)
        return cls(none, none, none.astype(np.float32), none.astype(np.int32), none.astype(bool))

    def __len__(self) -> int:
        return len(self.a)

    def __getitem__(self, rows: Bools | Ids | slice) -> Edges:
        return Edges(self.a[rows], self.b[rows], self.affinity[rows], self.area[rows], self.active[rows])

    def __add__(self, other: Edges) -> Edges:
        return Edges(
            np.concatenate([self.a, other.a]),
            np.concatenate([self.b, other.b]),
            np.concatenate([self.affinity, other.affinity]),
            np.concatenate([self.area, other.area]),
            np.concatenate([self.active, other.active]),
        )

    def reversed(self) -> Edges:
        """The same edges, read from the other end."""
        return Edges(self.b, self.a, self.affinity, self.area, self.active)


class EdgeHistory:
    """Initial edges and what each operation did to them.

    Parameters
    ----------
    initial
        Each edge once, in either direction.
    operations
        In the order of their ids; refused ones are skipped.
    """

    def __init__(self, initial: Edges, operations: Iterable[Operation]) -> None:
        rows = np.arange(len(initial), dtype=np.int64)
        self._initial = initial
        self._by_end = Groups.sort(np.concatenate([initial.a, initial.b]), np.concatenate([rows, rows]))
        self._changes: dict[tuple[int, int], list[tuple[int, bool]]] = defaultdict(list)
        self._changed_at: dict[int, set[tuple[int, int]]] = defaultdict(set)
        for operation in operations:
            self.record(operation)

    def record(self, operation: Operation) -> None:
        """Take over the edges that an operation added and removed."""
        if operation.status:
            return
        for edges, active in ((operation.added_edges, True), (operation.removed_edges, False)):
            for a, b in {(min(edge), max(edge)) for edge in edges}:
                self._changes[a, b].append((operation.time_ms, active))
                self._changed_at[a].add((a, b))
                self._changed_at[b].add((a, b))

    def within(self, supervoxels: Ids, time_ms: int) -> Edges:
        """Active edges at a time with both ends among ``supervoxels`` (sorted): each once, ``a < b``, sorted."""
        found = self.touching(supervoxels, time_ms)
        return found[_contains(supervoxels, found.a) & _contains(supervoxels, found.b)]

    def touching(self, supervoxels: Ids, time_ms: int) -> Edges:
        """Active edges at a time with an end among ``supervoxels``: each once, ``a < b``, sorted."""
        chosen = self._by_end.values[0][self._by_end.rows(supervoxels)[0]]
        found = self._initial[np.unique(chosen)]
        low, high = np.minimum(found.a, found.b), np.maximum(found.a, found.b)
        found = Edges(low, high, found.affinity, found.area, found.active)
        state = self._state(supervoxels, time_ms)
        if state:
            found = _override(found, state)
        found = found[found.active]
        return found[np.lexsort((found.b, found.a))]

    def _state(self, supervoxels: Ids, time_ms: int) -> dict[tuple[int, int], bool]:
        """Edges of ``supervoxels`` that operations touched until then, and whether they were active."""
        state = {}
        for edge in (edge for node in supervoxels.tolist() for edge in self._changed_at.get(node, ())):
            changes = [active for changed_ms, active in self._changes[edge] if changed_ms <= time_ms]
            if changes:
                state[edge] = changes[-1]
        return state


def _contains(ordered: Ids, ids: Ids) -> Bools:
    if not len(ordered):
        return np.zeros(len(ids), bool)
    there: Bools = ordered[np.minimum(np.searchsorted(ordered, ids), len(ordered) - 1)] == ids
    return there


def _override(found: Edges, state: dict[tuple[int, int], bool]) -> Edges:
    """Set the activity of the edges in ``state``; active ones that are not there become fake edges."""
    row = {edge: n for n, edge in enumerate(zip(found.a.tolist(), found.b.tolist(), strict=True))}
    active = found.active.copy()
    for edge, value in state.items():
        if edge in row:
            active[row[edge]] = value
    fake = np.array([edge for edge, value in state.items() if value and edge not in row], np.int64).reshape(-1, 2)
    n = len(fake)
    found = Edges(found.a, found.b, found.affinity, found.area, active)
    return found + Edges(
        fake[:, 0], fake[:, 1], np.full(n, FAKE_AFFINITY, np.float32), np.zeros(n, np.int32), np.ones(n, bool)
    )
