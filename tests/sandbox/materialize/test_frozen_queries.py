"""Queries on frozen tables, views and joins."""

from __future__ import annotations

import ast
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from cortexclient.sandbox import costs

NUCLEI_3 = "version/3/table/nuclei/query"
TYPES_3 = "version/3/table/types/query"
MANY_3 = "version/3/table/many/query"
JOIN = {"tables": [["types", "target_id"], ["nuclei", "id"]]}
CAP = 100


def on_nuclei(kind: str, column: str, value: Any) -> dict[str, Any]:
    return {f"filter_{kind}_dict": {"nuclei": {column: value}}}


def test_rows_and_root_ids_are_those_of_the_version(ask: Any, known: Any) -> None:
    for version, day in ((2, 40), (3, 65), (4, 85)):
        table = ask(f"version/{version}/table/nuclei/query", {}).table()
        found = dict(zip(table["id"].to_pylist(), table["pt_root_id"].to_pylist(), strict=True))
        assert found == known.alive(day)


def test_split_and_merged_versions_have_their_own_columns(ask: Any) -> None:
    split = ask(NUCLEI_3, {}).table().column_names
    assert split[:5] == ["id", "created", "superceded_id", "valid", "volume"]
    assert split[-2:] == ["pt_supervoxel_id", "pt_root_id"]
    merged = ask("version/4/table/nuclei/query", {}).table().column_names
    assert merged[:8] == ["id", "valid", "volume", *(f"pt_position_{a}" for a in "xyz"), *split[-2:]]
    assert set(split) - set(merged) == {"created", "superceded_id"}


@pytest.mark.parametrize(
    ("filters", "ids"),
    [
        ({}, [11, 12, 14, 15]),
        (on_nuclei("in", "id", [14, 11, 99]), [11, 14]),
        (on_nuclei("in", "id", ["14", "11"]), [11, 14]),
        (on_nuclei("in", "id", [14.0, 11.5]), [14]),
        (on_nuclei("in", "id", [11, None]), [11]),
        (on_nuclei("in", "id", [2**63, 11]), [11]),
        (on_nuclei("in", "id", []), []),
        (on_nuclei("in", "pt_root_id", [0]), [15]),
        (on_nuclei("equal", "id", 12), [12]),
        (on_nuclei("equal", "id", 2**63), []),
        (on_nuclei("equal", "volume", None), [12]),
        (on_nuclei("equal", "volume", 213.37), [14]),
        (on_nuclei("equal", "valid", "t"), [11, 12, 14, 15]),
        (on_nuclei("greater", "volume", 213.37), [11]),
        (on_nuclei("greater_equal", "volume", 213.37), [11, 14]),
        (on_nuclei("less", "volume", 213.37), [15]),
        (on_nuclei("less_equal", "id", 12.5), [11, 12]),
        (on_nuclei("greater", "id", 2**70), []),
        (on_nuclei("greater", "created", "2026-01-02T12:00:00"), [14, 15]),
        (on_nuclei("spatial", "pt_position", [[70, 0, 3], [140, 5, 4]]), [11, 12]),
        (on_nuclei("spatial", "pt_position", [[70.5, 0, 0], [1e9, 1e9, 1e9]]), [12, 14, 15]),
        (on_nuclei("spatial", "bb_start_position", [[0, 0, 0], [99, 99, 99]]), [12, 14, 15]),
        (on_nuclei("greater", "id", 11) | on_nuclei("less", "volume", 100), [15]),
        ({"filter_in_dict": {"nuclei": {}}}, [11, 12, 14, 15]),
        (on_nuclei("notin", "id", [11, 15]), [12, 14]),
        (on_nuclei("notin", "volume", [50.0]), [11, 14]),
    ],
    ids=str,
)
def test_filters(ask: Any, filters: dict[str, Any], ids: list[int]) -> None:
    assert ask(NUCLEI_3, filters).column("id") == ids


@pytest.mark.parametrize(("pattern", "ids"), [("^L", [1, 2]), ("PC", [1, 2]), ("pc", []), ("[/]", [1]), ("sk", [3])])
def test_regular_expressions(ask: Any, pattern: str, ids: list[int]) -> None:
    assert ask(TYPES_3, {"filter_regex_dict": {"types": {"cell_type": pattern}}}).column("id") == ids


