"""The id mapping against the brute-force oracle, on small worlds that hypothesis makes awkward."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import numpy as np
import pandas as pd
import polars as pl
import pytest
from hypothesis import HealthCheck, Phase, assume, given, settings
from hypothesis import strategies as st
from tests.oracle import BACKUPS, MAIN, Answer, Oracle, oracle_for

from cortexclient import AsyncCortexClient
from cortexclient.config import Limits
from cortexclient.errors import NotFoundError
from cortexclient.mapping import _annotations, _search
from cortexclient.sandbox import Sandbox, World
from cortexclient.sandbox.tables import from_us

UNKNOWN_SEGMENT = 2**40 - 5
"""A segment id that no made node has."""

ROUTES = {
    "lineages": {},
    "older versions": {(_search, "MANY"): 0},
    "whole tables": {(_search, "MANY"): 0, (_annotations, "WHOLE_FROM"): 0},
}
"""What is changed to drive the mapping along each of its routes."""


# -- worlds ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Change:
    """One thing that is made awkward: numbers are taken modulo what there is."""

    kind: str
    cell: int
    other: int
    created: float
    deleted: float | None


CHANGES = st.builds(
    Change,
    kind=st.sampled_from(["backup", "backup at 0", "backup on main", "main at 0", "main on main", "main ends", "late"]),
    cell=st.integers(0, 40),
    other=st.integers(0, 400),
    created=st.floats(0, 1),
    deleted=st.none() | st.floats(0, 1),
)


@dataclass(frozen=True)
class Plan:
    """A world in few words, for hypothesis to print and to shrink."""

    seed: int
    nuclei: int
    edits: int
    fragments: int
    backups: int
    versions: int
    expired: int
    changes: tuple[Change, ...]
    merged: frozenset[int]

    def world(self) -> World:
        counts = {
            name: getattr(self, name) for name in ("nuclei", "edits", "fragments", "backups", "versions", "expired")
        }
        world = World.synthesize(self.seed, synapses=1, **counts)
        for change in self.changes:
            apply(world, change)
        world.versions = [replace(v, is_merged=i in self.merged) for i, v in enumerate(world.versions)]
        return world


PLANS = st.builds(
    Plan,
    seed=st.integers(0, 10_000),
    nuclei=st.integers(8, 16),
    edits=st.integers(0, 50),
    fragments=st.integers(0, 10),
    backups=st.integers(0, 6),
    versions=st.integers(1, 4),
    expired=st.integers(0, 3),
    changes=st.lists(CHANGES, max_size=8).map(tuple),
    merged=st.frozensets(st.integers(0, 7), max_size=3),
)


def apply(world: World, change: Change) -> None:
    mains, backups = world.tables[MAIN], world.tables[BACKUPS]
    row = mains.rows.row(change.cell % mains.rows.height, named=True)
    supervoxels = np.unique(world.graph.cells.node[world.graph.layout.layer(world.graph.cells.node) == 1])
    other = mains.rows.row(change.other % mains.rows.height, named=True)
    if change.kind.startswith("backup"):
        at = {"backup at 0": 0, "backup on main": other["pt_supervoxel_id"]}
        new = {
            **row,
            "id": 10_000 + backups.rows.height,
            "target_id": row["id"],
            "pt_supervoxel_id": at.get(change.kind, int(supervoxels[change.other % len(supervoxels)])),
        }
        backups.rows = pl.concat([backups.rows, lifetime(world, change, new, backups.rows.schema)])
        return
    moved = {"main at 0": 0, "main on main": other["pt_supervoxel_id"]}
    if change.kind in moved:
        values = {**row, "pt_supervoxel_id": moved[change.kind]}
        new_row = pl.DataFrame([values], schema=mains.rows.schema)
    else:
        alive = change if change.kind == "main ends" else replace(change, deleted=None)
        new_row = lifetime(world, alive, row, mains.rows.schema)
    mains.rows = pl.concat([mains.rows.filter(pl.col("id") != row["id"]), new_row])


def lifetime(world: World, change: Change, row: dict[str, Any], schema: Any) -> pl.DataFrame:
    """One row that is created, and perhaps deleted, at shares of the world's history."""
    first, last = span_us(world)
    created = first + int((last - first) * change.created)
    values = {name: row[name] for name in schema} | {"created": from_us(created), "deleted": None, "valid": True}
    if change.deleted is not None:
        values |= {"deleted": from_us(created + 1 + int((last - created) * change.deleted)), "valid": False}
    return pl.DataFrame([values], schema=schema)


