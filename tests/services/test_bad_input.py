"""Every bad id and every odd time, for every call of the chunkedgraph and for the translation in both directions.

What is promised: the documented value, or an error of the package that names the guilty ids; and an end.
"""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from tests.patience import HANG

from cortexclient import AsyncCortexClient, CortexError, CortexUsageError, NotFoundError
from cortexclient.errors import ServerError, ServerRefusedError
from cortexclient.sandbox import World

LIMIT = HANG
"""Seconds after which a call counts as hanging."""
NAIVE = datetime(2024, 6, 1)  # noqa: DTZ001
FUTURE = datetime(2090, 1, 1, tzinfo=UTC)


def instant(ms: int) -> datetime:
    return datetime(1970, 1, 1, tzinfo=UTC) + timedelta(milliseconds=ms)


@pytest.fixture(scope="module")
def ids(world: World) -> SimpleNamespace:
    graph = world.graph
    nodes, layers = graph.cells.node, graph.layout.layer(graph.cells.node)
    roots = np.sort(graph.root_ids())
    retired = graph.retired(roots) <= graph.newest_ms
    return SimpleNamespace(
        current=int(roots[~retired][0]),
        retired=int(roots[retired][0]),
        unknown=int(roots[-1]) + 12_345,
        supervoxel=int(nodes[layers == 1].min()),
        level2=int(nodes[layers == 2].min()),
        zero=0,
        negative=-5,
        huge=2**62 + 1,
        roots=roots,
    )


GRAPH_MANY = [
    "get_roots",
    "is_latest_roots",
    "is_valid_nodes",
    "get_root_timestamps",
    "get_root_lifetimes",
    "get_leaves_many",
    "get_lineage_graph",
    "get_root_overlaps_many",
    "get_past_ids",
    "get_tabular_change_log",
    "get_operation_details",
    "get_minimal_covering_nodes",
]
GRAPH_ONE = [
    "get_root_id",
    "get_leaves",
    "get_children",
    "get_latest_roots",
    "get_original_roots",
    "get_root_overlaps",
    "suggest_latest_roots",
    "get_change_log",
    "get_merge_log",
    "level2_chunk_graph",
    "get_subgraph",
    "find_path",
    "get_contact_sites",
]
CLIENT_MANY = ["root_id_to_cell_id", "cell_id_to_root_id", "update_roots", "best_version"]
KINDS = ["current", "retired", "unknown", "supervoxel", "level2", "zero", "negative", "huge"]
BOX = [[0, 1000], [0, 1000], [0, 1000]]
MORE: dict[str, tuple[Any, ...]] = {
    "get_past_ids": (datetime(2021, 1, 1, tzinfo=UTC),),
    "get_subgraph": (BOX,),
    "get_contact_sites": (BOX,),
    "find_path": ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0)),
}


async def ask(client: AsyncCortexClient, call: str, *args: Any, **options: Any) -> Any:
    owner = client if call in CLIENT_MANY else client.chunkedgraph
    return await asyncio.wait_for(getattr(owner, call)(*args, *MORE.get(call, ()), **options), LIMIT)


async def outcome(client: AsyncCortexClient, call: str, *args: Any, **options: Any) -> Any:
    """The value, or the error if it is one of the package."""
    try:
        return await ask(client, call, *args, **options)
    except CortexError as error:
        return error


# -- one bad id ----------------------------------------------------------------------------------------------------

NAMES_IT = {
    "get_root_timestamps": {"unknown", "supervoxel", "zero", "negative", "huge"},
    "get_root_lifetimes": {"unknown", "supervoxel", "zero", "negative", "huge"},
    "get_lineage_graph": {"unknown", "supervoxel", "zero", "negative", "huge"},
    "get_root_overlaps_many": {"unknown", "supervoxel", "zero", "negative", "huge"},
    "get_tabular_change_log": {"unknown", "supervoxel", "level2", "zero", "negative", "huge"},
    "get_past_ids": {"unknown", "supervoxel", "level2", "zero", "negative", "huge"},
    "get_root_id": {"zero", "negative", "huge"},
    "get_latest_roots": {"unknown", "supervoxel", "zero", "negative", "huge"},
    "get_original_roots": {"unknown", "supervoxel", "zero", "negative", "huge"},
    "get_root_overlaps": {"unknown", "supervoxel", "zero", "negative", "huge"},
    "suggest_latest_roots": {"unknown", "supervoxel", "zero", "negative", "huge"},
    "get_change_log": {"unknown", "supervoxel", "level2", "zero", "negative", "huge"},
    "get_merge_log": {"unknown", "supervoxel", "level2", "zero", "negative", "huge"},
    "best_version": {"unknown", "supervoxel", "zero", "negative", "huge"},
}
"""Which kinds of ids each call refuses, naming them. All others it answers with the documented value."""
AS_THE_SERVER = {"get_minimal_covering_nodes", "get_subgraph", "find_path", "get_contact_sites", "level2_chunk_graph"}
"""Thin calls: what they cannot answer is the server's own error."""


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("call", [*GRAPH_MANY, *GRAPH_ONE, *CLIENT_MANY])
async def test_one_id(client: AsyncCortexClient, ids: SimpleNamespace, call: str, kind: str) -> None:
    one = getattr(ids, kind)
    found = await outcome(client, call, one)
    if kind in NAMES_IT.get(call, ()):
        assert isinstance(found, NotFoundError | ServerError | ServerRefusedError), found
        assert one in found.ids
    elif call not in AS_THE_SERVER:
        assert not isinstance(found, CortexError), found
        check_value(call, kind, one, found)


