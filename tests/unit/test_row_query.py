"""How a question about rows is cut: the parts have no row in common, and leave none out."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cortexclient.errors import CortexUsageError
from cortexclient.services.materialize._answer import common_grid
from cortexclient.services.materialize._filters import AT_LEAST, BELOW, IN, described, wire_filters
from cortexclient.services.materialize._row_query import LIST_BATCH, RowQuery, edges_within


def query(**filters: object) -> RowQuery:
    return RowQuery("t", 1, wire_filters(filters, "t"))  # type: ignore[arg-type]


def answer(rows: list[int], asked: RowQuery) -> list[int]:
    """The ids that pass the filters on ``id``."""
    wanted = {kind: tables["t"].get("id") for kind, tables in asked.filters.items()}
    low, high, listed = wanted.get(AT_LEAST), wanted.get(BELOW), wanted.get(IN)
    return [
        row
        for row in rows
        if (low is None or row >= low) and (high is None or row < high) and (listed is None or row in listed)
    ]


def whole(rows: list[int], asked: RowQuery, cap: int, count: bool) -> list[int]:
    """What the planner gets of a server that gives the first ``cap`` rows in any order."""
    found = answer(rows, asked)
    if len(found) < cap:
        return found
    seen = np.sort(np.array(found[:cap]))
    above = sum(row > seen[-1] for row in found) if count else None
    inside = len(found) - above if above is not None else None
    parts = asked.by_range("id", edges_within(seen, inside, above))
    assert len(parts) > 1
    return [row for part in parts for row in whole(rows, part, cap, count)]


@given(st.lists(st.integers(0, 2**40), unique=True, max_size=300), st.integers(2, 20), st.booleans(), st.booleans())
def test_ranges_meet_and_do_not_overlap(rows: list[int], cap: int, count: bool, in_order: bool) -> None:
    rows = sorted(rows) if in_order else rows
    assert sorted(whole(rows, query(), cap, count)) == sorted(rows)


def test_ranges_stay_within_the_callers_own() -> None:
    rows = list(range(0, 1000, 3))
    asked = query(filter_greater_equal_dict={"id": 100}, filter_less_dict={"id": 200})
    assert sorted(whole(rows, asked, 5, False)) == [row for row in rows if 100 <= row < 200]


@given(st.dictionaries(st.integers(0, 10**6), st.integers(0, 100), max_size=200), st.integers(1, 50))
def test_lists_are_dealt_into_distinct_values(seen: dict[int, int], parts: int) -> None:
    cut = query(filter_in_dict={"id": list(seen)}).dealt(parts, {i: n for i, n in seen.items() if n})
    ids = [one.filters[IN]["t"]["id"] for one in cut]
    assert sorted(np.concatenate(ids).tolist()) == sorted(seen)
    assert len(cut) == max(1, min(parts, len(seen)))


def test_values_with_many_rows_do_not_travel_together() -> None:
    rows = {value: 1_000 if value % 10 == 0 else 10 for value in range(100)}
    asked = query(filter_in_dict={"pt_root_id": list(rows)})
    sizes = [sum(rows[i] for i in one.filters[IN]["t"]["pt_root_id"]) for one in asked.dealt(10, rows)]
    assert max(sizes) < 1.1 * sum(sizes) / len(sizes)
    blind = [one.filters[IN]["t"]["pt_root_id"] for one in asked.dealt(10, {})]
    assert {len(values) for values in blind} == {10}


def test_a_million_ids_travel_in_several_requests() -> None:
    cut = query(filter_in_dict={"pt_root_id": np.arange(10**6)}).by_lists()
    assert len(cut) == 10**6 // LIST_BATCH
    assert max(len(one.filters[IN]["t"]["pt_root_id"]) for one in cut) == LIST_BATCH


def test_two_long_lists_are_cut_both() -> None:
    cut = query(filter_in_dict={"a_id": np.arange(25_000), "b_id": np.arange(15_000)}).by_lists()
    assert len(cut) == 6
    assert all(len(values) <= LIST_BATCH for one in cut for values in one.filters[IN]["t"].values())


@pytest.mark.parametrize(
    ("filters", "why"),
    [
        ({"filter_inn_dict": {}}, "filter_in_dict"),
        ({"filter_in_dict": {"id": 3}}, "a list of values"),
        ({"filter_in_dict": {"id": [1.5]}}, "floats"),
        ({"filter_spatial_dict": {"pt_position": [[0, 0, 0], [1, 1]]}}, "a box"),
        ({"filter_spatial_dict": {"pt_position": [[0, 0, 5], [9, 9, 5]]}}, "is empty"),
    ],
)
def test_wrong_filters_are_refused_before_anything_is_sent(filters: dict[str, object], why: str) -> None:
    with pytest.raises(CortexUsageError, match=why):
        query(**filters)


def test_attrs_stay_small() -> None:
    told = described(wire_filters({"filter_in_dict": {"id": np.arange(10**5)}, "filter_equal_dict": {"x": 1}}, "t"))
    assert told == {IN: {"t": {"id": "100,000 values"}}, "filter_equal_dict": {"t": {"x": 1}}}


def test_tables_of_several_resolutions_have_a_common_grid() -> None:
    assert common_grid([(4, 4, 40), (4, 4, 40)]) is None
    assert common_grid([(8, 8, 40), (4, 4, 40)]) == (4, 4, 40)
    assert common_grid([(9.7, 9.7, 45), (9, 9, 45)]) == pytest.approx((0.1, 0.1, 45))
