"""Cells as they arrive: skeletons are gathered, what belongs to them is asked for together, Meshworks are built."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

import anyio
import anyio.to_thread
import numpy as np

from .._fanout import FATAL, fan_out
from .._outbox import Outbox, outcomes
from .._types import IdArray
from ..errors import CortexError
from ..interop.meshparty import (
    add_properties,
    add_synapses,
    level2_mesh,
    transform_meshwork,
)
from ..interop.space import dataset_space
from ..progress import ProgressLike
from ..results import Outcome
from ..services._base import Session
from ..services.chunkedgraph import AsyncChunkedGraph
from ..services.l2cache import AsyncL2Cache
from ..services.materialize import AsyncMaterialize
from ..services.skeleton import AsyncSkeletons
from ..skeletons import Skeleton
from ._parts import VOLUME, Parts
from ._synapses import ROOTS_AT_ONCE, SIDES, CellSynapses, SynapseFinder

if TYPE_CHECKING:
    import pandas as pd

BATCHES = 4
"""Batches of cells under way at once: while the parts of one are asked for, another one is built."""
GATHER = 0.2
"""Seconds that a batch waits for more cells, once it has one: missing skeletons take minutes, the others need not."""


@dataclass(frozen=True, slots=True)
class Fetched:
    """What belongs to some cells."""

    synapses: dict[tuple[int, str], CellSynapses] = field(default_factory=dict)
    edges: dict[int, IdArray] = field(default_factory=dict)
    chunks: pd.DataFrame | None = None
    """Measures of level-2 chunks, by their ids."""


class Morphology:
    """Composes the skeleton, chunkedgraph, level-2 and materialization services."""

    def __init__(
        self, session: Session, skeletons: AsyncSkeletons, graph: AsyncChunkedGraph, tables: AsyncMaterialize
    ) -> None:
        self._session, self._skeletons, self._graph = session, skeletons, graph
        self._finder = SynapseFinder(session, graph, tables)

    def outcomes(
        self, ids: IdArray, parts: Parts, *, generate: bool, progress: ProgressLike, timeout: float | None
    ) -> AbstractAsyncContextManager[AsyncIterator[Outcome[Any]]]:
        """One Meshwork or error for each distinct id, as they can be had."""
        space = None if parts.transform is None else dataset_space(self._session.spec)

        async def work(outbox: Outbox[Any], distinct: IdArray) -> None:
            async with self._skeletons.stream_skeletons(distinct, generate=generate) as arriving:
                turn = anyio.Lock()

                async def build(_: int) -> None:
                    while True:
                        async with turn:
                            batch = await _gathered(arriving, outbox)
                        if batch is None:
                            return
                        await self._build(batch, parts, space, outbox)

                await fan_out(range(BATCHES), build, BATCHES)

        return outcomes(ids, work, progress=progress, timeout=timeout)

    async def _build(self, skeletons: list[Skeleton], parts: Parts, space: Any, outbox: Outbox[Any]) -> None:
        try:
            fetched = await self._fetch(skeletons, parts)
        except FATAL:
            raise
        except CortexError as error:
            if len(skeletons) == 1:
                await outbox.failed(skeletons[0].root_id, error)
            else:
                for skeleton in skeletons:
                    await self._build([skeleton], parts, space, outbox)
            return
        for skeleton in skeletons:
            build = partial(_meshwork, skeleton, parts, fetched, space)
            try:
                neuron = await anyio.to_thread.run_sync(build)  # a second of CPU, at times
            except CortexError as error:
                await outbox.failed(skeleton.root_id, error)
            else:
                await outbox.done(skeleton.root_id, neuron)

    async def _fetch(self, skeletons: list[Skeleton], parts: Parts) -> Fetched:
        """What belongs to some cells, asked for together."""
        synapses, edges, chunks = {}, {}, None
        if parts.synapses and skeletons:
            synapses = await self._finder.find(skeletons, parts.references)
        if parts.restore_graph:
            roots = [skeleton.root_id for skeleton in skeletons]
            graphs = await fan_out(roots, self._graph.level2_chunk_graph, self._session.limits.of("chunkedgraph"))
            edges = dict(zip(roots, graphs, strict=True))
        if parts.chunk_attributes and skeletons:
            level2 = np.concatenate([skeleton.lvl2_ids for skeleton in skeletons])
            chunks = await AsyncL2Cache(self._session).get_l2data_table(level2, parts.chunk_attributes)
        return Fetched(synapses, edges, chunks)


async def _gathered(arriving: AsyncIterator[Outcome[Skeleton]], outbox: Outbox[Any]) -> list[Skeleton] | None:
    """The next cells, as many as one query asks for, or fewer if they are slow to come; None at the end."""
    batch: list[Skeleton] = []

    async def take() -> bool:
        try:
            outcome = await anext(arriving)
        except StopAsyncIteration:
            return False
        if outcome.error is None:
            batch.append(outcome.unwrap())
        else:
            await outbox.failed(outcome.id, outcome.error)
        return True

    if not await take():
        return None
    with anyio.move_on_after(GATHER):
        while len(batch) < ROOTS_AT_ONCE and await take():
            pass
    return batch


def _meshwork(skeleton: Skeleton, parts: Parts, fetched: Fetched, space: Any) -> Any:
    mesh: dict[str, Any] = {}
    if parts.restore_graph and fetched.chunks is not None:
        mesh = level2_mesh(skeleton, fetched.edges[skeleton.root_id], fetched.chunks)
    neuron = skeleton.to_meshwork(**mesh)
    for side in SIDES if parts.synapses else ():
        rows = fetched.synapses[skeleton.root_id, side]
        add_synapses(neuron, side, rows.frame, rows.level2)
    if parts.restore_properties and fetched.chunks is not None:
        add_properties(neuron, fetched.chunks[list(VOLUME)])
    if parts.transform is not None:
        transform_meshwork(neuron, parts.transform, space)
    return neuron
