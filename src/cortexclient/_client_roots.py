"""The part of the client that is about roots: their cells, their supervoxels, and their lives through edits."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from ._types import BoolArray, IdArray, Ids, When
from .progress import ProgressLike
from .services._base import Session
from .services.chunkedgraph import AsyncChunkedGraph
from .services.materialize import AsyncMaterialize

if TYPE_CHECKING:
    import pandas as pd

    from .mapping import CellIndex, IdMapper


class RootCalls:
    """Cells of roots and roots of cells, what became of roots, and when they were current."""

    _session: Session
    _chunkedgraph: AsyncChunkedGraph
    _materialize: AsyncMaterialize

    @property
    def _mapper(self) -> IdMapper:
        from .mapping import IdMapper  # here, since it loads polars: a client that maps nothing must be light

        return IdMapper(self._session, self._materialize, self._chunkedgraph)

    async def root_id_to_cell_id(
        self,
        root_ids: Ids,
        *,
        version: int | None = None,
        timestamp: When | None = None,
        live: bool = False,
        detail: bool = False,
        progress: ProgressLike = None,
        timeout: float | None = None,
    ) -> pd.DataFrame:
        """Find the cell that each root is, whenever that root was current.

        Parameters
        ----------
        root_ids
            Roots of any age.
        version
            Use the nucleus tables of this version. Default: the client's pinned one, else the newest.
        timestamp, live
            Use the nucleus tables as they were at this instant, or as they are now, instead of a version's.
        detail
            Add columns that explain each answer.
        progress, timeout
            See :class:`~cortexclient.Progress`; seconds for the whole call.

        Returns
        -------
        DataFrame
            Index ``root_id`` in input order, column ``cell_id`` (int64; -1: no cell, or several). With ``detail`` also
            ``status`` (``ok``, ``none``, ``multiple``, ``invalid``: no such root, ``unresolved``: the server fails for
            this id), ``timestamp`` (UTC; when the answer was seen), ``source`` (``main``, ``backup``,
            ``main_replaced``) and ``n_matches`` (cells on the root).
            ``attrs["version"]`` is the version whose tables were used.

        Notes
        -----
        The supervoxels of a root never change; the tables do. So the answer is given by one state of the tables, and a
        cell whose point lies on the root's supervoxels is on the root. A cell's point is its backup point where it has
        one, else its main point.

        Examples
        --------
        >>> found = await client.root_id_to_cell_id([864691134885645050, 7], detail=True)
        >>> found[["cell_id", "status"]]
                            cell_id   status
        root_id
        864691134885645050   264898       ok
        7                        -1  invalid
        """
        return await self._mapper.root_id_to_cell_id(
            root_ids,
            version=version,
            timestamp=timestamp,
            live=live,
            detail=detail,
            progress=progress,
            timeout=timeout,
        )

    async def cell_id_to_root_id(
        self,
        cell_ids: Ids,
        *,
        timestamp: When | None = None,
        version: int | None = None,
        live: bool = False,
        detail: bool = False,
        progress: ProgressLike = None,
        timeout: float | None = None,
    ) -> pd.DataFrame:
        """Find the root that each cell is at a version or at any instant.

        Parameters
        ----------
        cell_ids
            Ids of the nucleus table.
        timestamp
            Give the roots of this instant. Default: those of the version.
        version
            Use the nucleus tables of this version. Default: the client's pinned one, else the newest.
        live
            Use the nucleus tables as they are at ``timestamp`` (default: now) instead of a version's.
        detail, progress, timeout
            As for :meth:`root_id_to_cell_id`.

        Returns
        -------
        DataFrame
            Index ``cell_id`` in input order, column ``root_id`` (int64; -1: no such cell, its point is on no segment,
            or its backup points are on different roots). With ``detail`` the same columns as the other way round.

        Examples
        --------
        >>> await client.cell_id_to_root_id([264898, 1])
                            root_id
        cell_id
        264898   864691134885645050
        1                        -1
        """
        return await self._mapper.cell_id_to_root_id(
            cell_ids,
            timestamp=timestamp,
            version=version,
            live=live,
            detail=detail,
            progress=progress,
            timeout=timeout,
        )

    async def get_roots(
        self,
        supervoxel_ids: Ids,
        timestamp: When | None = None,
        stop_layer: int | None = None,
        *,
        progress: ProgressLike = None,
        timeout: float | None = None,
    ) -> IdArray:
        """Find the root of each supervoxel at an instant; see ``chunkedgraph.get_roots``.

        Examples
        --------
        >>> nuclei = await client.tables.nucleus_detection_v0(id=[264898]).query()
        >>> await client.get_roots(nuclei["pt_supervoxel_id"])
        array([864691134885645050])
        """
        return await self._chunkedgraph.get_roots(
            supervoxel_ids, timestamp, stop_layer, progress=progress, timeout=timeout
        )

    async def is_latest_roots(
        self, root_ids: Ids, timestamp: When | None = None, *, timeout: float | None = None
    ) -> BoolArray:
        """Tell which roots are current; see ``chunkedgraph.is_latest_roots``.

        Examples
        --------
        >>> await client.is_latest_roots([864691134885645050, 864691135265981601])
        array([ True, False])
        """
        return await self._chunkedgraph.is_latest_roots(root_ids, timestamp, timeout=timeout)

    async def get_latest_roots(
        self, root_id: int, timestamp: When | None = None, *, timeout: float | None = None
    ) -> IdArray:
        """List the roots that a root turned into; see ``chunkedgraph.get_latest_roots``.

        Examples
        --------
        >>> await client.get_latest_roots(864691135265981601)
        array([864691132428634148, 864691134885645050])
        """
        return await self._chunkedgraph.get_latest_roots(root_id, timestamp, timeout=timeout)

    async def suggest_latest_roots(
        self, root_id: int, timestamp: When | None = None, *, timeout: float | None = None
    ) -> int:
        """Name the current root that holds most of an old one; see ``chunkedgraph.suggest_latest_roots``.

        Examples
        --------
        >>> await client.suggest_latest_roots(864691135265981601)
        864691134885645050
        """
        return await self._chunkedgraph.suggest_latest_roots(root_id, timestamp, timeout=timeout)

    async def latest_valid_timestamp(self, root_ids: Ids, *, timeout: float | None = None) -> pd.DatetimeIndex:
        """Tell the last millisecond at which each root was current (for a current one: just now).

        Returns
        -------
        DatetimeIndex of length n
            Time zone UTC, unit ms, in the order of the input.

        Examples
        --------
        >>> (await client.latest_valid_timestamp([864691135265981601]))[0].year
        2021
        """
        return await self._chunkedgraph.get_root_timestamps(root_ids, latest=True, timeout=timeout)

    async def root_lifetimes(self, root_ids: Ids, *, timeout: float | None = None) -> pd.DataFrame:
        """Tell from when to when each root was current; see ``chunkedgraph.get_root_lifetimes``.

        Examples
        --------
        >>> lives = await client.root_lifetimes([864691134885645050, 864691135265981601])
        >>> lives["is_latest"].tolist()
        [True, False]
        """
        return await self._chunkedgraph.get_root_lifetimes(root_ids, timeout=timeout)

    # -- through edits -------------------------------------------------------------------------------------------------

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

    async def build_cell_index(
        self,
        folder: str | Path,
        *,
        version: int | None = None,
        progress: ProgressLike = None,
        timeout: float | None = None,
    ) -> CellIndex:
        """Write down the cell of every root that ever held a nucleus, to translate millions of ids without asking.

        Parameters
        ----------
        folder
            Where the index is put, as ``cell_index.parquet`` (``root``, ``cell``, ``start``, ``end`` in ms, ``status``,
            ``source``, ``n_matches``); an older one is replaced when the new one is whole.
        version
            Use the nucleus tables of this version. Default: the client's pinned one, else the newest.
        progress, timeout
            See :class:`~cortexclient.Progress`; seconds for the whole call.

        Returns
        -------
        CellIndex
            ``CellIndex(folder)`` opens it again.

        Notes
        -----
        The lineages of all nuclei's roots are asked, and the translation of every root in them: an hour's work for a
        dataset with a hundred thousand nuclei, once. :meth:`refresh_cell_index` asks only about what has changed.

        Examples
        --------
        >>> import tempfile
        >>> index = await client.build_cell_index(tempfile.mkdtemp())
        >>> index.root_to_cell([864691134885645050, 7])
                            cell_id
        root_id
        864691134885645050   264898
        7                        -1
        """
        from .mapping import IndexBuilder

        return await IndexBuilder(self._session).build(folder, version, progress, timeout)

    async def refresh_cell_index(
        self, folder: str | Path, *, progress: ProgressLike = None, timeout: float | None = None
    ) -> CellIndex:
        """Bring an index up to date, asking about what was edited since it was made and nothing else.

        Parameters
        ----------
        folder
            Where it was built.

        Notes
        -----
        The version of the tables stays that of the index, which must still be there: an expired one needs a new index.

        Examples
        --------
        >>> import tempfile
        >>> folder = tempfile.mkdtemp()
        >>> index = await client.build_cell_index(folder)
        >>> refreshed = await client.refresh_cell_index(folder)
        >>> refreshed.until > index.until
        True
        """
        from .mapping import IndexBuilder

        return await IndexBuilder(self._session).refresh(folder, progress, timeout)

    async def changes(self, since: When | int, *, timeout: float | None = None) -> pd.DataFrame:
        """List the roots that ended and that began since an instant, and the cells that they are.

        Parameters
        ----------
        since
            An instant (aware), or a version.

        Returns
        -------
        DataFrame
            Index ``root_id``: those that ended, then those that began, each sorted. ``change``: ``ended`` or ``began``.
            ``cell_id`` (int64; -1: no cell, or several), as :meth:`AsyncCortexClient.root_id_to_cell_id` has it. It is
            the net change: roots that both began and ended since are not listed.

        Examples
        --------
        >>> changes = await client.changes(client.now())
        >>> changes.columns.to_list(), len(changes)
        (['change', 'cell_id'], 0)
        """
        from .mapping import IndexBuilder

        return await IndexBuilder(self._session).changes(since, timeout)
