"""A job: one question about millions of ids, answered part by part into a folder."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime

import anyio
import numpy as np

from .._client import AsyncCortexClient
from .._fanout import fan_out
from ..datasets.spec import DatasetSpec
from ..errors import CortexUsageError
from ..progress import ProgressLike, Reporter
from ._base import JobBase
from .ledger import Manifest
from .parts import Parts
from .report import JobPlan, JobStatus, status_of
from .signals import on_sigterm
from .sources import digest_of
from .spec import JobSpec
from .tasks import Context

AT_ONCE = 2
"""Parts in hand: one alone would leave the servers idle while its last answers come in."""
GRACE = 20.0
"""Seconds that parts in hand have to finish after a SIGTERM, before they are dropped."""
FIRST_CALLS = {"root_lifetimes": "get_root_timestamps", "update_roots": "is_latest_roots"}
"""What the planner calls the first step of some tasks."""


class AsyncBulkJob(JobBase[AsyncCortexClient]):
    """One question about millions of ids, answered part by part into a folder, by as many processes as you like.

    Parameters
    ----------
    task
        Name of the client's method to call: ``root_id_to_cell_id``, ``cell_id_to_root_id``, ``get_roots``,
        ``root_lifetimes``, ``update_roots``, ``get_l2data`` (of roots or level-2 chunks), ``query_synapses``,
        ``synapse_edges``, ``get_skeletons``, ``get_meshes``.
    ids
        Anything id-like, an iterator of ids, or a ``.parquet``, ``.csv`` or text file; one that comes often is asked
        once. None: those of the job that is in the folder.
    out
        The folder.
    client
        A client, or name or :class:`DatasetSpec` of a dataset. The version or the instant that it is pinned to is the
        job's. Default: one for the dataset of the job that is in the folder.
    column
        Which column of a file holds the ids.
    options
        Further arguments of the method, such as ``{"post": False}``.
    sink
        ``parquet``, ``swc`` (skeletons) or ``draco`` (meshes). Default: a file for each neuron, rows for all else.
    part_size
        Ids in a part. Default: 50,000 look-ups, 500 skeletons or meshes, 100 cells with their synapses or chunks.
    patience
        Seconds that a service may be away before the job stops (it can be resumed).

    Examples
    --------
    >>> job = AsyncBulkJob("root_id_to_cell_id", "roots.parquet", "cells", client="minnie_public")
    >>> await job.run(progress=True)                                       # doctest: +SKIP
    """

    _stop: Callable[[], object] | None = None
    _drained = False

    async def create(self) -> JobStatus:
        """Write the ids and the question into the folder, and freeze the instant; no part is done yet.

        Raises
        ------
        CortexUsageError
            If another job is in the folder, or somebody is writing there.

        Examples
        --------
        >>> job = AsyncBulkJob("root_id_to_cell_id", roots, folder, client=client, part_size=2)
        >>> (await job.create()).parts
        2
        """
        async with self._leading():
            return self.status()

    async def run(self, *, progress: ProgressLike = None) -> JobStatus:
        """Do all parts that are not done or damaged; begin the job if there is none in the folder.

        SIGTERM ends it in good order: parts in hand are finished or, after 20 seconds, dropped.

        Parameters
        ----------
        progress
            See :class:`~cortexclient.Progress`; ids of parts that are done already are not counted.

        Returns
        -------
        JobStatus
            ``complete`` is False if it was told to stop.

        Raises
        ------
        CortexUsageError
            If another job is in the folder, or somebody is writing there.
        UnavailableError, AuthError
            Services are away for too long, or do not let us in. What is done stays.

        Examples
        --------
        >>> job = AsyncBulkJob("root_id_to_cell_id", roots, folder, client=client)
        >>> print(await job.run())
        root_id_to_cell_id: 1 of 1 parts, 3 of 3 ids (0 failed), 3 rows
        """
        async with self._leading() as client:
            damaged = self.damaged_parts()
            await self._do(client, sorted({*self.parts_to_do(), *damaged}), progress)
        return status_of(self.ledger, self.spec, damaged)

    async def resume(self, *, progress: ProgressLike = None) -> JobStatus:
        """Go on with the job that is in the folder: as :meth:`run`, without looking at the ids again.

        Parameters
        ----------
        progress
            As for :meth:`run`.

        Examples
        --------
        >>> job = AsyncBulkJob("root_id_to_cell_id", roots, folder, client=client)
        >>> created = await job.create()
        >>> print(await AsyncBulkJob.open(folder, client=client).resume())
        root_id_to_cell_id: 1 of 1 parts, 3 of 3 ids (0 failed), 3 rows
        """
        self._ids = None
        return await self.run(progress=progress)

    async def retry_failed(self, *, progress: ProgressLike = None) -> JobStatus:
        """Ask once more about the ids that failed.

        Parameters
        ----------
        progress
            As for :meth:`run`.

        Examples
        --------
        >>> job = AsyncBulkJob("get_skeletons", [*roots, 7], folder, client=client)
        >>> status = await job.run()
        >>> (await job.retry_failed()).failed
        1
        """
        self._ids = None
        async with self._leading() as client:
            await self._do(client, self.parts_with_failures(), progress, again=True)
        return self.status()

    async def run_part(self, k: int, *, workers: int = 1, progress: ProgressLike = None) -> Manifest:
        """Do one part of a job that was created before, beside other processes on other parts.

        Parameters
        ----------
        k
            Number of the part; one that is done and whole is left as it is.
        workers
            How many processes share the servers: each takes its part of the limits.
        progress
            As for :meth:`run`.

        Returns
        -------
        Manifest
            How many of its ids have an answer, how many failed, how many rows there are; all 0 if it was told to stop.

        Raises
        ------
        CortexUsageError
            If there is no such part, or another process is at it.

        Examples
        --------
        >>> job = AsyncBulkJob("root_id_to_cell_id", roots, folder, client=client, part_size=2)
        >>> created = await job.create()
        >>> (await job.run_part(1)).ok
        1
        """
        spec = self.spec
        if not 0 <= k < spec.parts:
            raise CortexUsageError(f"there is no part {k}: {self.folder} has parts 0 to {spec.parts - 1}")
        with self.ledger.part_written(k):
            if not self.ledger.is_done(k) or self.ledger.damage(k):
                async with self._connected(workers) as client:
                    await self._do(_at(client, spec), [k], progress)
        return self.ledger.manifest(k) or Manifest(0, 0, 0)

    async def plan(self) -> JobPlan:
        """Estimate what is still to be done; nothing is sent, and nothing is written.

        Examples
        --------
        >>> job = AsyncBulkJob("root_id_to_cell_id", roots, folder, client=client)
        >>> (await job.plan()).ids
        3
        """
        async with self._connected() as client:
            if self.ledger.exists:
                size, parts, todo = self.spec.part_size, self.spec.parts, self.parts_to_do()
                ids = np.concatenate([np.empty(0, np.int64), *map(self.ledger.ids, todo)])
            else:
                ids, size = self.distinct_ids(), self.part_size
                parts = -(-len(ids) // size)
                todo = [*range(parts)]
            call = FIRST_CALLS.get(self._task.call, self._task.call)
            estimate = client.plan(call, ids) if self._task.one_row_each else None
        return JobPlan(self._task.call, parts, parts - len(todo), size, len(ids), estimate)

    def drain(self) -> None:
        """Have a run end in good order; any thread, and a signal's handler, may say so.

        Examples
        --------
        >>> job = AsyncBulkJob("root_id_to_cell_id", roots, folder, client=client)
        >>> job.drain()
        """
        self._drained = True
        if (stop := self._stop) is not None:  # looked at once: the job may end just now
            stop()

    # -- the job -----------------------------------------------------------------------------------------------------

    @asynccontextmanager
    async def _leading(self) -> AsyncIterator[AsyncCortexClient]:
        """The folder for us alone, with the job in it, and a client at its instant."""
        if self._ids is None:
            self.ledger.spec()
        with self.ledger.written_alone():
            async with self._connected() as client:
                if not self.ledger.exists:
                    await self._create(client)
                else:
                    self._compare(client)
                self.ledger.check_ids()
                yield _at(client, self.spec)

    @asynccontextmanager
    async def _connected(self, workers: int = 1) -> AsyncIterator[AsyncCortexClient]:
        """The client that was given, or one for this block; with a part of its limits if there are several workers."""
        given = self._client
        if isinstance(given, AsyncCortexClient) and workers == 1:
            yield given
            return
        if given is None:
            given = AsyncCortexClient(self.spec.dataset, server=self.spec.server)
        elif isinstance(given, str | DatasetSpec):
            given = AsyncCortexClient(given)
        elif not isinstance(given, AsyncCortexClient):
            raise CortexUsageError(
                f"AsyncBulkJob wants an AsyncCortexClient or a dataset, not {type(given).__name__}: BulkJob is the "
                "other face"
            )
        async with given.share(workers) if workers > 1 else given as client:
            yield client

    async def _create(self, client: AsyncCortexClient) -> None:
        version, when = await self._instant(client)
        ids = self.distinct_ids()
        spec = JobSpec(
            task=self._task.call,
            options=self._options,
            sink=self._sink,
            part_size=self.part_size,
            dataset=client.spec,
            server=client.session().override,
            version=version,
            timestamp=when,
            count=len(ids),
            digest=digest_of(ids),
        )
        self.ledger.create(ids, spec)

    async def _instant(self, client: AsyncCortexClient) -> tuple[int | None, datetime | None]:
        """The version and the instant that the whole job answers for."""
        version, when = client.version, client.session().timestamp
        if version is None and when is None and self._task.at == "version":
            version = await client.most_recent_materialization_version()
        if version is not None:
            return version, await client.version_timestamp(version)
        return None, datetime.now(UTC) if when is None and self._task.at == "instant" else when

    def _compare(self, client: AsyncCortexClient) -> None:
        """Refuse if the folder holds another job than the one that was asked for."""
        where = str(self.folder)
        pinned = {"version": client.version, "timestamp": client.session().timestamp, "part_size": self._part_size}
        asked = {
            "task": self._task.call,
            "options": self._options,
            "sink": self._sink,
            "dataset": client.spec,
            **{name: value for name, value in pinned.items() if value is not None},
        }
        self.spec.refuse_other(asked, where)
        if self._ids is not None:
            ids = self.distinct_ids()
            self.spec.refuse_other({"count": len(ids), "digest": digest_of(ids)}, where)

    async def _do(
        self, client: AsyncCortexClient, todo: list[int], progress: ProgressLike, *, again: bool = False
    ) -> None:
        """Do parts, some at a time, until all are done or somebody says stop."""
        loop, scope = asyncio.get_running_loop(), anyio.CancelScope()

        def next_ones() -> Iterator[int]:
            for k in todo:
                if self._drained:
                    return
                yield k

        context = Context(client, self._options, functools.cache(self.ledger.all_ids))
        self._stop = lambda: loop.call_soon_threadsafe(lambda: loop.call_later(GRACE, scope.cancel))
        try:
            with on_sigterm(self.drain), Reporter(progress, self.count_ids(todo, failed=again)) as reporter, scope:
                parts = Parts(self.ledger, self._task, context, self._sink, self.patience, reporter)
                await fan_out(next_ones(), parts.again if again else parts.do, AT_ONCE)
        finally:
            self._stop, self._drained = None, False


def _at(client: AsyncCortexClient, spec: JobSpec) -> AsyncCortexClient:
    """The client at the instant of the job."""
    if spec.version is not None:
        return client.at(version=spec.version)
    return client.at(timestamp=spec.timestamp)
