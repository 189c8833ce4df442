"""A tiny graph to edit: single supervoxels on a lattice, each an object of its own, all touching their neighbours."""

from __future__ import annotations

from typing import Final

import numpy as np

from cortexclient.sandbox.edges import Edges
from cortexclient.sandbox.graph import Cells, Graph, Layout, Lineage

LAYOUT: Final = Layout(
    n_layers=5,
    spatial_bits={1: 3, 2: 3, 3: 2, 4: 1, 5: 1},
    chunk_size=(16, 16, 8),
    resolution=(8, 8, 40),
    voxel_offset=(0, 0, 0),
    volume_size=(128, 16, 8),
)
WIDTH: Final = 6
"""Chunks, in a row."""
ROWS: Final = 3
"""Supervoxels in each chunk."""
CREATED_MS: Final = 1_600_000_000_000


def lattice() -> Graph:
    """The graph before any edit; its supervoxels are those of `supervoxel`."""
    supervoxels = LAYOUT.make(1, np.array([[x, 0, 0] for x in range(WIDTH) for _ in range(ROWS)]), 0)
    supervoxels = supervoxels + np.tile(np.arange(1, ROWS + 1), WIDTH)
    level2 = supervoxels + (1 << 56)
    roots = LAYOUT.make(5, np.zeros(3, np.int64), np.arange(1, len(supervoxels) + 1))
    grid = supervoxels.reshape(WIDTH, ROWS)
    a = np.concatenate([grid[:-1].ravel(), grid[:, :-1].ravel()])
    b = np.concatenate([grid[1:].ravel(), grid[:, 1:].ravel()])
    none = np.zeros(len(a))
    return Graph(
        LAYOUT,
        table="t",
        created_ms=CREATED_MS,
        cells=Cells(supervoxels, level2, supervoxels * 0 + CREATED_MS) + Cells(level2, roots, level2 * 0 + CREATED_MS),
        lineage=Lineage.empty(),
        operations=[],
        edges=Edges(a, b, (none + 0.5).astype(np.float32), (none + 9).astype(np.int32), none.astype(bool)),
    )


def supervoxel(chunk: int, row: int) -> int:
    """The supervoxel in a row (from 0) of a chunk."""
    return int(LAYOUT.make(1, np.array([chunk, 0, 0]), row + 1))


def centre_nm(chunk: int) -> list[float]:
    """The centre of a chunk in nanometres."""
    return [(chunk * 16 + 8) * 8.0, 8 * 8.0, 4 * 40.0]
