"""The part of the client that is about rows: tables, views, synapses."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING

from ._types import Ids, When
from .progress import ProgressLike
from .services._base import Session
from .services.materialize import AsyncMaterialize
from .tables import AsyncTables, AsyncViews
from .tables._register import Register

if TYPE_CHECKING:
    import pandas as pd

    from .synapses import Synapses


def complete_at_once(client: object) -> None:
    """Make the lists of a new client: IPython completes behind attributes that are there, and runs no property."""
    for name in ("tables", "views"):
        getattr(client, name)


class TableCalls:
    """Tables and views by name, and the synapses of roots."""

    _session: Session
    _materialize: AsyncMaterialize

    @cached_property
    def tables(self) -> AsyncTables:
        """The tables of the client's version, by name: ``client.tables.nucleus_detection_v0(id=[1, 2])``.

        Examples
        --------
        >>> (await client.tables.load())[:2]
        ['aibs_metamodel_celltypes_v661', 'nucleus_alternative_points']
        """
        return AsyncTables(Register(self._session, self._materialize, views=False))

    @cached_property
    def views(self) -> AsyncViews:
        """The views of the client's version, by name.

        Examples
        --------
        >>> rows = await client.views.nucleus_detection_lookup_v1(id=[264898]).query()
        >>> rows["pt_root_id"].tolist()
        [864691134885645050]
        """
        return AsyncViews(Register(self._session, self._materialize, views=True))

    @property
    def _synapses(self) -> Synapses:
        from .synapses import Synapses

        return Synapses(self._session, self._materialize)

    async def query_synapses(
        self,
        root_ids: Ids,
        pre: bool = True,
        post: bool = True,
        *,
        version: int | None = None,
        timestamp: When | None = None,
        live: bool = False,
        remove_autapses: bool = True,
        reference_tables: Sequence[str] = (),
        suffixes: Mapping[str, str] | None = None,
        synapse_table: str | None = None,
        desired_resolution: Sequence[float] | None = (1, 1, 1),
        split_positions: bool = True,
        progress: ProgressLike = None,
        timeout: float | None = None,
    ) -> pd.DataFrame:
        """Fetch all synapses of any number of roots.

        Parameters
        ----------
        root_ids
            Roots of the version or the instant.
        pre, post
            Synapses that they make, and that they receive. One that both sides find is given once.
        version, timestamp, live
            A version, or an instant (aware), or now. Default: what the client is pinned to, else the newest version.
        remove_autapses
            Leave out synapses of a root with itself.
        reference_tables
            Tables about synapses (``target_id`` is the synapse): their columns are added, null where there is no row.
        suffixes
            By reference table: what is put behind names that the synapses have too. Default: ``_<table>``.
        synapse_table
            Default: that of the datastack.
        desired_resolution
            Unit of the points in nm per axis; None: the table's own voxels.
        split_positions
            Points as three columns ``_x, _y, _z``; False: as one column of (3,) arrays.
        progress, timeout
            See :class:`~cortexclient.Progress` (synapses, not ids); seconds for the whole call.

        Returns
        -------
        DataFrame
            One row a synapse, in no particular order: the columns of the synapse table, ids int64.

        Raises
        ------
        TruncatedResult
            If rows are missing; ``.partial`` holds what came, as it does of every other error.

        Examples
        --------
        >>> inputs = await client.query_synapses([864691134885645050], pre=False)
        >>> inputs["post_pt_root_id"].unique()
        array([864691134885645050])
        """
        return await self._synapses.query(
            root_ids,
            pre,
            post,
            version=version,
            timestamp=timestamp,
            live=live,
            remove_autapses=remove_autapses,
            reference_tables=reference_tables,
            suffixes=suffixes,
            synapse_table=synapse_table,
            desired_resolution=desired_resolution,
            split_positions=split_positions,
            progress=progress,
            timeout=timeout,
        )

    async def synapse_edges(
        self,
        root_ids: Ids,
        pre: bool = True,
        post: bool = True,
        *,
        version: int | None = None,
        timestamp: When | None = None,
        live: bool = False,
        remove_autapses: bool = True,
        synapse_table: str | None = None,
        progress: ProgressLike = None,
        timeout: float | None = None,
    ) -> pd.DataFrame:
        """Count the synapses between roots: the edges that start or end at any of ``root_ids``.

        Synapses are summed up as they arrive, so that memory holds edges only.
        Parameters and errors are as for :meth:`query_synapses`.

        Returns
        -------
        DataFrame
            ``pre_pt_root_id, post_pt_root_id`` (int64, sorted), ``n_synapses`` (int64), ``sum_size`` (float64; NaN
            where no size is known).

        Examples
        --------
        >>> edges = await client.synapse_edges([864691134885645050], pre=False)
        >>> edges.columns.tolist()
        ['pre_pt_root_id', 'post_pt_root_id', 'n_synapses', 'sum_size']
        """
        return await self._synapses.edges(
            root_ids,
            pre,
            post,
            version=version,
            timestamp=timestamp,
            live=live,
            remove_autapses=remove_autapses,
            synapse_table=synapse_table,
            progress=progress,
            timeout=timeout,
        )
