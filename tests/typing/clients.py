"""Both clients as a user's type checker sees them; checked by mypy and pyright, never run."""

from __future__ import annotations

from datetime import datetime
from typing import Any, assert_type

import numpy as np
import numpy.typing as npt
import pandas as pd

from cortexclient import AsyncCortexClient, CortexClient, DatasetSpec, Limits, Outcome, SyncStream, load_client
from cortexclient._sync import ChunkedGraph, Materialize
from cortexclient.datasets.minnie_public import client as preset
from cortexclient.services.chunkedgraph import AsyncChunkedGraph
from cortexclient.services.materialize import AsyncMaterialize

Ids64 = npt.NDArray[np.int64]


async def asynchronous(when: datetime, ids: Ids64, frame: pd.DataFrame) -> None:
    async with AsyncCortexClient("minnie_public", version=1412, limits=Limits(in_flight=4)) as client:
        assert_type(client, AsyncCortexClient)
        assert_type(client.at(timestamp=when), AsyncCortexClient)
        assert_type(client.chunkedgraph, AsyncChunkedGraph)
        assert_type(client.materialize, AsyncMaterialize)
        assert_type(await client.root_id_to_cell_id(ids, detail=True), pd.DataFrame)
        assert_type(await client.get_roots([1, 2], when), Ids64)
        assert_type(await client.chunkedgraph.get_root_id(1), int)
        assert_type(await client.is_latest_roots(ids, timeout=3), npt.NDArray[np.bool_])
        assert_type(await client.chunkedgraph.get_leaves_many(ids), dict[int, Ids64])
        assert_type(await client.materialize.query_table("t", filter_in_dict={"id": [1]}), pd.DataFrame)
        assert_type(client.now(), datetime)
        await client.materialize.query_table("t", filter_in="id")  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
        await client.get_roots(1.5)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


def blocking(when: datetime, ids: Ids64, spec: DatasetSpec) -> None:
    with CortexClient(spec, version=1412, limits=Limits(in_flight=4)) as client:
        assert_type(client, CortexClient)
        assert_type(client.at(timestamp=when), CortexClient)
        assert_type(client.chunkedgraph, ChunkedGraph)
        assert_type(client.materialize, Materialize)
        assert_type(client.root_id_to_cell_id(ids, detail=True), pd.DataFrame)
        assert_type(client.get_roots([1, 2], when), Ids64)
        assert_type(client.chunkedgraph.get_root_id(1), int)
        assert_type(client.is_latest_roots(ids, timeout=3), npt.NDArray[np.bool_])
        assert_type(client.chunkedgraph.get_leaves_many(ids), dict[int, Ids64])
        assert_type(client.materialize.query_table("t", filter_in_dict={"id": [1]}), pd.DataFrame)
        assert_type(client.now(), datetime)
        client.materialize.query_table("t", filter_in="id")  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
        client.get_roots(1.5)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


def what_ids_may_be(client: CortexClient, frame: pd.DataFrame) -> None:
    for ids in (864691135, "864691135", range(3), {1, 2}, np.array([1]), frame["id"], frame.index):
        client.get_roots(ids)


def streams(stream: SyncStream[float]) -> None:
    with stream as outcomes:
        for outcome in outcomes:
            assert_type(outcome, Outcome[float])
            assert_type(outcome.unwrap(), float)


assert_type(preset, CortexClient)
assert_type(load_client("v1dd"), CortexClient)
assert_type(preset.get_datastack_info(), dict[str, Any])