def test_exclusion_does_nothing_in_strict_mode(ask: Any) -> None:
    filters = on_nuclei("notin", "id", [11])
    assert ask(NUCLEI_3, filters, strict=True).column("id") == [11, 12, 14, 15]


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (on_nuclei("equal", "nope", 1), "'nope'"),
        (on_nuclei("in", "id", 11), "'int' object is not iterable"),
        (on_nuclei("in", "id", ["abc"]), "Execution failed on sql"),
        (on_nuclei("equal", "id", [11]), "Execution failed on sql"),
        (on_nuclei("in", "pt_position", [[1, 2, 3]]), "Don't know how to literal-quote value [1, 2, 3]"),
        (on_nuclei("regex", "id", "1"), "Regex filter is only supported on string columns"),
        (on_nuclei("spatial", "volume", [[0, 0, 0], [1, 1, 1]]), "has no attribute 'intersects_nd'"),
        (on_nuclei("spatial", "pt_position", [[1, 1], [2, 2]]), "Execution failed on sql"),
        (
            on_nuclei("spatial", "pt_position", [[2080, 1072, 76], [2080, 1072, 76]]),
            "min bounds: [2080 1072   76] must be less than max bounds: [2080 1072   76]",
        ),
        ({"filter_equal_dict": {"types": {"id": 1}}}, "'types'"),
        ({"select_columns": ["nope"]}, "nope not in model or models for nuclei"),
        ({"offset": -1}, "Execution failed on sql"),
        ({"desired_resolution": [0, 1, 1]}, "Execution failed on sql"),
    ],
    ids=str,
)
def test_refusals(ask: Any, body: dict[str, Any], message: str) -> None:
    kind = ask(NUCLEI_3, body)
    assert kind.status == 400
    assert message in kind.json()["message"]
    strict = ask(NUCLEI_3, body, strict=True)
    assert strict.status == 500
    assert message in strict.json()["message"]
    assert isinstance(strict.json()["traceback"], list)


@pytest.mark.parametrize(
    ("body", "field", "problem"),
    [
        ({"foo": 1}, "foo", "Unknown field."),
        ({"select_column_map": {}}, "select_column_map", "Unknown field."),
        ({"limit": None}, "limit", "Field may not be null."),
        ({"limit": "many"}, "limit", "Not a valid integer."),
        ({"desired_resolution": [1, 1]}, "desired_resolution", "Length must be 3."),
        ({"filter_in_dict": {"nuclei": [1]}}, "filter_in_dict", "Not a valid mapping type."),
        ({"select_columns": "id"}, "select_columns", "Not a valid list."),
    ],
    ids=str,
)
def test_bodies_are_checked(ask: Any, body: dict[str, Any], field: str, problem: str) -> None:
    assert ask(NUCLEI_3, body).status == 400
    strict = ask(NUCLEI_3, body, strict=True)
    assert (strict.status, strict.json()) == (500, {"schema_errors": {field: [problem]}})


def test_arguments_are_checked(ask: Any) -> None:
    answer = ask(NUCLEI_3, {}, query={"return_pyarrow": "yes"})
    assert (answer.status, answer.json()["message"]) == (400, "Input payload validation failed")
    assert ask(NUCLEI_3, {}, query={"random_sample": "0"}, strict=True).status == 500


def test_a_body_needs_its_content_type_in_strict_mode_only(ask: Any) -> None:
    assert ask(NUCLEI_3, b"{}", method="POST", content_type="").status == 200
    refused = ask(NUCLEI_3, b"{}", method="POST", content_type="", strict=True)
    assert refused.json()["message"].startswith("400 Bad Request: The browser")
    assert ask(NUCLEI_3, b"{", method="POST").status == 400


def test_limits_and_their_warnings(ask: Any) -> None:
    def warned(body: dict[str, Any]) -> tuple[int, list[str]]:
        answer = ask(MANY_3, body)
        return answer.table().num_rows, answer.headers("Warning")

    assert warned({}) == (CAP, ['201 - "Limited query to 100 rows'])
    assert warned({"limit": 10_000}) == (CAP, ['201 - "Limited query to 100 rows'])
    assert warned({"limit": "3"}) == (3, ['201 - "Limited query to 3 rows'])
    assert warned({"limit": 0}) == (0, ['201 - "Limited query to 0 rows'])
    assert warned({"limit": 4.7, "offset": 299}) == (1, [])
    one = {"filter_equal_dict": {"many": {"id": 5}}}
    assert warned({**one, "limit": 2}) == (1, [])
    assert warned({**one, "limit": 1}) == (1, ['201 - "Limited query to 1 rows'])


def test_pages_are_disjoint_and_complete(ask: Any) -> None:
    pages = [ask(MANY_3, {"offset": n, "limit": 70}).column("id") for n in range(0, 300, 70)]
    assert [row for page in pages for row in page] == list(range(300))


