"""Meshworks with synapses, in nanometres or in the dataset's own space."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from .._types import IdArray
from ..datasets.spec import DatasetSpec
from ..errors import CortexUsageError, DecodeError
from .space import dataset_space

if TYPE_CHECKING:
    import pandas as pd

Transform = Literal["rigid", "streamline"]
TABLES = {"pre": "pre_syn", "post": "post_syn"}
"""The annotation table of each side's synapses."""
POINT = "ctr_pt_position"


def add_synapses(neuron: Any, side: str, frame: pd.DataFrame, level2: IdArray) -> None:
    """Annotate the synapses of one side, as ``pcg_skel`` does.

    Parameters
    ----------
    neuron
        A Meshwork with the table ``lvl2_ids``.
    side
        ``pre`` (outputs) or ``post`` (inputs).
    frame
        The rows: positions in nm as vectors, both root ids.
    level2
        (n,) the level-2 chunk that holds the cell's point of each synapse.

    Raises
    ------
    DecodeError
        A synapse lies on a chunk that the skeleton does not know: skeleton and graph are of different states.
    """
    chunks = neuron.anno["lvl2_ids"].df["lvl2_id"].to_numpy()
    order = np.argsort(chunks)
    row = order[np.minimum(np.searchsorted(chunks, level2, sorter=order), len(chunks) - 1)]
    if (stray := level2[chunks[row] != level2]).size:
        raise DecodeError(f"{len(stray)} synapses lie on chunks that the skeleton does not know", ids=stray)
    partner = {"pre": "post", "post": "pre"}[side]
    frame = frame.drop(columns=["created", "superceded_id", "valid", f"{partner}_pt_root_id"], errors="ignore")
    frame[f"{side}_pt_level2_id"] = level2
    frame[f"{side}_pt_mesh_ind"] = row
    neuron.anno.add_annotations(
        TABLES[side], frame, index_column=f"{side}_pt_mesh_ind", point_column=POINT, voxel_resolution=[1, 1, 1]
    )


def check_transform(transform: str | None, spec: DatasetSpec) -> Any:
    """The dataset's space if a transform is wanted, else None.

    Raises
    ------
    CortexUsageError
        There is no such transform, or none for this dataset.
    """
    if transform not in (None, "rigid", "streamline"):
        raise CortexUsageError(f"transform={transform!r}: give 'rigid', 'streamline' or None")
    return None if transform is None else dataset_space(spec)


def transform_meshwork(neuron: Any, transform: Transform, space: Any) -> None:
    """Turn all points of a Meshwork from nm into the dataset's space (micrometres), in place.

    ``rigid`` rotates and shifts: the pia is at y = 0, and y grows towards the white matter. ``streamline`` also
    straightens: x and z are distances from the streamline through the skeleton's root, y the depth along it.
    """
    if transform == "rigid":
        move = space.transform("nm").apply
    else:
        anchor, streamline = np.array(neuron.skeleton.root_position, float), space.streamline("nm")

        def move(points: Any) -> Any:
            return streamline.radial_points(anchor, points)

    neuron.mesh.vertices = move(np.asarray(neuron.mesh.vertices))
    neuron.skeleton.vertices = move(np.asarray(neuron.skeleton.vertices))
    for name in set(TABLES.values()) & set(neuron.anno.table_names):
        table = neuron.anno[name]._data  # noqa: SLF001 (what standard_transform itself writes to)
        if not len(table):
            continue
        for column in [column for column in table.columns if column.endswith("_pt_position")]:
            table[column] = list(move(np.vstack(table[column].to_numpy())))
