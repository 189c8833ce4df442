"""What a query will cost, against what it then costs."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import numpy as np
import pytest

from cortexclient import AsyncCortexClient, CortexUsageError, NotFoundError, TruncatedResult
from cortexclient.sandbox import Sandbox, World

from .conftest import CAP

NUCLEI, BACKUPS, SYNAPSES = "nucleus_detection_v0", "nucleus_alternative_points", "synapses_pni_2"
VIEW = "nucleus_detection_lookup_v1"


Query = Callable[[AsyncCortexClient, list[int]], Any]
"""Of a client and the ids of the nuclei there are."""


def nuclei(world: World) -> list[int]:
    ids: list[int] = world.tables[NUCLEI].rows["id"].to_list()
    return ids


def roots(world: World) -> list[int]:
    newest = max((v for v in world.versions if v.valid), key=lambda v: v.time_us)
    found: list[int] = world.annotations.frozen(SYNAPSES, newest)["pre_pt_root_id"].unique().to_list()
    return found


FITTING: dict[str, Query] = {
    "a filter": lambda client, ids: client.tables[NUCLEI](volume={">": 1e9}),
    "no ids": lambda client, ids: client.tables[NUCLEI](id=[]),
    "a few ids": lambda client, ids: client.tables[NUCLEI](id=ids[:20]),
    "a long list": lambda client, ids: client.tables[NUCLEI](id=np.arange(10**9, 10**9 + 25_000)),
    "a join": lambda client, ids: client.tables[BACKUPS](),
    "a view": lambda client, ids: client.views[VIEW](id=ids[:20]),
}


@pytest.mark.parametrize("name", FITTING)
async def test_a_query_that_fits_costs_exactly_what_was_said(
    capped: AsyncCortexClient, capped_sandbox: Sandbox, name: str
) -> None:
    query = FITTING[name](capped, nuclei(capped_sandbox.world))
    plan = await query.plan(row_cap=CAP)
    capped_sandbox.counters.reset()
    found = await query.query_arrow()
    spent = capped_sandbox.counters.snapshot().total
    assert plan.least == plan.most
    assert plan.most.requests == spent.requests
    assert plan.rows == found.num_rows
    assert plan.most.server_seconds == pytest.approx(spent.price, rel=0.05)


CUT: dict[str, Query] = {
    "a table by ranges of ids": lambda client, ids: client.tables[NUCLEI](),
    "synapses by ranges of ids": lambda client, ids: client.tables[SYNAPSES](),
    "a table by ids": lambda client, ids: client.tables[NUCLEI](id=ids),
    "a view": lambda client, ids: client.views[VIEW](),
}


@pytest.mark.parametrize("row_cap", [CAP, None], ids=["cap told", "cap seen"])
@pytest.mark.parametrize("name", CUT)
async def test_a_query_that_is_cut_costs_between_least_and_most(
    capped: AsyncCortexClient, capped_sandbox: Sandbox, name: str, row_cap: int | None
) -> None:
    if row_cap is None:
        assert (
            await capped.tables[NUCLEI]().plan()
        ).most.requests == 1  # a cap of 200,000 is what it takes for granted
        await capped.tables[NUCLEI]().query_arrow(["id"])
    query = CUT[name](capped, nuclei(capped_sandbox.world))
    plan = await query.plan(row_cap=row_cap)
    capped_sandbox.counters.reset()
    found = await query.query_arrow()
    spent = capped_sandbox.counters.snapshot().total
    assert plan.rows == found.num_rows
    assert plan.least.requests <= spent.requests <= plan.most.requests
    assert plan.most.requests <= 4 * spent.requests
    assert plan.least.server_seconds <= 1.05 * spent.price
    assert spent.price <= 1.05 * plan.most.server_seconds


async def test_synapses_of_many_roots(capped: AsyncCortexClient, capped_sandbox: Sandbox) -> None:
    query = capped.tables[SYNAPSES](pre_pt_root_id=roots(capped_sandbox.world))
    plan = await query.plan(row_cap=CAP)
    capped_sandbox.counters.reset()
    found = await query.query_arrow()
    spent = capped_sandbox.counters.snapshot().total
    assert plan.rows == found.num_rows > 5 * CAP
    assert plan.least.requests <= spent.requests <= plan.most.requests


async def test_live_rows_are_bounded(capped: AsyncCortexClient, capped_sandbox: Sandbox) -> None:
    when = (await capped.version_timestamp()) + timedelta(milliseconds=1)
    for query in (capped.tables[NUCLEI](), capped.tables[SYNAPSES](pre_pt_root_id=roots(capped_sandbox.world)[:9])):
        plan = await query.plan(timestamp=when, row_cap=CAP)
        capped_sandbox.counters.reset()
        found = await query.live_query(when)
        spent = capped_sandbox.counters.snapshot()
        queries = sum(tally.requests for route, tally in spent.routes.items() if route.startswith("POST"))
        assert plan.rows is not None
        assert len(found) <= plan.rows
        assert plan.least.requests <= queries <= plan.most.requests


async def test_a_limit_and_an_offset(capped: AsyncCortexClient, capped_sandbox: Sandbox) -> None:
    query = capped.tables[NUCLEI]()
    for limit in (5, CAP, 2 * CAP):
        plan = await query.plan(limit=limit, row_cap=CAP)
        assert plan.rows == limit
        capped_sandbox.counters.reset()
        await query.query_arrow(limit=limit)
        assert plan.least.requests <= capped_sandbox.counters.snapshot().total.requests <= plan.most.requests
    plan = await query.plan(offset=3, row_cap=CAP)
    capped_sandbox.counters.reset()
    with pytest.raises(TruncatedResult):
        await query.query_arrow(offset=3)
    assert plan.most.requests == capped_sandbox.counters.snapshot().total.requests


async def test_planning_sends_no_row(capped: AsyncCortexClient, capped_sandbox: Sandbox) -> None:
    query = capped.tables[SYNAPSES](pre_pt_root_id=np.arange(1, 25_000))
    await query.plan()
    capped_sandbox.counters.reset()
    await query.plan()
    spent = capped_sandbox.counters.snapshot().total
    assert spent.requests == 3
    assert spent.bytes_out < 5_000


async def test_what_binds_and_how_it_shows_itself(capped: AsyncCortexClient) -> None:
    one = await capped.tables[NUCLEI]().plan()
    assert one.bound_by == "the latency of one request"
    assert "requests" in repr(one)
    assert f"{one.rows:,} rows" in repr(one)
    cut = await capped.tables[NUCLEI]().plan(row_cap=CAP)
    assert cut.bound_by == f"the row cap ({CAP} rows a reply)"
    assert "parts of what is cut (if needed)" in cut._repr_html_()
    listed = await capped.tables[NUCLEI](id=np.arange(30_000)).plan()
    assert listed.bound_by == "the values in a list (10,000)"
    selected = await capped.tables[NUCLEI]().plan(["id"])
    assert selected.least.bytes < one.least.bytes


async def test_a_wrong_question_is_no_plan(capped: AsyncCortexClient) -> None:
    with pytest.raises(NotFoundError, match=NUCLEI):
        await capped.tables.nucleus_detection().plan()
    with pytest.raises(CortexUsageError, match="did you mean volume"):
        await capped.tables[NUCLEI](volum=1).plan()
    with pytest.raises(CortexUsageError, match="counts its rows first"):
        capped.plan("query_synapses", [1])
