"""Ten million ids, or as many as are asked, from file to file with an index of roots and cells.

The index has a million rows and is made up (its answers follow from the ids); the file has ids of these roots and of
others, shuffled, one in a hundred of no root's layer. Each round runs in a process of its own: opening the index, the
look-ups, reading and writing Parquet; the peak of its resident memory is the kernel's count. All rows of the last round
are compared with what they should be before any figure is kept.

    python -m benchmarks index
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow as pa
from pyarrow import parquet

from cortexclient.mapping import _index

from .report import keep

LAYER = 7
FIRST = LAYER << 56
GOALS = "ids_per_s >= 2,500,000, peak_mb < 500"
RUN = """
import re, sys, time
from pathlib import Path
from cortexclient import CellIndex
begun = time.perf_counter()
rows = CellIndex(sys.argv[1]).map_file(sys.argv[2], sys.argv[3])
took = time.perf_counter() - begun
peak = re.search(r"VmHWM:\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1]  # ru_maxrss begins with the parent's
print(rows, took, int(peak) / 1024)
"""


def make_index(folder: Path, roots: int) -> None:
    """Each third id is a root's; its cell is the number of the id, none for each tenth root (several)."""
    numbers = np.arange(roots, dtype=np.int64) * 3
    several = np.arange(roots) % 10 == 0
    rows = pl.DataFrame(
        {
            "root": FIRST + numbers,
            "cell": np.where(several, -1, numbers),
            "start": numbers,
            "end": numbers + 1,
            "status": np.where(several, "multiple", "ok"),
            "source": "main",
            "n_matches": 1 + several,
        },
        schema_overrides=_index.ROWS,
    )
    facts = _index.Facts("http://nowhere", "made_up", 1, datetime(2026, 1, 1, tzinfo=UTC), LAYER)
    _index.write(folder, facts, rows)


def expected(ids: np.ndarray[tuple[int], np.dtype[np.int64]], roots: int) -> pl.DataFrame:
    number = ids - FIRST
    known = (number >= 0) & (number < 3 * roots) & (number % 3 == 0)
    several = known & (number % 30 == 0)
    status = np.select([ids >> 56 != LAYER, several, known], ["invalid", "multiple", "ok"], "none")
    return pl.DataFrame({"root_id": ids, "cell_id": np.where(known & ~several, number, -1), "status": status})


def run(rounds: int = 5, ids: int = 10_000_000, roots: int = 1_000_000) -> None:
    """Translate a file some times."""
    rng = np.random.default_rng(0)
    asked = FIRST + rng.integers(0, 6 * roots, ids)
    asked[rng.integers(0, ids, ids // 100)] -= 1 << 56
    seconds, peaks = [], []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make_index(folder, roots)
        source, target = folder / "ids.parquet", folder / "cells.parquet"
        parquet.write_table(pa.table({"root_id": asked}), source)
        for _ in range(rounds):
            told = subprocess.run(
                [sys.executable, "-c", RUN, str(folder), str(source), str(target)], capture_output=True, check=True
            ).stdout.split()
            assert int(told[0]) == ids
            seconds.append(float(told[1]))
            peaks.append(float(told[2]))
        found = pl.read_parquet(target).with_columns(pl.col("status").cast(pl.String))
        if not found.equals(expected(asked, roots)):
            raise SystemExit("the answers are wrong: no figures")
    median = statistics.median(seconds)
    row = {"ids": ids, "index_rows": roots, "seconds": median, "ids_per_s": ids / median, "peak_mb": max(peaks)}
    keep("index", "roots to cells, file to file", {"rounds": rounds, "seed": 0, "goals": GOALS}, [row])


if __name__ == "__main__":
    run()
