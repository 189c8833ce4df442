"""Cells as meshparty Meshworks: skeletons, and the synapses on them, from as few requests as possible."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import TYPE_CHECKING, Any

import anyio.to_thread
import numpy as np

from ._fanout import FATAL, deadline, fan_out
from ._types import IdArray
from .errors import CortexError, NotFoundError
from .ids import batches
from .interop.meshparty import Transform, add_synapses, check_transform, transform_meshwork
from .progress import ProgressLike
from .results import Outcome
from .services._base import Session
from .services.chunkedgraph import AsyncChunkedGraph
from .services.materialize import AsyncMaterialize
from .services.skeleton import AsyncSkeletons
from .skeletons import Skeleton

if TYPE_CHECKING:
    import pandas as pd

ROOTS_AT_ONCE = 25
"""Cells whose synapses one query asks for."""
SIDES = ("pre", "post")
SOON = 0.001
"""Seconds that a call still has when it has none: enough to say so for each id."""


@dataclass(frozen=True, slots=True)
class CellSynapses:
    """The synapses of one cell on one side, and the level-2 chunk that holds each."""

    frame: pd.DataFrame
    level2: IdArray


class Morphology:
    """Composes the skeleton, chunkedgraph and materialization services."""

    def __init__(
        self, session: Session, skeletons: AsyncSkeletons, graph: AsyncChunkedGraph, tables: AsyncMaterialize
    ) -> None:
        self._session, self._skeletons, self._graph, self._tables = session, skeletons, graph, tables

    @asynccontextmanager
    async def outcomes(
        self,
        ids: IdArray,
        *,
        synapses: bool,
        transform: Transform | None,
        generate: bool,
        progress: ProgressLike,
        timeout: float | None,
    ) -> AsyncIterator[AsyncIterator[Outcome[Any]]]:
        """One Meshwork or error for each distinct id, as they can be had."""
        space = check_transform(transform, self._session.spec)
        end = None if timeout is None else time.monotonic() + timeout
        stream = self._skeletons.stream_skeletons(ids, generate=generate, progress=progress, timeout=timeout)

        async def built(arriving: AsyncIterator[Outcome[Skeleton]]) -> AsyncGenerator[Outcome[Any], None]:
            waiting: list[Skeleton] = []
            async for outcome in arriving:
                if outcome.error is not None:
                    yield Outcome(outcome.id, error=outcome.error)
                    continue
                waiting.append(outcome.unwrap())
                if len(waiting) == (ROOTS_AT_ONCE if synapses else 1):
                    for done in await self._build(waiting, synapses, transform, space, end):
                        yield done
                    waiting = []
            for done in await self._build(waiting, synapses, transform, space, end):
                yield done

        async with stream as arriving, aclosing(built(arriving)) as meshworks:
            yield meshworks

    async def _build(
        self, skeletons: list[Skeleton], synapses: bool, transform: Transform | None, space: Any, end: float | None
    ) -> list[Outcome[Any]]:
        found: dict[tuple[int, str], CellSynapses] = {}
        if synapses and skeletons:
            try:
                with deadline(None if end is None else max(end - time.monotonic(), SOON)):
                    found = await self._synapses(np.array([skeleton.root_id for skeleton in skeletons], np.int64))
            except FATAL:
                raise
            except CortexError as error:
                if len(skeletons) == 1:
                    return [Outcome(skeletons[0].root_id, error=error)]
                alone = [await self._build([skeleton], synapses, transform, space, end) for skeleton in skeletons]
                return [outcome for outcomes in alone for outcome in outcomes]
        build = partial(_outcome, synapses=synapses, found=found, transform=transform, space=space)
        return [await anyio.to_thread.run_sync(build, skeleton) for skeleton in skeletons]  # a second of CPU, at times

    async def _synapses(self, roots: IdArray) -> dict[tuple[int, str], CellSynapses]:
        """The synapses of some cells by root and side, each cell's at the last instant at which it was current."""
        record = await self._session.record()
        table = record.get("synapse_table")
        if not table:
            raise NotFoundError(f"{self._session.spec.datastack} has no synapse table: ask with synapses=False")
        instants = await self._graph.get_root_timestamps(roots, latest=True)
        groups: dict[datetime, list[int]] = {}
        for root, instant in zip(roots.tolist(), instants.to_pydatetime().tolist(), strict=True):
            groups.setdefault(instant, []).append(root)
        jobs = [
            (side, instant, chunk)
            for instant, members in groups.items()
            for chunk in batches(np.array(members, np.int64), ROOTS_AT_ONCE)
            for side in SIDES
        ]

        async def one(job: tuple[str, datetime, IdArray]) -> list[tuple[int, str, CellSynapses]]:
            side, instant, chunk = job
            return [(root, side, rows) for root, rows in await self._side(str(table), side, instant, chunk)]

        parts = await fan_out(jobs, one, self._session.limits.of("materialize"))
        return {(root, side): rows for part in parts for root, side, rows in part}

    async def _side(self, table: str, side: str, instant: datetime, roots: IdArray) -> list[tuple[int, CellSynapses]]:
        rows = await self._tables.live_live_query(
            table,
            instant,
            filter_in_dict={f"{side}_pt_root_id": roots},
            desired_resolution=(1, 1, 1),
        )
        rows = rows[rows["pre_pt_root_id"] != rows["post_pt_root_id"]]
        owner = rows[f"{side}_pt_root_id"].to_numpy(np.int64)
        supervoxels = rows[f"{side}_pt_supervoxel_id"].to_numpy(np.int64)
        level2 = await self._graph.get_roots(supervoxels, instant, stop_layer=2)
        return [
            (root, CellSynapses(rows[mine].reset_index(drop=True), level2[mine]))
            for root, mine in ((root, owner == root) for root in roots.tolist())
        ]


def _outcome(
    skeleton: Skeleton,
    *,
    synapses: bool,
    found: dict[tuple[int, str], CellSynapses],
    transform: Transform | None,
    space: Any,
) -> Outcome[Any]:
    try:
        neuron = skeleton.to_meshwork()
        for side in SIDES if synapses else ():
            rows = found[skeleton.root_id, side]
            add_synapses(neuron, side, rows.frame, rows.level2)
        if transform is not None:
            transform_meshwork(neuron, transform, space)
    except CortexError as error:
        return Outcome(skeleton.root_id, error=error)
    return Outcome(skeleton.root_id, value=neuron)
