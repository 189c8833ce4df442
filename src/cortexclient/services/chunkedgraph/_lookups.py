"""Look-ups of many ids: roots, lifetimes, existence."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from ..._fanout import fan_out, running
from ..._types import BoolArray, IdArray, Ids, When
from ..._wire import binary, endpoints, json
from ...errors import DecodeError, NotFoundError
from ...ids import as_ids, layer_of
from ...progress import ProgressLike, Reporter
from .._base import epoch
from ._base import GraphService
from ._batched import no_such_nodes

if TYPE_CHECKING:
    import pandas as pd


class Lookups(GraphService):
    """Roots, lifetimes and existence of many ids at once."""

    async def get_roots(
        self,
        supervoxel_ids: Ids,
        timestamp: When | None = None,
        stop_layer: int | None = None,
        *,
        progress: ProgressLike = None,
        timeout: float | None = None,
    ) -> IdArray:
        """Find the root of each supervoxel at an instant.

        Parameters
        ----------
        supervoxel_ids
            Supervoxels or other nodes of the graph. Roots answer with themselves, retired ones too, and so does any id
            of their layer: :meth:`is_valid_nodes` tells which exist.
        timestamp
            The instant, inclusive: an edit made exactly then counts. The server keeps whole milliseconds.
        stop_layer
            Climb only to this layer (or the first above it, where layers are skipped). Default: the root.
        progress, timeout
            See :class:`~cortexclient.Progress`; seconds for the whole call.

        Returns
        -------
        (n,) int64
            In the order of the input; 0 where there is no such node, or it did not exist yet.

        Examples
        --------
        >>> nuclei = await client.tables.nucleus_detection_v0(id=[264898, 262893]).query()
        >>> await client.chunkedgraph.get_roots(nuclei["pt_supervoxel_id"])
        array([864691131820236620, 864691134885645050])
        """
        asked = as_ids(supervoxel_ids, "supervoxel_ids")
        with running(timeout, progress, len(asked)) as reporter:
            query = {"timestamp": epoch((await self._session.snapshot(timestamp)).timestamp)}
            if stop_layer is not None:
                query["stop_layer"] = str(stop_layer)
            return await self._map(endpoints.ROOTS_BINARY, query, asked.clip(min=0), self._climbed, reporter=reporter)

    async def _climbed(self, chunk: IdArray, query: Mapping[str, str]) -> IdArray:
        body = binary.encode_ids(chunk)
        reply = await self._session.send(endpoints.ROOTS_BINARY, query=query, body=body, ids=chunk)
        roots = binary.decode_ids(reply.body, len(chunk))
        # where no id of a request has a parent, the service gives the ids back as they are (a lower layer)
        layers = layer_of(roots)
        stop = int(query.get("stop_layer", 0))
        return np.where(layers >= stop if stop else layers == await self._n_layers(), roots, 0)

    async def get_root_id(
        self, supervoxel_id: int, timestamp: When | None = None, level2: bool = False, *, timeout: float | None = None
    ) -> int:
        """Find the root (or, with ``level2``, the level-2 node) of one supervoxel.

        Raises
        ------
        NotFoundError
            If there is no such supervoxel at that instant.

        Examples
        --------
        >>> leaves = await client.chunkedgraph.get_leaves(864691134885645050)
        >>> await client.chunkedgraph.get_root_id(leaves[0])
        864691134885645050
        """
        roots = await self.get_roots(supervoxel_id, timestamp, 2 if level2 else None, timeout=timeout)
        if roots[0] == 0:
            raise NotFoundError("no root: there is no such supervoxel at that instant", ids=[supervoxel_id])
        return int(roots[0])

    async def is_latest_roots(
        self,
        root_ids: Ids,
        timestamp: When | None = None,
        *,
        progress: ProgressLike = None,
        timeout: float | None = None,
    ) -> BoolArray:
        """Tell which roots are current just before an instant.

        Parameters
        ----------
        root_ids
            Roots; any other id answers False, but for level-2 nodes and the like, which answer for themselves.
        timestamp
            The instant, *exclusive* (unlike :meth:`get_roots`): at the time of an edit the old root still counts.

        Returns
        -------
        (n,) bool
            In the order of the input.

        Examples
        --------
        >>> await client.chunkedgraph.is_latest_roots([864691134885645050, 864691135265981601])
        array([ True, False])
        """
        asked = as_ids(root_ids, "root_ids")
        with running(timeout, progress, len(asked)) as reporter:
            query = {"timestamp": epoch((await self._session.snapshot(timestamp)).timestamp)}
            return await self._map(
                endpoints.IS_LATEST_ROOTS, query, asked.clip(min=0), self._latest, dtype=np.bool_, reporter=reporter
            )

    async def _latest(self, chunk: IdArray, query: Mapping[str, str]) -> BoolArray:
        body = json.encode({"node_ids": chunk})
        reply = await self._session.send(endpoints.IS_LATEST_ROOTS, query=query, body=body, ids=chunk)
        return json.decode_flags(reply.body, "is_latest", len(chunk))

    async def is_valid_nodes(self, node_ids: Ids, *, timeout: float | None = None) -> BoolArray:
        """Tell which ids name a node that was ever in the graph, current or not, at any layer.

        Returns
        -------
        (n,) bool
            In the order of the input.

        Examples
        --------
        >>> await client.chunkedgraph.is_valid_nodes([864691134885645050, 7])
        array([ True, False])
        """
        with running(timeout, None, None):
            return await self._existing(as_ids(node_ids, "node_ids"))

    async def get_root_timestamps(
        self,
        root_ids: Ids,
        latest: bool = False,
        timestamp: When | None = None,
        *,
        progress: ProgressLike = None,
        timeout: float | None = None,
    ) -> pd.DatetimeIndex:
        """Tell when each root came to be or, with ``latest``, the last instant at which it was current.

        Parameters
        ----------
        root_ids
            Roots (or other nodes above supervoxels).
        latest
            Give the last millisecond of the root's life; for a current one, the millisecond before ``timestamp``.
        timestamp
            With ``latest``: as seen at this instant.

        Returns
        -------
        DatetimeIndex of length n
            Time zone UTC, unit ms, in the order of the input.

        Raises
        ------
        NotFoundError
            Naming the ids that do not exist (with ``latest``: or did not exist yet).

        Examples
        --------
        >>> await client.chunkedgraph.get_root_timestamps([864691134885645050])
        DatetimeIndex(['2024-01-21 08:59:20.701000+00:00'], dtype='datetime64[ms, UTC]', freq=None)
        """
        import pandas as pd

        asked = as_ids(root_ids, "root_ids")
        with running(timeout, progress, len(asked)) as reporter:
            when = (await self._session.snapshot(timestamp)).timestamp
            times = await self._times(asked, latest, when, reporter)
        if latest:
            times = times - 1  # the service names the instant of the edit, when the root was no longer current
        return pd.DatetimeIndex(times.astype("datetime64[ms]"), tz="UTC")

    async def get_root_lifetimes(
        self, root_ids: Ids, timestamp: When | None = None, *, timeout: float | None = None
    ) -> pd.DataFrame:
        """Tell from when (inclusive) to when (exclusive) each root was current.

        Returns
        -------
        DataFrame
            Index ``root_id`` in input order; ``start`` and ``end`` (UTC; ``end`` is NaT where the root is current at
            ``timestamp``, default: now), ``is_latest``.

        Raises
        ------
        NotFoundError
            Naming the ids that do not exist.

        Examples
        --------
        >>> lives = await client.chunkedgraph.get_root_lifetimes([864691134885645050, 864691135265981601])
        >>> lives["is_latest"]
        root_id
        864691134885645050     True
        864691135265981601    False
        Name: is_latest, dtype: bool
        """
        import pandas as pd

        asked = as_ids(root_ids, "root_ids")
        with running(timeout, None, None):
            start, end = await self.lifetimes_ms(asked, timestamp)
        current = end == np.iinfo(np.int64).max
        ends = np.where(current, np.datetime64("NaT", "ms"), end.astype("datetime64[ms]"))
        columns = {
            "start": pd.DatetimeIndex(start.astype("datetime64[ms]"), tz="UTC"),
            "end": pd.DatetimeIndex(ends, tz="UTC"),
            "is_latest": current,
        }
        return pd.DataFrame(columns, index=pd.Index(asked, name="root_id"))

    async def lifetimes_ms(
        self, root_ids: IdArray, timestamp: When | None = None
    ) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """Tell from when (inclusive) to when (exclusive) each root was current: ms since the epoch.

        Returns
        -------
        start, end
            (n,) int64. The end of a root that is current at ``timestamp`` (default: now) is the largest int64.

        Examples
        --------
        >>> start, end = await client.chunkedgraph.lifetimes_ms(np.array([864691135265981601]))
        >>> int(end[0] - start[0]) // 86_400_000  # days
        266
        """
        now = (await self._session.snapshot(timestamp)).timestamp

        start, end = await fan_out((False, True), lambda latest: self._times(root_ids, latest, now), workers=2)
        asked = int(now.timestamp() * 1000)
        return start, np.where(end >= asked, np.iinfo(np.int64).max, end)

    async def _times(
        self, ids: IdArray, latest: bool, when: datetime, reporter: Reporter | None = None
    ) -> npt.NDArray[np.int64]:
        query = {"latest": str(latest), "timestamp": epoch(when)}
        return await self._map(endpoints.ROOT_TIMESTAMPS, query, ids, self._timestamps, reporter=reporter)

    async def _timestamps(self, chunk: IdArray, query: Mapping[str, str]) -> npt.NDArray[np.int64]:
        body = json.encode({"node_ids": chunk})
        reply = await self._session.send(endpoints.ROOT_TIMESTAMPS, query=query, body=body, ids=chunk)
        try:
            return json.decode_seconds(reply.body, "timestamp", len(chunk))
        except DecodeError:
            if json.decode(reply.body) != {"timestamp": []}:
                raise
            raise no_such_nodes(chunk, endpoints.ROOT_TIMESTAMPS) from None  # all of them unknown is no failure there
