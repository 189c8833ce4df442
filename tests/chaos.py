"""What the programs of the chaos suite do: each is a process of its own, so that it can be killed."""

from __future__ import annotations

import contextlib
import importlib
import os
import resource
import sys
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path

from cortexclient import BulkJob, CortexClient, RetryPolicy
from cortexclient.bulk import attempts

# loaded once, in the process that all others are forked from
for name in ("cortexclient._transport.engine", "cortexclient.mapping", "cortexclient.synapses", "pandas", "pytest"):
    importlib.import_module(name)

PATIENT = RetryPolicy(base=0.02, cap=0.2)
FILE_LIMIT = 5_000


def _client(variables: Mapping[str, str]) -> CortexClient:
    os.environ.update(variables)
    attempts.FIRST_PAUSE = attempts.LONGEST_PAUSE = 0.1
    return CortexClient("minnie_public", retry=PATIENT)


def resume(folder: Path, variables: Mapping[str, str], disk_is_full: bool = False) -> None:
    """Go on with a job; the exit status is 0: complete, 3: not, 4: refused, 5: another error."""
    client = _client(variables)
    if disk_is_full:
        resource.setrlimit(resource.RLIMIT_FSIZE, (FILE_LIMIT, resource.RLIM_INFINITY))
    _end(lambda: 0 if BulkJob.open(folder, client=client).resume().complete else 3)


def do_parts(folder: Path, variables: Mapping[str, str], order: list[int]) -> None:
    """Do parts in this order, but for those that somebody else is at."""
    client = _client(variables)

    def work() -> int:
        for k in order:
            try:
                BulkJob.open(folder, client=client).run_part(k, workers=2)
            except ValueError as error:
                if "being written" not in str(error):
                    raise
        return 0

    _end(work)


def _end(work: Callable[[], int]) -> None:
    told, status = "", 5
    try:
        status = work()
    except ValueError as error:
        told, status = f"{error}\n", 4
    except Exception:  # noqa: BLE001 (the status says it)
        told = traceback.format_exc()
    with contextlib.suppress(OSError):  # stderr may be a file, which the limit is for too
        sys.stderr.write(told)
        sys.stderr.flush()
    os._exit(status)