def check_value(call: str, kind: str, one: int, found: Any) -> None:
    """The documented values for single ids that are not refused."""
    if call in ("get_leaves_many", "get_past_ids", "get_root_overlaps_many", "get_tabular_change_log"):
        assert list(found) == [one]
    if call == "get_leaves_many" and kind not in ("current", "retired", "level2"):
        assert found[one].dtype == np.int64
        assert len(found[one]) == 0
    if call == "get_roots":
        assert (found[0] == one) == (kind in ("current", "retired", "unknown", "zero"))
        assert (found[0] == 0) == (kind in ("zero", "negative", "huge"))
    if call == "is_latest_roots":
        assert found[0] == (kind == "current") or kind == "level2"
    if call == "is_valid_nodes":
        assert found[0] == (kind in ("current", "retired", "supervoxel", "level2"))
    if call == "root_id_to_cell_id":
        assert found["cell_id"][one] == -1 or kind in ("current", "retired")
        assert len(found) == 1
    if call == "cell_id_to_root_id":
        assert found["root_id"].tolist() == [-1]
    if call == "update_roots":
        assert found["status"].iloc[0] == {"current": "current", "retired": found["status"].iloc[0]}.get(
            kind, "invalid"
        )


# -- many ids, some of them bad ------------------------------------------------------------------------------------

REFUSE_MANY = ["get_root_timestamps", "get_root_lifetimes", "get_lineage_graph", "best_version"]


@pytest.mark.parametrize("call", REFUSE_MANY)
async def test_one_unknown_among_many_is_named(client: AsyncCortexClient, ids: SimpleNamespace, call: str) -> None:
    good = ids.roots[:10_000] if call != "get_lineage_graph" else ids.roots[:300]
    asked = np.insert(good, len(good) // 3, ids.unknown)
    error = await outcome(client, call, asked)
    assert isinstance(error, NotFoundError)
    assert error.ids == (ids.unknown,)
    assert error.partial is not None


@pytest.mark.parametrize(
    "call", ["get_roots", "is_latest_roots", "is_valid_nodes", "root_id_to_cell_id", "update_roots"]
)
async def test_one_unknown_among_many_spoils_nothing(
    client: AsyncCortexClient, ids: SimpleNamespace, world: World, call: str
) -> None:
    n = {"root_id_to_cell_id": 500, "update_roots": 500}.get(call, 10_000)
    asked = np.insert(ids.roots[:n], 3, ids.unknown)
    found = await ask(client, call, asked)
    assert len(found) == n + 1
    if call == "is_valid_nodes":
        assert found.sum() == n
    elif call == "root_id_to_cell_id":
        whole = await ask(client, call, ids.roots[:n])
        assert found["cell_id"].drop(ids.unknown).tolist() == whole["cell_id"].tolist()
    elif call == "is_latest_roots":
        assert (np.delete(found, 3) == (world.graph.retired(ids.roots[:n]) > world.graph.newest_ms)).all()


@pytest.mark.parametrize("call", [*GRAPH_MANY, *CLIENT_MANY])
async def test_all_unknown(client: AsyncCortexClient, ids: SimpleNamespace, call: str) -> None:
    asked = ids.unknown + np.arange(0, 40_000, 1_000)
    found = await outcome(client, call, asked)
    if call in NAMES_IT and "unknown" in NAMES_IT[call]:
        assert isinstance(found, NotFoundError)
        assert set(found.ids) == set(asked.tolist())
    elif call == "get_minimal_covering_nodes":
        assert isinstance(found, CortexError) or set(found.tolist()) <= set(asked.tolist())
    elif call == "get_operation_details":
        assert found == {}
    else:
        assert len(found) == len(asked)


@pytest.mark.parametrize("call", [*GRAPH_MANY, *CLIENT_MANY])
async def test_no_ids(client: AsyncCortexClient, call: str) -> None:
    before = client.stats.requests
    found = await outcome(client, call, [])
    if call == "get_lineage_graph":
        assert found["nodes"] == found["links"] == []
    elif call == "best_version":
        assert set(found["n_total"]) == {0}
    else:
        assert len(found) == 0
    assert client.stats.requests - before <= 8


@pytest.mark.parametrize("call", [*GRAPH_MANY, *CLIENT_MANY])
async def test_repeated_ids_are_one(client: AsyncCortexClient, ids: SimpleNamespace, call: str) -> None:
    asked = [ids.current, ids.retired, ids.current]
    found = await outcome(client, call, asked)
    if call == "get_minimal_covering_nodes":
        return  # of roots: the server's own error
    assert not isinstance(found, CortexError), found
    if isinstance(found, pd.DataFrame) and call != "best_version":
        assert found.index.tolist() == asked
        assert found.iloc[0].astype(str).tolist() == found.iloc[2].astype(str).tolist()
    elif isinstance(found, np.ndarray | pd.Index):
        assert len(found) == 3
        assert found[0] == found[2]
    elif call == "best_version":
        assert set(found["n_total"]) == {2}
    elif call not in ("get_lineage_graph", "get_operation_details"):
        assert list(found) == [ids.current, ids.retired]


@pytest.mark.parametrize("layer", [0, 1, 2, 5, 12, 13, 99])
async def test_odd_layers(client: AsyncCortexClient, ids: SimpleNamespace, layer: int) -> None:
    found = await outcome(client, "get_roots", [ids.supervoxel, ids.current], stop_layer=layer)
    if layer > 12:
        assert isinstance(found, ServerError | ServerRefusedError)
    else:
        assert ((found >> 56) >= (layer or 12)).all()


# -- what is no id at all ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("bad", "words"),
    [
        (1.5, "floats"),
        ([8.646911284551352e17], "floats"),
        (np.array([8.646911284551352e17]), "floats"),
        (pd.Series([864691128455135232, None]), "floats|missing"),
        ([True], "booleans"),
        (["12a"], "decimal digits"),
        ([None], "missing"),
        ([2**64], "64-bit"),
        (np.array([[1, 2], [3, 4]]), "one-dimensional"),
        (object(), "no id"),
    ],
)
@pytest.mark.parametrize("call", [*GRAPH_MANY, *GRAPH_ONE, *CLIENT_MANY])
async def test_what_is_no_id_is_refused_before_anything_is_sent(
    client: AsyncCortexClient, call: str, bad: Any, words: str
) -> None:
    before = client.stats.requests
    with pytest.raises(CortexUsageError, match=words):
        await ask(client, call, bad)
    assert client.stats.requests == before


