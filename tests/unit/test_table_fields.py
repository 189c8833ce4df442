"""Which filters a table takes, and what their values may be."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import numpy as np
import pytest

from cortexclient.errors import CortexUsageError
from cortexclient.sandbox.schemas import documents
from cortexclient.tables._fields import Info, conditions, fields_of, table_columns, view_columns

NUCLEI = Info("nuclei", columns=table_columns(documents()["nucleus_detection"]))
TYPES = Info("types", reference_table="nuclei", columns=table_columns(documents()["cell_type_reference"]))
POINTS = Info("points", reference_table="nuclei", columns=table_columns(documents()["reference_point"]))
STATUS = Info("status", columns=table_columns(documents()["compartment_proofread_status_strategy"]))


def test_nullable_and_bookkeeping_columns_are_offered() -> None:
    fields = fields_of(NUCLEI)
    assert fields is not None
    assert {"id", "created", "valid", "volume", "pt_root_id", "pt_supervoxel_id", "pt_position_bbox"} <= set(fields)
    assert {"bb_start_position_bbox", "bb_end_position_bbox"} <= set(fields)
    assert fields["volume"].kind == "float"


def test_names_that_both_tables_have_belong_to_the_one_referred_to() -> None:
    fields = fields_of(POINTS, NUCLEI)
    assert fields is not None
    assert fields["pt_root_id"][:2] == ("nuclei", "pt_root_id")
    assert fields["pt_ref_root_id"][:2] == ("points", "pt_root_id")
    assert fields["pt_ref_position_bbox"][:2] == ("points", "pt_position")
    assert fields["id_ref"][:2] == ("points", "id")
    assert fields["target_id"][:2] == ("points", "target_id")


def test_several_renamed_filters_work_together() -> None:
    found = conditions(POINTS, NUCLEI, {"pt_ref_root_id": [3], "id_ref": [1], "id": [2], "volume": {">": 1, "<=": 2}})
    ids = {name: {c: v.tolist() for c, v in columns.items()} for name, columns in found["filter_in_dict"].items()}
    assert ids == {"points": {"pt_root_id": [3], "id": [1]}, "nuclei": {"id": [2]}}
    assert found["filter_greater_dict"] == {"nuclei": {"volume": 1}}
    assert found["filter_less_equal_dict"] == {"nuclei": {"volume": 2}}
    mixed = conditions(TYPES, NUCLEI, {"id_ref": 1, "cell_type": "23P"})
    assert mixed["filter_equal_dict"] == {"types": {"id": 1, "cell_type": "23P"}}


def test_the_points_of_views_are_boxes_under_their_own_name() -> None:
    columns = view_columns({"pt_position": {"type": "SpatialPoint"}, "n": {"type": "integer"}})
    assert set(fields_of(Info("view", columns=columns)) or ()) == {"pt_position_bbox", "n"}


def test_none_is_no_filter_and_an_empty_list_is_one() -> None:
    assert conditions(NUCLEI, None, {"volume": None}) == {}
    assert conditions(NUCLEI, None, {"id": []})["filter_in_dict"]["nuclei"]["id"].tolist() == []


@pytest.mark.parametrize(
    "value", [7, "7", np.int64(7), np.uint64(7), [7], np.array([7]), (7, 7), {7}, range(7, 8), iter([7])]
)
def test_ids_come_in_any_form(value: Any) -> None:
    found = conditions(NUCLEI, None, {"id": value})
    (kind,) = found
    assert np.atleast_1d(found[kind]["nuclei"]["id"]).tolist() == [7]


def test_times_are_utc() -> None:
    found = conditions(NUCLEI, None, {"created": {">": datetime(2024, 5, 1, 12, tzinfo=UTC)}})
    assert found["filter_greater_dict"] == {"nuclei": {"created": "2024-05-01T12:00:00"}}


@pytest.mark.parametrize(
    ("info", "arguments", "why"),
    [
        (NUCLEI, {"volum": 1}, "did you mean volume"),
        (NUCLEI, {"id": 1.0}, "floats"),
        (NUCLEI, {"id": [1, 2.5]}, "floats"),
        (NUCLEI, {"id": True}, "booleans"),
        (NUCLEI, {"volume": "large"}, "holds floats"),
        (NUCLEI, {"volume": {"=>": 1}}, "comparisons are"),
        (NUCLEI, {"volume": {}}, "comparisons are"),
        (NUCLEI, {"pt_position_bbox": [0, 0, 0]}, "a box"),
        (NUCLEI, {"created": "2024-05-01"}, "holds times"),
        (NUCLEI, {"created": {">": datetime(2024, 5, 1)}}, "no time zone"),  # noqa: DTZ001
        (STATUS, {"status_axon": "t"}, "holds booleans"),
        (STATUS, {"status_axon": 1}, "holds booleans"),
        (STATUS, {"strategy_axon": {">": "a"}}, "not compared"),
        (STATUS, {"strategy_axon": ["a", 1]}, "holds strings"),
    ],
)
def test_what_a_column_cannot_be_is_refused(info: Info, arguments: dict[str, Any], why: str) -> None:
    with pytest.raises(CortexUsageError, match=why):
        conditions(info, None, arguments)


def test_without_a_schema_nothing_is_refused() -> None:
    bare = Info("bare")
    assert fields_of(bare) is None
    assert conditions(bare, None, {"anything": 1})["filter_equal_dict"] == {"bare": {"anything": 1}}
