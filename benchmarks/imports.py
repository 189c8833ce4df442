"""Import and construction: ours against cortical-tools' client, each in a fresh interpreter.

cortical-tools builds its client while its dataset module is imported, which asks the server ten times. The same is done
here against a sandbox on this machine, without latency: its real servers are further away.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
from typing import Any

from cortexclient.sandbox import SandboxProcess

from .report import keep

OURS = "import cortexclient; cortexclient.AsyncCortexClient('minnie_public')"
PEER = """
from caveclient import CAVEclient
from cortical_tools.common import DatasetClient
from standard_transform.datasets import minnie_ds
DatasetClient(
    caveclient=CAVEclient("minnie65_public", server_address={url!r}, auth_token={token!r}, write_server_cache=False),
    cell_id_lookup_view="nucleus_detection_lookup_v1",
    root_id_lookup_main_table="nucleus_detection_v0",
    root_id_lookup_alt_tables=["nucleus_alternative_points"],
    dataset_transform=minnie_ds,
)
"""
EMPTY = "pass"
HEAVY = (
    "pandas",
    "polars",
    "pyarrow",
    "httpx",
    "aiohttp",
    "caveclient",
    "cloudvolume",
    "meshparty",
    "tenacity",
    "tqdm",
    "rich",
    "pygments",
)
"""What importing and building a client must not load; a test watches it, too."""


def seconds(code: str) -> tuple[float, float]:
    """Wall and CPU seconds of an interpreter that runs ``code``."""
    probe = f"import resource\n{code}\nu = resource.getrusage(resource.RUSAGE_SELF); print(u.ru_utime + u.ru_stime)"
    begun = time.perf_counter()
    told = subprocess.run([sys.executable, "-W", "ignore", "-c", probe], capture_output=True, check=True)
    return time.perf_counter() - begun, float(told.stdout.split()[-1])


def run(rounds: int = 7) -> None:
    """Measure in turns; the empty interpreter's own time is taken off both."""
    probe = f"import sys; {OURS}; print([m for m in {HEAVY!r} if m in sys.modules])"
    loaded = subprocess.run([sys.executable, "-c", probe], capture_output=True, check=True, text=True).stdout.strip()
    if loaded != "[]":
        raise SystemExit(f"importing and constructing loads {loaded}")
    with SandboxProcess("default") as sandbox:
        codes = {"empty": EMPTY, "ours": OURS, "peer": PEER.format(url=sandbox.url, token=sandbox.token)}
        taken = [{name: seconds(code) for name, code in codes.items()} for _ in range(rounds)]
    rows = [_row("wall", [{name: pair[0] for name, pair in turn.items()} for turn in taken])]
    rows.append(_row("CPU", [{name: pair[1] for name, pair in turn.items()} for turn in taken]))
    keep("foundation", "import and construct", {"rounds": rounds, "heavy modules loaded": loaded}, rows)


def _row(clock: str, turns: list[dict[str, float]]) -> dict[str, Any]:
    empty, ours, peer = (statistics.median(turn[name] for turn in turns) for name in ("empty", "ours", "peer"))
    return {"clock": clock, "ours_s": ours - empty, "peer_s": peer - empty, "ratio": (peer - empty) / (ours - empty)}
