"""Versions, tables, views and their records."""

from __future__ import annotations

from typing import Any

import pytest

VERSIONS = {"time_stamp": "2026-02-10T00:00:00.123456", "expires_on": "2027-02-05T00:00:00.000000"}


def test_the_service_names_its_versions(ask: Any) -> None:
    assert ask("/materialize/api/versions").json() == [2, 3]
    assert ask("/materialize/version").json() == "5.26.4"


def test_expired_versions_are_listed_on_demand(ask: Any) -> None:
    assert ask("versions").json() == [2, 3, 4]
    assert ask("versions", query={"expired": "True"}).json() == [1, 2, 3, 4]
    assert [record["version"] for record in ask("metadata", query={"expired": "1"}).json()] == [1, 2, 3, 4]
    assert ask("/materialize/api/v2/datastack/small_public/versions").json() == [3]


def test_a_version_record_has_times_that_caveclient_can_parse(ask: Any) -> None:
    record = ask("version/2").json()
    assert record.items() >= VERSIONS.items()
    assert record.keys() == {"id", "datastack", "version", "time_stamp", "expires_on", "valid", "status", "is_merged"}
    assert ask("version/4").json()["time_stamp"] == "2026-03-27T00:00:00.000000"
    assert ask("version/4", strict=True).json()["time_stamp"] == "2026-03-27T00:00:00"
    assert ask("version/4").json()["expires_on"] is None
    assert ask("version/1").json()["status"] == "EXPIRED"


def test_an_unknown_version_has_several_faces(ask: Any) -> None:
    assert (ask("version/99").status, ask("version/99").json()) == (404, "No version found")
    assert ask("version/99/tables/metadata").status == 404
    wrapped = ask("version/99/tables/metadata", strict=True)
    assert (wrapped.status, wrapped.json()["message"]) == (500, "404 Not Found: version 99 not found in small")
    assert wrapped.json()["traceback"]
    assert ask("version/99/tables").json() is None
    listed = ask("/materialize/api/v2/datastack/small/version/99/tables", strict=True)
    assert listed.json()["message"] == "404 Not Found: version 99 does not exist for small "
    assert ask("version/abc").status == 404


def test_tables_of_a_version(ask: Any) -> None:
    names = ["nuclei", "types", "many", "private", "marks"]
    assert ask("/materialize/api/v2/datastack/small/version/2/tables").json() == names
    assert [record["table_name"] for record in ask("version/2/tables/metadata").json()] == names
    assert [record["id"] for record in ask("version/2/tables/metadata").json()] == [10, 11, 12, 13, 14]


def test_a_table_record(ask: Any) -> None:
    record = ask("version/3/table/nuclei/metadata").json()
    assert (
        record.items()
        >= {
            "id": 20,
            "aligned_volume": "small_vol",
            "schema": "nucleus_detection",
            "schema_type": "nucleus_detection",
            "user_id": "1",
            "reference_table": None,
            "voxel_resolution_z": 40.0,
            "pcg_table_name": "small_v1",
            "last_modified": "2026-03-12T00:00:00",
        }.items()
    )
    assert "pcg_table_name" not in ask("version/3/table/types/metadata").json()


def test_a_table_that_the_version_does_not_hold(ask: Any) -> None:
    public = "/materialize/api/v3/datastack/small_public/version/3/table/types"
    answer = ask(f"{public}/metadata")
    assert answer.status == 404
    assert answer.json() == "No table named 'types' found for version '3' in datastack 'small_public'"
    assert ask(f"{public}/query", {}).status == 404
    assert ask("version/3/table/waiting/count").status == 404
    refused = ask("version/3/table/waiting/count", strict=True)
    message = "404 Not Found: Analysis table 'waiting' not found for version 3 in datastack small"
    assert (refused.status, refused.json()["message"]) == (500, message)


@pytest.mark.parametrize(("version", "rows"), [(2, 5), (3, 4), (4, 5)])
def test_the_count_of_a_table_is_that_of_its_version(ask: Any, version: int, rows: int) -> None:
    assert ask(f"/materialize/api/v2/datastack/small/version/{version}/table/nuclei/count").json() == rows


