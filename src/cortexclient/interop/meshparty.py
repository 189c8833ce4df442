"""Meshworks with synapses, in nanometres or in the dataset's own space."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from .._types import IdArray
from ..errors import DecodeError, MissingDependency
from ..skeletons import Skeleton

if TYPE_CHECKING:
    import pandas as pd

Transform = Literal["rigid", "streamline"]
ReferenceTables = Mapping[str, str | Sequence[str]]
"""By side (``pre``, ``post``): tables about synapses, whose ``target_id`` is the synapse."""
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
    row = _rows_of(level2, neuron.anno["lvl2_ids"].df["lvl2_id"].to_numpy(), "synapses lie on chunks")
    partner = {"pre": "post", "post": "pre"}[side]
    frame = frame.drop(columns=["created", "superceded_id", "valid", f"{partner}_pt_root_id"], errors="ignore")
    frame[f"{side}_pt_level2_id"] = level2
    frame[f"{side}_pt_mesh_ind"] = row
    neuron.anno.add_annotations(
        TABLES[side], frame, index_column=f"{side}_pt_mesh_ind", point_column=POINT, voxel_resolution=[1, 1, 1]
    )


def _rows_of(wanted: IdArray, chunks: IdArray, what: str) -> IdArray:
    """Where each id stands among a skeleton's level-2 chunks."""
    order = np.argsort(chunks)
    row: IdArray = order[np.minimum(np.searchsorted(chunks, wanted, sorter=order), len(chunks) - 1)]
    if (stray := wanted[chunks[row] != wanted]).size:
        raise DecodeError(f"{len(stray)} {what} that the skeleton does not know", ids=stray)
    return row


def check_meshparty(*, properties: bool) -> None:
    """Say at once what is not installed.

    Raises
    ------
    MissingDependency
        No meshparty; or no pcg_skel, which measures segments.
    """
    for package in ("meshparty", *(["pcg_skel"] if properties else [])):
        if find_spec(package) is None:
            raise MissingDependency(package, "skeleton", "get_skeleton")


def level2_mesh(skeleton: Skeleton, edges: IdArray, chunks: pd.DataFrame) -> dict[str, Any]:
    """The level-2 graph of a cell, as `Skeleton.to_meshwork` takes it.

    Parameters
    ----------
    edges
        (k, 2) level-2 ids.
    chunks
        ``rep_coord_nm_x, _y, _z`` by level-2 id. A chunk without them stands at its vertex of the skeleton.

    Raises
    ------
    DecodeError
        An edge names a chunk that the skeleton does not know.
    """
    points = chunks.loc[skeleton.lvl2_ids, [f"rep_coord_nm_{axis}" for axis in "xyz"]].to_numpy()
    points = np.where(np.isnan(points), skeleton.vertices[skeleton.mesh_to_skel_map], points)
    rows = _rows_of(edges.ravel(), skeleton.lvl2_ids, "ends of the level-2 graph are chunks").reshape(-1, 2)
    return {"points": points, "link_edges": rows}


def add_properties(neuron: Any, chunks: pd.DataFrame) -> None:
    """Annotate the measures of the level-2 chunks (``vol_prop``) and of the segments (``segment_properties``).

    Parameters
    ----------
    chunks
        The measures by level-2 id; NaN where nothing is computed.
    """
    from pcg_skel import features

    known = neuron.anno["lvl2_ids"].df[["lvl2_id", "mesh_ind"]]
    frame = known.join(chunks, on="lvl2_id").drop(columns="lvl2_id")
    neuron.anno.add_annotations("vol_prop", data=frame, index_column="mesh_ind")
    with np.errstate(divide="ignore", invalid="ignore"):  # segments without length
        features.add_segment_properties(neuron)


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
