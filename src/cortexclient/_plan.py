"""What a call will cost, before anything is sent: the planner's cuts, and what the servers were measured to take."""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterable, Iterator
from datetime import datetime
from typing import Any

from ._costs import CostEstimate, Step, step
from ._fanout import plan
from ._types import IdArray
from ._wire import endpoints
from ._wire.endpoints import Endpoint
from .errors import CortexUsageError
from .ids import layer_of, unique_ids
from .services._base import Session

BYTES_PER_ID = {
    "roots_binary": (8, 8),
    "root_timestamps": (19, 18),
    "is_latest_roots": (19, 6),
    "valid_nodes": (19, 19),
    "lineage_graph": (19, 900),
    "table_query": (19, 24),
    "live_query": (0, 24),
}
"""Up and down, uncompressed: binary ids, ids in JSON, ten generations of a lineage, rows of three integers in Arrow."""
CELLS, BACKUPS, VERSIONS = 150_000, 8_400, 4
"""Rows of a table of cells and of one of backup points, and versions, where they are not known (minnie65: 144,120 and
8,388)."""

LOOK_UPS = {
    "get_roots": endpoints.ROOTS_BINARY,
    "get_root_timestamps": endpoints.ROOT_TIMESTAMPS,
    "is_latest_roots": endpoints.IS_LATEST_ROOTS,
    "is_valid_nodes": endpoints.VALID_NODES,
}
TRANSLATIONS = ("root_id_to_cell_id", "cell_id_to_root_id")


