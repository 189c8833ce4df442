"""Tables that refer to others at other resolutions, and every bad input or fault of a query: its typed error."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import numpy as np
import pandas as pd
import polars as pl
import pytest

from cortexclient import AsyncCortexClient, CortexUsageError, NotFoundError, RetryPolicy
from cortexclient.errors import CortexError, DecodeError, UnavailableError
from cortexclient.sandbox import Sandbox, World
from cortexclient.sandbox.tables import Table

from .conftest import client_of

NUCLEI, SYNAPSES = "nucleus_detection_v0", "synapses_pni_2"
COARSE, TAGS, SPOTS = "coarse_points", "synapse_tags", "synapse_spots"
CAP = 60
COARSE_NM, SPOTS_NM = (9.7, 9.7, 45.0), (16.0, 16.0, 40.0)


def refers(world: World, name: str, to: str, step: int, schema: str, **columns: Any) -> None:
    """Add a reference table about every so many rows of another one, to the world and to all of its versions."""
    ids = world.tables[to].rows["id"].to_numpy()[::step]
    rows = {"id": np.arange(1, len(ids) + 1), "created": world.tables[to].rows["created"][::step], "target_id": ids}
    rows |= {column: value(len(ids)) for column, value in columns.items()}
    unit = {COARSE: COARSE_NM, SPOTS: SPOTS_NM}.get(name, (4.0, 4.0, 40.0))
    world.tables[name] = Table(name, schema, unit, pl.DataFrame(rows), reference_table=to)
    world.versions = [replace(version, tables=(*version.tables, name)) for version in world.versions]


def axis(factor: int) -> Any:
    return lambda n: pl.Series(np.arange(n) * factor + 1, dtype=pl.Int32)


@pytest.fixture(scope="module")
def referring() -> Iterator[dict[str, Sandbox]]:
    """Servers with tables of several resolutions, which give few rows at once."""
    world = World.synthesize(6, nuclei=200, edits=40, backups=10, synapses=5_000, versions=3, expired=1)
    place = {f"pt_position_{a}": axis(k) for k, a in enumerate("xyz", 1)}
    supervoxels = {"pt_supervoxel_id": lambda n: np.resize(world.tables[NUCLEI].rows["pt_supervoxel_id"], n)}
    refers(world, COARSE, NUCLEI, 3, "reference_point", **place, **supervoxels)
    refers(world, SPOTS, SYNAPSES, 5, "reference_point", **place, **supervoxels)
    refers(world, TAGS, SYNAPSES, 2, "reference_tag", tag=lambda n: [f"tag {i % 3}" for i in range(n)])
    world.row_cap = CAP
    with Sandbox(world, strict=True) as strict, Sandbox(world) as repaired:
        yield {"async": strict, "sync": repaired}


@pytest.fixture
def own(referring: dict[str, Sandbox], flavour: str) -> World:
    return referring[flavour].world


@pytest.fixture
async def client(flavour: str, referring: dict[str, Sandbox]) -> AsyncIterator[AsyncCortexClient]:
    async with client_of(flavour, referring[flavour]) as client:
        yield client


def frozen(world: World, table: str) -> pd.DataFrame:
    return pd.DataFrame(world.annotations.frozen(table, world.version()).to_dict(as_series=False)).set_index("id")


# -- several resolutions -----------------------------------------------------------------------------------------------

POINT = [f"pt_position_{a}" for a in "xyz"]
THEIRS = [f"pt_position_ref_{a}" for a in "xyz"]


@pytest.mark.parametrize("unit", [(1, 1, 1), (1000, 1000, 1000), (4, 4, 40), None], ids=str)
async def test_each_table_of_a_join_is_scaled_by_its_own_resolution(
    client: AsyncCortexClient, own: World, unit: tuple[int, ...] | None
) -> None:
    """The servers cut fractions off, so that the joined points come in a finer unit and are scaled here."""
    wanted = np.array(unit or (4, 4, 40), float)
    nuclei, coarse = frozen(own, NUCLEI), frozen(own, COARSE)
    coarse = coarse[coarse["target_id"].isin(nuclei.index)]
    found = (await client.tables[COARSE]().query(desired_resolution=unit, split_positions=True)).set_index("id_ref")
    assert sorted(found.index) == sorted(coarse.index)
    assert len(found) > CAP
    of_nuclei = nuclei.loc[found["target_id"], POINT].to_numpy() * (4, 4, 40) / wanted
    of_coarse = coarse.loc[found.index, POINT].to_numpy() * COARSE_NM / wanted
    np.testing.assert_allclose(found[POINT], of_nuclei, rtol=1e-12)
    np.testing.assert_allclose(found[THEIRS], of_coarse, rtol=1e-12)
    assert found.attrs["dataframe_resolution"] == wanted.tolist()


async def test_live_joins_are_scaled_likewise(client: AsyncCortexClient, own: World) -> None:
    when = (await client.version_timestamp()) + timedelta(milliseconds=1)
    query = client.tables[COARSE](id_ref=[1, 2, 3, 4])
    live = (await query.live_query(when, desired_resolution=[1, 1, 1], split_positions=True)).set_index("id_ref")
    coarse = frozen(own, COARSE).loc[live.index, POINT].to_numpy()
    assert len(live) == 4
    np.testing.assert_allclose(live[THEIRS], coarse * COARSE_NM, rtol=1e-12)


# -- tables about synapses ---------------------------------------------------------------------------------------------


@pytest.fixture
def asked(own: World) -> list[int]:
    roots: list[int] = own.annotations.frozen(SYNAPSES, own.version())["pre_pt_root_id"].unique().sort().to_list()
    return roots[:80]


async def test_reference_tables_add_their_columns(client: AsyncCortexClient, own: World, asked: list[int]) -> None:
    plain = (await client.query_synapses(asked)).set_index("id").sort_index()
    found = await client.query_synapses(asked, reference_tables=[TAGS, SPOTS])
    assert found["id"].is_unique
    found = found.set_index("id").sort_index()
    assert len(plain) > 2 * CAP
    pd.testing.assert_frame_equal(found[plain.columns], plain, check_dtype=True)
    tags, spots = (frozen(own, name).reset_index().set_index("target_id") for name in (TAGS, SPOTS))
    assert found["tag"].dropna().to_dict() == tags["tag"].reindex(found.index).dropna().to_dict()
    assert 0 < found["tag"].notna().sum() < len(found)
    expected = spots.reindex(found.index)
    np.testing.assert_allclose(found["pt_position_x"].to_numpy(float, na_value=np.nan), expected["pt_position_x"] * 16)
    assert found[f"id_{SPOTS}"].dtype == "Int64"


async def test_suffixes_are_the_callers(client: AsyncCortexClient, asked: list[int]) -> None:
    found = await client.query_synapses(asked[:5], reference_tables=[TAGS], suffixes={TAGS: "_tag"})
    assert {"id_tag", "valid_tag", "tag"} <= set(found)


async def test_live_synapses_have_their_tags_too(client: AsyncCortexClient, asked: list[int]) -> None:
    when = (await client.version_timestamp()) + timedelta(milliseconds=1)
    live = (await client.query_synapses(asked[:30], timestamp=when, reference_tables=[TAGS])).set_index("id")
    at_version = (await client.query_synapses(asked[:30], reference_tables=[TAGS])).set_index("id")
    assert live["tag"].dropna().to_dict() == at_version["tag"].dropna().to_dict()


async def test_a_table_that_is_not_about_synapses_is_refused(client: AsyncCortexClient, asked: list[int]) -> None:
    with pytest.raises(NotFoundError, match=TAGS):
        await client.query_synapses(asked[:2], reference_tables=["synapse_tagz"])
    with pytest.raises(CortexError, match="target_id"):
        await client.query_synapses(asked[:2], reference_tables=[NUCLEI])


# -- bad input ---------------------------------------------------------------------------------------------------------


async def test_versions_that_are_gone_or_to_come(client: AsyncCortexClient, own: World) -> None:
    expired = next(version.version for version in own.versions if not version.valid)
    future = max(version.version for version in own.versions) + 1
    for number, why in ((expired, "is expired"), (future, f"no version {future}")):
        pairs, query = [[COARSE, "target_id"], [NUCLEI, "id"]], client.tables[NUCLEI]()
        with pytest.raises(NotFoundError, match=why):
            await query.query(version=number)
        with pytest.raises(NotFoundError, match=why):
            await query.count(number)
        with pytest.raises(NotFoundError, match=why):
            await query.plan(version=number)
        with pytest.raises(NotFoundError, match=why):
            await client.views.nucleus_detection_lookup_v1().query(version=number)
        with pytest.raises(NotFoundError, match=why):
            await client.query_synapses([1], version=number)
        with pytest.raises(NotFoundError, match=why):
            await client.synapse_edges([1], version=number)
        with pytest.raises(NotFoundError, match=why):
            await client.materialize.join_query(pairs, materialization_version=number)


async def test_a_version_and_a_timestamp_are_not_both_taken(client: AsyncCortexClient) -> None:
    now = datetime.now(UTC)
    for query in (
        client.tables[NUCLEI]().query_polars(version=1, timestamp=now),
        client.tables[NUCLEI]().count(1, now),
        client.query_synapses([1], version=1, timestamp=now),
        client.synapse_edges([1], version=1, timestamp=now),
    ):
        with pytest.raises(CortexUsageError, match="not both"):
            await query


async def test_a_naive_time_is_refused(client: AsyncCortexClient) -> None:
    naive = datetime(2024, 1, 1)  # noqa: DTZ001
    for query in (
        client.tables[NUCLEI]().query_arrow(timestamp=naive),
        client.query_synapses([1], timestamp=naive),
        client.materialize.live_live_query(NUCLEI, naive),
    ):
        with pytest.raises(CortexUsageError, match="no time zone"):
            await query


async def test_one_root_with_more_rows_than_the_cap_comes_whole(client: AsyncCortexClient, own: World) -> None:
    """Its list cannot be cut any further: ranges of ids are."""
    truth = own.annotations.frozen(SYNAPSES, own.version())
    (root, rows), *_ = truth["post_pt_root_id"].value_counts(sort=True).iter_rows()
    expected = truth.filter(truth["post_pt_root_id"] == root)["id"].to_list()
    others = truth["post_pt_root_id"].unique().head(3).to_list()
    assert rows > CAP
    for roots in ([root], [root, *others]):
        found = await client.query_synapses(roots, pre=False, remove_autapses=False)
        assert sorted(found.loc[found["post_pt_root_id"] == root, "id"]) == sorted(expected)


# -- faults ------------------------------------------------------------------------------------------------------------


async def test_a_500_that_is_a_404_is_a_404(flavour: str, own: World) -> None:
    """As the real server answers for a table that is not there: code 500, the true one in the message."""
    path = f"materialize/api/v3/datastack/minnie65_public/version/{own.version().version}/table/nucleus_detection/query"
    with Sandbox(own, strict=True) as strict:
        headers = {"Authorization": f"Bearer {strict.token}"}
        async with httpx.AsyncClient(trust_env=False, headers=headers) as raw:
            reply = await raw.post(f"{strict.url}/{path}", json={})
        assert reply.status_code == 500
        assert "404 Not Found" in reply.text
        async with client_of(flavour, strict) as client:
            with pytest.raises(NotFoundError) as caught:
                await client.materialize.query_table("nucleus_detection", merge_reference=False)
            assert NUCLEI in caught.value.nearest
            sent = client.stats.requests
            assert sent <= 8, "it is tried only once"


@pytest.mark.parametrize("fault", ["truncated", "short"])
async def test_a_body_that_is_always_cut_is_an_error(flavour: str, own: World, fault: str) -> None:
    """Whether the wire shows it or not: an Arrow stream ends with a mark."""
    with Sandbox(own) as sandbox:
        async with client_of(flavour, sandbox, retry=RetryPolicy(attempts=2, base=0.01)) as client:
            await client.tables.load()
            await client.tables[NUCLEI](id=[1]).query()
            sandbox.faults = f"{fault}:100%"
            with pytest.raises(DecodeError if fault == "short" else UnavailableError) as caught:
                await client.tables[NUCLEI](id=[1]).query()
            assert caught.value.endpoint == "materialize/table_query"
            assert caught.value.partial is None


async def test_what_came_before_a_cut_body_is_kept(flavour: str, own: World) -> None:
    truth = set(own.annotations.frozen(SYNAPSES, own.version())["id"].to_list())
    with Sandbox(own, faults="short:15%") as sandbox:
        async with client_of(flavour, sandbox) as client:
            kept = [await partial_of(client.tables[SYNAPSES]().query(["id", "size"])) for _ in range(12)]
    came = [set(frame["id"]) for frame in kept if frame is not None]
    assert any(came)
    assert all(ids < truth for ids in came)


async def partial_of(query: Any) -> pd.DataFrame | None:
    """What a call that failed had got."""
    try:
        await query
    except CortexError as error:
        return error.partial
    return None
