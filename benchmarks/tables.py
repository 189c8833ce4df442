"""Rows of tables and synapses of many roots, against the unmodified caveclient and cortical-tools.

Each variant runs in a process of its own (``python -m benchmarks.tables --child ...``): CPU seconds are those of the
whole call, request and receiving included, all threads. A whole table is fetched several times by each process: first
when nothing but a single row has been fetched before (modules are loaded, but memory must be had from the system, which
is the kernel's share and told apart), then as every later call finds it. The ids of all answers are compared before any
ratio is printed; how many rows the peer's default lacks is printed with it: ten neurons a batch have more synapses here
than the server gives at once, as on the real servers.

    python -m benchmarks.tables [--rounds 3] [--rows 500000] [--neurons 500] [--synapses 1800000]
"""

from __future__ import annotations

import argparse
import asyncio
import atexit
import json
import logging
import os
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from cortexclient import AsyncCortexClient, DatasetSpec
from cortexclient.sandbox import SandboxProcess, World

from .report import keep

Ids = npt.NDArray[np.int64]

TABLE = "synapses_pni_2"
DATASTACK = "minnie65_public"
CAP = 20_000
WHOLE_TABLE = {
    "bare": "receive + decode",
    "arrow": "query_arrow",
    "polars": "query_polars",
    "split": "query(split_positions=True)",
    "object": "query()",
    "caveclient": "caveclient query_table()",
}
REPEATS = 4
SYNAPSES = {"synapses": "query_synapses", "batches": "cortical-tools, batches of 10", "singles": "one root a batch"}


# -- the child ---------------------------------------------------------------------------------------------------------


def child(variant: str, url: str, token: str, roots: Path, out: Path) -> None:
    """Run one variant; write the ids that it found, print what each call took."""
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    call = (
        ours(variant, url, token) if variant not in ("caveclient", "batches", "singles") else peers(variant, url, token)
    )
    asked = np.load(roots)
    call(asked[: 10 if variant in SYNAPSES else 0])  # what is loaded and looked up once
    calls = [clocked(call, asked) for _ in range(REPEATS if variant in WHOLE_TABLE else 1)]
    np.save(out, calls[-1][0])
    print(json.dumps([took for _, took in calls]))


def clocked(call: Callable[[Ids], Any], asked: Ids) -> tuple[Ids, dict[str, float]]:
    """The ids that a call gives, sorted, and what it took. Its rows are gone when the next one begins."""
    wall, cpu, kernel = time.perf_counter(), time.process_time(), os.times().system
    ids = call(asked)
    took = {"seconds": time.perf_counter() - wall, "cpu": time.process_time() - cpu}
    took["kernel"] = os.times().system - kernel
    return np.sort(np.asarray(ids).astype(np.int64)), took


# Each asks for the synapses of some roots, or for the whole table; for one row of it if there are no roots.


def ours(variant: str, url: str, token: str) -> Callable[[Ids], Any]:
    runner = asyncio.Runner()
    atexit.register(lambda: (runner.run(client.aclose()), runner.close()))
    spec = DatasetSpec(name="bench", datastack=DATASTACK, server=url)
    client = AsyncCortexClient(spec, server=url, token=token)

    async def ask(roots: Ids) -> Any:
        warm = {"limit": 1} if not len(roots) else {}
        query = client.tables[TABLE]()
        if variant == "bare":
            return await bare(client, warm)
        if variant == "arrow":
            return (await query.query_arrow(**warm)).column("id").to_numpy()
        if variant == "polars":
            return (await query.query_polars(**warm))["id"].to_numpy()
        if variant == "synapses":
            return (await client.query_synapses(roots)).id.to_numpy()
        return (await query.query(split_positions=variant == "split", **warm)).id.to_numpy()

    return lambda roots: runner.run(ask(roots))


async def bare(client: AsyncCortexClient, body: dict[str, Any]) -> Any:
    """The least that any client must do: one request, and the body as an Arrow table."""
    import pyarrow as pa

    from cortexclient._wire.endpoints import TABLE_QUERY

    version = await client.most_recent_materialization_version()
    path: dict[str, str | int] = {"version": version, "name": TABLE}
    query = {"return_pyarrow": "True", "arrow_format": "True", "direct_sql_pandas": "True"}
    reply = await client._session.send(TABLE_QUERY, path, query=query, body=json.dumps(body).encode())
    return pa.ipc.open_stream(reply.body).read_all().column("id").to_numpy()


def peers(variant: str, url: str, token: str) -> Callable[[Ids], Any]:
    from caveclient import CAVEclient

    cave = CAVEclient(DATASTACK, server_address=url, auth_token=token, write_server_cache=False)
    if variant == "caveclient":
        return lambda roots: cave.materialize.query_table(TABLE, **({} if len(roots) else {"limit": 1}))["id"]
    from cortical_tools.common import DatasetClient

    client = DatasetClient(
        caveclient=cave,
        cell_id_lookup_view="nucleus_detection_lookup_v1",
        root_id_lookup_main_table="nucleus_detection_v0",
        root_id_lookup_alt_tables=["nucleus_alternative_points"],
    )
    size = 10 if variant == "batches" else 1

    def ask(roots: Ids) -> Any:
        return client.query_synapses(roots, pre=True, post=True, batch_size=size, progress=False)["id"]

    return ask


# -- the parent --------------------------------------------------------------------------------------------------------


