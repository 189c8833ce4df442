"""Which tables and views a version holds."""

from __future__ import annotations

import difflib
from typing import Any

from ..._fanout import running
from ..._wire import endpoints, json
from ..._wire.endpoints import Endpoint
from ...errors import CortexError, NotFoundError, ServerError
from .._base import MINUTES
from ._versions import Versions


def _described(item: dict[str, Any]) -> dict[str, Any]:
    """Fold the three resolution fields into ``voxel_resolution`` as caveclient does: x, y, z in nm."""
    axes = [item.pop(f"voxel_resolution_{axis}", None) for axis in "xyz"]
    return item | {"voxel_resolution": axes} if None not in axes else item


class Catalogue(Versions):
    """Names, descriptions and schemas of tables and views."""

    async def get_tables(self, version: int | None = None, *, timeout: float | None = None) -> list[str]:
        """List the tables of a version, sorted by name.

        Examples
        --------
        >>> await client.materialize.get_tables()
        ['aibs_metamodel_celltypes_v661', 'nucleus_alternative_points', 'nucleus_detection_v0', ...]
        """
        with running(timeout, None, None):
            return sorted(await self._get(endpoints.TABLES, await self._version(version)))

    async def get_tables_metadata(
        self, version: int | None = None, *, timeout: float | None = None
    ) -> list[dict[str, Any]]:
        """Describe all tables of a version: ``table_name``, ``schema_type``, ``voxel_resolution`` (nm) and so on.

        Examples
        --------
        >>> described = await client.materialize.get_tables_metadata()
        >>> {told["table_name"]: told["schema_type"] for told in described}["synapses_pni_2"]
        'synapse'
        """
        with running(timeout, None, None):
            found = await self._get(endpoints.TABLES_METADATA, await self._version(version))
        return [_described(dict(item)) for item in found]

    async def get_table_metadata(
        self, table_name: str, version: int | None = None, *, timeout: float | None = None
    ) -> dict[str, Any]:
        """Describe one table of a version.

        Returns
        -------
        dict
            ``schema_type``, ``description``, ``reference_table`` (None where it stands alone), ``voxel_resolution``
            (nm).

        Raises
        ------
        NotFoundError
            With the nearest table names.

        Examples
        --------
        >>> told = await client.materialize.get_table_metadata("nucleus_detection_v0")
        >>> told["schema_type"], told["voxel_resolution"]
        ('nucleus_detection', [4.0, 4.0, 40.0])
        """
        with running(timeout, None, None):
            number = await self._version(version)
            found = await self._get(endpoints.TABLE_METADATA, number, table_name)
        return _described(dict(found)) | {"reference_table": found.get("reference_table") or None}

    async def get_annotation_count(
        self, table_name: str, version: int | None = None, *, timeout: float | None = None
    ) -> int:
        """Tell how many rows a table had when the version was frozen.

        Examples
        --------
        >>> await client.materialize.get_annotation_count("nucleus_detection_v0")
        1994
        """
        with running(timeout, None, None):
            return int(await self._get(endpoints.TABLE_COUNT, await self._version(version), table_name))

    async def get_views(self, version: int | None = None, *, timeout: float | None = None) -> list[str]:
        """List the views of a version, sorted by name.

        Examples
        --------
        >>> await client.materialize.get_views()
        ['nucleus_detection_lookup_v1']
        """
        with running(timeout, None, None):
            return sorted(await self._get(endpoints.VIEWS, await self._version(version)))

    async def get_view_metadata(
        self, view_name: str, version: int | None = None, *, timeout: float | None = None
    ) -> dict[str, Any]:
        """Describe one view: ``description``, ``voxel_resolution`` (nm), ``live_compatible``.

        Raises
        ------
        NotFoundError
            With the nearest view names.

        Examples
        --------
        >>> told = await client.materialize.get_view_metadata("nucleus_detection_lookup_v1")
        >>> told["live_compatible"]
        True
        """
        with running(timeout, None, None):
            number = await self._version(version)
            return _described(dict(await self._get(endpoints.VIEW_METADATA, number, view_name)))

    async def get_view_schema(
        self, view_name: str, version: int | None = None, *, timeout: float | None = None
    ) -> dict[str, Any]:
        """Give the columns of one view and their types.

        Examples
        --------
        >>> schema = await client.materialize.get_view_schema("nucleus_detection_lookup_v1")
        >>> schema["pt_root_id"]
        {'type': 'integer'}
        """
        with running(timeout, None, None):
            return dict(await self._get(endpoints.VIEW_SCHEMA, await self._version(version), view_name))

    async def get_view_schemas(
        self, version: int | None = None, *, timeout: float | None = None
    ) -> dict[str, dict[str, Any]]:
        """Give the columns of all views of a version and their types.

        Examples
        --------
        >>> list(await client.materialize.get_view_schemas())
        ['nucleus_detection_lookup_v1']
        """
        with running(timeout, None, None):
            return dict(await self._get(endpoints.VIEW_SCHEMAS, await self._version(version)))

    async def get_unique_string_values(
        self, table_name: str, *, timeout: float | None = None
    ) -> dict[str, list[str | None]]:
        """List the distinct values of each string column of the live table, sorted, nulls last.

        Examples
        --------
        >>> values = await client.materialize.get_unique_string_values("proofreading_status_and_strategy")
        >>> values["strategy_axon"]
        ['axon_fully_extended', 'axon_interareal', 'axon_partially_extended', 'none']
        """
        with running(timeout, None, None):
            reply = await self._session.send(endpoints.UNIQUE_STRING_VALUES, {"name": table_name})
        found = json.decode(reply.body)
        return {column: sorted(values, key=lambda v: (v is None, v or "")) for column, values in found.items()}

    async def _get(self, endpoint: Endpoint, version: int, name: str | None = None) -> Any:
        """Ask for something that a version says of itself, cached for some minutes (descriptions may be edited)."""
        session = self._session
        path: dict[str, str | int] = {"version": version} | ({} if name is None else {"name": name})

        async def load() -> Any:
            try:
                return json.decode((await session.send(endpoint, path)).body)
            except (NotFoundError, ServerError) as error:
                if name is None:
                    await self.get_version_metadata(version)
                else:
                    await explain(self, name, version, error)
                raise

        key = (str(endpoint), session.server, session.spec.datastack, version, name)
        return await session.cache.get(key, load, ttl=5 * MINUTES)


async def explain(catalogue: Catalogue, name: str, version: int, error: CortexError) -> None:
    """Raise a better error if the version or the name is the reason of the failure, else return."""
    if isinstance(error, ServerError) and error.status != 500:
        return
    await catalogue.get_version_metadata(version)
    known = await catalogue.get_tables(version) + await catalogue.get_views(version)
    if name in known:
        return
    nearest = difflib.get_close_matches(name, known, n=3, cutoff=0.4)
    hint = f"did you mean {' or '.join(nearest)}?" if nearest else "client.materialize.get_tables() lists the tables"
    raise NotFoundError(
        f"version {version} has no table or view {name!r}; {hint}",
        nearest=nearest,
        endpoint=error.endpoint,
    ) from error
