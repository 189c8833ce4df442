"""The live query: the state at any time, whatever version it starts from."""

from __future__ import annotations

import ast
from typing import Any

import pyarrow as pa
import pytest

from cortexclient.sandbox import costs
from cortexclient.sandbox.routes import materialize_live

DAYS = [0.5, 1, 1.5, 2, 29, 30, 39, 45, 49.999, 50, 59.999, 60, 64, 65, 66, 69, 70, 71, 79.99, 80, 84, 85, 86, 200]
JOIN = {"join_tables": [["types", "target_id", "nuclei", "id"]], "suffixes": {"types": "_ref", "nuclei": ""}}


def live(
    ask: Any, known: Any, day: float, table: str = "nuclei", *, query: Any = None, strict: bool = False, **body: Any
) -> Any:
    return ask("query", {"table": table, "timestamp": known.iso(day), **body}, query=query, strict=strict)


@pytest.mark.parametrize("day", DAYS)
def test_rows_and_root_ids_at_any_time(ask: Any, known: Any, day: float) -> None:
    table = live(ask, known, day).table()
    assert dict(zip(table["id"].to_pylist(), table["pt_root_id"].to_pylist(), strict=True)) == known.alive(day)


@pytest.mark.parametrize("day", DAYS)
def test_filters_by_root_id_at_any_time(ask: Any, known: Any, day: float) -> None:
    alive = known.alive(day)
    for root in {root for root in alive.values() if root}:
        wanted = {nucleus for nucleus, of in alive.items() if of == root}
        one = live(ask, known, day, filter_equal_dict={"nuclei": {"pt_root_id": root}})
        assert set(one.column("id")) == wanted
        several = live(ask, known, day, filter_in_dict={"nuclei": {"pt_root_id": [root]}, "types": {}})
        assert several.column("id") == one.column("id")