def span_us(world: World) -> tuple[int, int]:
    """From the making of the graph to after its last edit and version, microseconds."""
    edits = [operation.time_ms for operation in world.graph.operations.values()]
    versions = [version.time_us for version in world.versions]
    return world.graph.created_ms * 1000, max([max(edits, default=0) * 1000, *versions]) + 10**10


# -- questions and answers -------------------------------------------------------------------------------------------


def asked_roots(world: World, rng: np.random.Generator) -> np.ndarray:
    """All roots there ever were, some twice, and ids that are none."""
    graph = world.graph
    roots = graph.root_ids()
    nodes = graph.cells.node
    unknown = graph.layout.make(graph.layout.n_layers, np.zeros((1, 3), np.int64), np.array([UNKNOWN_SEGMENT]))
    odd = np.concatenate([[0, -5, 1, 2**63 - 1], unknown, rng.choice(nodes, 3)])
    return rng.permutation(np.concatenate([roots, roots[:3], odd]).astype(np.int64))


def asked_cells(world: World, rng: np.random.Generator) -> np.ndarray:
    cells = world.tables[MAIN].rows["id"].to_numpy()
    return rng.permutation(np.concatenate([cells, cells[:3], [0, -5, 7, 2**63 - 1]]).astype(np.int64))


def counted_root_to_cell(oracle: Oracle, root: int, us: int) -> tuple[Answer, int]:
    answer = oracle.root_to_cell(root, us)
    if answer.status in {"none", "invalid"}:
        return answer, 0
    points, supervoxels = oracle.points(us), oracle.supervoxels(root)
    owned = set().union(*(points.effective_at.get(s, set()) for s in supervoxels))
    return answer, len(owned or set().union(*(points.replaced_at.get(s, set()) for s in supervoxels)))


def counted_cell_to_root(oracle: Oracle, cell: int, us: int, ms: int) -> tuple[Answer, int]:
    roots = {oracle.root_at(s, ms) for s in oracle.points(us).of_cell.get(cell, ()) if s} - {0}
    return oracle.cell_to_root(cell, us, ms), len(roots)


def expect(frame: pd.DataFrame, asked: np.ndarray, value: str, expected: list[tuple[Answer, int]]) -> None:
    """Every id has its one answer, in the order asked, as the oracle has it."""
    assert frame.index.to_list() == asked.tolist()
    assert frame[value].dtype == np.int64
    sources = [None if pd.isna(source) else source for source in frame["source"]]
    found = list(zip(frame[value].tolist(), frame["status"], sources, frame["n_matches"].tolist(), strict=True))
    wrong = [
        (one, got, (*answer, count))
        for one, got, (answer, count) in zip(asked.tolist(), found, expected, strict=True)
        if got != (*answer, count)
    ]
    assert not wrong, "(id, found, oracle): " + "\n".join(map(str, wrong[:5]))


def expect_seen_alive(frame: pd.DataFrame, world: World) -> None:
    """Each answer names an instant at which the root was current; an invalid id has none."""
    graph, roots = world.graph, frame.index.to_numpy()
    invalid = (frame["status"] == "invalid").to_numpy()
    assert frame["timestamp"].isna().to_numpy().tolist() == invalid.tolist()
    at = (
        frame["timestamp"][~invalid].astype("int64") // int(1e6 if frame["timestamp"].dt.unit == "ns" else 1)
    ).to_numpy()
    born, gone = graph.created(roots[~invalid]), graph.retired(roots[~invalid])
    assert (born <= at).all()
    assert (at < gone).all()


