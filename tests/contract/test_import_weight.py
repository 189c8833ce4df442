"""What is imported, and when: a client that resolves ids must not pay for meshes."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
from benchmarks.imports import HEAVY

LOADED = "import json, sys; print(json.dumps(sorted(sys.modules)))"

STEPS = {
    "the package": "import cortexclient",
    "its names": "from cortexclient import AsyncCortexClient, CortexClient, DatasetSpec, Results, load_client",
    "an async client": "from cortexclient import AsyncCortexClient; print(end='', file=sys.stderr); "
    "client = AsyncCortexClient('minnie_public').at(version=1412); repr(client)",
    "a blocking client": "from cortexclient import CortexClient; repr(CortexClient('v1dd'))",
    "a preset": "from cortexclient.datasets.minnie_public import client; repr(client)",
}


def modules_after(code: str) -> set[str]:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", f"import sys; {code}; {LOADED}"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return set(json.loads(done.stdout))


@pytest.mark.parametrize("step", STEPS)
def test_nothing_heavy_is_loaded_for(step: str) -> None:
    assert modules_after(STEPS[step]) & set(HEAVY) == set()


def test_the_package_alone_loads_nothing_of_its_own() -> None:
    assert {name for name in modules_after("import cortexclient") if name.startswith("cortexclient.")} == set()


def test_no_thread_is_started_for_a_client() -> None:
    code = "import threading; from cortexclient.datasets.v1dd import client; assert threading.active_count() == 1"
    modules_after(code)


def test_importing_takes_little() -> None:
    """The least of three runs, in CPU seconds: a busy machine is no failure."""
    code = "import time; a = time.process_time(); import cortexclient; print(time.process_time() - a)"
    took = [float(subprocess.check_output([sys.executable, "-c", code])) for _ in range(3)]
    assert min(took) < 0.1