def test_an_expired_version_answers_about_itself_but_refuses_rows(ask: Any) -> None:
    assert ask("version/1/table/nuclei/metadata").status == 200
    assert ask("version/1/views").json() == {}
    assert ask("version/1/table/nuclei/query", {}).status == 410
    assert ask("version/1/views/typed/query", {}).status == 410
    assert ask("version/1/table/nuclei/count").status == 410
    assert ask("version/1/table/nuclei/query", {}, strict=True).json()["message"].startswith("Execution failed on sql")


def test_views(ask: Any) -> None:
    record = ask("version/3/views").json()["typed"]
    assert record["datastack_name"] == "small"
    assert "table_name" not in record
    assert ask("version/3/views/typed/metadata").json()["table_name"] == "typed"
    public = ask("/materialize/api/v3/datastack/small_public/version/3/views").json()
    assert public["typed"]["datastack_name"] == "small"
    schema = {
        "id": {"type": "integer"},
        "volume": {"type": "float"},
        "pt_position": {"type": "SpatialPoint"},
        "pt_supervoxel_id": {"type": "integer"},
        "pt_root_id": {"type": "integer"},
        "cell_type": {"type": "string"},
    }
    assert ask("version/3/views/typed/schema").json() == schema
    assert ask("version/3/views/schemas").json() == {"typed": schema}
    assert ask("version/3/views/nope/metadata").status == 404
    assert ask("version/3/views/nope/schema").status == 404


def test_unique_string_values_are_those_of_the_live_table(ask: Any) -> None:
    values = ask("table/types/unique_string_values").json()
    assert values == {"classification_system": ["exc", "inh"], "cell_type": ["L2/3 PC", "L4 PC", "Basket"]}
    assert ask("table/nuclei/unique_string_values").json() == {}
    assert ask("table/nope/unique_string_values").status == 404


def test_segment_properties(ask: Any) -> None:
    inline = ask("version/3/table/types/info").json()["inline"]
    tags = inline["properties"][0]
    assert len(inline["ids"]) == 2
    assert [[tags["tags"][n] for n in value] for value in tags["values"]] == [["L2/3 PC", "exc"], ["L4 PC", "exc"]]
    view = ask("version/3/views/typed/info").json()
    assert view["@type"] == "neuroglancer_segment_properties"
    assert ask("version/3/table/nuclei/info", strict=True).json()["message"] == "cannot convert NA to integer"
    too_large = ask("version/3/table/many/info")
    assert (too_large.status, too_large.json()) == (400, "Table too large to return info")


def test_another_method(world: Any) -> None:
    from cortexclient.sandbox.calls import Call
    from cortexclient.sandbox.routes.materialize import TABLE

    def call(*, strict: bool) -> Call:
        return Call("PUT", "/materialize/version", {}, {}, {}, b"", 0, "", strict=strict)

    assert TABLE.wrong_method is not None
    assert TABLE.wrong_method(call(strict=False)).status == 405
    wrapped = TABLE.wrong_method(call(strict=True))
    assert wrapped.status == 500
    assert b"405 Method Not Allowed" in wrapped.body


def test_schemas(ask: Any) -> None:
    assert ask("/schema/versions").json() == [2]
    names = ask("/schema/api/v2/type").json()
    assert {"synapse", "nucleus_detection", "reference_point", "bound_tag"} <= set(names)
    everything = ask("/schema/api/v2/types_all").json()
    assert list(everything) == names
    nucleus = ask("/schema/api/v2/type/nucleus_detection").json()
    assert nucleus == everything["nucleus_detection"]
    fields = nucleus["definitions"]["NucleusDetection"]
    assert fields["required"] == ["pt"]
    assert fields["properties"]["volume"] == {"type": ["number", "null"], "format": "float", "title": "volume"}
    assert fields["properties"]["pt"]["$ref"] == "#/definitions/BoundSpatialPoint"
    some = ask("/schema/api/v2/types", b"", method="POST", query={"schema_names": "synapse,bound_tag"}).json()
    assert list(some) == ["synapse", "bound_tag"]
    assert ask("/schema/api/v2/type/nope").status == 404