def test_a_count_is_not_limited(ask: Any) -> None:
    answer = ask(MANY_3, {"limit": 5, "offset": 2}, query={"count": "True"})
    table = answer.table()
    assert table.to_pydict() == {"count": [298]}
    assert "tag" not in ast.literal_eval(answer.headers("column_names")[0])["many"]
    assert answer.headers("dataframe_resolution") == ["8.0", "8.0", "40.0"]


def test_a_selection_keeps_its_order_and_a_root_id_brings_its_supervoxel(ask: Any) -> None:
    assert ask(NUCLEI_3, {"select_columns": ["volume", "pt_root_id", "id"]}).table().column_names == [
        "volume",
        "pt_supervoxel_id",
        "pt_root_id",
        "id",
    ]
    assert (
        ask(NUCLEI_3, {"select_columns": ["deleted"], "filter_in_dict": {"nuclei": {"id": [1, 2]}}}).table().num_rows
        == 0
    )
    positions = ask(NUCLEI_3, {"select_columns": ["pt_position"]}).table().column_names
    assert positions == ["pt_position_x", "pt_position_y", "pt_position_z"]


def test_a_single_scalar_cannot_be_selected_in_strict_mode(ask: Any) -> None:
    assert ask(NUCLEI_3, {"select_columns": ["id"]}).table().column_names == ["id"]
    refused = ask(NUCLEI_3, {"select_columns": ["id"]}, strict=True)
    assert refused.json()["message"] == "'BigInteger' object has no attribute 'id'"
    assert ask(NUCLEI_3, {"select_columns": ["pt_root_id"]}, strict=True).status == 200


def test_positions_are_scaled_and_cut_to_whole_units(ask: Any) -> None:
    nanometres = ask(NUCLEI_3, {"desired_resolution": [1, 1, 1]})
    assert nanometres.headers("dataframe_resolution") == ["1.0", "1.0", "1.0"]
    assert nanometres.column("pt_position_x") == [280, 560, 1080, 3996]
    assert nanometres.column("pt_position_z") == [120] * 4
    assert nanometres.column("bb_start_position_x") == [None, 40, 120, 160]
    coarse = ask(NUCLEI_3, {"desired_resolution": [1000, 1000, 1000]}).table()
    assert coarse.schema.field("pt_position_x").type == pa.int32()
    assert coarse["pt_position_x"].to_pylist() == [0, 0, 1, 3]


def test_types_on_the_wire(ask: Any) -> None:
    schema = ask(NUCLEI_3, {}).table().schema
    assert schema.field("id").type == pa.int64()
    assert schema.field("created").type == pa.timestamp("ns", "UTC")
    assert schema.field("volume").type == pa.float32()
    assert schema.field("valid").type == pa.bool_()
    assert ask(TYPES_3, {}).table().schema.field("cell_type").type == pa.string()
    nothing = ask(TYPES_3, {"filter_equal_dict": {"types": {"id": -1}}}).table().schema
    assert nothing.field("cell_type").type == pa.null()
    assert nothing.field("target_id").type == pa.int64()


def test_pandas_readers_get_nullable_columns(ask: Any) -> None:
    frame = pa.ipc.open_stream(ask(NUCLEI_3, {}).body).read_pandas()
    assert (
        frame.dtypes.astype(str).to_dict().items()
        >= {
            "id": "Int64",
            "created": "datetime64[ns, UTC]",
            "superceded_id": "Int64",
            "valid": "boolean",
            "volume": "Float32",
            "pt_position_x": "Int32",
            "pt_root_id": "Int64",
        }.items()
    )
    assert list(frame.index) == [0, 1, 2, 3]
    counted = pa.ipc.open_stream(ask(NUCLEI_3, {}, query={"count": "True"}).body).read_pandas()
    assert counted["count"].dtype == np.int64


@pytest.mark.parametrize("accept", ["", "zstd", "lz4", "gzip, zstd", "lz4, zstd", "identity"])
def test_compression_follows_the_accepted_encodings(ask: Any, accept: str) -> None:
    answer = ask(MANY_3, {}, accept=accept)
    assert answer.table()["id"].to_pylist() == list(range(CAP))
    assert answer.headers("Content-Encoding") == (["gzip"] if "gzip" in accept else [])
    assert len(ask(MANY_3, {}, accept="zstd").body) < len(ask(MANY_3, {}, accept="").body)


