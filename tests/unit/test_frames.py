"""Frames: ids stay integers, positions are split or not."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from cortexclient import frames

ID = 864691135858491439


@pytest.fixture
def table() -> pa.Table:
    return pa.table(
        {
            "id": pa.array([1, 2, 3], pa.int64()),
            "pt_position_x": pa.array([10, 20, 30], pa.int32()),
            "pt_position_y": pa.array([11, 21, 31], pa.int32()),
            "pt_position_z": pa.array([12, 22, 32], pa.int32()),
            "pt_root_id": pa.array([ID, ID - 1, 0], pa.int64()),
            "superceded_id": pa.array([None, ID, None], pa.int64()),
            "bin": pa.array([1, None, 2], pa.int32()),
            "valid": pa.array([True, None, False], pa.bool_()),
            "size": pa.array([1.5, None, 2.5], pa.float64()),
            "tag": pa.array(["a", None, "c"], pa.string()),
            "created": pa.array([0, None, 10**15], pa.timestamp("us", "UTC")),
        }
    )


def test_ids_are_never_floats(table: pa.Table) -> None:
    frame = frames.to_pandas(table)
    kinds = {name: str(kind) for name, kind in frame.dtypes.items()}
    assert kinds["id"] == kinds["pt_root_id"] == "int64"
    assert kinds["pt_position_x"] == "int32"
    assert kinds["superceded_id"] == "Int64"
    assert kinds["bin"] == "Int32"
    assert kinds["valid"] == "boolean"
    assert frame["pt_root_id"].tolist() == [ID, ID - 1, 0]
    assert frame["superceded_id"].tolist() == [pd.NA, ID, pd.NA]
    assert list(frame.columns) == table.column_names


def test_points_are_split_where_they_stand(table: pa.Table) -> None:
    assert frames.position_stems(table.column_names) == ["pt_position"]
    assert list(frames.to_pandas(table, split_positions=True).columns) == table.column_names


def test_unsplit_points_are_one_column_of_arrays_at_the_end(table: pa.Table) -> None:
    frame = frames.to_pandas(table, split_positions=False)
    assert list(frame.columns)[-1] == "pt_position"
    assert not [name for name in frame if str(name).startswith("pt_position_")]
    points = frame["pt_position"].tolist()
    assert all(isinstance(point, np.ndarray) and point.shape == (3,) for point in points)
    assert np.stack(points).tolist() == [[10, 11, 12], [20, 21, 22], [30, 31, 32]]
    assert np.shares_memory(points[0], points[2]) or points[0].base is points[2].base


@pytest.mark.parametrize("split", [True, False])
@pytest.mark.parametrize("name", ["pt", "pt_position"])
def test_positions_are_one_array_either_way(table: pa.Table, split: bool, name: str) -> None:
    points = frames.positions(frames.to_pandas(table, split), name)
    assert points.shape == (3, 3)
    assert points[1].tolist() == [20, 21, 22]
    assert points.dtype == np.int32


@pytest.mark.parametrize("split", [True, False])
def test_an_empty_table_is_an_empty_frame(table: pa.Table, split: bool) -> None:
    frame = frames.to_pandas(table.slice(0, 0), split)
    assert len(frame) == 0
    assert frames.positions(frame, "pt").shape == (0, 3)
    assert frame["pt_root_id"].dtype == np.int64
    assert "pt_position" in frame or split


def test_several_points_and_look_alikes() -> None:
    columns = [
        "pre_pt_position_x",
        "pre_pt_position_y",
        "pre_pt_position_z",
        "ctr_position_x",
        "lonely_x",
        "a_x",
        "a_z",
        "a_y",
    ]
    assert frames.position_stems(columns) == ["pre_pt_position"]


def test_points_in_another_unit_are_whole_where_they_can_be(table: pa.Table) -> None:
    nm = frames.scaled(table, (4, 4, 40), (1, 1, 1))
    assert nm["pt_position_x"].to_pylist() == [40, 80, 120]
    assert nm["pt_position_z"].to_pylist() == [480, 880, 1280]
    assert nm.schema.field("pt_position_x").type == pa.int64()
    um = frames.scaled(table, (4, 4, 40), (1000, 1000, 1000))
    assert um["pt_position_x"].to_pylist() == [0.04, 0.08, 0.12]
    assert um["id"].to_pylist() == [1, 2, 3]


def test_units_are_meant_as_decimals(table: pa.Table) -> None:
    found = frames.scaled(table, (9.7, 9.7, 45), (0.1, 0.1, 45))
    assert found["pt_position_x"].to_pylist() == [970, 1940, 2910]
    assert found.schema.field("pt_position_x").type == pa.int64()


def test_values_that_were_cut_are_the_nearest_multiple(table: pa.Table) -> None:
    cut = pa.table({f"p_{axis}": pa.array([7, 8, 23], pa.int32()) for axis in "xyz"})
    assert frames.scaled(cut, (4, 4, 4), (2, 2, 2), finer=8)["p_x"].to_pylist() == [16, 16, 48]


def test_optional_points_are_nan_where_there_are_none() -> None:
    columns = {f"bb_position_{axis}": pa.array([1, None], pa.int64()) for axis in "xyz"}
    points = frames.to_pandas(pa.table(columns), split_positions=False)["bb_position"]
    assert points[0].tolist() == [1.0, 1.0, 1.0]
    assert np.isnan(points[1]).all()
