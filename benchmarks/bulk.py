"""A bulk job: millions of root ids, in a file, to their cells, in files, by one process.

The job runs in a process of its own, whose memory the kernel tells; ``cold`` is the first job of a client, ``warm``
the same job again, in another folder, by the same client. The answers of both are compared with the truth of the world
before any figure is kept.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from pyarrow import parquet

from cortexclient import BulkJob, CortexClient
from cortexclient.sandbox import SandboxProcess, World

from . import mapping
from .populations import BULK_WORLD, Ids, bulk
from .report import keep

OPTIONS: dict[str, Any] = {"latency": "20ms", "service_times": True}


def run(
    rounds: int = 1,
    world_options: dict[str, Any] = BULK_WORLD,
    size: int = 5_000_000,
    distinct: int = 1_000_000,
    part_size: int = 50_000,
) -> None:
    """Measure one job, cold and warm; once, whatever ``rounds`` is, since it takes minutes."""
    world = World.synthesize(**world_options)
    ids = bulk(world, size, distinct)
    with SandboxProcess(world, **OPTIONS) as sandbox, tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        parquet.write_table(pa.table({"root_id": ids}), folder / "ids.parquet")
        command = [sys.executable, "-m", "benchmarks.bulk", scratch, str(part_size)]
        with sandbox.env():
            told = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
        rows = json.loads(told)
        for row in rows:
            _check(folder / row["job"], ids, world)
    setting = OPTIONS | {"world": world_options, "workers": 16, "part_size": part_size, "rounds": min(rounds, 1)}
    keep("bulk", "root_id_to_cell_id", setting, rows)


def _check(folder: Path, ids: Ids, world: World) -> None:
    job = BulkJob.open(folder)
    if not job.verify().ok or job.status().failed:
        raise SystemExit(f"the job is not whole: {job.verify()}")
    rows = job.scan().select("root_id", "cell_id", "status").collect()
    unique = np.unique(ids)
    if not np.array_equal(rows["root_id"].to_numpy(), unique):
        raise SystemExit("the rows are not those of the ids, each once: no figures")
    wrong = unique[rows["cell_id"].to_numpy() != mapping.truth(world, unique)]
    if len(wrong):
        raise SystemExit(f"{len(wrong)} answers are not what the rule says, as for {wrong[:5].tolist()}: no figures")
    unknown = ~np.isin(unique, world.graph.root_ids())
    if not np.array_equal((rows["status"] == "invalid").to_numpy(), unknown):
        raise SystemExit("not exactly the unknown ids were called invalid: no figures")


def peak_rss() -> float:
    """Most memory that this process had, MB. (``ru_maxrss`` begins with that of the process which started this one.)"""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM"))


def work(folder: Path, part_size: int) -> list[dict[str, Any]]:
    """Do the job twice with one client; in the process that is measured."""
    rows, count = [], parquet.read_metadata(folder / "ids.parquet").num_rows
    with CortexClient("minnie_public") as client:
        for name in ("cold", "warm"):
            before, begun = client.stats, time.perf_counter()
            job = BulkJob(
                "root_id_to_cell_id", folder / "ids.parquet", folder / name, client=client, part_size=part_size
            )
            status = job.run()
            seconds = time.perf_counter() - begun
            rows.append(
                {
                    "job": name,
                    "ids": count,
                    "distinct": status.ids,
                    "parts": status.parts,
                    "requests": client.stats.requests - before.requests,
                    "seconds": seconds,
                    "ids_per_s": count / seconds,
                    "peak_rss_mb": peak_rss(),
                }
            )
    return rows


if __name__ == "__main__":
    print(json.dumps(work(Path(sys.argv[1]), int(sys.argv[2]))))
