"""AsyncCortexClient: wiring, and the shortcuts that belong to no single service."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from ._client_morphology import MorphologyCalls
from ._client_outlook import OutlookCalls
from ._client_roots import RootCalls
from ._client_tables import TableCalls, complete_at_once
from ._transport import TokenSource, Transport, TransportStats
from ._types import When
from .caches import AsyncCaches, cache_of
from .config import Limits, RetryPolicy, Timeouts
from .datasets.spec import DatasetSpec, get_spec
from .errors import CortexUsageError
from .exports import AsyncExports
from .services._base import Session, check_aware, internal
from .services.chunkedgraph import AsyncChunkedGraph
from .services.info import AsyncInfo
from .services.l2cache import AsyncL2Cache
from .services.materialize import AsyncMaterialize
from .services.mesh import AsyncMesh

if TYPE_CHECKING:
    import httpx


class AsyncCortexClient(TableCalls, MorphologyCalls, RootCalls, OutlookCalls):
    """A CAVE dataset: many requests at once, bounded, retried, complete.

    Parameters
    ----------
    dataset
        Name of a preset (``"minnie_public"``), of a datastack that has one, or any :class:`DatasetSpec`.
    server
        One URL for all services. Default: the spec's global server, and whatever local server its datastack record
        names; in place of a preset's global server that of the environment's ``CORTEXCLIENT_SERVER``, for all services.
    version, timestamp
        Pin every call to a materialization version or to an instant (aware); see :meth:`at`.
    token
        Default: the environment's ``CORTEXCLIENT_TOKEN``, else CAVE's secret files.
    limits, retry, timeouts
        How many requests at once and in a minute (default: as the dataset has it), how stubborn, how patient.
    cache_dir
        Folder for what cannot change any more (rows of versions, skeletons, mesh fragments), for several processes.
        Default: the environment's ``CORTEXCLIENT_CACHE``, else such things are kept in memory only.
    http_client
        An ``httpx.AsyncClient`` of your own (a proxy, a test double), for this client alone and on its loop. It is not
        closed here, and cannot follow into another process.

    Notes
    -----
    Building a client does no I/O: it opens at its first request. Close it with ``async with`` or :meth:`aclose`. An
    asynchronous client belongs to the event loop of its first request; a blocking one may be used from any thread, and
    in a forked child it opens connections of its own. A pickled client keeps its settings, the environment's server
    included, but for the token, which is looked up where the pickle is loaded.

    Examples
    --------
    >>> async with AsyncCortexClient("minnie_public") as client:
    ...     cells = await client.root_id_to_cell_id([864691134885645050])
    """

    def __init__(
        self,
        dataset: str | DatasetSpec,
        *,
        server: str | None = None,
        version: int | None = None,
        timestamp: When | None = None,
        token: str | None = None,
        limits: Limits | None = None,
        retry: RetryPolicy = RetryPolicy(),  # noqa: B008 (frozen)
        timeouts: Timeouts = Timeouts(),  # noqa: B008
        cache_dir: str | Path | None = None,
        http_client: httpx.AsyncClient | None = None,
    ) -> None:
        spec = get_spec(dataset)
        limits = (limits or spec.limits).over(spec.limits)
        transport = Transport(
            limits=limits, retry=retry, timeouts=timeouts, token=TokenSource(token), http_client=http_client
        )
        cache = cache_of(cache_dir, limits)
        session = Session(transport=transport, spec=spec, limits=limits, cache=cache, override=server)
        self._wire(_pinned(session, version, timestamp))

    def _wire(self, session: Session) -> None:
        self._session = session
        self._info = AsyncInfo(session)
        self._chunkedgraph = AsyncChunkedGraph(session)
        self._materialize = AsyncMaterialize(session)
        self._mesh = AsyncMesh(session, AsyncL2Cache(session))
        self._exports = AsyncExports(session)
        complete_at_once(self)

    def at(self, *, version: int | None = None, timestamp: When | None = None) -> Self:
        """Look at the same dataset from another instant; connections and caches are shared, nothing is sent.

        Parameters
        ----------
        version
            A materialization version: tables are its own, and its instant is everybody's default timestamp.
        timestamp
            Any instant (aware).

        Examples
        --------
        >>> old = client.at(version=117)
        >>> await old.cell_id_to_root_id([264898])
                           root_id
        cell_id
        264898  864691135265981601
        """
        view = object.__new__(type(self))
        view._wire(_pinned(self._session, version, timestamp))
        return view

    @internal
    def session(self) -> Session:
        """Its connection, and what it is pinned to."""
        return self._session

    @internal
    def share(self, workers: int) -> Self:
        """A client of its own with the same settings, but with the limits of one of several workers."""
        one = object.__new__(type(self))
        one._wire(self._session.unopened(self._session.limits.shared_by(workers)))
        return one

    # -- services ----------------------------------------------------------------------------------------------------

    @property
    def info(self) -> AsyncInfo:
        """What the datastack is made of.

        Examples
        --------
        >>> await client.info.get_datastacks()
        ['minnie65_phase3_v1', 'minnie65_public']
        """
        return self._info

    @property
    def chunkedgraph(self) -> AsyncChunkedGraph:
        """Supervoxels, roots and their history.

        Examples
        --------
        >>> await client.chunkedgraph.is_valid_nodes([864691134885645050, 7])
        array([ True, False])
        """
        return self._chunkedgraph

    @property
    def materialize(self) -> AsyncMaterialize:
        """Versions, tables and views.

        Examples
        --------
        >>> await client.materialize.get_versions()
        [117, 661, 1412, 1484]
        """
        return self._materialize

    @property
    def mesh(self) -> AsyncMesh:
        """Meshes, and which level-2 node each vertex belongs to.

        Examples
        --------
        >>> mesh = await client.mesh.get_mesh(864691134885645050)
        >>> mesh.vertices.shape[1], mesh.faces.shape[1]
        (3, 3)
        """
        return self._mesh

    @property
    def exports(self) -> AsyncExports:
        """Whole tables as files in a bucket.

        Examples
        --------
        >>> await client.exports.available_versions("connections_with_nuclei")
        [117, 661, 1412, 1484]
        """
        return self._exports

    def set_export_cloudpath(
        self, cloudpath: str | Sequence[str], *, credentials: Callable[[], tuple[str, datetime | None]] | None = None
    ) -> None:
        """Say where :attr:`exports` are looked for; all views of :meth:`at` look there too. Nothing is sent.

        ``DatasetSpec(exports_url=...)`` is the way to say so once for all.

        Parameters
        ----------
        cloudpath
            ``gs://bucket/folder``, ``s3://``, ``https://``, ``file://`` or a folder; or several of them.
        credentials
            For buckets that are not public (``gs://``): gives a bearer token and when it expires (aware; None: never).
            It may be called from any thread, and again when the token is about to expire.

        Raises
        ------
        CortexUsageError
            The path is no such thing.

        Examples
        --------
        >>> client.set_export_cloudpath("gs://my-bucket/exports/")
        """
        paths = (cloudpath,) if isinstance(cloudpath, str) else tuple(cloudpath)
        self._exports.look_at(paths, credentials)

    # -- what this client is about -----------------------------------------------------------------------------------

    @property
    def spec(self) -> DatasetSpec:
        """Where the dataset lives and what its tables are called.

        Examples
        --------
        >>> client.spec.nucleus_table
        'nucleus_detection_v0'
        """
        return self._session.spec

    @property
    def datastack_name(self) -> str:
        """Name of the datastack.

        Examples
        --------
        >>> client.datastack_name
        'minnie65_public'
        """
        return self._session.spec.datastack

    @property
    def server_address(self) -> str:
        """Address of the global server.

        Examples
        --------
        >>> client.server_address
        'http...'
        """
        return self._session.server

    @property
    def version(self) -> int | None:
        """The version that this client is pinned to, if it is.

        Examples
        --------
        >>> client.at(version=1412).version
        1412
        """
        return self._session.version

    @property
    def space(self) -> Any:
        """The dataset's spatial transforms: its object in ``standard_transform`` (``transform_nm``, ...).

        Examples
        --------
        >>> client.space.transform("nm").apply([[1_000_000, 500_000, 800_000]]).round()
        array([[953., 189., 800.]])
        """
        from .interop.space import dataset_space

        return dataset_space(self._session.spec)

    @property
    def cave(self) -> Any:
        """The ordinary ``CAVEclient`` for this dataset, with the same token and version; it blocks.

        Made at first use, which sends its two or more requests.

        Examples
        --------
        >>> client.cave.datastack_name
        'minnie65_public'
        """
        from .interop.cave import cave_client

        return cave_client(self._session)

    @property
    def cache(self) -> AsyncCaches:
        """What is remembered; all views of :meth:`at` share it.

        Examples
        --------
        >>> await client.cache.clear()
        >>> client.cache
        <...Caches: 0 entries, 0 bytes in memory>
        """
        return AsyncCaches(self._session)

    @property
    def stats(self) -> TransportStats:
        """Requests, retries and bytes so far, and what limits them now; all views of :meth:`at` count together.

        Examples
        --------
        >>> client.stats.retries
        0
        """
        return self._session.transport.stats.snapshot()

    # -- shortcuts ---------------------------------------------------------------------------------------------------

    async def version_timestamp(self, version: int | None = None, *, timeout: float | None = None) -> datetime:
        """Tell the instant (aware UTC) of a version; default: the pinned or newest one.

        Examples
        --------
        >>> str(await client.version_timestamp(1412))
        '2025-02-28 08:10:00.375000+00:00'
        """
        return await self._materialize.get_timestamp(version, timeout=timeout)

    async def most_recent_materialization_version(self, *, timeout: float | None = None) -> int:
        """Give the newest version that can be queried.

        Examples
        --------
        >>> await client.most_recent_materialization_version()
        1484
        """
        return await self._materialize.most_recent_version(timeout=timeout)

    async def get_datastack_info(self) -> dict[str, Any]:
        """Fetch the record of the datastack; see ``info.get_datastack_info``.

        Examples
        --------
        >>> (await client.get_datastack_info())["synapse_table"]
        'synapses_pni_2'
        """
        return await self._info.get_datastack_info()

    async def image_source(self) -> str:
        """Cloudpath of the EM images.

        Examples
        --------
        >>> await client.image_source()
        'precomputed://gs://minnie65_phase3/em'
        """
        return await self._info.image_source()

    async def segmentation_source(self) -> str:
        """Cloudpath of the segmentation.

        Examples
        --------
        >>> await client.segmentation_source()
        'graphene://...'
        """
        return await self._info.segmentation_source()

    async def viewer_resolution(self) -> tuple[float, float, float]:
        """Voxel size of the viewer: x, y, z in nm.

        Examples
        --------
        >>> await client.viewer_resolution()
        (4.0, 4.0, 40.0)
        """
        return await self._info.viewer_resolution()

    @staticmethod
    def now() -> datetime:
        """The current time, aware UTC.

        Examples
        --------
        >>> client.now().tzinfo
        datetime.timezone.utc
        """
        return datetime.now(UTC)

    # -- life --------------------------------------------------------------------------------------------------------

    @property
    def closed(self) -> bool:
        """Whether the client was closed. It cannot be opened again.

        Examples
        --------
        >>> client.closed
        False
        """
        return self._session.transport.closed

    async def aclose(self) -> None:
        """Close the connections, of all views of :meth:`at` too.

        Examples
        --------
        >>> await client.aclose()
        >>> client.closed
        True
        """
        await self._session.transport.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.aclose()

    def __getstate__(self) -> Session:
        """The settings: a copy or a pickle has connections of its own (and a pickle looks its token up)."""
        return self._session.unopened()

    def __setstate__(self, session: Session) -> None:
        self._wire(session)

    def __repr__(self) -> str:
        pin = f", version={self.version}" if self.version is not None else ""
        if self._session.timestamp is not None:
            pin = f", timestamp={self._session.timestamp.isoformat()}"
        return f"{type(self).__name__}({self.spec.name!r}, datastack={self.datastack_name!r}{pin})"


def _pinned(session: Session, version: int | None, timestamp: When | None) -> Session:
    if version is not None and timestamp is not None:
        raise CortexUsageError("give version or timestamp, not both: a version is an instant")
    return session.at(version, None if timestamp is None else check_aware(timestamp))