def test_one_batch_even_without_rows(ask: Any) -> None:
    for filters, rows in (({}, 4), (on_nuclei("equal", "id", -1), 0)):
        batches = list(pa.ipc.open_stream(ask(NUCLEI_3, filters).body))
        assert [batch.num_rows for batch in batches] == [rows]


def test_json_records(ask: Any) -> None:
    answer = ask(NUCLEI_3, {"limit": 2}, query={"return_pyarrow": "False"}, accept="gzip")
    assert answer.reply.content_type == "application/json"
    assert answer.headers("Content-Encoding") == ["gzip"]
    first, second = answer.json()
    assert first["created"] == 1_767_312_000_000
    assert (first["volume"], second["volume"]) == (300.5, None)
    assert first["superceded_id"] is None
    volume = ask(NUCLEI_3, on_nuclei("equal", "id", 14), query={"return_pyarrow": "False"}).json()[0]["volume"]
    assert volume == 213.3699951172


def test_column_names_are_a_python_literal_that_names_hidden_columns_too(ask: Any) -> None:
    names = ast.literal_eval(ask(NUCLEI_3, {}).headers("column_names")[0])["nuclei"]
    assert names["deleted"] == "deleted"
    assert names["pt_position"] == "pt_position"


def test_owners_may_speak(ask: Any) -> None:
    assert ask(TYPES_3, {}).headers("Warning") == ["Table Owner Notice on types: Cite the paper."]


def test_a_private_table_is_for_its_owner(ask: Any) -> None:
    assert ask("version/3/table/private/query", {}).status == 401
    strict = ask("version/3/table/private/query", {}, strict=True).json()
    assert strict["message"] == "401 Unauthorized: Unauthorized: The table can only be read by its owner"


def test_a_view(ask: Any, known: Any) -> None:
    answer = ask("version/3/views/typed/query", {"filter_in_dict": {"typed": {"id": [14, 12, 11]}}})
    table = answer.table()
    assert table["id"].to_pylist() == [11, 12, 14]
    assert table["pt_root_id"].to_pylist() == [known.root["B"], known.root["C"], known.root["F"]]
    assert table["cell_type"].to_pylist() == ["L2/3 PC", "L4 PC", None]
    assert table.schema.field("volume").type == pa.float64()
    assert answer.headers("Warning") == ["Table Owner Notice on typed: A view."]
    nothing = ask("version/3/views/typed/query", {"filter_equal_dict": {"typed": {"id": -1}}}).table().schema
    assert {str(nothing.field(name).type) for name in ("id", "volume", "pt_root_id")} == {"null"}
    assert nothing.field("pt_position_x").type == pa.int32()
    assert ask("version/3/views/typed/query", {"filter_equal_dict": {"typed": {"nope": 1}}}).json()["message"] == "nope"
    assert ask("version/3/views/nope/query", {}).status == 404


def test_a_join_is_inner_and_renames_only_what_both_have(ask: Any, known: Any) -> None:
    answer = ask("version/3/query", {**JOIN, "suffix_map": {"types": "_ref", "nuclei": ""}})
    table = answer.table()
    assert table["id"].to_pylist() == [11, 12]
    assert table["id_ref"].to_pylist() == [1, 2]
    assert table["pt_root_id"].to_pylist() == [known.root["B"], known.root["C"]]
    assert {"created", "created_ref", "valid", "valid_ref", "cell_type", "volume"} <= set(table.column_names)
    assert not {"superceded_id", "superceded_id_ref", "deleted", "pt_root_id_ref"} & set(table.column_names)
    names = ast.literal_eval(answer.headers("column_names")[0])
    assert names["types"]["superceded_id"] == "superceded_id_ref"
    assert names["nuclei"]["pt_root_id"] == "pt_root_id"


def test_default_suffixes_have_no_underscore(ask: Any) -> None:
    table = ask("version/3/query", JOIN).table()
    assert sorted(ask("version/3/query", JOIN).column("idx")) == [11, 12]
    assert table["idy"].to_pylist() == [1, 2]
    assert ask("version/3/query", {**JOIN, "suffix_map": {"types": "_a", "nuclei": "_a"}}).status == 400


def test_suffixes_of_points_precede_the_axis(ask: Any) -> None:
    body = {
        "tables": [["marks", "pt_root_id"], ["nuclei", "pt_root_id"]],
        "suffixes": ["_m", ""],
        "select_column_map": {"marks": ["id", "pt_position"], "nuclei": ["id", "pt_position"]},
    }
    answer = ask("version/3/query", body)
    marks = ["id_m", "pt_position_m_x", "pt_position_m_y", "pt_position_m_z"]
    assert answer.table().column_names == [*marks, "id", "pt_position_x", "pt_position_y", "pt_position_z"]
    assert list(zip(answer.column("id_m"), answer.column("id"), strict=True)) == [(1, 11), (2, 14), (3, 14)]
    assert any("deprecated" in text for text in answer.headers("Warning"))