class Planner:
    """Estimates calls of one client. Reads its caches, and sends nothing."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._place = (session.server, session.spec.datastack)

    def estimate(self, call: str, ids: IdArray, *, timestamp: datetime | None, live: bool) -> CostEstimate:
        """See `AsyncCortexClient.plan`."""
        unique, _ = unique_ids(ids)
        if call in LOOK_UPS:
            steps: Iterable[Step] = self._look_ups(call, unique)
        elif call == "root_id_to_cell_id":
            steps = self._to_cells(unique, live or timestamp is not None)
        elif call == "cell_id_to_root_id":
            steps = self._to_roots(unique, timestamp, live)
        else:
            known = [*LOOK_UPS, *TRANSLATIONS]
            if call.startswith("query"):
                raise CortexUsageError(f"no plan for {call!r}: client.tables.<name>(...).plan() counts its rows first")
            near = difflib.get_close_matches(call, known, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(sorted(known))}"
            raise CortexUsageError(f"no plan for {call!r}: {hint}")
        return CostEstimate(call, len(ids), len(unique), tuple(step for step in steps if step.cost.requests))

    # -- calls -------------------------------------------------------------------------------------------------------

    def _look_ups(self, call: str, ids: IdArray) -> Iterator[Step]:
        if len(ids):
            yield from self._descriptions(graph=call == "get_roots")
        # ids below one are known to be none: all of them together are asked as one, or not at all
        asked = {"get_root_timestamps": ids, "is_valid_nodes": ids[ids > 0]}.get(call, ids.clip(min=0))
        yield self._split(call, LOOK_UPS[call], asked)

    def _to_cells(self, ids: IdArray, live: bool) -> Iterator[Step]:
        from .mapping._search import MANY

        info: Any = self._session.cache.peek(("segmentation_info", *self._place))
        top = int(info["graph"]["n_layers"]) if info else int(layer_of(ids).max(initial=0))
        roots = ids[layer_of(ids) == top]
        yield from self._descriptions(graph=True)
        yield from self._versions(live)
        if not len(roots):
            return
        yield from self._tables(len(roots), live)
        yield self._split("which were current", endpoints.IS_LATEST_ROOTS, roots, sure=False)
        yield self._split("existence", endpoints.VALID_NODES, roots, sure=False)
        lives = self._split("lifetimes", endpoints.ROOT_TIMESTAMPS, roots)
        yield self._step("lifetimes", endpoints.ROOT_TIMESTAMPS, 2 * lives.cost.requests, 2 * lives.ids, sure=False)
        if len(roots) >= MANY:
            yield from self._older_versions(len(roots))
        yield self._step("rows on their relatives", endpoints.TABLE_QUERY, 2, len(roots), sure=False)
        lineages = math.ceil(len(roots) / self._session.batch(endpoints.LINEAGE_GRAPH))
        yield self._step("edits between versions", endpoints.LINEAGE_GRAPH, 2 * lineages, 2 * len(roots), sure=False)
        # every such root may need an instant of its own
        yield self._step("look-ups between versions", endpoints.ROOTS_BINARY, len(roots), len(roots), sure=False)

    def _older_versions(self, n_roots: int) -> Iterator[Step]:
        """Rows on the roots, and points that may have moved since: backups, and cells that came later."""
        versions = len(self._session.cache.peek(("versions", *self._place)) or range(VERSIONS))
        points = BACKUPS * len(self._session.spec.backup_tables)
        # on the roots, on their relatives, and of single cells; the oldest version's backups
        yield self._step(
            "rows of older versions", endpoints.TABLE_QUERY, 3 * versions + 1, n_roots + points, sure=False
        )
        births = math.ceil(points / self._session.batch(endpoints.ROOT_TIMESTAMPS))
        yield self._step("ages of points", endpoints.ROOT_TIMESTAMPS, births, points, sure=False)
        per_version = math.ceil(points / self._session.batch(endpoints.ROOTS_BINARY))
        moved = versions * per_version, versions * points
        yield self._step("points that have moved", endpoints.ROOTS_BINARY, *moved, sure=False)

    def _to_roots(self, ids: IdArray, timestamp: datetime | None, live: bool) -> Iterator[Step]:
        looks_up = timestamp is not None and not live
        yield from self._descriptions(graph=looks_up)
        yield from self._versions(live)
        yield from self._tables(len(ids), live)
        if looks_up:
            yield self._split("roots of their points", endpoints.ROOTS_BINARY, ids)

    # -- steps -------------------------------------------------------------------------------------------------------

    def _descriptions(self, *, graph: bool) -> Iterator[Step]:
        """What is asked once and kept."""
        holds = self._session.cache.holds
        if not holds(("record", *self._place)):
            yield self._step("the datastack's record", endpoints.DATASTACK, 1)
        if graph and not holds(("segmentation_info", *self._place)):
            yield self._step("the graph's description", endpoints.SEGMENTATION_INFO, 1)

    def _versions(self, live: bool) -> Iterator[Step]:
        if not self._session.cache.holds(("versions", *self._place)):
            yield self._step("the list of versions", endpoints.VERSIONS_METADATA, 1, sure=not live)

    def _tables(self, n_ids: int, live: bool) -> Iterator[Step]:
        """The rows of the cells' tables that answer: all of them, or those of some ids."""
        from .mapping._annotations import WHOLE_FROM

        n_backups = len(self._session.spec.backup_tables)
        query = endpoints.LIVE_QUERY if live else endpoints.TABLE_QUERY
        if live or n_ids >= WHOLE_FROM:
            yield self._step("the whole table of cells", query, 1, CELLS)
        else:
            yield self._step("rows of the table of cells", query, 1, n_ids)
        yield self._step("tables of backup points", query, n_backups, n_backups * BACKUPS)

    def _split(self, what: str, endpoint: Endpoint, ids: IdArray, *, sure: bool = True) -> Step:
        unique, _ = unique_ids(ids)
        chunks = plan(unique, self._session.batch(endpoint), self._session.limits.of(endpoint.service))
        return self._step(what, endpoint, len(chunks), len(unique), sure=sure)

    def _step(self, what: str, endpoint: Endpoint, requests: int, ids: int = 0, *, sure: bool = True) -> Step:
        payload = ids * sum(BYTES_PER_ID.get(endpoint.name, (0, 0)))
        workers = self._session.limits.of(endpoint.service)
        return step(what, endpoint, requests, ids, workers=workers, payload=payload, sure=sure)
