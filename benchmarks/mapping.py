"""root_id_to_cell_id against the unmodified cortical-tools, for each part of the population ``mixed``.

Both answers are compared with the truth of the world before any ratio is printed: ours with the rule that it documents,
the peer's with its own (every root that occurs more than once among the rows of the main and backup tables is dropped,
whether or not the rows are of one cell). Printed too: how many ids the two rules answer differently, and for how many
the peer's answer depends on which rows were there when it asked (those are not compared).
"""

from __future__ import annotations

import asyncio
import statistics
import time
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd

from cortexclient import AsyncCortexClient
from cortexclient.sandbox import SandboxProcess, World

from .peer import Peer
from .populations import POINTS, WORLD, Ids, populations
from .report import keep

PEER = {
    "newest": (None, 1_200.0),
    "versions": (None, 1_200.0),
    "between": (200, 1_200.0),
    "without_nucleus": (100, 1_200.0),
    "mixed": (None, 300.0),
}
"""How many ids of each part are asked, of both: the peer needs a round of live queries for nearly each of some. And the
seconds that it is given: `mixed` would take hours. The ratios of a peer that did not finish are lower bounds, and its
requests are those that it sends in as many seconds to a server without latency and prices.
"""

OPTIONS: dict[str, Any] = {"latency": "20ms", "service_times": True}


def run(rounds: int = 5, world_options: dict[str, Any] = WORLD, size: int = 10_000) -> None:
    """Measure every part; the peer runs once (it takes minutes), ours cold and warm in several fresh clients."""
    world = World.synthesize(**world_options)
    parts = populations(world, size)
    parts["versions"] = np.concatenate([parts["newest"], parts["older"]])
    rows: list[dict[str, Any]] = []
    setting = OPTIONS | {"world": world_options, "workers": 16, "ours_rounds": rounds, "peer_rounds": 1}
    with SandboxProcess(world, **OPTIONS) as sandbox:
        for name, (most, patience) in PEER.items():
            rows.append(_part(name, parts[name][:most], parts["missing"], world, sandbox, patience, rounds))
            keep("foundation", "root_id_to_cell_id", setting, rows)


