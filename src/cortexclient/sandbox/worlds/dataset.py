"""The datasets that worlds imitate: names, geometry, versions, datastacks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from itertools import product
from typing import Any, Final, NamedTuple

from ..graph import Graph, Layout
from ..tables import Table, Version, View, from_us
from ..world import Datastack, World


@dataclass(frozen=True, slots=True)
class Dataset:
    """The names and the geometry of the dataset that a synthetic world imitates."""

    datastacks: tuple[tuple[str, str], ...]
    """Datastacks and the segmentation table of each."""
    aligned_volume: str
    layout: Layout
    voxel_resolution: tuple[float, float, float]
    """Of stored positions and of the viewer, in nm."""
    synapse_table: str
    lookup_view: str
    graph: str


MINNIE65: Final = Dataset(
    datastacks=(("minnie65_public", "minnie65_public"), ("minnie65_phase3_v1", "minnie3_v1")),
    aligned_volume="minnie65_phase3",
    layout=Layout.minnie65(),
    voxel_resolution=(4.0, 4.0, 40.0),
    synapse_table="synapses_pni_2",
    lookup_view="nucleus_detection_lookup_v1",
    graph="minnie3_v1",
)

V1DD: Final = Dataset(
    datastacks=(("v1dd_public", "v1dd_public"), ("v1dd", "v1dd")),
    aligned_volume="v1dd",
    layout=Layout(
        n_layers=11,
        spatial_bits={1: 10, 2: 10} | {layer: 11 - layer for layer in range(3, 11)} | {11: 1},
        chunk_size=(256, 256, 512),
        resolution=(9, 9, 45),
        voxel_offset=(4096, 2048, 3072),
        volume_size=(122_880, 98_304, 13_312),
    ),
    voxel_resolution=(9.0, 9.0, 45.0),
    synapse_table="synapses_v1dd",
    lookup_view="nucleus_alternative_lookup",
    graph="v1dd_synthetic",
)

DATASETS: Final = {"minnie65": MINNIE65, "v1dd": V1DD}


class Release(NamedTuple):
    """A version: its number, its time (UTC microseconds), and whether it can still be queried."""

    number: int
    time_us: int
    valid: bool


def assemble(
    dataset: Dataset, graph: Graph, tables: Sequence[Table], view: View, releases: Sequence[Release], **about: Any
) -> World:
    """A world of these parts; ``about`` is its name, seed and notes."""
    names = tuple(table.name for table in tables)
    return World(
        graph=graph,
        tables={table.name: table for table in tables},
        views={view.name: view},
        versions=_registry([name for name, _ in dataset.datastacks], names, releases),
        datastacks={stack.name: stack for stack in _datastacks(dataset)},
        **about,
    )


def _registry(datastacks: Sequence[str], tables: tuple[str, ...], releases: Sequence[Release]) -> list[Version]:
    """The rows of the versions' registry: all versions of one datastack, then those of the next."""
    rows: list[Version] = []
    for datastack, release in product(datastacks, releases):
        keep = timedelta(days=36_500 if release.valid else 60)
        rows.append(
            Version(
                version=release.number,
                datastack=datastack,
                time_us=release.time_us,
                tables=tables,
                id=len(rows) + 1,
                first_table_id=len(rows) * len(tables) + 1,
                expires_on=from_us(release.time_us) + keep,
                valid=release.valid,
                status="AVAILABLE" if release.valid else "EXPIRED",
            )
        )
    return rows


def _datastacks(dataset: Dataset) -> list[Datastack]:
    return [
        Datastack(
            name=name,
            aligned_volume=dataset.aligned_volume,
            segmentation=segmentation,
            synapse_table=dataset.synapse_table,
            soma_table="nucleus_detection_v0",
            viewer_resolution=dataset.voxel_resolution,
            description="Served by cortexclient's sandbox.",
            image_source=f"precomputed://gs://{dataset.aligned_volume}/em",
        )
        for name, segmentation in dataset.datastacks
    ]
