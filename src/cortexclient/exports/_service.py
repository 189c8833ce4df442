"""client.exports: which tables are exported, and their rows."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import anyio.to_thread

from .._fanout import deadline
from .._types import IdArray, Ids
from ..errors import CortexError, CortexUsageError
from ..ids import as_ids
from ..progress import ProgressLike, Reporter
from ..services._base import MINUTES, Credentials, Service, internal
from ._columns import Column, read_columns
from ._fetch import cache_folder, drop, fetch
from ._listing import Export, find, header_of, walk
from ._stores import Bucket, Root, root_of, telling

if TYPE_CHECKING:
    import pandas as pd
    import polars as pl

FORMAT = 1
"""Of the Parquet files in the cache; what another version of this package made otherwise is made anew."""


class AsyncExports(Service):
    """Bulk exports: whole tables as files, in a bucket or a folder.

    There are two kinds. A **dump** (``csv``) is a gzipped text file of a table or view. It is fetched once, turned into
    a typed Parquet file and kept in a cache folder (``CORTEXCLIENT_CACHE``, else ``~/.cache/cortexclient``). A **Delta
    Lake** (``delta``) is a folder of Parquet files in one or several orderings; of it only the parts are read that a
    query needs.

    Notes
    -----
    Ids are int64. Booleans are booleans, times are UTC. Each point ``pt_position`` is three columns
    ``pt_position_x``, ``_y``, ``_z``, in voxels of the table's own resolution, whether the export holds it so or as a
    geometry. Types come from the header file beside each dump, none is guessed. What is a PostgreSQL ``numeric`` or an
    array stays text.
    """

    @internal
    def look_at(self, paths: tuple[str, ...], credentials: Credentials | None) -> None:
        """Look elsewhere; all who share the session do."""
        for path in paths:
            root_of(self._session, path)
        place = self._session.export_place
        place.paths, place.credentials = paths, credentials

    # -- what there is -----------------------------------------------------------------------------------------------

    async def available_files(self, *, timeout: float | None = None) -> list[Export]:
        """List all exports, by name, version and ordering. The list is kept for five minutes.

        Returns
        -------
        list of Export
            With ``name``, ``version``, ``kind``, ``ordering``, ``bytes``, ``updated`` and ``url``.

        Raises
        ------
        CortexUsageError
            No place for exports is known: ``set_export_cloudpath`` sets one.
        MissingPermission, NotFoundError
            The bucket may not be listed, or is not there.

        Examples
        --------
        >>> newest = (await client.exports.available_files())[-1]
        >>> newest.name, newest.version, newest.kind
        ('synapses_pni_2_merged', 1484, 'csv')
        """
        roots, cache = self._roots(), self._session.cache

        async def load() -> list[Export]:
            parts = await asyncio.gather(*(walk(Bucket(self._session, root)) for root in roots))
            return sorted((e for part in parts for e in part), key=lambda e: (e.name, e.version, e.kind, e.ordering))

        with deadline(timeout):
            return list(await cache.get(("exports", roots), load, ttl=5 * MINUTES))

    async def reset_available_files(self, *, timeout: float | None = None) -> list[Export]:
        """List all exports anew.

        Examples
        --------
        >>> len(await client.exports.reset_available_files()) > 0
        True
        """
        await self._forget_list()
        return await self.available_files(timeout=timeout)

    async def available_tables(self, *, timeout: float | None = None) -> list[str]:
        """Names of all tables and views that are exported at any version, sorted.

        Examples
        --------
        >>> (await client.exports.available_tables())[:2]
        ['aibs_metamodel_celltypes_v661', 'connections_with_nuclei']
        """
        return sorted({export.name for export in await self.available_files(timeout=timeout)})

    async def available_versions(self, table_name: str, *, timeout: float | None = None) -> list[int]:
        """Versions at which a table or view is exported, sorted; none if it is not exported at all.

        Examples
        --------
        >>> await client.exports.available_versions("connections_with_nuclei")
        [117, 661, 1412, 1484]
        """
        files = await self.available_files(timeout=timeout)
        return sorted({export.version for export in files if export.name == table_name})

    async def available_data_df(self, *, timeout: float | None = None) -> pd.DataFrame:
        """List all exports in a frame.

        Returns
        -------
        DataFrame
            Sorted by ``name`` and ``version`` (int64); ``size`` for people (units of 1024\N{SUPERSCRIPT THREE} bytes),
            ``bytes`` exact, ``kind`` (``csv``, ``delta``), ``ordering`` of a Delta Lake, ``updated`` (UTC).

        Examples
        --------
        >>> (await client.exports.available_data_df()).columns.to_list()
        ['name', 'version', 'size', 'bytes', 'kind', 'ordering', 'updated']
        """
        import pandas as pd

        files = await self.available_files(timeout=timeout)
        columns = {
            "name": pd.Series([e.name for e in files], dtype=object),
            "version": pd.Series([e.version for e in files], dtype="int64"),
            "size": pd.Series([f"{e.bytes / 1024**3:.2f} Gb" for e in files], dtype=object),
            "bytes": pd.Series([e.bytes for e in files], dtype="int64"),
            "kind": pd.Series([e.kind for e in files], dtype=object),
            "ordering": pd.Series([e.ordering for e in files], dtype=object),
            "updated": pd.to_datetime([e.updated for e in files], utc=True),
        }
        return pd.DataFrame(columns)

    # -- rows --------------------------------------------------------------------------------------------------------

    async def get_table(
        self, table_name: str, version: int, *, progress: ProgressLike = None, timeout: float | None = None
    ) -> pd.DataFrame:
        """Read a whole table or view.

        Parameters
        ----------
        table_name, version
            As :meth:`available_data_df` lists them. Of a table that is there as both, the dump is read.
        progress
            Bytes that came, then rows that were converted; see :class:`~cortexclient.Progress`.
        timeout
            Seconds for all of it.

        Returns
        -------
        DataFrame
            All rows in the order of the export. Integers with gaps are nullable (``Int64``).

        Raises
        ------
        NotFoundError
            There is no such export; with the nearest names or the versions that there are.
        DecodeError
            The file is damaged, cut off, or not what its header says. Nothing of it is kept.

        Examples
        --------
        >>> edges = await client.exports.get_table("connections_with_nuclei", 1484)
        >>> edges["pre_pt_root_id"].dtype
        dtype('int64')
        """
        with deadline(timeout):
            found = find(await self.available_files(), table_name, version)
            dumps = [export for export in found if export.kind == "csv"]
            if dumps:
                path = await self._parquet(dumps[0], progress)
                return await anyio.to_thread.run_sync(_read, path, abandon_on_cancel=True)
            frame = await self._lake(found, {}, None)
            with telling(found[0].url):
                return await anyio.to_thread.run_sync(_collect, frame, abandon_on_cancel=True)

    async def scan(
        self,
        table_name: str,
        version: int,
        *,
        where: Mapping[str, Ids] | None = None,
        ordering: str | None = None,
        progress: ProgressLike = None,
        timeout: float | None = None,
    ) -> pl.LazyFrame:
        """Open a table or view as a lazy polars frame: ``.filter(...).select(...).collect()`` reads what it needs.

        Parameters
        ----------
        table_name, version
            As :meth:`available_data_df` lists them. Of a table that is there as both, the Delta Lake is read, of which
            only the log is fetched now; a dump is fetched whole, once.
        where
            Only rows whose column holds one of the ids: ``{"pre_pt_root_id": ids}``. Files without them are not read;
            ask for many ids at once, not for each by itself.
        ordering
            Which ordering of a Delta Lake. Default: that of a column in ``where``, else the smallest.
        progress, timeout
            As for :meth:`get_table`; the timeout ends when the frame is open.

        Returns
        -------
        LazyFrame
            Points are split. What goes wrong while it is collected is an error of polars.

        Warns
        -----
        UserWarning
            The Delta Lake was not finished by whoever wrote it: rows may be missing.

        Raises
        ------
        NotFoundError, DecodeError
            As for :meth:`get_table`.
        CortexUsageError
            There is no such column or ordering.

        Examples
        --------
        >>> edges = await client.exports.scan("connections_with_nuclei", 1484)
        >>> edges.filter(pl.col("pre_pt_root_id") == 864691134885645050).select("post_pt_root_id").collect().height
        40
        """
        wanted = {name: as_ids(ids) for name, ids in (where or {}).items()}
        with deadline(timeout):
            found = find(await self.available_files(), table_name, version)
            if any(export.kind == "delta" for export in found):
                return await self._lake(found, wanted, ordering)
            if ordering is not None:
                raise CortexUsageError(f"{table_name} is a dump: it has no ordering {ordering!r}")
            path = await self._parquet(found[0], progress)
            return await anyio.to_thread.run_sync(_scan, path, table_name, wanted)

    async def download(
        self, table_name: str, version: int, *, progress: ProgressLike = None, timeout: float | None = None
    ) -> Path:
        """Fetch a dump into the cache, as one typed Parquet file; what broke off before is resumed.

        Returns
        -------
        Path
            Of the file. It is whole: it appears under this name when it is finished.

        Raises
        ------
        NotFoundError, DecodeError
            As for :meth:`get_table`.

        Examples
        --------
        >>> path = await client.exports.download("connections_with_nuclei", 1484)
        >>> path.suffix
        '.parquet'
        """
        with deadline(timeout):
            found = find(await self.available_files(), table_name, version)
            if found[0].kind != "csv":
                raise CortexUsageError(f"{table_name} is a Delta Lake, which scan() reads where it is")
            return await self._parquet(found[0], progress)

    # -- behind these ------------------------------------------------------------------------------------------------

    def _roots(self) -> tuple[Root, ...]:
        place, spec = self._session.export_place, self._session.spec
        paths = place.paths if place.paths is not None else spec.export_paths
        if not paths:
            raise CortexUsageError(
                f"no place is known where {spec.name} is exported: name it with "
                "client.set_export_cloudpath('gs://bucket/folder') or DatasetSpec(exports_url=...)"
            )
        return tuple(root_of(self._session, path) for path in paths)

    async def _forget_list(self) -> None:
        await self._session.cache.forget(("exports", self._roots()))

    async def _lake(self, found: list[Export], wanted: Mapping[str, IdArray], ordering: str | None) -> pl.LazyFrame:
        from . import _lakes

        lake = _lakes.choose([export for export in found if export.kind == "delta"], ordering, wanted)
        bucket = Bucket(self._session, lake.root)
        log = await _lakes.read_log(bucket, lake)
        return await anyio.to_thread.run_sync(_lakes.scan, bucket, lake, log, wanted, abandon_on_cancel=True)

    async def _parquet(self, dump: Export, progress: ProgressLike) -> Path:
        """The file in the cache; who asks for the same one at once waits for the first."""
        from ._convert import is_whole

        mark = hashlib.sha256(f"{FORMAT} {dump.url} {dump.tag} {dump.bytes}".encode()).hexdigest()[:12]
        target = cache_folder() / "exports" / f"{dump.name}-v{dump.version}-{mark}.parquet"

        async def make() -> Path:
            if not await anyio.to_thread.run_sync(is_whole, target):
                await self._make(dump, target, progress)
            return target

        key = ("export", str(target))
        try:
            return await self._session.cache.get(key, make)
        finally:
            await self._session.cache.forget(key)  # the file itself is what is kept

    async def _make(self, dump: Export, target: Path, progress: ProgressLike) -> None:
        bucket, header = Bucket(self._session, dump.root), header_of(dump.path)
        text = await bucket.read(header, dump.header_bytes) if dump.header_bytes else b""
        columns = read_columns(text, dump.root.child(header))
        if dump.root.scheme == "file":
            await _convert(Path(dump.root.prefix, dump.path), target, columns, dump.url, progress)
            return
        part = target.with_suffix(".csv.gz.part")
        with Reporter(progress, dump.bytes, "bytes") as reporter:
            try:
                await fetch(bucket.store, dump, part, reporter.add)
            except CortexError:
                await self._forget_list()  # it may have been replaced since: who asks again shall see what is there
                raise
        await _convert(part, target, columns, dump.url, progress)


async def _convert(source: Path, target: Path, columns: list[Column], url: str, progress: ProgressLike) -> None:
    """Convert in a thread; a dump that cannot be is dropped, unless it is the user's own file."""
    from ._convert import Conversion, is_whole

    with Reporter(progress, None, "rows") as reporter:
        work = Conversion(source, target, columns, url, reporter.add)
        try:
            await anyio.to_thread.run_sync(work.run, abandon_on_cancel=True)
        except asyncio.CancelledError:
            work.stop()
            raise
        except FileNotFoundError:  # another process was faster, and has cleared up
            if not await anyio.to_thread.run_sync(is_whole, target):
                raise
        except Exception:
            if source.name.endswith(".part"):
                drop(source)
            raise
    if source.name.endswith(".part"):
        drop(source)


def _read(path: Path) -> pd.DataFrame:
    """Read a Parquet file column by column: half the memory, and a third of the time, of all columns at once."""
    import pandas as pd
    import pyarrow.parquet as pq

    from ..frames import to_pandas

    with pq.ParquetFile(path) as file:
        parts = [to_pandas(file.read(columns=[name])) for name in file.schema_arrow.names]
    return pd.DataFrame({name: values for part in parts for name, values in part.items()}, copy=False)


def _scan(path: Path, name: str, wanted: Mapping[str, IdArray]) -> pl.LazyFrame:
    import polars as pl

    from ._lakes import having

    frame = pl.scan_parquet(path)
    return having(frame, frame.collect_schema(), wanted, name)


def _collect(frame: pl.LazyFrame) -> pd.DataFrame:
    from ..frames import to_pandas

    return to_pandas(frame.collect(engine="streaming").to_arrow())
