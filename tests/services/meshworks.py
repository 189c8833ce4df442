"""Meshworks by the unmodified peers, and what it means that two are the same."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest

from cortexclient.morphology._parts import VOLUME
from cortexclient.sandbox import Sandbox


def by_pcg_skel(sandbox: Sandbox, root: int, **parts: Any) -> Any:
    pcg_skel = pytest.importorskip("pcg_skel")
    caveclient = pytest.importorskip("caveclient")
    cave = caveclient.CAVEclient(
        sandbox.spec.datastack, server_address=sandbox.url, auth_token=sandbox.token, write_server_cache=False
    )
    return pcg_skel.get_meshwork_from_client(root, cave, **parts)


def assert_same_meshwork(ours: Any, theirs: Any) -> None:
    assert ours.seg_id == theirs.seg_id
    for name in ("vertices", "edges", "radius", "mesh_to_skel_map", "root"):
        np.testing.assert_array_equal(getattr(ours.skeleton, name), getattr(theirs.skeleton, name))
    assert repr(ours.skeleton.meta) == repr(theirs.skeleton.meta)  # the inner one is of a class made on the spot
    np.testing.assert_array_equal(ours.mesh.vertices, theirs.mesh.vertices)
    np.testing.assert_array_equal(ours.mesh.link_edges, theirs.mesh.link_edges)
    assert sorted(ours.anno.table_names) == sorted(theirs.anno.table_names)
    for name in theirs.anno.table_names:
        mine, other = ours.anno[name].df, theirs.anno[name].df
        if "id" in other:
            mine, other = (frame.sort_values("id").reset_index(drop=True) for frame in (mine, other))
        # all null: our queries leave it out on every route; of tables about synapses it comes as deleted_x and _y
        other = other.drop(columns=[column for column in other.columns if column.startswith("deleted")])
        other = other.loc[:, ~other.columns.duplicated()]  # its vol_prop has mesh_ind_filt twice
        assert sorted(mine.columns) == sorted(other.columns)
        for column in other.columns:
            same_column(mine[column], other[column])


def same_column(mine: pd.Series, other: pd.Series) -> None:
    if column_is_vector(other):
        np.testing.assert_array_equal(np.vstack(mine.to_numpy()), np.vstack(other.to_numpy()))
    else:
        known = other.notna().to_numpy()
        np.testing.assert_array_equal(mine.notna().to_numpy(), known)
        np.testing.assert_array_equal(mine[known].to_numpy(), other[known].to_numpy())
        if len(other) and mine.name not in (
            *VOLUME,
            "vol",
            "area",
        ):  # measures of chunks are float64, since some are NaN
            assert mine.dtype.kind == other.dtype.kind.replace("u", "i"), mine.name  # ids are int64 throughout


def column_is_vector(column: pd.Series) -> bool:
    return bool(len(column)) and column.dtype == object


def by_standard_transform(neuron: Any, transform: str) -> Any:
    """Move a Meshwork in place, by standard_transform's own, deprecated methods."""
    import standard_transform

    space = standard_transform.minnie_ds
    columns = [f"{side}_pt_position" for side in ("pre", "post", "ctr")]
    tables = {name: columns for name in ("pre_syn", "post_syn") if len(neuron.anno[name].df)}
    if transform == "rigid":
        space.transform("nm").apply_meshwork_vertices(neuron, inplace=True)
        return space.transform("nm").apply_meshwork_annotations(neuron, tables, inplace=True)
    anchor = np.array(neuron.skeleton.root_position, float)
    space.streamline("nm").transform_meshwork_vertices(neuron, root_loc=anchor, inplace=True)
    return space.streamline("nm").transform_meshwork_annotations(neuron, tables, root_loc=anchor, inplace=True)
