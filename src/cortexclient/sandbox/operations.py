"""The edit log of a chunkedgraph."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Pairs = tuple[tuple[int, int], ...]
Points = tuple[tuple[int, int, int], ...]
Kind = Literal["merge", "split", "undo", "redo"]


@dataclass(frozen=True, slots=True)
class Operation:
    """One record of the edit log, with the fields that the service shows.

    ``time_ms`` is when the edit took effect (the time of all its cells), ``logged_ms`` when its log record was last
    written (the same where not given). ``status`` is 0 for success, 1 for created (refused edits stay there).
    Points are voxels.
    """

    id: int
    time_ms: int
    user: str
    kind: Kind
    status: int = 0
    roots: tuple[int, ...] = ()
    added_edges: Pairs = ()
    removed_edges: Pairs = ()
    source_ids: tuple[int, ...] = ()
    sink_ids: tuple[int, ...] = ()
    source_coords: Points = ()
    sink_coords: Points = ()
    bb_offset: tuple[int, int, int] | None = None
    affinities: tuple[float, ...] = ()
    undo_operation_id: int | None = None
    redo_operation_id: int | None = None
    exception: str = ""
    logged_ms: int = -1

    def __post_init__(self) -> None:
        if self.logged_ms < 0:
            object.__setattr__(self, "logged_ms", self.time_ms)

    @property
    def is_merge(self) -> bool:
        """Whether it added edges; a redo of a merge and the undo of a split did."""
        return bool(self.added_edges) or self.kind == "merge"
