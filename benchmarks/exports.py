"""A large dump of a table, against the unmodified cortical-tools.

A dump of synapses (points as integers, the layout of minnie65's views) lies in a bucket of a server in a process apart.
Each variant runs in a process of its own, warmed up on a dump of ten rows: CPU seconds are those of the whole call,
receiving included; memory is the most that the process ever held, imports included. What was read is compared before a
ratio is printed: the peer must lack the first row, and nothing else. Then three times the rows are made Parquet, to see
whether memory grows.

    python -m benchmarks.exports [--rounds 3] [--rows 3700000]
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import logging
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from .report import keep

NAME, VERSION, SEED = "synapses_with_axon_proofreading", 1507, 7
WARM_UP = "tiny"
ROOT = "gs://bench/exports"
PIECE = 200_000
IDS = [f"{side}_pt_{kind}_id" for side in ("pre", "post") for kind in ("supervoxel", "root")]
POINTS = [f"{point}_pt_position_{axis}" for point in ("pre", "post", "ctr") for axis in "xyz"]
HEADER = [
    ("id", "bigint"),
    ("valid", "boolean"),
    ("size", "double precision"),
    *((name, "bigint") for name in IDS),
    *((name, "integer") for name in POINTS),
]
VARIANTS = {
    "peer": "cortical-tools get_table",
    "table": "get_table, first time",
    "again": "get_table, from the cache",
    "parquet": "download: to Parquet",
}


# -- the dump ----------------------------------------------------------------------------------------------------------


def write_dump(folder: Path, name: str, rows: int) -> int:
    """Write a dump with its header; give its bytes."""
    from isal import igzip_threaded

    target = folder / f"v{VERSION}" / f"{name}.csv.gz"
    target.parent.mkdir(exist_ok=True)
    (target.parent / f"{name}_header.csv").write_text("".join(f"{column},{sql}\n" for column, sql in HEADER))
    random = np.random.default_rng(SEED)
    with igzip_threaded.open(target, "wb", compresslevel=3, threads=1) as file:
        for first in range(0, rows, PIECE):
            piece = synapses(random, first, min(PIECE, rows - first))
            file.write(piece.write_csv(include_header=False).encode())
    return target.stat().st_size


def synapses(random: np.random.Generator, first: int, n: int) -> pl.DataFrame:
    roots = 864691134884807418 + random.integers(0, 2**38, 100_000)
    columns: dict[str, Any] = {
        "id": np.arange(first, first + n) + 100_000_000,
        "valid": np.full(n, "t"),
        "size": random.integers(1, 20_000, n).astype(float),
    }
    columns |= {
        name: random.choice(roots, n) if "root" in name else 88_000_000_000_000_000 + random.integers(0, 2**50, n)
        for name in IDS
    }
    return pl.DataFrame(columns | {name: random.integers(0, 300_000, n) for name in POINTS})


# -- the children ------------------------------------------------------------------------------------------------------


def serve(folder: Path) -> None:
    """Serve the files of a folder as a bucket until standard input ends."""
    from cortexclient.sandbox import Sandbox, World

    world = World.synthesize(seed=SEED, nuclei=10, edits=10, synapses=10, versions=1, expired=0)
    files = [path for path in folder.rglob("*") if path.is_file()]
    world.files |= {f"bench/exports/{path.relative_to(folder).as_posix()}": path.read_bytes() for path in files}
    with Sandbox(world) as sandbox:
        print(sandbox.url, flush=True)
        sys.stdin.read()


def child(variant: str, url: str, name: str) -> None:
    """Run one variant and tell what it took, and what it read."""
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    with contextlib.redirect_stdout(io.StringIO()):
        call = peers(url) if variant == "peer" else ours(variant, url)
        call(WARM_UP)
        if variant == "again":
            call(name)
        wall, cpu = time.perf_counter(), time.process_time()
        found = call(name)
        told = {"seconds": time.perf_counter() - wall, "cpu": time.process_time() - cpu}
    told["rss_mb"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps(told | digest(found)))


def peers(url: str) -> Callable[[str], Any]:
    os.environ["STORAGE_EMULATOR_HOST"] = url
    from cortical_tools.files import TableExportClient

    client = TableExportClient(ROOT)
    assert client.available_tables
    return lambda name: client.get_table(name, VERSION)


def ours(variant: str, url: str) -> Callable[[str], Any]:
    from cortexclient import CortexClient, DatasetSpec

    client = CortexClient(DatasetSpec(name="bench", datastack="bench", server=url, storage_url=f"{url}/storage"))
    client.set_export_cloudpath(ROOT)
    assert client.exports.available_tables()
    if variant == "parquet":
        return lambda name: client.exports.download(name, VERSION)
    return lambda name: client.exports.get_table(name, VERSION)


def digest(found: Any) -> dict[str, Any]:
    """Rows, and a number for all ids but the first row's."""
    columns = ["id", *IDS]
    if isinstance(found, Path):
        ids = pl.scan_parquet(found).select(columns).collect().to_numpy()
    else:
        ids = found[columns].to_numpy()
    behind: npt.NDArray[np.int64] = ids[-(len(ids) - int(ids[0, 0] == 100_000_000)) :]
    return {"rows": len(ids), "digest": zlib.crc32(np.ascontiguousarray(behind, np.int64).tobytes())}


