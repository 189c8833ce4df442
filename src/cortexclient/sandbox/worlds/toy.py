"""The small world recorded from the real servers: 112 supervoxels, 19 operations, 4 versions."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from ..world import Datastack, World
from .shapes import toy_shapes
from .toy_graph import toy_graph
from .toy_tables import toy_tables

ROW_CAP: Final = 500
"""What the recorded materialization server was configured with."""


def toy_world(data: Path) -> World:
    """Read ``pcg_toy/`` and ``me_toy/`` below ``data``; every answer of the recorded servers follows from them."""
    graph = toy_graph(data)
    annotations = toy_tables(data)
    return World(
        name="toy",
        seed=0,
        graph=graph,
        tables=annotations.tables,
        views=annotations.views,
        versions=annotations.versions,
        datastacks={name: _datastack(name, graph.table) for name in ("toy", "toy_public")},
        notes={"data": "recorded from PyChunkedGraph 2.21.1 and MaterializationEngine 5.26.4, of a made-up volume"},
        row_cap=ROW_CAP,
        shapes=toy_shapes(data),
    )


def _datastack(name: str, segmentation: str) -> Datastack:
    return Datastack(
        name=name,
        aligned_volume="toy_vol",
        segmentation=segmentation,
        synapse_table="synapses_toy",
        soma_table="nucleus_detection_v0",
        description="synthetic toy datastack",
        image_source="precomputed://x",
    )
