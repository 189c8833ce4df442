"""``cortexclient demo``: the main job on a local server, with the figures to judge it by."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from rich.console import Console
from rich.table import Table

from . import AsyncCortexClient
from ._types import IdArray
from .cli import write
from .sandbox import Sandbox, World

if TYPE_CHECKING:
    from .sandbox.graph import Graph

EPOCHS = 200
"""Instants at which the demo looks up which root each nucleus was: ids of many ages, as papers and old tables hold."""
LATENCY = 0.02
MERGED_ROOT = 864691135858491438
"""A real root that holds seven nuclei."""


def run(data: Path | None, out: Path) -> bool:
    """Translate, show, write; False if real rows come out otherwise than they are written.

    Parameters
    ----------
    data
        Folder of real minnie65 data; None: the sandbox's small synthetic world.
    out
        Folder for ``root_id_to_cell_id.parquet``.
    """
    console = Console(soft_wrap=True)
    world = World.default() if data is None else World.from_minnie65(data)
    with Sandbox(world, latency=LATENCY, service_times=True) as sandbox:
        roots = roots_of_many_epochs(world, str(sandbox.spec.nucleus_table))
        found, requests, seconds = asyncio.run(_translate(sandbox, roots))
        backups = len(sandbox.spec.backup_tables)
        naive = naive_requests(world.graph.created(roots), world.graph.retired(roots), 1 + backups)
        console.print(_answers(found))
        console.print(_figures(len(roots), seconds, requests, naive))
        console.print(
            f"The usual way asks twice for lifetimes, then {1 + backups} tables live in each of "
            f"{(naive - 2) // (1 + backups):,} rounds of end times, one after the other."
        )
        kept = True if data is None else _real_rows(sandbox, data, console)
    target = out / "root_id_to_cell_id.parquet"
    write(found, target)
    console.print(f"All {len(found):,} answers: {target}")
    return kept


async def _translate(sandbox: Sandbox, roots: IdArray) -> tuple[pd.DataFrame, int, float]:
    async with AsyncCortexClient(sandbox.spec, token=sandbox.token) as client:
        begun = time.perf_counter()
        found = await client.root_id_to_cell_id(roots, detail=True)
        return found, client.stats.requests, time.perf_counter() - begun


def roots_of_many_epochs(world: World, table: str) -> IdArray:
    """Every root that a nucleus of the world was at some of `EPOCHS` random instants, in random order."""
    graph: Graph = world.graph
    rng = np.random.default_rng(0)
    points = world.tables[table].rows["pt_supervoxel_id"].drop_nulls().to_numpy()
    newest_ms = max(version.time_us for version in world.versions) // 1000
    instants = rng.integers(graph.created(graph.root_ids()).min(), newest_ms, EPOCHS)
    roots = np.unique(np.concatenate([graph.roots(points, int(instant)) for instant in instants]))
    return rng.permutation(roots[roots != 0])


def naive_requests(start: IdArray, end: IdArray, tables: int) -> int:
    """Count the requests of the usual algorithm (cortical-tools 1.1), in sequence.

    Two ask for all lifetimes. Then, until no root is left: take the last instant of the first root left, and ask each
    table live which of the roots current at that instant it holds.

    Parameters
    ----------
    start, end
        (n,) ms: lifetimes, half-open.
    tables
        Main and backup tables.
    """
    left = np.ones(len(start), bool)
    rounds = 0
    while left.any():
        first = int(left.argmax())
        last = end[first] - 1
        left &= ~((start <= last) & (last < end))
        rounds += 1
    return 2 + tables * rounds


def _answers(found: pd.DataFrame) -> Table:
    table = Table(title=f"root_id_to_cell_id by version {found.attrs['version']}: some of {len(found):,} answers")
    for name in ("root_id", "cell_id", "status", "seen alive at", "source"):
        table.add_column(name)
    shown = found.assign(source=found["source"].fillna(""), seen=found["timestamp"].dt.strftime("%Y-%m-%d").fillna(""))
    for _, rows in shown.groupby(["status", "source"]):
        for root, row in rows.head(3).iterrows():
            table.add_row(str(root), str(row["cell_id"]), row["status"], row["seen"], row["source"])
    return table


def _figures(ids: int, seconds: float, requests: int, naive: int) -> Table:
    table = Table(title=f"local server, {1e3 * LATENCY:.0f} ms latency, as slow as the real one")
    table.add_column("figure")
    table.add_column("value", justify="right")
    table.add_row("ids", f"{ids:,}")
    table.add_row("seconds", f"{seconds:.2f}")
    table.add_row("ids per second", f"{ids / seconds:,.0f}")
    table.add_row("requests made", f"{requests:,}")
    table.add_row("requests of the usual way", f"{naive:,}")
    return table


def _real_rows(sandbox: Sandbox, data: Path, console: Console) -> bool:
    """Translate the roots that real rows name: one nucleus on a root is its cell, several are -1, ``multiple``."""
    written = pd.read_parquet(data / "nuclei.parquet", columns=["id", "pt_root_id"])
    cells = written[written["pt_root_id"] != 0].dropna().groupby("pt_root_id")["id"].unique()
    found, *_ = asyncio.run(_translate(sandbox, np.array(cells.index, np.int64)))
    expected = np.array([ids[0] if len(ids) == 1 else -1 for ids in cells], np.int64)
    right = int((found["cell_id"].to_numpy() == expected).sum())
    console.print(f"Real nucleus rows: {right} of {len(cells)} roots map as written in {data / 'nuclei.parquet'}")
    merged = found.loc[MERGED_ROOT]
    console.print(
        f"Root {MERGED_ROOT}, which holds {len(cells[MERGED_ROOT])} real nuclei: "
        f"{merged['cell_id']} ({merged['status']}, {merged['n_matches']} cells)"
    )
    return right == len(cells) and (merged["cell_id"], merged["status"]) == (-1, "multiple")