@contextmanager
def on_route(name: str) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        for (module, constant), value in ROUTES[name].items():
            patch.setattr(module, constant, value)
        yield


async def mapped(world: World, strict: bool, call: Any) -> Any:
    """Run one or more calls on a client of its own, over ASGI: no ports, no threads to wait for."""
    sandbox = Sandbox(world, strict=strict)
    async with (
        httpx.AsyncClient(transport=httpx.ASGITransport(app=sandbox.asgi)) as http,
        AsyncCortexClient(
            sandbox.spec,
            server="http://sandbox",
            token=sandbox.token,
            http_client=http,
            limits=Limits(batch={"roots_binary": 40}),
        ) as client,
    ):
        return await call(client)


# -- tests -----------------------------------------------------------------------------------------------------------

EXAMPLES = settings(
    max_examples=12,
    deadline=None,
    suppress_health_check=list(HealthCheck),
    database=None,
    phases=(Phase.explicit, Phase.generate, Phase.shrink),
    print_blob=False,
)
SEEDS = st.integers(0, 2**32 - 1)


def valid_versions(world: World) -> list[int]:
    first = next(iter(world.datastacks))
    return sorted(v.version for v in world.versions if v.valid and v.datastack == first)


@pytest.mark.parametrize("route", ROUTES)
@EXAMPLES
@given(plan=PLANS, seed=SEEDS, strict=st.booleans(), version=st.none() | st.integers(0, 3), pinned=st.booleans())
def test_roots_by_the_tables_of_a_version(
    route: str, plan: Plan, seed: int, strict: bool, version: int | None, pinned: bool
) -> None:
    """The version as an argument, or as the client's pin: roots that are younger are found all the same."""
    world = plan.world()
    oracle, asked = oracle_for(world), asked_roots(world, np.random.default_rng(seed))
    valid = valid_versions(world)
    number = None if version is None else valid[version % len(valid)]
    us = world.version(number).time_us

    async def call(client: AsyncCortexClient) -> pd.DataFrame:
        await client.root_id_to_cell_id(asked[::2], version=number)  # what it keeps must not change what comes next
        if pinned:
            return await client.at(version=number).root_id_to_cell_id(asked, detail=True)
        return await client.root_id_to_cell_id(asked, version=number, detail=True)

    with on_route(route):
        frame = asyncio.run(mapped(world, strict, call))
    assert frame.attrs["version"] == world.version(number).version
    expect(frame, asked, "cell_id", [counted_root_to_cell(oracle, i, us) for i in asked.tolist()])
    expect_seen_alive(frame, world)


@pytest.mark.parametrize("route", ROUTES)
@EXAMPLES
@given(plan=PLANS, seed=SEEDS, strict=st.booleans(), share=st.none() | st.floats(0, 1), pinned=st.booleans())
def test_roots_by_the_tables_of_an_instant(
    route: str, plan: Plan, seed: int, strict: bool, share: float | None, pinned: bool
) -> None:
    """``share`` of the history, or now."""
    world = plan.world()
    oracle, asked = oracle_for(world), asked_roots(world, np.random.default_rng(seed))
    us = instant_us(world, share)
    arguments = {"live": True} if share is None else {"timestamp": at_us(us)}

    async def call(client: AsyncCortexClient) -> pd.DataFrame:
        if pinned and share is not None:
            return await client.at(timestamp=at_us(us)).root_id_to_cell_id(asked, detail=True)
        return await client.root_id_to_cell_id(asked, detail=True, **arguments)

    with on_route(route):
        frame = asyncio.run(mapped(world, strict, call))
    assert frame.attrs["version"] is None
    expect(frame, asked, "cell_id", [counted_root_to_cell(oracle, i, us) for i in asked.tolist()])
    expect_seen_alive(frame, world)


