"""The part of the client that follows roots through their edits."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ._types import Ids, When
from .progress import ProgressLike
from .services._base import Session
from .services.chunkedgraph import AsyncChunkedGraph
from .services.materialize import AsyncMaterialize

if TYPE_CHECKING:
    import pandas as pd


class RootCalls:
    """What became of roots, and when they were current."""

    _session: Session
    _chunkedgraph: AsyncChunkedGraph
    _materialize: AsyncMaterialize

    async def update_roots(
        self,
        root_ids: Ids,
        timestamp: When | None = None,
        *,
        progress: ProgressLike = None,
        timeout: float | None = None,
    ) -> pd.DataFrame:
        """Find what became of roots: the current root that holds most of each.

        Parameters
        ----------
        root_ids
            Roots of any age.
        timestamp
            The instant at which the answers are current. Default: the client's pinned one, else now.
        progress, timeout
            See :class:`~cortexclient.Progress`; seconds for the whole call.

        Returns
        -------
        DataFrame
            Index ``root_id`` in input order. ``current_id`` (int64; -1: none). ``confidence``: the share of the old
            root's level-2 chunks that it holds (a chunk that was edited counts by its supervoxels). ``alternatives``:
            lists of the other roots that hold some, largest first. ``status``: ``current`` (it is still itself),
            ``updated`` (all of it is in one root), ``split`` (it has alternatives), ``invalid`` (there is no such root,
            or nothing of it at that instant), ``unresolved`` (the server fails for this id).

        Notes
        -----
        The edits are followed first, which costs little; the chunks are only looked up where a root's material may lie
        in several roots. That takes one request for each such root and 0.35 ms of the server's time for each chunk, so
        that a root which was once merged with half the dataset (millions of chunks) takes minutes.

        Examples
        --------
        >>> found = await client.update_roots([864691135265981601])
        >>> found[["current_id", "status"]]
                                    current_id status
        root_id
        864691135265981601  864691134885645050  split
        """
        from .successors import update_roots  # here, since it loads polars

        return await update_roots(self._session, root_ids, timestamp, progress=progress, timeout=timeout)

    async def best_version(self, root_ids: Ids, *, timeout: float | None = None) -> pd.DataFrame:
        """Find the version that knows most of some roots.

        Returns
        -------
        DataFrame
            Index ``version``, all that can be queried: ``n_current`` of the ``n_total`` distinct roots were current at
            its ``timestamp`` (UTC), that is the ``fraction``. The best comes first, of equals the newest.

        Raises
        ------
        NotFoundError
            Naming the ids that do not exist.

        Examples
        --------
        >>> found = await client.best_version([864691134885645050, 864691135265981601])
        >>> found["n_current"].to_dict()
        {1484: 1, 1412: 1, 117: 1, 661: 0}
        """
        from .successors import best_version

        return await best_version(self._chunkedgraph, self._materialize, root_ids, timeout=timeout)