@pytest.mark.parametrize("day", DAYS)
def test_rows_of_few_roots_are_those_that_going_through_all_finds(
    ask: Any, known: Any, day: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    roots = sorted({root for root in known.alive(day).values() if root})
    filters = [{"filter_in_dict": {"nuclei": {"pt_root_id": roots[:n]}}} for n in range(1, len(roots) + 1)]
    few = [live(ask, known, day, **one) for one in filters]
    monkeypatch.setattr(materialize_live, "FEW_ROOTS", 0)
    for one, found in zip(filters, few, strict=True):
        assert live(ask, known, day, **one).table().equals(found.table())


@pytest.mark.parametrize("day", [d for d in DAYS if d not in (65, 85)])
def test_strict_mode_agrees_on_the_rows_of_one_table(ask: Any, known: Any, day: float) -> None:
    table = live(ask, known, day, strict=True).table()
    assert dict(zip(table["id"].to_pylist(), table["pt_root_id"].to_pylist(), strict=True)) == known.alive(day)


@pytest.mark.parametrize("day", [2, 45, 55, 64, 66, 82, 90])
def test_a_join_at_any_time(ask: Any, known: Any, day: float) -> None:
    alive = known.alive(day)
    types = {11: 1, 12: 2, 13: 3} if day >= 3 else {}
    expected = {types[nucleus]: (nucleus, root) for nucleus, root in alive.items() if nucleus in types}
    table = live(ask, known, day, "types", **JOIN).table()
    rows = zip(table["id_ref"].to_pylist(), table["id"].to_pylist(), table["pt_root_id"].to_pylist(), strict=True)
    assert {ref: (nucleus, root) for ref, nucleus, root in rows} == expected


def test_strict_mode_misses_edits_of_the_joined_table(ask: Any, known: Any) -> None:
    """Nucleus 13 was deleted on day 60, between version 2 and the time asked."""
    assert 13 not in live(ask, known, 62, "types", **JOIN).column("id")
    assert 13 in live(ask, known, 62, "types", **JOIN, strict=True).column("id")


def test_columns_follow_the_version_it_starts_from(ask: Any, known: Any) -> None:
    split = live(ask, known, 66)
    assert {"created", "deleted"} <= set(split.table().column_names)
    assert not {"valid", "superceded_id"} & set(split.table().column_names)
    assert split.table()["deleted"].null_count == split.table().num_rows
    merged = live(ask, known, 86).table().column_names
    assert "valid" in merged
    assert not {"created", "deleted", "superceded_id"} & set(merged)


def test_newer_rows_come_first(ask: Any, known: Any) -> None:
    assert live(ask, known, 75).column("id") == [16, 11, 12, 14, 15]


@pytest.mark.parametrize("value", [0, 123456])
def test_roots_that_are_not_current_are_refused(ask: Any, known: Any, value: int) -> None:
    filters = {"filter_equal_dict": {"nuclei": {"pt_root_id": value}}}
    answer = live(ask, known, 66, **filters)
    message = f"Some root_ids passed are not valid at the query timestamp: [{value}]"
    assert (answer.status, answer.json()["message"]) == (400, message)
    strict = live(ask, known, 66, **filters, strict=True)
    assert (strict.status, strict.json()["message"]) == (500, f"400 Bad Request: {message}")


def test_roots_that_are_not_current_may_be_dropped(ask: Any, known: Any) -> None:
    retired, current = known.root["A"], known.root["B"]
    allowed = {"allow_invalid_root_ids": "True"}
    filters = {"filter_in_dict": {"nuclei": {"pt_root_id": [retired, current]}}}
    assert live(ask, known, 66, **filters).status == 400
    answer = live(ask, known, 66, **filters, query=allowed)
    assert answer.column("id") == [11]
    assert answer.headers("Warning") == [f"Some root_ids passed are not valid at the query timestamp: [{retired}]"]
    only_retired = {"filter_in_dict": {"nuclei": {"pt_root_id": [retired]}}}
    assert live(ask, known, 66, **only_retired, query=allowed).status == 400


def test_rows_without_a_supervoxel_are_refused_or_left_out(ask: Any, known: Any) -> None:
    for strict in (False, True):
        refused = live(ask, known, 90, "waiting", strict=strict)
        assert refused.status == (500 if strict else 406)
        assert "There are 1 annotations that need supervoxel lookups" in refused.json()["message"]
        allowed = live(ask, known, 90, "waiting", query={"allow_missing_lookups": "True"}, strict=strict)
        assert allowed.column("id") == [1]
        assert allowed.headers("Warning")[0].startswith("There are 1 annotations")


def test_selection(ask: Any, known: Any) -> None:
    chosen = live(ask, known, 66, select_columns={"nuclei": ["pt_root_id", "pt_position"]})
    assert chosen.table().column_names == ["pt_root_id", *(f"pt_position_{axis}" for axis in "xyz")]
    assert ast.literal_eval(chosen.headers("column_names")[0]) == {
        "nuclei": {"pt_root_id": "pt_root_id", "pt_position": "pt_position"}
    }
    unknown = live(ask, known, 66, select_columns={"nuclei": ["nope"]})
    assert (unknown.status, unknown.json()["message"]) == (400, "nope not in model or models for nuclei")
    strict = live(ask, known, 66, select_columns={"nuclei": ["pt_root_id", "pt_position"]}, strict=True)
    assert strict.json()["message"] == "'id'"


def test_limit_cuts_the_answer(ask: Any, known: Any) -> None:
    answer = live(ask, known, 66, limit=2, offset=1)
    assert answer.column("id") == [12, 14]
    text = answer.headers("Warning")[0]
    assert text.startswith("result has 2 entries, which is equal or more         than limit of 2 there may be more")
    assert len(live(ask, known, 66, limit=0).column("id")) == 4
    assert live(ask, known, 66, "many").table().num_rows == 100


def test_strict_mode_cuts_before_it_filters(ask: Any, known: Any) -> None:
    """At version 3 the lineage of E is C and D, whose first row is nucleus 12; 16 only came on day 70."""
    filters = {"filter_equal_dict": {"nuclei": {"pt_root_id": known.root["E"]}}}
    assert live(ask, known, 84, limit=1, **filters).column("id") == [16]
    assert live(ask, known, 84, limit=1, **filters, strict=True).column("id") == [16, 12]


def test_strict_mode_leaves_the_index_of_its_filters_in_the_body(ask: Any, known: Any) -> None:
    filters = {"filter_equal_dict": {"nuclei": {"pt_root_id": known.root["B"]}}}
    exact = live(ask, known, 55, **filters)
    assert "__index_level_0__" not in exact.table().column_names
    strict = live(ask, known, 55, **filters, strict=True)
    assert strict.column("__index_level_0__") == [0]
    assert pa.ipc.open_stream(strict.body).read_pandas().columns.tolist() == exact.table().column_names


def test_the_time_of_a_version_is_refused_in_strict_mode_once_the_table_was_written_to(ask: Any, known: Any) -> None:
    exactly = {"timestamp": "2026-03-07T00:00:00.654321"}
    assert ask("query", {"table": "nuclei", **exactly}).column("id") == list(known.alive(65))
    refused = ask("query", {"table": "nuclei", **exactly}, strict=True)
    assert "do not use live live query to query a materialized timestamp" in refused.json()["message"]
    assert ask("query", {"table": "marks", **exactly}, strict=True).column("id") == [1, 2, 3]


@pytest.mark.parametrize("spelled", ["2026-03-13T00:00:00", "2026-03-13T00:00:00Z", "2026-03-13T02:00:00+02:00"])
def test_times_may_be_spelled_in_many_ways(ask: Any, known: Any, spelled: str) -> None:
    assert set(ask("query", {"table": "nuclei", "timestamp": spelled}).column("id")) == set(known.alive(71))


def test_bodies_are_checked(ask: Any, known: Any) -> None:
    assert ask("query", {"table": "nuclei"}).json()["schema_errors"].keys() == {"timestamp"}
    assert ask("query", {"table": "nuclei", "timestamp": 5}).json()["schema_errors"].keys() == {"timestamp"}
    assert live(ask, known, 66, "nope").status == 404
    assert live(ask, known, 66, "private").status == 401


def test_a_public_datastack_is_answered_from_its_parent(ask: Any, known: Any) -> None:
    """Also for tables it does not list and times after its own versions."""
    path = "/materialize/api/v3/datastack/small_public/query"
    answer = ask(path, {"table": "types", "timestamp": known.iso(90)})
    assert answer.column("id") == [1, 2, 3, 4]


def test_positions_are_scaled(ask: Any, known: Any) -> None:
    answer = live(ask, known, 66, desired_resolution=[1, 1, 1])
    assert answer.headers("dataframe_resolution") == ["1.0"] * 3
    assert answer.column("pt_position_x") == [280, 560, 1080, 3996]


def test_only_lookups_that_are_needed_are_charged(ask: Any, known: Any) -> None:
    def price(day: float, **body: Any) -> float:
        answer = live(ask, known, day, **body)
        rows = answer.table().num_rows
        return float(answer.reply.price - costs.LIVE_QUERY - rows * costs.LIVE_QUERY_PER_ROW)

    assert price(66) == pytest.approx(0)
    assert price(55) == pytest.approx(2 * costs.ROOT_LOOKUP_PER_ID)
    assert price(55, filter_in_dict={"nuclei": {"id": [11]}}) == pytest.approx(costs.ROOT_LOOKUP_PER_ID)
    by_root = {"nuclei": {"pt_root_id": known.root["B"]}}
    assert price(55, filter_equal_dict=by_root) == pytest.approx(costs.ROOT_LOOKUP_PER_ID + costs.LINEAGE_PER_NODE)


def test_filters_by_value_see_the_state_of_the_time(ask: Any, known: Any) -> None:
    assert live(ask, known, 66, filter_notin_dict={"nuclei": {"pt_root_id": [0]}}).column("id") == [11, 12, 14]
    assert live(ask, known, 66, filter_greater_dict={"nuclei": {"pt_root_id": 0}}).column("id") == [11, 12, 14]
    box = {"nuclei": {"pt_position": [[0, 0, 0], [150, 10, 10]]}}
    assert live(ask, known, 66, filter_spatial_dict=box).column("id") == [11, 12]
    assert live(ask, known, 66, filter_equal_dict={"nuclei": {"nope": 1}}).json()["message"] == "'nope'"