def _part(
    name: str, ids: Ids, missing: Ids, world: World, sandbox: SandboxProcess, patience: float, rounds: int
) -> dict[str, Any]:
    before = [asyncio.run(_ours(ids, sandbox)) for _ in range(rounds // 2)]
    known = np.setdiff1d(ids, missing)  # an id that does not exist makes the peer raise: it is spared those
    theirs = _theirs(known, sandbox, patience)
    finished = theirs.answer is not None
    if not finished:  # where answers cost no time, it sends more of its requests
        with SandboxProcess(world) as quick:
            theirs = _theirs(known, quick, patience)._replace(seconds=patience)
    ours = before + [asyncio.run(_ours(ids, sandbox)) for _ in range(rounds - len(before))]
    mine = pd.Series(ours[0]["answer"], index=ids).loc[known].to_numpy()
    differ, by_time = _compare(world, known, mine, theirs.answer)
    cold, warm = (statistics.median(item[key] for item in ours) for key in ("cold", "warm"))
    return {
        "part": name,
        "ids": len(ids),
        "ours_s": cold,
        "warm_ms": warm * 1e3,
        "peer_s": theirs.seconds,
        "peer_finished": finished,
        "ratio": theirs.seconds / cold,
        "warm_ratio": theirs.seconds / warm,
        "requests": ours[0]["requests"],
        "peer_requests": theirs.requests,
        "request_ratio": theirs.requests / ours[0]["requests"],
        "rules_differ": differ,
        "depend_on_time": by_time,
    }


class Theirs(NamedTuple):
    """What the peer answered, if its time sufficed, and what it took."""

    answer: Ids | None
    seconds: float
    requests: int


def _theirs(ids: Ids, sandbox: SandboxProcess, patience: float) -> Theirs:
    sandbox.counters.reset()
    try:
        with Peer("cortical-tools", sandbox.url, sandbox.token, "minnie65_public") as peer:
            answer, taken = peer.call("root_id_to_cell_id", ids, limit=patience)
        return Theirs(answer, taken["seconds"], sandbox.counters.snapshot().total.requests)
    except TimeoutError:
        return Theirs(None, patience, sandbox.counters.snapshot().total.requests)


async def _ours(ids: Ids, sandbox: SandboxProcess) -> dict[str, Any]:
    async with AsyncCortexClient(sandbox.spec, server=sandbox.url, token=sandbox.token) as client:
        begun = time.perf_counter()
        answer = await client.root_id_to_cell_id(ids)
        cold = time.perf_counter() - begun
        requests = client.stats.requests
        begun = time.perf_counter()
        again = await client.root_id_to_cell_id(ids)
        warm = time.perf_counter() - begun
    if not answer.equals(again):
        raise SystemExit("the warm answer differs from the cold one")
    return {"cold": cold, "warm": warm, "requests": requests, "answer": answer["cell_id"].to_numpy()}


def _compare(world: World, ids: Ids, mine: Ids, theirs: Ids | None) -> tuple[int, int]:
    """How many ids the two rules answer differently, and how many the peer's rule answers by the time of asking.

    Of a peer that gave no answer, what its rule says is taken for it.

    Raises
    ------
    SystemExit
        An answer is not what the rule behind it says of the world: no ratio is printed then.
    """
    on_root = _points_on(world, ids)
    _same("ours", ids, mine, _cells(on_root, ids), np.ones(len(ids), bool))
    # the peer drops every root that occurs more than once among the rows; those of the moment in which it asks
    rows = on_root.groupby("root")["cell"].agg(lambda cells: cells.iloc[0] if len(cells) == 1 else -1)
    timeless = ~np.isin(ids, on_root.loc[~on_root["timeless"], "root"])
    by_rows = pd.Series(-1, index=ids)
    by_rows.loc[rows.index] = rows
    theirs = by_rows.to_numpy() if theirs is None else theirs
    _same("the peer's", ids, theirs, by_rows.to_numpy(), timeless)
    return int((mine != theirs).sum()), int((~timeless).sum())


def truth(world: World, ids: Ids) -> Ids:
    """What the documented rule says of distinct ids, by a walk through the world; -1 for those that do not exist."""
    known = np.intersect1d(ids, world.graph.root_ids())
    return pd.Series(_cells(_points_on(world, known), known), index=known).reindex(ids, fill_value=-1).to_numpy()


def _points_on(world: World, roots: Ids) -> pd.DataFrame:
    return _owned(world, roots).merge(_points(world), on="supervoxel")


def _cells(on_root: pd.DataFrame, roots: Ids) -> Ids:
    right = on_root[on_root["counts"]].groupby("root")["cell"].agg(_only)
    replaced = on_root[~on_root["counts"] & on_root["alive"]].groupby("root")["cell"].agg(_only)
    expected = pd.Series(-1, index=roots)
    expected.loc[replaced.index] = replaced
    expected.loc[right.index] = right
    return expected.to_numpy()


def _same(whose: str, ids: Ids, got: Ids, expected: Ids, where: npt.NDArray[np.bool_]) -> None:
    wrong = ids[where & (got != expected)]
    if len(wrong):
        raise SystemExit(
            f"{len(wrong)} of {whose} answers are not what the rule says, as for {wrong[:5].tolist()}: no ratio"
        )


def _only(cells: pd.Series) -> int:
    return int(cells.iloc[0]) if cells.nunique() == 1 else -1


def _points(world: World) -> pd.DataFrame:
    """All rows of the nucleus tables: ``cell, supervoxel, alive`` at the newest version, ``counts``, ``timeless``."""
    main, backup = (world.tables[name].rows.to_pandas() for name in POINTS)
    backup["id"] = backup["target_id"]
    newest = pd.Timestamp(max(v.time_us for v in world.versions if v.valid), unit="us")
    first = pd.Timestamp(min(v.time_us for v in world.versions if v.valid), unit="us")
    for table in (main, backup):
        table["alive"] = (table["created"] <= newest) & ~(table["deleted"] <= newest)
        table["timeless"] = (table["created"] <= first) & table["deleted"].isna()
    for column in ("alive", "timeless"):  # a backup counts only beside its main row
        backup[column] &= backup["id"].isin(main.loc[main[column], "id"])
    main["counts"] = main["alive"] & ~main["id"].isin(backup.loc[backup["alive"], "id"])
    backup["counts"] = backup["alive"]
    rows = pd.concat([main, backup]).rename(columns={"id": "cell", "pt_supervoxel_id": "supervoxel"})
    return rows.loc[rows["supervoxel"] != 0, ["cell", "supervoxel", "alive", "counts", "timeless"]]


def _owned(world: World, roots: Ids) -> pd.DataFrame:
    supervoxels, owner = world.graph.leaves_of(roots)
    return pd.DataFrame({"root": roots[owner], "supervoxel": supervoxels})