@pytest.mark.parametrize("route", ROUTES)
@EXAMPLES
@given(
    plan=PLANS,
    seed=SEEDS,
    strict=st.booleans(),
    version=st.none() | st.integers(0, 3),
    share=st.none() | st.floats(-0.1, 1.1),
    live=st.booleans(),
)
def test_cells(
    route: str, plan: Plan, seed: int, strict: bool, version: int | None, share: float | None, live: bool
) -> None:
    """The tables of a version or, ``live``, of the instant; the roots of the version or of the instant."""
    world = plan.world()
    oracle, asked = oracle_for(world), asked_cells(world, np.random.default_rng(seed))
    valid = valid_versions(world)
    number = None if version is None or live else valid[version % len(valid)]
    us = instant_us(world, share)
    tables_us = us if live else world.version(number).time_us
    ms = (tables_us if share is None else us) // 1000
    arguments = {"version": number, "timestamp": None if share is None else at_us(us), "live": live}
    with on_route(route):
        frame = asyncio.run(mapped(world, strict, lambda c: c.cell_id_to_root_id(asked, detail=True, **arguments)))
    expect(frame, asked, "root_id", [counted_cell_to_root(oracle, i, tables_us, ms) for i in asked.tolist()])


@EXAMPLES
@given(plan=PLANS)
def test_there_and_back(plan: Plan) -> None:
    """From a root to its cell, and back at an instant when the root was current, unless a backup replaced the point."""
    world = plan.world()
    roots = world.graph.root_ids()

    async def call(client: AsyncCortexClient) -> None:
        found = await client.root_id_to_cell_id(roots, detail=True)
        sure = found[(found["status"] == "ok") & (found["source"] != "main_replaced")]
        for when, group in list(sure.groupby("timestamp"))[:6]:
            back = await client.cell_id_to_root_id(group["cell_id"], timestamp=when.to_pydatetime(), detail=True)
            several = (back["status"] == "multiple").to_numpy()
            assert back["root_id"][~several].to_list() == group.index[~several].to_list()

    asyncio.run(mapped(world, False, call))


@EXAMPLES
@given(plan=PLANS, seed=SEEDS)
def test_old_versions_may_lack_the_tables(plan: Plan, seed: int) -> None:
    """Some tables were made later than the oldest versions: these see less, and no answer changes."""
    world = plan.world()
    rng = np.random.default_rng(seed)
    newest = world.version().version
    world.versions = [
        version
        if version.version == newest
        else replace(version, tables=tuple(name for name in version.tables if rng.random() < 0.5))
        for version in world.versions
    ]
    oracle, asked = oracle_for(world), asked_roots(world, rng)
    with on_route("older versions"):
        frame = asyncio.run(mapped(world, False, lambda c: c.root_id_to_cell_id(asked, detail=True)))
    us = world.version().time_us
    expect(frame, asked, "cell_id", [counted_root_to_cell(oracle, i, us) for i in asked.tolist()])


@EXAMPLES
@given(plan=PLANS, strict=st.booleans())
def test_an_expired_version_is_no_reference(plan: Plan, strict: bool) -> None:
    """It is refused before its rows are asked for: a query makes the real server create an empty database."""
    world = plan.world()
    expired = [v.version for v in world.versions if not v.valid]
    assume(expired)

    async def call(client: AsyncCortexClient) -> None:
        with pytest.raises(NotFoundError, match="expired"):
            await client.root_id_to_cell_id(world.graph.root_ids(), version=expired[0])
        with pytest.raises(NotFoundError, match="expired"):
            await client.cell_id_to_root_id([1, 2], version=expired[0])

    asyncio.run(mapped(world, strict, call))


def instant_us(world: World, share: float | None) -> int:
    first, last = span_us(world)
    return int(datetime.now(UTC).timestamp() * 1e6) if share is None else first + int((last - first) * share)


def at_us(microseconds: int) -> datetime:
    return datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=microseconds)
