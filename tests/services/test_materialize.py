"""The materialization service: versions, names, and what a wrong question is answered with.

Rows that come whole, and the columns that they have, are tested in ``test_tables.py``.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pandas as pd
import pytest
from tests.oracle import MAIN, rows_alive

from cortexclient import AsyncCortexClient, CortexUsageError, NotFoundError
from cortexclient.errors import ServerError, ServerRefusedError, TruncatedResult
from cortexclient.sandbox import Sandbox, World
from cortexclient.sandbox.worlds.examples_page import VERSIONS

from .conftest import client_of

LOOKUP, BACKUP = "nucleus_detection_lookup_v1", "nucleus_alternative_points"
VALID = (117, 661, 1412, 1484)
CAP = 50


@pytest.fixture
async def capped(flavour: str) -> AsyncIterator[AsyncCortexClient]:
    """A server that answers with 50 rows at most."""
    world = World.synthesize(4, nuclei=130, edits=60, backups=12)
    world.row_cap = CAP
    with Sandbox(world, strict=flavour == "async") as sandbox:
        async with client_of(flavour, sandbox) as client:
            yield client


def nuclei(world: World, version: int | None = None) -> list[dict[str, Any]]:
    return rows_alive(world, MAIN, world.version(version).time_us)


# -- versions ----------------------------------------------------------------------------------------------------------


async def test_versions_come_in_order_and_expired_ones_on_demand(client: AsyncCortexClient) -> None:
    assert await client.materialize.get_versions() == list(VALID)
    assert await client.materialize.get_versions(expired=True) == list(VERSIONS)
    assert await client.materialize.most_recent_version() == 1484


async def test_a_version_has_an_instant_even_if_it_has_expired(client: AsyncCortexClient, world: World) -> None:
    for number in VERSIONS:
        instant = await client.materialize.get_timestamp(number)
        assert instant == datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=world.version(number).time_us)


async def test_records_of_versions_hold_aware_times(client: AsyncCortexClient) -> None:
    for item in await client.materialize.get_versions_metadata(expired=True):
        assert item["time_stamp"].tzinfo == item["expires_on"].tzinfo == UTC
        assert item["valid"] == (item["version"] in VALID)


async def test_the_list_of_versions_is_asked_once(client: AsyncCortexClient, sandbox: Sandbox) -> None:
    await client.materialize.get_versions()
    sandbox.counters.reset()
    await client.materialize.get_versions(expired=True)
    await client.materialize.most_recent_version()
    await client.materialize.get_version_metadata(943)
    assert sandbox.counters.snapshot().total.requests == 0


async def test_what_was_handed_out_may_be_changed(client: AsyncCortexClient) -> None:
    (first, *_) = await client.materialize.get_versions_metadata()
    first["version"] = -1
    assert await client.materialize.get_versions() == list(VALID)


@pytest.mark.parametrize("number", [0, -1, 1483, 10**9])
async def test_an_unknown_version_is_told_with_the_nearest(client: AsyncCortexClient, number: int) -> None:
    with pytest.raises(NotFoundError, match=str(number)) as caught:
        await client.materialize.get_version_metadata(number)
    assert set(caught.value.nearest) < {str(version) for version in VERSIONS}
    for call in (client.materialize.get_timestamp, client.materialize.get_tables):
        with pytest.raises(NotFoundError):
            await call(number)
    with pytest.raises(NotFoundError, match=rf"no version {number}; did you mean {caught.value.nearest[0]} or"):
        await client.materialize.query_table(MAIN, materialization_version=number)


async def test_an_expired_version_is_refused_before_its_rows_are_asked_for(
    client: AsyncCortexClient, sandbox: Sandbox
) -> None:
    """A query on one makes the real server create an empty database."""
    await client.materialize.get_versions()
    sandbox.counters.reset()
    queries = (
        client.materialize.query_table(MAIN, materialization_version=943),
        client.materialize.query_view("nucleus_detection_lookup_v1", materialization_version=943),
        client.materialize.query_count(MAIN, materialization_version=943),
        client.at(version=943).materialize.query_table(MAIN),
        client.root_id_to_cell_id([1], version=943),
        client.cell_id_to_root_id([1], version=943),
    )
    for query in queries:
        with pytest.raises(NotFoundError, match="943 is expired"):
            await query
    assert sandbox.counters.snapshot().total.requests == 0


# -- names -------------------------------------------------------------------------------------------------------------


async def test_an_unknown_table_is_told_with_the_nearest(client: AsyncCortexClient) -> None:
    wrong = "nucleus_detection_v1"
    calls = (
        client.materialize.query_table(wrong),
        client.materialize.query_count(wrong),
        client.materialize.get_table_metadata(wrong),
        client.materialize.get_annotation_count(wrong),
        client.materialize.live_live_query(wrong, datetime.now(UTC)),
        client.materialize.fetch_complete(wrong, ["volume"], 1484),
    )
    for call in calls:
        with pytest.raises(NotFoundError, match=MAIN) as caught:
            await call
        assert caught.value.nearest[0] in {MAIN, "nucleus_detection_lookup_v1"}


async def test_an_unknown_view_is_told_with_the_nearest(client: AsyncCortexClient) -> None:
    for call in (
        client.materialize.query_view("nucleus_lookup"),
        client.materialize.get_view_metadata("nucleus_lookup"),
        client.materialize.get_view_schema("nucleus_lookup"),
    ):
        with pytest.raises(NotFoundError, match="nucleus_detection_lookup_v1"):
            await call


async def test_resolutions_are_one_list(client: AsyncCortexClient) -> None:
    table = await client.materialize.get_table_metadata(MAIN)
    view = await client.materialize.get_view_metadata("nucleus_detection_lookup_v1")
    assert table["voxel_resolution"] == view["voxel_resolution"] == [4.0, 4.0, 40.0]
    assert table["reference_table"] is None
    backups = await client.materialize.get_table_metadata("nucleus_alternative_points")
    assert backups["reference_table"] == MAIN


async def test_metadata_is_asked_once_for_each_version(client: AsyncCortexClient, sandbox: Sandbox) -> None:
    await client.materialize.get_table_metadata(MAIN)
    sandbox.counters.reset()
    await client.materialize.get_table_metadata(MAIN)
    assert sandbox.counters.snapshot().total.requests == 0
    await client.materialize.get_table_metadata(MAIN, 661)
    assert sandbox.counters.snapshot().total.requests == 1


# -- filters -----------------------------------------------------------------------------------------------------------


async def test_no_ids_are_no_rows_of_the_same_columns(client: AsyncCortexClient) -> None:
    some = await client.materialize.query_table(MAIN, limit=1)
    none = await client.materialize.query_table(MAIN, filter_in_dict={"id": []})
    assert len(none) == 0
    assert list(none.columns) == list(some.columns)
    assert none["id"].dtype == np.int64


async def test_exclusion_filters_exclude(client: AsyncCortexClient, world: World) -> None:
    """The real servers take and ignore them: on the strict sandbox it is the client that excludes."""
    excluded = [row["id"] for row in nuclei(world)][:100]
    kept = await client.materialize.query_table(MAIN, filter_out_dict={"id": excluded}, split_positions=True)
    assert set(kept["id"]) == {row["id"] for row in nuclei(world)} - set(excluded)
    assert await client.materialize.query_count(MAIN, filter_out_dict={"id": excluded}) == len(kept)
    alone = await client.materialize.query_table(
        MAIN, filter_out_dict={"id": excluded}, select_columns=["volume"], materialization_version=1484
    )
    assert list(alone.columns) == ["volume"]
    assert sorted(alone["volume"]) == sorted(kept["volume"])


async def test_exclusion_holds_in_live_queries_too(client: AsyncCortexClient, world: World) -> None:
    excluded = [row["id"] for row in nuclei(world)][:1900]
    when = await client.version_timestamp(1412) + timedelta(days=3)
    found = await client.materialize.live_live_query(MAIN, when, filter_out_dict={"id": excluded})
    assert 0 < len(found) < 150
    assert not set(found["id"]) & set(excluded)


@pytest.mark.parametrize(
    "ids", [[1.0, 2.0], np.array([864691135885645050.0]), pd.Series([1, None]), [True], ["12a"], "12", 12]
)
async def test_what_is_no_list_of_ids_is_refused(client: AsyncCortexClient, sandbox: Sandbox, ids: Any) -> None:
    sandbox.counters.reset()
    with pytest.raises(CortexUsageError):
        await client.materialize.query_table(MAIN, filter_in_dict={"pt_root_id": ids}, materialization_version=1484)
    queries = [route for route in sandbox.counters.snapshot().routes if route.startswith("POST")]
    assert not queries


async def test_ids_of_all_kinds_find_the_same_rows(client: AsyncCortexClient, world: World) -> None:
    ids = [row["id"] for row in nuclei(world)][:5]
    kinds = (ids, tuple(ids), np.array(ids), pd.Series(ids), pd.Index(ids), [str(i) for i in ids], ids * 3)
    for kind in kinds:
        found = await client.materialize.query_table(MAIN, filter_in_dict={"id": kind})
        assert sorted(found["id"]) == sorted(ids)


async def test_a_wrong_filter_is_told_with_the_nearest(client: AsyncCortexClient) -> None:
    with pytest.raises(CortexUsageError, match="filter_in_dict"):
        await client.materialize.query_table(MAIN, filter_in={"id": [1]})  # type: ignore[call-arg]


@pytest.mark.parametrize(
    "wrong",
    [
        {"limit": 0},
        {"limit": -3},
        {"offset": -1},
        {"select_columns": []},
        {"desired_resolution": [1, 1]},
        {"desired_resolution": [4, 4, 0]},
        {"filter_spatial_dict": {"pt_position": [[9, 9, 9], [1, 1, 1]]}},
        {"filter_spatial_dict": {"pt_position": [[1, 2], [3, 4]]}},
        {"filter_greater_dict": {"created": datetime(2021, 1, 1)}},  # noqa: DTZ001
        {"timestamp": datetime(2021, 1, 1)},  # noqa: DTZ001
        {"timestamp": datetime(2021, 1, 1, tzinfo=UTC), "materialization_version": 1484},
    ],
    ids=str,
)
async def test_a_wrong_question_is_not_sent(client: AsyncCortexClient, sandbox: Sandbox, wrong: dict[str, Any]) -> None:
    sandbox.counters.reset()
    with pytest.raises(CortexUsageError):
        await client.materialize.query_table(MAIN, **{"materialization_version": 1484, **wrong})
    assert not [route for route in sandbox.counters.snapshot().routes if route.startswith("POST")]


@pytest.mark.parametrize(
    "wrong",
    [
        {"filter_in_dict": {"pt_root": [1]}},
        {"filter_out_dict": {"pt_root": [1]}},
        {"filter_equal_dict": {"pt_root": 1}},
        {"filter_spatial_dict": {"pt_root": [[0, 0, 0], [1, 1, 1]]}},
        {"select_columns": ["id", "pt_root"]},
    ],
    ids=str,
)
async def test_an_unknown_column_is_told_with_the_nearest(client: AsyncCortexClient, wrong: dict[str, Any]) -> None:
    one, told = client.materialize, r"no column 'pt_root'; did you mean pt_root_id\?"
    with pytest.raises(CortexUsageError, match=told):
        await one.query_table(MAIN, **wrong)
    with pytest.raises(CortexUsageError, match=told):
        await one.query_view(LOOKUP, **wrong)
    by_table = {kind: {MAIN: columns} for kind, columns in wrong.items()}
    with pytest.raises(CortexUsageError, match=told):
        await one.join_query([(MAIN, "id"), (BACKUP, "target_id")], **by_table)


async def test_an_unknown_column_of_live_tables_is_told_with_the_nearest(client: AsyncCortexClient) -> None:
    now = datetime.now(UTC)
    with pytest.raises(CortexUsageError, match="did you mean volume"):
        await client.materialize.live_live_query(MAIN, now, filter_equal_dict={"volum": 1})
    with pytest.raises(CortexUsageError, match="did you mean target_id"):
        await client.materialize.join_query([(MAIN, "id"), (BACKUP, "targetid")])
    with pytest.raises(CortexUsageError, match="did you mean pt_root_id"):
        await client.materialize.query_view(LOOKUP, select_columns=["pt_root"])


async def test_what_a_column_cannot_be_compared_with_is_the_servers_to_refuse(client: AsyncCortexClient) -> None:
    for wrong in ({"filter_equal_dict": {"id": "abc"}}, {"filter_regex_dict": {"id": "a"}}):
        with pytest.raises((ServerError, ServerRefusedError), match=r"input for column id|only supported on string"):
            await client.materialize.query_table(MAIN, **wrong)  # type: ignore[arg-type]


async def test_times_are_filtered_by_instant(client: AsyncCortexClient, world: World) -> None:
    rows = sorted(nuclei(world), key=lambda row: row["created"])
    middle = rows[len(rows) // 2]["created"].replace(tzinfo=UTC)
    east = middle.astimezone(tz=datetime.now().astimezone().tzinfo)
    found = await client.materialize.query_table(MAIN, filter_greater_dict={"created": east})
    assert set(found["id"]) == {row["id"] for row in rows if row["created"].replace(tzinfo=UTC) > middle}


# -- wholeness ---------------------------------------------------------------------------------------------------------


async def test_all_rows_come_though_the_server_caps_them(capped: AsyncCortexClient) -> None:
    version = await capped.materialize.most_recent_version()
    whole = await capped.materialize.fetch_complete(MAIN, ["volume"], version)
    count = await capped.materialize.get_annotation_count(MAIN)
    assert whole.num_rows == count > 2 * CAP
    assert len(set(whole.column("id").to_pylist())) == count
    assert whole.column_names == ["id", "volume"]


async def test_a_cut_answer_is_an_error_that_holds_what_came(capped: AsyncCortexClient) -> None:
    with pytest.raises(TruncatedResult, match=f"{CAP}") as caught:
        await capped.materialize.query_table(MAIN, split=False)
    assert caught.value.partial.num_rows == CAP


async def test_a_cut_answer_with_an_exclusion_comes_whole(capped: AsyncCortexClient) -> None:
    everything = await capped.materialize.query_table(MAIN)
    excluded = everything["id"][:30]
    rest = await capped.materialize.query_table(MAIN, filter_out_dict={"id": excluded})
    assert set(rest["id"]) == set(everything["id"]) - set(excluded)


# -- pins --------------------------------------------------------------------------------------------------------------


async def test_a_pinned_client_asks_its_version(client: AsyncCortexClient, world: World) -> None:
    pinned = client.at(version=117)
    assert set((await pinned.materialize.query_table(MAIN))["id"]) == {row["id"] for row in nuclei(world, 117)}
    assert await pinned.materialize.query_count(MAIN) == len(nuclei(world, 117)) != len(nuclei(world))
    assert (await pinned.materialize.query_table(MAIN, limit=1)).attrs["materialization_version"] == 117
    over = await pinned.materialize.query_table(MAIN, limit=1, materialization_version=661)
    assert over.attrs["materialization_version"] == 661
