"""The synapses of cells, from as few queries as possible, and the level-2 chunk that holds each."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from .._fanout import fan_out
from .._types import IdArray
from ..errors import NotFoundError
from ..ids import batches
from ..services._base import Session, server_time
from ..services.chunkedgraph import AsyncChunkedGraph
from ..services.materialize import AsyncMaterialize
from ..services.materialize._versions import safe_to_ask
from ..skeletons import Skeleton

if TYPE_CHECKING:
    import pandas as pd

ROOTS_AT_ONCE = 25
"""Cells whose synapses one query asks for."""
SIDES = ("pre", "post")
ROWS_AT_ONCE = 5_000
"""Synapses that one query asks a reference table about."""
NM = (1, 1, 1)


@dataclass(frozen=True, slots=True)
class CellSynapses:
    """The synapses of one cell on one side, and the level-2 chunk that holds each."""

    frame: pd.DataFrame
    level2: IdArray


@dataclass(frozen=True, slots=True)
class State:
    """Some cells, and the state of the tables that tells their synapses: a version, or an instant."""

    tables: int | datetime
    instant: datetime
    roots: IdArray


class SynapseFinder:
    """Composes the chunkedgraph and the materialization service."""

    def __init__(self, session: Session, graph: AsyncChunkedGraph, tables: AsyncMaterialize) -> None:
        self._session, self._graph, self._tables = session, graph, tables

    async def find(
        self, skeletons: Sequence[Skeleton], references: Mapping[str, tuple[str, ...]]
    ) -> dict[tuple[int, str], CellSynapses]:
        """The synapses of some cells by root and side, each cell's at the last instant at which it was current."""
        table = (await self._session.record()).get("synapse_table")
        if not table:
            raise NotFoundError(f"{self._session.spec.datastack} has no synapse table: ask with synapses=False")
        chunks = {skeleton.root_id: skeleton.lvl2_ids for skeleton in skeletons}
        named = [str(table), *(name for names in references.values() for name in names)]

        async def one(state: State) -> list[tuple[int, str, CellSynapses]]:
            sides = dict(zip(SIDES, await fan_out(SIDES, partial(side_of, state), len(SIDES)), strict=True))
            level2 = await self._level2(sides, state, chunks)
            return [cell for side, rows in sides.items() for cell in _by_cell(rows, side, level2[side], state.roots)]

        async def side_of(state: State, side: str) -> pd.DataFrame:
            rows = await self._side(str(table), side, state)
            for name in references.get(side, ()):
                rows = await self._with_reference(rows, name, state)
            return rows

        states = await self._states(np.array(list(chunks), np.int64), named)
        parts = await fan_out(states, one, self._session.limits.of("materialize"))
        return {(root, side): rows for part in parts for root, side, rows in part}

    async def _states(self, roots: IdArray, tables: Sequence[str]) -> list[State]:
        """Cells that one query can ask for together.

        A root's supervoxels never change. So where the tables have not changed since a version at which it was current,
        that version tells the same as the root's last instant, for a tenth of a live query's price, and of many cells
        at once. The others are asked for at their last instants.
        """
        now = (await self._session.snapshot()).timestamp
        start, end = await self._graph.lifetimes_ms(roots, now)
        versions = await self._frozen(tables)
        at = np.array([int(version["time_stamp"].timestamp() * 1000) for version in versions], np.int64)
        alive = (start <= at[:, None]) & (at[:, None] < end)
        waiting, states = np.ones(len(roots), np.bool_), []
        while (told := (alive & waiting).sum(axis=1)).any():  # what tells of most cells first, of equals the newest
            best = int(told.argmax())
            version, here = versions[best], alive[best] & waiting
            alive[best] = False
            if set(tables) <= set(await self._tables.get_tables(version["version"])):
                number, instant = int(version["version"]), version["time_stamp"]
                states += [State(number, instant, part) for part in batches(roots[here], ROOTS_AT_ONCE)]
                waiting &= ~here
        retired = end < np.iinfo(np.int64).max
        for last in np.unique(np.where(retired, end - 1, -1)[waiting]).tolist():
            instant = now if last < 0 else datetime.fromtimestamp(last / 1000, UTC)
            members = roots[waiting & (np.where(retired, end - 1, -1) == last)]
            states += [State(instant, instant, part) for part in batches(members, ROOTS_AT_ONCE)]
        return states

    async def _frozen(self, tables: Sequence[str]) -> list[dict[str, Any]]:
        """The versions since which some tables have not changed, newest first."""
        described = [await self._tables.get_table_metadata(table) for table in dict.fromkeys(tables)]
        if not all(about.get("last_modified") for about in described):
            return []
        changed = max(server_time(about["last_modified"]) for about in described)
        known = await self._tables.get_versions_metadata()
        usable = [v for v in known if v["time_stamp"] >= changed and safe_to_ask(v)]
        return sorted(usable, key=lambda v: v["time_stamp"], reverse=True)

    async def _side(self, table: str, side: str, state: State) -> pd.DataFrame:
        rows = await self._rows(table, state, {f"{side}_pt_root_id": state.roots})
        return rows[rows["pre_pt_root_id"] != rows["post_pt_root_id"]].reset_index(drop=True)

    async def _with_reference(self, rows: pd.DataFrame, table: str, state: State) -> pd.DataFrame:
        """Add the columns of a table about synapses, as pcg_skel does: nothing where it has no row."""

        async def one(ids: IdArray) -> pd.DataFrame:
            return await self._rows(table, state, {"target_id": ids})

        if not len(rows):
            return rows
        import pandas as pd

        parts = await fan_out(batches(rows["id"].to_numpy(np.int64), ROWS_AT_ONCE), one, 4)
        about = pd.concat(parts).drop(columns=["id", "created", "superceded_id", "valid"], errors="ignore")
        return rows.merge(about.rename(columns={"target_id": "id"}), on="id", how="left")

    async def _rows(self, table: str, state: State, filters: dict[str, Any]) -> pd.DataFrame:
        tables = self._tables
        if isinstance(state.tables, int):
            asked = tables.query_table(
                table,
                materialization_version=state.tables,
                merge_reference=False,
                filter_in_dict=filters,
                desired_resolution=NM,
            )
        else:
            asked = tables.live_live_query(table, state.tables, filter_in_dict=filters, desired_resolution=NM)
        rows = await asked
        rows.attrs = {}  # pandas copies them, deeply, with whatever is done to the frame
        return rows

    async def _level2(
        self, sides: Mapping[str, pd.DataFrame], state: State, chunks: Mapping[int, IdArray]
    ) -> dict[str, IdArray]:
        """(n,) by side: the level-2 chunk that holds the cell's part of each synapse.

        It lies where the supervoxel does, by their ids. So it need only be looked up where a cell has several there.
        """
        supervoxels = [rows[f"{side}_pt_supervoxel_id"].to_numpy(np.int64) for side, rows in sides.items()]
        owner = np.concatenate([rows[f"{side}_pt_root_id"].to_numpy(np.int64) for side, rows in sides.items()])
        points, place = np.concatenate(supervoxels), await self._place_mask()
        found = np.zeros(len(points), np.int64)
        for root in state.roots.tolist():
            mine = np.flatnonzero(owner == root)
            found[mine] = _only_one_there(points[mine] & place, chunks[root], place)
        unclear = np.flatnonzero(found == 0)
        if len(unclear):
            found[unclear] = await self._graph.get_roots(points[unclear], state.instant, stop_layer=2)
        parts = np.split(found, np.cumsum([len(part) for part in supervoxels])[:-1])
        return dict(zip(sides, parts, strict=True))

    async def _place_mask(self) -> int:
        """The bits of an id of layer 1 or 2 that tell where it lies."""
        graph = (await self._graph.segmentation_info())["graph"]
        bits = {int(graph["spatial_bit_masks"][layer]) for layer in ("1", "2")}
        if len(bits) > 1:
            return 0  # nothing can be told
        width = 3 * bits.pop()
        return ((1 << width) - 1) << (64 - int(graph.get("n_bits_for_layer_id", 8)) - width)


def _by_cell(rows: pd.DataFrame, side: str, level2: IdArray, roots: IdArray) -> Iterator[tuple[int, str, CellSynapses]]:
    owner = rows[f"{side}_pt_root_id"].to_numpy(np.int64)
    for root in roots.tolist():
        at = np.flatnonzero(owner == root)
        yield root, side, CellSynapses(rows.iloc[at].reset_index(drop=True), level2[at])


def _only_one_there(places: IdArray, chunks: IdArray, mask: int) -> IdArray:
    """For each place the one chunk that lies there; 0 where there are several, or none."""
    there, first, count = np.unique(chunks & mask, return_index=True, return_counts=True)
    row = np.minimum(np.searchsorted(there, places), len(there) - 1)
    sure = (there[row] == places) & (count[row] == 1) & (mask != 0)
    return np.where(sure, chunks[first[row]], 0)