def measure(variant: str, sandbox: SandboxProcess, roots: Ids, folder: Path) -> tuple[Ids, dict[str, float]]:
    """The ids, and the medians of all calls but the first, which is told apart."""
    asked, out = folder / "roots.npy", folder / "ids.npy"
    np.save(asked, roots)
    command = [sys.executable, "-m", "benchmarks.tables", "--child", variant, sandbox.url, sandbox.token]
    done = subprocess.run([*command, str(asked), str(out)], stdout=subprocess.PIPE, text=True, check=True)
    first, *others = json.loads(done.stdout.splitlines()[-1])
    later = {key: statistics.median(took[key] for took in others or [first]) for key in first}
    return np.load(out), later | {"first_cpu": first["cpu"], "first_kernel": first["kernel"]}


def rounds_of(
    variants: dict[str, str], sandbox: SandboxProcess, roots: Ids, rounds: int, once: tuple[str, ...] = ()
) -> dict[str, tuple[Ids, dict[str, float]]]:
    """Each variant's ids and medians; variants take turns, those that take long run once."""
    found: dict[str, Ids] = {}
    taken: dict[str, list[dict[str, float]]] = {variant: [] for variant in variants}
    with tempfile.TemporaryDirectory(prefix="tables-") as folder:
        for number in range(rounds):
            for variant in variants:
                if number == 0 or variant not in once:
                    found[variant], told = measure(variant, sandbox, roots, Path(folder))
                    taken[variant].append(told)
    medians = {
        v: {key: statistics.median(t[key] for t in told) for key in ("seconds", "cpu", "first_cpu", "first_kernel")}
        for v, told in taken.items()
    }
    return {variant: (found[variant], medians[variant]) for variant in variants}


def run(rounds: int = 3, rows: int = 500_000, neurons: int = 500, synapses: int = 1_800_000, cap: int = CAP) -> None:
    world, frozen = world_of(rows, neurons, cap=rows + 1)
    with SandboxProcess(world) as sandbox:
        whole(sandbox, np.sort(frozen["id"].to_numpy()), rounds)
    world, frozen = world_of(synapses, neurons, cap)
    roots = frozen["pre_pt_root_id"].value_counts(sort=True)["pre_pt_root_id"].to_numpy()
    with SandboxProcess(world, latency="20ms", service_times=True) as sandbox:
        many_synapses(sandbox, frozen, roots[roots > 0][:neurons], rounds, cap)


def world_of(synapses: int, neurons: int, cap: int) -> tuple[World, Any]:
    """A world in which these neurons share all synapses, and its table of synapses."""
    world = World.synthesize(seed=7, nuclei=neurons, edits=200, synapses=synapses, versions=1, expired=0)
    world.row_cap = cap
    return world, world.annotations.frozen(TABLE, next(v for v in world.versions if v.valid))


def whole(sandbox: SandboxProcess, truth: Ids, rounds: int) -> None:
    """A whole table in one request."""
    told = rounds_of(WHOLE_TABLE, sandbox, np.ones(1, np.int64), rounds)
    for variant, (ids, _) in told.items():
        if not np.array_equal(ids, truth):
            raise SystemExit(f"{variant} gave other rows than there are: no ratio")
    peer, least = told["caveclient"][1], told["bare"][1]
    table = [
        {
            "call": text,
            "cpu_s": told[variant][1]["cpu"],
            "wall_s": told[variant][1]["seconds"],
            "peer_cpu_ratio": peer["cpu"] / told[variant][1]["cpu"],
            "of_bare_cpu": told[variant][1]["cpu"] / least["cpu"],
            "first_cpu_s": told[variant][1]["first_cpu"],
            "first_kernel_s": told[variant][1]["first_kernel"],
            "first_peer_ratio": peer["first_cpu"] / told[variant][1]["first_cpu"],
        }
        for variant, text in WHOLE_TABLE.items()
    ]
    keep("tables", "a whole table", {"rows": len(truth), "compression": "zstd", "rounds": rounds}, table)


def many_synapses(sandbox: SandboxProcess, frozen: Any, roots: Ids, rounds: int, cap: int) -> None:
    """Synapses of many roots, of which several do not fit into one answer."""
    told = rounds_of(SYNAPSES, sandbox, roots, rounds, once=("batches", "singles"))
    ends = frozen.filter(
        frozen["pre_pt_root_id"].is_in(roots.tolist()) | frozen["post_pt_root_id"].is_in(roots.tolist())
    )
    truth = np.sort(ends.filter(ends["pre_pt_root_id"] != ends["post_pt_root_id"])["id"].to_numpy())
    for variant, (ids, _) in told.items():
        if len(np.setdiff1d(ids, truth)) or (variant == "synapses" and len(ids) != len(truth)):
            raise SystemExit(f"{variant} gave other rows than there are: no ratio")
    ours_s = told["synapses"][1]["seconds"]
    table = [
        {
            "call": text,
            "seconds": told[variant][1]["seconds"],
            "ratio": told[variant][1]["seconds"] / ours_s,
            "rows": len(told[variant][0]),
            "missing": len(truth) - len(told[variant][0]),
        }
        for variant, text in SYNAPSES.items()
    ]
    setting = {
        "roots": len(roots),
        "synapses": len(frozen),
        "row_cap": cap,
        "latency": "20ms",
        "service_times": True,
        "rounds": rounds,
    }
    keep("tables", "synapses of many roots", setting, table)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--child", nargs=5, metavar=("VARIANT", "URL", "TOKEN", "ROOTS", "OUT"))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--rows", type=int, default=500_000)
    parser.add_argument("--neurons", type=int, default=500)
    parser.add_argument("--synapses", type=int, default=1_800_000)
    options = parser.parse_args()
    if options.child:
        variant, url, token, roots, out = options.child
        child(variant, url, token, Path(roots), Path(out))
    else:
        run(options.rounds, options.rows, options.neurons, options.synapses)


if __name__ == "__main__":
    main()