# -- times ---------------------------------------------------------------------------------------------------------

TIMED = {
    "get_roots": "timestamp",
    "is_latest_roots": "timestamp",
    "get_root_timestamps": "timestamp",
    "get_root_lifetimes": "timestamp",
    "get_lineage_graph": "timestamp_future",
    "get_root_overlaps_many": "timestamp",
    "get_root_id": "timestamp",
    "get_latest_roots": "timestamp",
    "get_original_roots": "timestamp_past",
    "get_root_overlaps": "timestamp",
    "suggest_latest_roots": "timestamp",
    "root_id_to_cell_id": "timestamp",
    "cell_id_to_root_id": "timestamp",
    "update_roots": "timestamp",
}


@pytest.mark.parametrize("call", TIMED)
async def test_a_naive_time_is_refused(client: AsyncCortexClient, ids: SimpleNamespace, call: str) -> None:
    with pytest.raises(CortexUsageError, match="no time zone"):
        await ask(client, call, ids.current, **{TIMED[call]: NAIVE})


@pytest.mark.parametrize("call", TIMED)
async def test_a_text_is_no_time(client: AsyncCortexClient, ids: SimpleNamespace, call: str) -> None:
    with pytest.raises(CortexUsageError, match="datetime"):
        await ask(client, call, ids.current, **{TIMED[call]: "2024-06-01"})


@pytest.mark.parametrize("call", TIMED)
async def test_the_future_is_now(client: AsyncCortexClient, ids: SimpleNamespace, call: str) -> None:
    one = ids.supervoxel if call == "get_root_id" else ids.retired
    now = await ask(client, call, one, **{TIMED[call]: datetime.now(UTC)})
    then = await ask(client, call, one, **{TIMED[call]: FUTURE})
    if isinstance(now, pd.DataFrame):
        pd.testing.assert_frame_equal(then, now)
    else:
        assert str(then) == str(now)


@pytest.mark.parametrize("call", TIMED)
async def test_before_there_was_anything(
    client: AsyncCortexClient, ids: SimpleNamespace, world: World, call: str
) -> None:
    one = ids.supervoxel if call in ("get_root_id", "get_roots") else ids.retired
    found = await outcome(client, call, one, **{TIMED[call]: instant(world.graph.created_ms - 60_000)})
    if call == "get_roots":
        assert found.tolist() == [0]
    elif call == "is_latest_roots":
        assert found.tolist() == [False]
    elif call == "update_roots":
        assert found["status"].tolist() == ["invalid"]
    elif call == "get_root_id":
        assert isinstance(found, NotFoundError)
    elif call == "get_latest_roots":
        assert len(found) == 0 or isinstance(found, np.ndarray)
    elif isinstance(found, CortexError):
        assert isinstance(found, NotFoundError | ServerError | ServerRefusedError)
        assert one in found.ids or not found.ids