# -- the parent --------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def served(folder: Path) -> Iterator[str]:
    command = [sys.executable, "-m", "benchmarks.exports", "--serve", str(folder)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdin
        assert server.stdout
        try:
            yield server.stdout.readline().strip()
        finally:
            server.stdin.close()


def measure(variant: str, url: str, name: str) -> dict[str, Any]:
    """One variant with a cache of its own."""
    with tempfile.TemporaryDirectory(prefix="exports-cache-") as cache:
        command = [sys.executable, "-m", "benchmarks.exports", "--child", variant, url, name]
        environment = os.environ | {"CORTEXCLIENT_CACHE": cache}
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, env=environment)
    return dict(json.loads(done.stdout.splitlines()[-1]))


def run(rounds: int = 3, rows: int = 3_700_000) -> None:
    with tempfile.TemporaryDirectory(prefix="exports-") as place:
        folder = Path(place)
        write_dump(folder, WARM_UP, 10)
        sizes = [write_dump(folder, NAME, rows), write_dump(folder, f"{NAME}_3", 3 * rows)]
        with served(folder) as url:
            told = {variant: [measure(variant, url, NAME)] for variant in VARIANTS}
            check(told, rows)
            for _ in range(rounds - 1):
                for variant, rounds_of in told.items():
                    rounds_of.append(measure(variant, url, NAME))
            triple = measure("parquet", url, f"{NAME}_3")
            if triple["rows"] != 3 * rows:
                raise SystemExit(f"{triple['rows']} of {3 * rows} rows: no figures")
    setting = {"megabytes": round(sizes[0] / 1e6), "rounds": rounds, "seed": SEED, "server": "sandbox, own process"}
    median = {
        variant: {key: statistics.median(r[key] for r in rounds_of) for key in ("seconds", "cpu", "rss_mb")}
        for variant, rounds_of in told.items()
    }
    table = [
        {
            "call": text,
            "cpu_s": median[variant]["cpu"],
            "wall_s": median[variant]["seconds"],
            "peer_cpu_ratio": median["peer"]["cpu"] / median[variant]["cpu"],
            "rss_mb": median[variant]["rss_mb"],
            "rows": told[variant][0]["rows"],
        }
        for variant, text in VARIANTS.items()
    ]
    keep("exports", "a dump", setting, table)
    memory = [
        {"rows": rows, "megabytes": sizes[0] / 1e6, "rss_mb": median["parquet"]["rss_mb"]},
        {"rows": 3 * rows, "megabytes": sizes[1] / 1e6, "rss_mb": triple["rss_mb"]},
    ]
    keep("exports", "memory of a conversion", {"call": VARIANTS["parquet"], "rounds": rounds}, memory)


def check(told: dict[str, list[dict[str, Any]]], rows: int) -> None:
    """Everybody read the same ids; only the peer lacks the first row."""
    wanted = {variant: rows - (variant == "peer") for variant in VARIANTS}
    found = {variant: first["rows"] for variant, (first, *_) in told.items()}
    if found != wanted or len({first["digest"] for first, *_ in told.values()}) > 1:
        raise SystemExit(f"the variants read different things, {found} of {rows} rows: no ratio")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--child", nargs=3, metavar=("VARIANT", "URL", "NAME"))
    parser.add_argument("--serve", type=Path, metavar="FOLDER")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--rows", type=int, default=3_700_000)
    options = parser.parse_args()
    if options.child:
        child(*options.child)
    elif options.serve:
        serve(options.serve)
    else:
        run(options.rounds, options.rows)


if __name__ == "__main__":
    main()
