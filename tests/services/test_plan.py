"""What a call will cost, against what it then costs."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import numpy as np
import pytest

from cortexclient import AsyncCortexClient, CortexUsageError, Limits
from cortexclient.sandbox import Sandbox, World

from .conftest import client_of

THEN = datetime(2023, 1, 1, tzinfo=UTC)


@pytest.fixture(scope="module")
def ids(world: World) -> dict[str, np.ndarray]:
    nodes = world.graph.cells.node
    supervoxels = np.unique(nodes[world.graph.layout.layer(nodes) == 1])
    cells = world.tables["nucleus_detection_v0"].rows["id"].to_numpy()
    roots = world.graph.root_ids()
    return {
        "supervoxels": supervoxels,
        "cells": cells,
        "roots": roots,
        "current": roots[world.graph.retired(roots) > 2**60],
    }


async def call(client: AsyncCortexClient, name: str, ids: Any, **options: Any) -> Any:
    return await (getattr(client, name, None) or getattr(client.chunkedgraph, name))(ids, **options)


@pytest.mark.parametrize(
    ("name", "kind", "n"),
    [
        ("get_roots", "supervoxels", 20_000),
        ("get_roots", "supervoxels", 3),
        ("get_root_timestamps", "roots", 15_000),
        ("is_latest_roots", "roots", 15_000),
        ("is_valid_nodes", "roots", 5_000),
    ],
)
async def test_look_ups_cost_what_was_said(
    flavour: str, sandbox: Sandbox, ids: dict[str, np.ndarray], name: str, kind: str, n: int
) -> None:
    async with client_of(flavour, sandbox) as client:
        asked = np.concatenate([ids[kind][:n], ids[kind][:n]])
        plan = client.plan(name, asked)
        assert client.stats.requests == 0
        sandbox.counters.reset()
        await call(client, name, asked)
        spent = sandbox.counters.snapshot().total
        assert plan.ids == 2 * plan.distinct
        assert plan.least == plan.most
        assert plan.most.requests == spent.requests
        assert plan.most.server_seconds == pytest.approx(spent.price, rel=0.05)
        assert plan.most.bytes == pytest.approx(spent.bytes_in + spent.bytes_out, rel=0.8)
        again = client.plan(name, asked)
        assert again.most.requests < plan.most.requests  # the descriptions are here now
        assert all(step.ids for step in again.steps)


@pytest.mark.parametrize("options", [{}, {"live": True}, {"timestamp": THEN}])
@pytest.mark.parametrize(
    ("name", "kind", "n"),
    [
        ("root_id_to_cell_id", "roots", 300),
        ("root_id_to_cell_id", "current", 2_000),
        ("cell_id_to_root_id", "cells", 1_500),
    ],
)
async def test_translations_cost_between_least_and_most(
    flavour: str, sandbox: Sandbox, ids: dict[str, np.ndarray], name: str, kind: str, n: int, options: dict[str, Any]
) -> None:
    asked = ids[kind][:: max(len(ids[kind]) // n, 1)][:n]
    async with client_of(flavour, sandbox) as client:
        plan = client.plan(name, asked, **options)
        sandbox.counters.reset()
        await call(client, name, asked, **options)
        spent = sandbox.counters.snapshot().total
    assert plan.least.requests <= spent.requests <= plan.most.requests
    assert spent.price <= plan.most.server_seconds


async def test_what_binds(client: AsyncCortexClient, ids: dict[str, np.ndarray]) -> None:
    await client.chunkedgraph.segmentation_info()
    assert client.plan("get_roots", ids["supervoxels"][:10]).bound_by == "the latency of one request"
    assert client.plan("get_roots", ids["supervoxels"][:5_000]).bound_by == "the ids in a request (Limits.batch)"
    assert client.plan("get_roots", range(72057594037927936, 72057594037927936 + 100_000)).bound_by.startswith(
        "requests at once (Limits: 16"
    )
    assert client.plan("get_roots", []).bound_by == "nothing is asked"
    assert client.plan("get_roots", []).most.requests == 0


async def test_limits_count(flavour: str, sandbox: Sandbox, ids: dict[str, np.ndarray]) -> None:
    limits = Limits(in_flight=2, batch={"roots_binary": 100})
    async with client_of(flavour, sandbox, limits=limits) as client:
        await client.chunkedgraph.segmentation_info()
        plan = client.plan("get_roots", ids["supervoxels"][:1_000])
        assert plan.most.requests == 10
        assert plan.most.seconds == pytest.approx(plan.most.server_seconds / 2)


async def test_it_shows_itself(client: AsyncCortexClient, ids: dict[str, np.ndarray]) -> None:
    plan = client.plan("root_id_to_cell_id", ids["roots"][:5_000])
    text = repr(plan)
    assert text.startswith("root_id_to_cell_id: 5,000 ids, 5,000 distinct. ")
    assert "if needed" in text
    assert "existence" in plan._repr_html_()


async def test_an_unknown_name_is_refused(client: AsyncCortexClient) -> None:
    with pytest.raises(CortexUsageError, match="did you mean 'get_roots'"):
        client.plan("get_root", [1])
    with pytest.raises(CortexUsageError, match="time zone"):
        client.plan("get_roots", [1], timestamp=datetime(2024, 1, 1))  # noqa: DTZ001
    with pytest.raises(CortexUsageError, match="floats"):
        client.plan("get_roots", [1.5])
