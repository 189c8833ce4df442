"""The parts of a job on a Dask cluster: each worker process has one client, and a part of the limits."""

from __future__ import annotations

import functools
import pickle
import threading
from typing import TYPE_CHECKING, Any

from .._sync.client import CortexClient
from ..errors import CortexUsageError, MissingDependency
from ..progress import ProgressLike, Reporter
from .ledger import Manifest
from .report import JobStatus, status_of

if TYPE_CHECKING:
    import distributed

    from .blocking import BulkJob


def run_on(job: BulkJob, cluster: str | distributed.Client, progress: ProgressLike) -> JobStatus:
    """See `BulkJob.run_on`."""
    try:
        import distributed
    except ImportError as error:
        raise MissingDependency("distributed", "dask", "running a job on a Dask cluster") from error
    job.create()
    with job.led():
        damaged = job.damaged_parts()
        todo = sorted({*job.parts_to_do(), *damaged})
        if isinstance(cluster, str):
            connect: Any = distributed.Client
            with connect(cluster, set_as_default=False) as dask:
                _hand_out(job, dask, todo, progress)
        else:
            _hand_out(job, cluster, todo, progress)
    return status_of(job.ledger, job.spec, damaged)


def _hand_out(job: BulkJob, dask: Any, todo: list[int], progress: ProgressLike) -> None:
    """Have the workers do parts; the first error ends all."""
    import distributed

    as_completed: Any = distributed.as_completed
    workers = len(dask.ncores())
    if not workers:
        raise CortexUsageError("the Dask cluster has no workers: start some first (cluster.scale(n))")
    # a pickled client holds settings and no token
    settings = pickle.dumps(job.client_share(workers))
    folder = str(job.folder.resolve())
    futures = [dask.submit(do_part, folder, k, settings, job.patience, pure=False) for k in todo]
    try:
        with Reporter(progress, job.count_ids(todo)) as reporter:
            for _, part in as_completed(futures, with_results=True):
                reporter.add(done=part.ok, failed=part.failed)
    finally:
        dask.cancel(futures)


def do_part(folder: str, k: int, settings: bytes, patience: float) -> Manifest:
    """Do one part, on a worker."""
    from .blocking import BulkJob

    return BulkJob.open(folder, client=_client_here(settings), patience=patience).run_part(k)


def _client_here(settings: bytes) -> CortexClient:
    """One client for all parts that this process does: they share its connections, its caches and its limits."""
    with _making:  # a worker's threads begin together, and to find nothing in a cache does not keep others from it
        return _unpacked(settings)


_making = threading.Lock()


@functools.lru_cache(maxsize=2)
def _unpacked(settings: bytes) -> CortexClient:
    client: Any = pickle.loads(settings)  # noqa: S301 (it comes from our own scheduler, as this function does)
    if not isinstance(client, CortexClient):
        raise CortexUsageError(f"a worker was sent a {type(client).__name__} in place of a client's settings")
    return client
