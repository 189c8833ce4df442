"""Import and construction: ours against cortical-tools' client, each in a fresh interpreter."""

from __future__ import annotations

import statistics
import subprocess
import sys

from .report import keep

OURS = "import cortexclient; cortexclient.AsyncCortexClient('minnie_public')"
PEER = "import cortical_tools.common"
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
    "rich",
    "pygments",
)


def seconds(code: str) -> float:
    """CPU seconds of an interpreter that runs ``code``: less noisy than wall time, and neither waits for anything."""
    probe = f"import resource\n{code}\nu = resource.getrusage(resource.RUSAGE_SELF); print(u.ru_utime + u.ru_stime)"
    return float(subprocess.run([sys.executable, "-W", "ignore", "-c", probe], capture_output=True, check=True).stdout)


def run(rounds: int = 7) -> None:
    """Measure in turns; the empty interpreter's own time is taken off both."""
    probe = f"import sys; {OURS}; print([m for m in {HEAVY!r} if m in sys.modules])"
    loaded = subprocess.run([sys.executable, "-c", probe], capture_output=True, check=True, text=True).stdout.strip()
    if loaded != "[]":
        raise SystemExit(f"importing and constructing loads {loaded}")
    taken = [(seconds(EMPTY), seconds(OURS), seconds(PEER)) for _ in range(rounds)]
    empty, ours, peer = (statistics.median(column) for column in zip(*taken, strict=True))
    keep(
        "foundation",
        "import and construct",
        {"rounds": rounds, "peer": "import cortical_tools.common (no client constructed: that needs a server)"},
        [{"ours_s": ours - empty, "peer_s": peer - empty, "ratio": (peer - empty) / (ours - empty), "heavy": loaded}],
    )