def test_join_selections(ask: Any) -> None:
    mapped = ask("version/3/query", {**JOIN, "select_column_map": {"nuclei": ["pt_root_id"], "types": ["cell_type"]}})
    assert mapped.table().column_names == ["pt_supervoxel_id", "pt_root_id", "cell_type"]
    listed = ask("version/3/query", {**JOIN, "select_columns": ["id", "volume"]})
    assert listed.table().column_names == ["volume", "id"]
    assert any(text.startswith("Select_columns is deprecated") for text in listed.headers("Warning"))
    one = {**JOIN, "select_column_map": {"types": ["cell_type"]}}
    assert ask("version/3/query", one).column("cell_type") == ["L2/3 PC", "L4 PC"]
    assert ask("version/3/query", one, strict=True).json()["message"] == "'String' object has no attribute 'cell_type'"
    unknown = ask("version/3/query", {**JOIN, "select_column_map": {"types": ["nope"]}}, strict=True)
    assert unknown.json()["message"] == "400 Bad Request: column nope not found in types"


def test_filters_of_a_join_name_their_table(ask: Any) -> None:
    filters = {"filter_in_dict": {"nuclei": {"id": [11, 12]}}, "filter_regex_dict": {"types": {"cell_type": "L4"}}}
    assert ask("version/3/query", {**JOIN, **filters}).column("cell_type") == ["L4 PC"]
    excluded = {**JOIN, "filter_notin_dict": {"types": {"cell_type": ["L4 PC"]}}}
    assert ask("version/3/query", excluded).column("cell_type") == ["L2/3 PC"]


def test_many_rows_may_join_one(ask: Any) -> None:
    body = {"tables": [["many", "target_id"], ["nuclei", "id"]]}
    answer = ask("version/3/query", body)
    assert answer.column("value") == [float(n) for n in range(CAP)]
    assert answer.headers("Warning") == ['201 - "Limited query to 100 rows']
    assert answer.headers("dataframe_resolution") == ["4.0", "4.0", "40.0"]


@pytest.mark.parametrize(
    ("tables", "status"),
    [([["types", "nope"], ["nuclei", "id"]], 400), ([["nope", "id"], ["nuclei", "id"]], 404),
     ([["nuclei", "id"], ["nuclei", "id"]], 400), ([["nuclei", "id"]], 400)],
)  # fmt: skip
def test_joins_that_cannot_be(ask: Any, tables: Any, status: int) -> None:
    assert ask("version/3/query", {"tables": tables}).status == status
    assert ask("version/3/query", {}).json()["schema_errors"] == {"tables": ["Missing data for required field."]}


def test_a_random_sample_comes_in_pages_and_is_the_same_for_the_same_moment(ask: Any) -> None:
    def sampled(now_ms: int, **options: Any) -> list[int]:
        body = {"limit": 300}
        return list(ask(MANY_3, body, query={"random_sample": "150"}, now_ms=now_ms, **options).column("id"))

    drawn = [sampled(now_ms) for now_ms in range(30)]
    assert drawn == [sampled(now_ms) for now_ms in range(30)]
    assert len({tuple(ids) for ids in drawn}) > 5
    everything = ask(MANY_3, {}, query={"random_sample": "300", "count": "True"}).column("count")
    assert everything == [300]
    merged = "version/4/table/many/query"
    counts = [
        ask(merged, {}, query={"random_sample": "10", "count": "True"}, now_ms=n, strict=True).column("count")[0]
        for n in range(5)
    ]
    assert counts == [300] * 5


def test_a_query_costs_by_the_row(ask: Any) -> None:
    one = ask(MANY_3, {"limit": 1}).reply.price
    hundred = ask(MANY_3, {}).reply.price
    assert hundred - one == pytest.approx(99 * costs.TABLE_QUERY_PER_ROW)
    assert one == pytest.approx(costs.TABLE_QUERY + costs.TABLE_QUERY_PER_ROW)


def test_a_public_datastack_reads_the_rows_of_its_parent(ask: Any, known: Any) -> None:
    answer = ask("/materialize/api/v3/datastack/small_public/version/3/table/nuclei/query", {})
    assert answer.column("id") == list(known.alive(65))
