"""Translation as its user sees it: order, kinds of ids, wrong questions, and how little is asked.

What the answers must be is proven by ``tests/referee/test_mapping_oracle.py``.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pytest
from tests.oracle import MAIN, oracle_cell_to_root, oracle_for, oracle_root_to_cell

from cortexclient import AsyncCortexClient, CortexClient, CortexUsageError, NotFoundError
from cortexclient.datasets import DatasetSpec
from cortexclient.errors import DeadlineExceeded
from cortexclient.sandbox import Sandbox, World
from cortexclient.sandbox.worlds.examples_page import CELLS, ROOTS

from .conftest import dressed

DETAIL = ["cell_id", "status", "timestamp", "source", "n_matches"]


@pytest.fixture(scope="module")
def roots(world: World) -> list[int]:
    """Roots of all ages, in no order."""
    return [int(i) for i in np.random.default_rng(0).permutation(world.graph.root_ids())[:400]]


@pytest.fixture(scope="module")
def cells(world: World) -> list[int]:
    ids = world.tables[MAIN].rows["id"].to_numpy()
    return [int(i) for i in np.random.default_rng(0).permutation(ids)[:200]]


# -- what comes back ---------------------------------------------------------------------------------------------------


async def test_one_row_for_each_root_in_the_order_given(
    client: AsyncCortexClient, world: World, roots: list[int]
) -> None:
    asked = [*roots, roots[3], 0, roots[0]]
    frame = await client.root_id_to_cell_id(asked)
    assert frame.index.to_list() == asked
    assert frame.index.name == "root_id"
    assert list(frame.columns) == ["cell_id"]
    assert frame["cell_id"].dtype == frame.index.dtype == np.int64
    assert frame["cell_id"].to_list() == [oracle_root_to_cell(world, root).id for root in asked]
    assert frame.attrs["version"] == 1484


async def test_one_row_for_each_cell_in_the_order_given(
    client: AsyncCortexClient, world: World, cells: list[int]
) -> None:
    asked = [*cells, cells[3], 7, cells[0]]
    frame = await client.cell_id_to_root_id(asked)
    assert frame.index.to_list() == asked
    assert frame.index.name == "cell_id"
    assert list(frame.columns) == ["root_id"]
    assert frame["root_id"].dtype == frame.index.dtype == np.int64
    assert frame["root_id"].to_list() == [oracle_cell_to_root(world, cell).id for cell in asked]


async def test_detail_explains_each_answer(client: AsyncCortexClient, world: World, roots: list[int]) -> None:
    frame = await client.root_id_to_cell_id([*roots, 5], detail=True)
    assert list(frame.columns) == DETAIL
    assert set(frame["status"]) <= {"ok", "none", "multiple", "invalid"}
    assert (frame["cell_id"] == -1).equals(frame["status"] != "ok")
    assert frame["timestamp"].isna().equals(frame["status"] == "invalid")
    assert frame["source"].notna().equals(frame["status"] == "ok")
    assert frame["n_matches"].dtype == np.int64
    born = (await client.root_lifetimes(roots))["start"]
    assert (frame["timestamp"][:-1] >= born).all()


async def test_nothing_asked_is_an_empty_frame(client: AsyncCortexClient) -> None:
    for call, column in ((client.root_id_to_cell_id, "cell_id"), (client.cell_id_to_root_id, "root_id")):
        frame = await call([], detail=True)
        assert len(frame) == 0
        assert frame[column].dtype == frame.index.dtype == np.int64


KINDS = {
    "list": list,
    "tuple": tuple,
    "array": np.array,
    "Series": pd.Series,
    "Index": pd.Index,
    "polars": pl.Series,
    "text": lambda ids: [str(i) for i in ids],
    "nullable": lambda ids: pd.Series(ids, dtype="Int64"),
}


@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
async def test_ids_of_all_kinds(client: AsyncCortexClient, kind: Any) -> None:
    frame = await client.root_id_to_cell_id(kind(list(ROOTS)))
    assert frame.index.to_list() == list(ROOTS)
    assert set(frame["cell_id"]) <= set(CELLS)
    back = await client.cell_id_to_root_id(kind(frame["cell_id"].to_list()))
    assert back["root_id"].iloc[0] == ROOTS[0]


async def test_a_single_id(client: AsyncCortexClient) -> None:
    assert len(await client.root_id_to_cell_id(ROOTS[0])) == 1
    assert len(await client.cell_id_to_root_id(CELLS[0])) == 1


# -- which tables, which instant ---------------------------------------------------------------------------------------


async def test_a_pinned_client_answers_like_the_version(
    client: AsyncCortexClient, world: World, roots: list[int]
) -> None:
    """Also about roots that are younger than the pin."""
    pinned = await client.at(version=661).root_id_to_cell_id(roots, detail=True)
    asked = await client.root_id_to_cell_id(roots, version=661, detail=True)
    pd.testing.assert_frame_equal(pinned, asked)
    assert pinned.attrs["version"] == 661
    assert pinned["cell_id"].to_list() == [oracle_root_to_cell(world, root, 661).id for root in roots]


async def test_a_client_pinned_to_an_instant_asks_the_live_tables(
    client: AsyncCortexClient, world: World, roots: list[int]
) -> None:
    when = datetime(2022, 5, 5, 5, 5, 5, tzinfo=UTC)
    pinned = await client.at(timestamp=when).root_id_to_cell_id(roots)
    asked = await client.root_id_to_cell_id(roots, timestamp=when)
    assert pinned["cell_id"].equals(asked["cell_id"])
    us = int(when.timestamp() * 1e6)
    assert asked["cell_id"].to_list() == [oracle_for(world).root_to_cell(root, us).id for root in roots]
    assert (pinned.attrs["version"], pinned.attrs["timestamp"]) == (None, when.isoformat())


async def test_an_instant_that_is_a_versions_is_that_version(client: AsyncCortexClient, roots: list[int]) -> None:
    """Of which the live tables refuse to tell."""
    when = await client.version_timestamp(661)
    frozen = await client.root_id_to_cell_id(roots, version=661)
    live = await client.root_id_to_cell_id(roots, timestamp=when)
    pd.testing.assert_frame_equal(live, frozen)
    assert live.attrs["version"] == 661


async def test_cells_at_any_instant(client: AsyncCortexClient, world: World, cells: list[int]) -> None:
    when = datetime(2022, 5, 5, 5, 5, 5, tzinfo=UTC)
    ms = int(when.timestamp() * 1000)
    moved = await client.cell_id_to_root_id(cells, timestamp=when)
    assert moved["root_id"].to_list() == [oracle_cell_to_root(world, cell, time_ms=ms).id for cell in cells]
    live = await client.cell_id_to_root_id(cells, timestamp=when, live=True)
    expected = [oracle_cell_to_root(world, cell, time_ms=ms, live=True).id for cell in cells]
    assert live["root_id"].to_list() == expected


# -- wrong questions ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "ids", [[1.0], np.array([864691135885645050.0]), [None], pd.Series([1.0, np.nan]), ["x"], [[1, 2]], [2**64], [True]]
)
async def test_what_is_no_id_is_refused_unsent(client: AsyncCortexClient, sandbox: Sandbox, ids: Any) -> None:
    sandbox.counters.reset()
    for call in (client.root_id_to_cell_id, client.cell_id_to_root_id):
        with pytest.raises(CortexUsageError):
            await call(ids)
    assert sandbox.counters.snapshot().total.requests == 0


async def test_naive_times_are_refused_with_the_fix(client: AsyncCortexClient) -> None:
    for call in (client.root_id_to_cell_id, client.cell_id_to_root_id):
        with pytest.raises(CortexUsageError, match=r"tzinfo=timezone\.utc"):
            await call([1], timestamp=datetime(2022, 1, 1))  # noqa: DTZ001


async def test_one_state_of_the_tables_is_asked_not_two(client: AsyncCortexClient) -> None:
    when = datetime(2022, 1, 1, tzinfo=UTC)
    with pytest.raises(CortexUsageError, match="not both"):
        await client.root_id_to_cell_id([1], version=661, timestamp=when)
    with pytest.raises(CortexUsageError, match="not both"):
        await client.cell_id_to_root_id([1], version=661, live=True)


async def test_an_unknown_version_is_told_with_the_nearest(client: AsyncCortexClient) -> None:
    for call in (client.root_id_to_cell_id, client.cell_id_to_root_id):
        with pytest.raises(NotFoundError, match="1483") as caught:
            await call([1], version=1483)
        assert "1484" in caught.value.nearest


async def test_a_dataset_without_a_table_of_cells(flavour: str, sandbox: Sandbox) -> None:
    spec = DatasetSpec(name="bare", datastack="minnie65_public", server=sandbox.url)
    made = {"async": AsyncCortexClient, "sync": CortexClient}[flavour]
    async with dressed(made(spec, token=sandbox.token)) as client:
        with pytest.raises(CortexUsageError, match="nucleus_table="):
            await client.root_id_to_cell_id(list(ROOTS))


async def test_a_deadline_is_kept(client: AsyncCortexClient, sandbox: Sandbox, roots: list[int]) -> None:
    sandbox.weather.latency = 0.3
    try:
        with pytest.raises(DeadlineExceeded, match=r"timeout=0\.2"):
            await client.root_id_to_cell_id(roots, timeout=0.2)
    finally:
        sandbox.weather.latency = 0.0


# -- how little is asked -----------------------------------------------------------------------------------------------


async def test_what_is_known_is_not_asked_again(client: AsyncCortexClient, sandbox: Sandbox, roots: list[int]) -> None:
    first = await client.root_id_to_cell_id(roots, detail=True)
    sandbox.counters.reset()
    again = await client.root_id_to_cell_id(roots[::-1], detail=True)
    assert sandbox.counters.snapshot().total.requests == 0
    pd.testing.assert_frame_equal(again[::-1], first)


async def test_requests_follow_versions_not_ids(client: AsyncCortexClient, sandbox: Sandbox, world: World) -> None:
    """All roots there ever were: some for each version, a batch for 2,000 ids, and instants that many lives share."""
    everything = world.graph.root_ids()
    sandbox.counters.reset()
    frame = await client.root_id_to_cell_id(everything)
    assert (frame["cell_id"] > 0).sum() > 5_000
    assert sandbox.counters.snapshot().total.requests < len(world.graph.operations) / 3 < len(everything) / 9


async def test_progress_reaches_the_number_of_distinct_ids(client: AsyncCortexClient, roots: list[int]) -> None:
    seen: list[Any] = []
    await client.root_id_to_cell_id([*roots, *roots[:50]], progress=seen.append)
    assert seen[-1].done == seen[-1].total == len(set(roots))
