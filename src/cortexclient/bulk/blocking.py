"""The blocking face of a job."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any, TypeVar

from .. import _portal
from .._sync.client import CortexClient
from ..datasets.spec import DatasetSpec
from ..errors import CortexUsageError
from ..progress import ProgressLike
from ..services._base import internal
from ._base import JobBase
from .job import AsyncBulkJob
from .ledger import Manifest
from .report import JobPlan, JobStatus
from .signals import on_sigterm

if TYPE_CHECKING:
    import distributed

T = TypeVar("T")


class BulkJob(JobBase[CortexClient]):
    """One question about millions of ids, answered part by part into a folder; blocking.

    Parameters and methods are those of :class:`AsyncBulkJob`, where they are explained; the client is a
    :class:`CortexClient`.

    Examples
    --------
    >>> job = BulkJob("root_id_to_cell_id", "roots.parquet", "cells", client="minnie_public")
    >>> job.run(progress=True)                                             # doctest: +SKIP
    """

    def create(self) -> JobStatus:
        """Write the ids and the question into the folder, and freeze the instant; no part is done yet.

        Examples
        --------
        >>> job = BulkJob("root_id_to_cell_id", roots, folder, client="minnie_public", part_size=2)
        >>> job.create().parts
        2
        """
        return self._run(lambda job: job.create())

    def run(self, *, progress: ProgressLike = None) -> JobStatus:
        """Do all parts that are not done or damaged; begin the job if there is none in the folder.

        Examples
        --------
        >>> job = BulkJob("root_id_to_cell_id", roots, folder, client="minnie_public")
        >>> print(job.run())
        root_id_to_cell_id: 1 of 1 parts, 3 of 3 ids (0 failed), 3 rows
        """
        return self._run(lambda job: job.run(progress=progress))

    def resume(self, *, progress: ProgressLike = None) -> JobStatus:
        """Go on with the job that is in the folder: as :meth:`run`, without looking at the ids again.

        Examples
        --------
        >>> created = BulkJob("root_id_to_cell_id", roots, folder, client="minnie_public").create()
        >>> print(BulkJob.open(folder).resume())
        root_id_to_cell_id: 1 of 1 parts, 3 of 3 ids (0 failed), 3 rows
        """
        return self._run(lambda job: job.resume(progress=progress))

    def retry_failed(self, *, progress: ProgressLike = None) -> JobStatus:
        """Ask once more about the ids that failed.

        Examples
        --------
        >>> job = BulkJob("get_skeletons", [*roots, 7], folder, client="minnie_public")
        >>> ran = job.run()
        >>> job.retry_failed().failed
        1
        """
        return self._run(lambda job: job.retry_failed(progress=progress))

    def run_part(self, k: int, *, workers: int = 1, progress: ProgressLike = None) -> Manifest:
        """Do one part of a job that was created before, beside other processes on other parts.

        Examples
        --------
        >>> job = BulkJob("root_id_to_cell_id", roots, folder, client="minnie_public", part_size=2)
        >>> created = job.create()
        >>> job.run_part(1).ok
        1
        """
        return self._run(lambda job: job.run_part(k, workers=workers, progress=progress))

    def plan(self) -> JobPlan:
        """Estimate what is still to be done; nothing is sent, and nothing is written.

        Examples
        --------
        >>> BulkJob("root_id_to_cell_id", roots, folder, client="minnie_public").plan().ids
        3
        """
        return self._run(lambda job: job.plan())

    def run_on(self, cluster: str | distributed.Client, *, progress: ProgressLike = None) -> JobStatus:
        """Do all parts that are not done or damaged on the workers of a Dask cluster.

        Parameters
        ----------
        cluster
            Address of its scheduler, or a ``distributed.Client``.
        progress
            As for :meth:`run`.

        Notes
        -----
        Workers need the folder under the same path, and a token of their own where they run: none is sent to them. Each
        takes its part of the client's limits, whatever number of threads it has.

        Examples
        --------
        >>> job = BulkJob("get_meshes", "roots.parquet", "meshes", client="minnie_public")   # doctest: +SKIP
        >>> job.run_on("tcp://scheduler:8786", progress=True)                                # doctest: +SKIP
        """
        from .dask import run_on

        return run_on(self, cluster, progress)

    def drain(self) -> None:
        """Have a run end in good order; any thread, and a signal's handler, may say so.

        Examples
        --------
        >>> job = BulkJob("root_id_to_cell_id", roots, folder, client="minnie_public")
        >>> job.drain()
        """
        if (running := self._running) is not None:  # looked at once: the job may end just now
            running.drain()

    @internal
    def client_share(self, workers: int) -> CortexClient:
        """Make a client with one worker's part of the limits; its pickle holds no token."""
        given = self._checked_client()
        if given is None:
            given = CortexClient(self.spec.dataset, server=self.spec.server)
        inner = (given if isinstance(given, CortexClient) else CortexClient(given))._inner  # noqa: SLF001
        return CortexClient.of(inner.share(workers))

    _running: AsyncBulkJob | None = None

    def _checked_client(self) -> CortexClient | str | DatasetSpec | None:
        if isinstance(self._client, CortexClient | str | DatasetSpec | None):
            return self._client
        raise CortexUsageError(
            f"BulkJob wants a CortexClient or a dataset, not {type(self._client).__name__}: AsyncBulkJob is the other "
            "face"
        )

    def _run(self, call: Callable[[AsyncBulkJob], Coroutine[Any, Any, T]]) -> T:
        given = self._checked_client()
        job = self._running = AsyncBulkJob(
            self._task.call,
            self._ids,
            self.folder,
            client=given._inner if isinstance(given, CortexClient) else given,  # noqa: SLF001 (its other face)
            column=self._column,
            options=self._options,
            sink=self._sink,
            part_size=self._part_size,
            patience=self.patience,
        )
        try:
            with on_sigterm(job.drain):
                return _portal.run(call, job)
        finally:
            self._running = None
