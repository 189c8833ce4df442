"""The part of the client that is about the forms of cells: skeletons, level-2 chunks, links to see them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ._types import IdArray, Ids
from .ids import as_ids
from .interop.meshparty import ReferenceTables, Transform
from .links import client_as_html, neuroglancer_url
from .progress import ProgressLike
from .results import Outcome, Results, Stream
from .services._base import Session
from .services.chunkedgraph import AsyncChunkedGraph
from .services.l2cache import AsyncL2Cache
from .services.materialize import AsyncMaterialize
from .services.skeleton import AsyncSkeletons, Presence
from .services.state import AsyncStates

if TYPE_CHECKING:
    import pandas as pd

    from .morphology import Morphology


class MorphologyCalls:
    """Services and shortcuts about the forms of cells."""

    _session: Session
    _chunkedgraph: AsyncChunkedGraph
    _materialize: AsyncMaterialize

    @property
    def l2cache(self) -> AsyncL2Cache:
        """Measures of level-2 chunks.

        Examples
        --------
        >>> (await client.l2cache.attributes())[:2]
        ('area_nm2', 'chunk_intersect_count')
        """
        return AsyncL2Cache(self._session)

    @property
    def skeleton(self) -> AsyncSkeletons:
        """Skeletons as plain arrays, and the service that makes them.

        Examples
        --------
        >>> skeleton = await client.skeleton.get_skeleton(864691134885645050)
        >>> skeleton.vertices.shape, skeleton.edges.shape
        ((6, 3), (5, 2))
        """
        return AsyncSkeletons(self._session)

    @property
    def state(self) -> AsyncStates:
        """Neuroglancer states on the server.

        Examples
        --------
        >>> await client.state.upload_state_json({"layers": []}) > 0
        True
        """
        return AsyncStates(self._session)

    # -- skeletons ---------------------------------------------------------------------------------------------------

    @property
    def _morphology(self) -> Morphology:
        from .morphology import Morphology

        return Morphology(self._session, self.skeleton, self._chunkedgraph, self._materialize)

    async def get_skeleton(
        self,
        root_id: int,
        *,
        synapses: bool = False,
        transform: Transform | None = None,
        restore_graph: bool = False,
        restore_properties: bool = False,
        synapse_reference_tables: ReferenceTables | None = None,
        generate: bool = True,
        timeout: float | None = None,
    ) -> Any:
        """Fetch one cell as a meshparty ``Meshwork``.

        Parameters
        ----------
        synapses
            Add its synapses: ``anno.pre_syn`` (outputs) and ``anno.post_syn`` (inputs), as they were at the last
            instant at which the root was current.
        transform
            ``"rigid"``: rotated and shifted so that the pia is at y = 0 and y grows towards the white matter.
            ``"streamline"``: straightened along the curvature of the cortex too; x and z are distances from the
            streamline through the skeleton's root. Both give micrometres, for skeleton and annotations. None: nm.
        restore_graph
            Make ``mesh`` the level-2 graph: its edges, and a point inside each chunk.
        restore_properties
            Add ``anno.vol_prop`` (volume, area and thickness of each chunk) and ``anno.segment_properties`` (of each
            unbranched piece: volume, length, area, Strahler number, effective radius), by pcg_skel.
        synapse_reference_tables
            ``{"pre": table, "post": [table, ...]}``: tables about synapses, whose columns are added to ``pre_syn`` and
            ``post_syn``, with nothing where they have no row; points in nm.
        generate
            If the service has no skeleton yet, have it made, and wait for it (about a minute).
        timeout
            Seconds for the whole call.

        Returns
        -------
        meshparty.meshwork.Meshwork
            ``skeleton`` (vertices, edges, radius), ``mesh`` (one point for each level-2 chunk), and ``anno`` with
            ``lvl2_ids``, ``compartment`` and ``is_axon``. The same as ``pcg_skel.get_meshwork_from_client`` makes;
            :attr:`skeleton` gives plain arrays.

        Raises
        ------
        NotFoundError
            No such root, or it has no skeleton and ``generate`` is off.
        ServerRefusedError
            The service could not make one before, and does not try again.
        MissingDependency
            meshparty (or, for a transform, standard_transform) is not installed.

        Examples
        --------
        >>> neuron = await client.get_skeleton(864691134885645050, synapses=True, transform="rigid")
        >>> neuron.skeleton.vertices.shape, len(neuron.anno.post_syn)
        ((6, 3), 51)
        """
        one = int(as_ids(root_id, "root_id")[0])
        found = await self.get_skeletons(
            [one],
            synapses=synapses,
            transform=transform,
            restore_graph=restore_graph,
            restore_properties=restore_properties,
            synapse_reference_tables=synapse_reference_tables,
            generate=generate,
            timeout=timeout,
        )
        return found[one]

    async def get_skeletons(
        self,
        root_ids: Ids,
        *,
        synapses: bool = False,
        transform: Transform | None = None,
        restore_graph: bool = False,
        restore_properties: bool = False,
        synapse_reference_tables: ReferenceTables | None = None,
        generate: bool = True,
        progress: ProgressLike = None,
        timeout: float | None = None,
    ) -> Results[Any]:
        """Fetch many cells as meshparty Meshworks; one bad id spoils only itself.

        Parameters
        ----------
        synapses, transform, restore_graph, restore_properties, synapse_reference_tables, generate
            As for :meth:`get_skeleton`.
        progress, timeout
            See :class:`~cortexclient.Progress`; seconds, after which the outcome of what is not there is a
            :class:`DeadlineExceeded`.

        Returns
        -------
        Results of meshparty.meshwork.Meshwork
            In input order.

        Examples
        --------
        >>> found = await client.get_skeletons([864691134885645050, 5])
        >>> found.status()
        {'ok': 1, 'NotFoundError': 1}
        """
        ids = as_ids(root_ids, "root_ids")
        stream = self.stream_skeletons(
            ids,
            synapses=synapses,
            transform=transform,
            restore_graph=restore_graph,
            restore_properties=restore_properties,
            synapse_reference_tables=synapse_reference_tables,
            generate=generate,
            progress=progress,
            timeout=timeout,
        )
        async with stream as arriving:
            arrived: dict[int, Outcome[Any]] = {outcome.id: outcome async for outcome in arriving}
        return Results([arrived[i] for i in dict.fromkeys(ids.tolist())])

    def stream_skeletons(
        self,
        root_ids: Ids,
        *,
        synapses: bool = False,
        transform: Transform | None = None,
        restore_graph: bool = False,
        restore_properties: bool = False,
        synapse_reference_tables: ReferenceTables | None = None,
        generate: bool = True,
        progress: ProgressLike = None,
        timeout: float | None = None,
    ) -> Stream[Any]:
        """Fetch many cells as meshparty Meshworks, handing out each outcome as it arrives, in bounded memory.

        Parameters
        ----------
        synapses, transform, restore_graph, restore_properties, synapse_reference_tables, generate
            As for :meth:`get_skeleton`.
        progress, timeout
            As for :meth:`get_skeletons`.

        Returns
        -------
        Stream of meshparty.meshwork.Meshwork
            One outcome for each distinct id, in no particular order.

        Examples
        --------
        >>> async with client.stream_skeletons([864691134885645050, 5]) as outcomes:
        ...     sorted([outcome.ok async for outcome in outcomes])
        [False, True]
        """
        from .morphology import Parts

        parts = Parts.checked(
            synapses=synapses,
            transform=transform,
            restore_graph=restore_graph,
            restore_properties=restore_properties,
            synapse_reference_tables=synapse_reference_tables,
        )
        ids = as_ids(root_ids, "root_ids")
        return Stream(
            lambda: self._morphology.outcomes(ids, parts, generate=generate, progress=progress, timeout=timeout)
        )

    async def skeletons_exist(self, root_ids: Ids, *, timeout: float | None = None) -> dict[int, bool]:
        """Tell which roots have a skeleton that is there at once; see ``skeleton.skeletons_exist``.

        Examples
        --------
        >>> await client.skeletons_exist([864691134885645050])
        {864691134885645050: True}
        """
        return await self.skeleton.skeletons_exist(root_ids, timeout=timeout)

    async def ensure_skeletons(
        self, root_ids: Ids, *, progress: ProgressLike = None, timeout: float | None = None
    ) -> Results[Presence]:
        """Have those skeletons made that are not there yet, and wait for them; see ``skeleton.ensure_skeletons``.

        Examples
        --------
        >>> await client.ensure_skeletons([864691134885645050], timeout=300)
        Results: 1 ok
        """
        return await self.skeleton.ensure_skeletons(root_ids, progress=progress, timeout=timeout)

    # -- level 2 -----------------------------------------------------------------------------------------------------

    async def get_l2_ids(self, root_id: int, *, timeout: float | None = None) -> IdArray:
        """List the level-2 chunks of a root: (n,) int64, in no particular order; empty for an unknown id.

        Examples
        --------
        >>> l2_ids = await client.get_l2_ids(864691134885645050)
        >>> l2_ids.dtype, l2_ids.shape
        (dtype('int64'), (6,))
        """
        return await self._chunkedgraph.get_leaves(root_id, stop_layer=2, timeout=timeout)

    async def get_l2data(
        self,
        l2_ids: Ids,
        attributes: Sequence[str] | None = None,
        *,
        progress: ProgressLike = None,
        timeout: float | None = None,
    ) -> pd.DataFrame:
        """Fetch measures of level-2 chunks as a frame; see ``l2cache.get_l2data_table``.

        Examples
        --------
        >>> l2_ids = await client.get_l2_ids(864691134885645050)
        >>> (await client.get_l2data(l2_ids, ["size_nm3"])).shape
        (6, 1)
        """
        return await self.l2cache.get_l2data_table(l2_ids, attributes, progress=progress, timeout=timeout)

    # -- links -------------------------------------------------------------------------------------------------------

    async def neuroglancer_url(
        self,
        target_url: str | None = None,
        clipboard: bool = False,
        shorten: bool = False,
        root_ids: Ids | None = None,
        annotations: pd.DataFrame | None = None,
    ) -> str:
        """Make a link that shows the dataset in Neuroglancer.

        Parameters
        ----------
        target_url
            Address of the viewer. Default: the datastack's.
        clipboard
            Put the link on the clipboard too.
        shorten
            Store the state on the server, and link to its number. Without it nothing is sent but, once, the question
            for the datastack's record.
        root_ids
            Cells to select.
        annotations
            Rows to show as points, such as :meth:`query_synapses` gives (``ctr_pt_position`` or ``pt_position``); their
            unit is ``annotations.attrs["dataframe_resolution"]``.

        Raises
        ------
        CortexUsageError
            The annotations have no point, or do not tell its unit.
        MissingDependency
            nglui (or, for the clipboard, pyperclip) is not installed.

        Examples
        --------
        >>> await client.neuroglancer_url(root_ids=[864691134885645050])
        'https://...'
        """
        return await neuroglancer_url(
            self._session,
            self.state,
            target_url=target_url,
            clipboard=clipboard,
            shorten=shorten,
            root_ids=root_ids,
            annotations=annotations,
        )

    async def get_state_json(self, state_id: int, *, timeout: float | None = None) -> dict[str, Any]:
        """Fetch a Neuroglancer state by its number.

        Examples
        --------
        >>> number = await client.upload_state_json({"layers": []})
        >>> await client.get_state_json(number)
        {'layers': []}
        """
        return await self.state.get_state_json(state_id, timeout=timeout)

    async def upload_state_json(self, state: dict[str, Any], *, timeout: float | None = None) -> int:
        """Store a Neuroglancer state; its number.

        Examples
        --------
        >>> number = await client.upload_state_json({"layers": []})
        >>> await client.get_state_json(number)
        {'layers': []}
        """
        return await self.state.upload_state_json(state, timeout=timeout)

    def _repr_mimebundle_(self, include: object = None, exclude: object = None) -> dict[str, str]:  # noqa: ARG002
        return {"text/plain": repr(self), "text/html": self._repr_html_()}

    def _repr_html_(self) -> str:
        return client_as_html(repr(self), self._session)
