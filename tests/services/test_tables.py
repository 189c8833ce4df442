"""Tables, views and synapses: complete whatever the row cap, checked, in the frame that is wanted."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pandas as pd
import pytest
from tests.patience import HANG

from cortexclient import AsyncCortexClient, CortexUsageError, NotFoundError, TruncatedResult
from cortexclient.errors import CortexError
from cortexclient.sandbox import Sandbox, World

from .conftest import CAP, client_of

NUCLEI, BACKUPS, SYNAPSES = "nucleus_detection_v0", "nucleus_alternative_points", "synapses_pni_2"
VIEW = "nucleus_detection_lookup_v1"


def frozen(world: World, table: str) -> Any:
    newest = max((v for v in world.versions if v.valid), key=lambda v: v.time_us)
    return world.annotations.frozen(table, newest)


# -- completeness ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("table", [NUCLEI, SYNAPSES])
async def test_a_table_larger_than_the_cap_comes_whole(
    capped: AsyncCortexClient, capped_world: World, table: str
) -> None:
    truth = frozen(capped_world, table)
    assert len(truth) > 2 * CAP
    found = await capped.tables[table]().query()
    assert sorted(found["id"]) == sorted(truth["id"])
    assert await capped.tables[table]().count() == len(truth)


async def test_a_view_larger_than_the_cap_comes_whole(capped: AsyncCortexClient, capped_world: World) -> None:
    found = await capped.views[VIEW]().query()
    newest = max((v for v in capped_world.versions if v.valid), key=lambda v: v.time_us)
    assert sorted(found["id"]) == sorted(capped_world.annotations.view(VIEW, newest)["id"])


async def test_a_cut_list_of_roots_comes_whole(capped: AsyncCortexClient, capped_world: World) -> None:
    truth = frozen(capped_world, SYNAPSES)
    roots = truth["pre_pt_root_id"].unique().to_list()
    found = await capped.tables[SYNAPSES](pre_pt_root_id=roots).query_polars()
    assert sorted(found["id"]) == sorted(truth["id"])


async def test_live_rows_come_whole(capped: AsyncCortexClient) -> None:
    frozen_rows = await capped.tables[NUCLEI]().query()
    when = (await capped.version_timestamp()) + timedelta(milliseconds=1)
    live = await capped.tables[NUCLEI]().live_query(when)
    assert sorted(live["id"]) == sorted(frozen_rows["id"])


async def test_splitting_can_be_switched_off(capped: AsyncCortexClient) -> None:
    with pytest.raises(TruncatedResult, match="narrow the filters") as caught:
        await capped.tables[NUCLEI]().query(split=False)
    assert isinstance(caught.value.partial, pd.DataFrame)
    assert len(caught.value.partial) == CAP


async def test_an_offset_is_not_cut_into_parts(capped: AsyncCortexClient) -> None:
    with pytest.raises(TruncatedResult, match="offset"):
        await capped.tables[NUCLEI]().query(offset=1)


@pytest.mark.parametrize("limit", [1, CAP - 1, CAP, CAP + 1, 2 * CAP])
async def test_a_limit_is_kept_below_and_above_the_cap(capped: AsyncCortexClient, limit: int) -> None:
    found = await capped.tables[NUCLEI]().query(limit=limit)
    assert len(found) == limit
    assert found["id"].is_unique


async def test_exactly_as_many_rows_as_the_cap_are_whole(capped: AsyncCortexClient, capped_world: World) -> None:
    ids = frozen(capped_world, NUCLEI)["id"].to_list()[:CAP]
    before = capped.stats.requests
    found = await capped.tables[NUCLEI](id=ids).query(split=False)
    assert sorted(found["id"]) == sorted(ids)
    assert capped.stats.requests - before <= 6  # catalogue, query, count


async def test_a_stream_hands_out_every_row_once(capped: AsyncCortexClient, capped_world: World) -> None:
    ids: list[int] = []
    async with capped.tables[SYNAPSES]().stream(["id", "size"]) as batches:
        async for batch in batches:
            assert batch.schema.names == ["id", "size"]
            ids += batch.column("id").to_pylist()
    assert sorted(ids) == sorted(frozen(capped_world, SYNAPSES)["id"])


async def test_a_stream_may_be_left(capped: AsyncCortexClient) -> None:
    async with capped.tables[SYNAPSES]().stream() as batches:
        async for _ in batches:
            break
    assert await capped.tables[NUCLEI](id=[]).count() == 0


async def test_a_million_ids_in_a_filter(client: AsyncCortexClient) -> None:
    before = client.stats.requests
    found = await client.tables[NUCLEI](id=np.arange(10**6), volume={">": 300}).query_arrow(["id", "volume"])
    everything = await client.tables[NUCLEI](volume={">": 300}).query_arrow(["id", "volume"])
    assert sorted(found["id"].to_pylist()) == sorted(everything["id"].to_pylist())
    assert client.stats.requests - before < 120


# -- frames ------------------------------------------------------------------------------------------------------------


async def test_all_routes_give_the_same_columns(client: AsyncCortexClient) -> None:
    when = (await client.version_timestamp()) + timedelta(seconds=1)
    for table in (NUCLEI, BACKUPS):
        frozen_rows = await client.tables[table]().query(split_positions=True)
        live = await client.tables[table]().live_query(when, split_positions=True)
        assert list(live) == list(frozen_rows)
        assert live.dtypes.to_dict() == frozen_rows.dtypes.to_dict()
    assert list(frozen_rows)[:6] == ["id", "created", "valid", "volume", *list(frozen_rows)[4:6]]
    assert "pt_root_id_ref" in frozen_rows
    assert "pt_position_ref_x" in frozen_rows


async def test_an_instant_that_is_a_versions_is_that_version(client: AsyncCortexClient) -> None:
    found = await client.tables[NUCLEI]().query(timestamp=await client.version_timestamp())
    assert found.attrs["materialization_version"] == await client.most_recent_materialization_version()


async def test_units_keep_their_fractions(client: AsyncCortexClient) -> None:
    query = client.tables[NUCLEI]()
    stored = (await query.query(split_positions=True)).sort_values("id")
    for unit, kind in (((1, 1, 1), "int64"), ((1000, 1000, 1000), "float64"), ((4, 4, 40), "int64")):
        found = (await query.query(split_positions=True, desired_resolution=unit)).sort_values("id")
        for axis, nm, wanted in zip("xyz", (4, 4, 40), unit, strict=True):
            column = f"pt_position_{axis}"
            assert found[column].dtype == kind
            np.testing.assert_array_equal(found[column], stored[column] * nm / wanted)
        assert found.attrs["dataframe_resolution"] == list(map(float, unit))
        assert found.attrs["table_voxel_resolution"] == [4.0, 4.0, 40.0]


async def test_unsplit_points_are_arrays_in_the_wanted_unit(client: AsyncCortexClient) -> None:
    found = await client.tables[NUCLEI]().query(desired_resolution=[1, 1, 1], limit=5)
    assert list(found)[-3:] == ["pt_position", "bb_start_position", "bb_end_position"]
    assert all(point.shape == (3,) and point.dtype == np.int64 for point in found["pt_position"])


async def test_attrs_are_plain_json(client: AsyncCortexClient) -> None:
    query = client.tables[NUCLEI](id=np.arange(1000), volume={">": np.float32(3)})
    found = await query.query()
    assert json.loads(json.dumps(found.attrs)) == found.attrs
    assert found.attrs["table_name"] == NUCLEI
    told = json.loads((await query.query_arrow()).schema.metadata[b"cortexclient"])
    assert told == found.attrs


@pytest.mark.parametrize("columns", [["volume"], ["pt_root_id"], ["pt_position", "id"], ["valid", "created"]])
async def test_selected_columns_come_alone_and_in_order(client: AsyncCortexClient, columns: list[str]) -> None:
    found = await client.tables[NUCLEI]().query(columns, limit=4)
    assert sorted(found) == sorted(columns)
    assert (await client.tables[NUCLEI]().query_polars(["volume", "id"])).columns == ["volume", "id"]


async def test_reference_tables_are_joined_or_not(client: AsyncCortexClient, world: World) -> None:
    merged = await client.tables[BACKUPS]().query()
    alone = await client.tables[BACKUPS](merge_reference=False).query()
    assert sorted(merged["id_ref"]) == sorted(alone["id"])
    assert (merged["id"] == merged["target_id"]).all()
    assert await client.tables[BACKUPS]().count() == len(merged)
    one = await client.tables[BACKUPS](
        id_ref=[int(alone["id"][0])], pt_ref_root_id=[int(alone["pt_root_id"][0])]
    ).query()
    assert one["id_ref"].tolist() == [alone["id"][0]]


# -- what there is -----------------------------------------------------------------------------------------------------


async def test_listing_and_loading(flavour: str, sandbox: Sandbox, world: World) -> None:
    async with client_of(flavour, sandbox) as client:
        if flavour == "async":
            assert "not loaded" in repr(client.tables)
            assert client.stats.requests == 0
        assert NUCLEI in await client.tables.load()
        assert NUCLEI in repr(client.tables)
        assert await client.views.load() == sorted(world.views)
        assert client.tables.find("NUCLEUS") == [BACKUPS, NUCLEI]
        assert "volume" in client.tables[NUCLEI].numeric_fields
        assert "pt_position_bbox" in client.views[VIEW].spatial_fields


async def test_the_blocking_list_looks_for_itself(
    sandboxes: dict[str, Sandbox], monkeypatch: pytest.MonkeyPatch
) -> None:
    from cortexclient import CortexClient, _twin

    monkeypatch.setattr(_twin, "LOOK_SECONDS", HANG)
    with CortexClient(sandboxes["sync"].spec, token=sandboxes["sync"].token) as client:
        assert NUCLEI in dir(client.tables)
        assert NUCLEI in client.tables
        assert len(client.tables) == len(list(client.tables))
        assert NUCLEI in client.tables._repr_html_()
        assert client.tables[NUCLEI].name == NUCLEI


async def test_wrong_names_are_told_with_the_nearest(client: AsyncCortexClient) -> None:
    with pytest.raises(NotFoundError, match=NUCLEI) as caught:
        await client.tables.nucleus_detection().query()
    assert NUCLEI in caught.value.nearest
    with pytest.raises(CortexUsageError, match="did you mean volume"):
        await client.tables[NUCLEI](volum=3).query()
    with pytest.raises(CortexUsageError, match="did you mean volume"):
        await client.tables[NUCLEI]().query(["id", "volumes"])
    with pytest.raises(NotFoundError, match="no version 99"):
        await client.tables[NUCLEI]().query(version=99_999)
    with pytest.raises(NotFoundError):
        await client.views.nucleus_lookup().query()


async def test_times_are_checked(client: AsyncCortexClient) -> None:
    query = client.tables[NUCLEI]()
    with pytest.raises(CortexUsageError, match="not both"):
        await query.query(version=1, timestamp=datetime.now(UTC))
    with pytest.raises(CortexUsageError, match="no time zone"):
        await query.query(timestamp=datetime(2024, 1, 1))  # noqa: DTZ001
    with pytest.raises(CortexUsageError, match="views"):
        await client.views[VIEW]().query(timestamp=datetime.now(UTC) - timedelta(seconds=30))


# -- faults ------------------------------------------------------------------------------------------------------------


async def test_what_came_before_a_failure_is_kept(flavour: str, capped_world: World) -> None:
    with Sandbox(capped_world, faults="500:30%") as faulty:
        async with client_of(flavour, faulty) as client:
            error = None
            try:
                found = await client.tables[SYNAPSES]().query(timeout=HANG)
            except CortexError as failure:
                error, found = failure, failure.partial
            truth = set(frozen(capped_world, SYNAPSES)["id"])
            came = set() if found is None else set(found["id"])
            assert came < truth if error else came == truth


async def test_a_body_that_was_cut_short_never_passes_as_whole(flavour: str, capped_world: World) -> None:
    with Sandbox(capped_world, faults="truncated:20%") as faulty:
        async with client_of(flavour, faulty) as client:
            try:
                found = await client.tables[SYNAPSES]().query(timeout=HANG)
            except CortexError:
                return
            assert sorted(found["id"]) == sorted(frozen(capped_world, SYNAPSES)["id"])


# -- synapses ----------------------------------------------------------------------------------------------------------


async def test_synapses_of_many_roots_are_complete_and_distinct(capped: AsyncCortexClient, capped_world: World) -> None:
    truth = frozen(capped_world, SYNAPSES)
    roots = truth["pre_pt_root_id"].unique().sort().to_list()[::2]
    for pre, post in ((True, True), (True, False), (False, True)):
        touching = truth.filter(
            (truth["pre_pt_root_id"].is_in(roots) & pre) | (truth["post_pt_root_id"].is_in(roots) & post)
        )
        expected = touching.filter(touching["pre_pt_root_id"] != touching["post_pt_root_id"])
        found = await capped.query_synapses(roots, pre, post)
        assert sorted(found["id"]) == sorted(expected["id"])
        everything = await capped.query_synapses(roots, pre, post, remove_autapses=False)
        assert sorted(everything["id"]) == sorted(touching["id"])
        edges = await capped.synapse_edges(roots, pre, post)
        counted = expected.group_by("pre_pt_root_id", "post_pt_root_id").len().sort("pre_pt_root_id", "post_pt_root_id")
        assert edges["n_synapses"].tolist() == counted["len"].to_list()
        assert edges["pre_pt_root_id"].tolist() == counted["pre_pt_root_id"].to_list()
        assert edges["sum_size"].sum() == pytest.approx(expected["size"].sum())


async def test_no_roots_have_no_synapses(capped: AsyncCortexClient) -> None:
    found = await capped.query_synapses([])
    assert len(found) == 0
    assert found["id"].dtype == np.int64
    edges = await capped.synapse_edges([])
    assert list(edges) == ["pre_pt_root_id", "post_pt_root_id", "n_synapses", "sum_size"]
    assert len(edges) == 0


async def test_synapses_in_nm_and_frames(capped: AsyncCortexClient, capped_world: World) -> None:
    roots = frozen(capped_world, SYNAPSES)["pre_pt_root_id"].unique().to_list()[:5]
    split = await capped.query_synapses(roots)
    whole = await capped.query_synapses(roots, split_positions=False)
    points = np.stack(whole.sort_values("id")["ctr_pt_position"])
    np.testing.assert_array_equal(points, split.sort_values("id")[[f"ctr_pt_position_{a}" for a in "xyz"]])
    assert split.attrs["dataframe_resolution"] == [1.0, 1.0, 1.0]


async def test_wrong_questions_about_synapses(client: AsyncCortexClient) -> None:
    with pytest.raises(CortexUsageError, match="which synapses"):
        await client.query_synapses([1], pre=False, post=False)
    with pytest.raises(CortexUsageError, match="not both"):
        await client.query_synapses([1], version=3, live=True)
    with pytest.raises(CortexUsageError, match="floats"):
        await client.query_synapses([1.0])


async def test_the_queries_of_those_who_port_code(client: AsyncCortexClient, world: World) -> None:
    joined = await client.materialize.join_query(
        [[BACKUPS, "target_id"], [NUCLEI, "id"]], suffixes={BACKUPS: "_ref", NUCLEI: ""}
    )
    by_name = await client.tables[BACKUPS]().query()
    assert list(joined) == list(by_name)
    assert sorted(joined["id_ref"]) == sorted(by_name["id_ref"])
    other_way = await client.materialize.query_table(BACKUPS)
    assert sorted(other_way["id"]) == sorted(by_name["id_ref"])
    root = int(frozen(world, SYNAPSES)["pre_pt_root_id"][0])
    synapses = await client.materialize.synapse_query(pre_ids=root)
    again = await client.query_synapses(root, post=False)
    assert sorted(synapses["id"]) == sorted(again["id"])
