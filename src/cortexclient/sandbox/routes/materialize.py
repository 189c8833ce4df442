"""The materialization service (MaterializationEngine 5.26): its routes; records of versions, tables and views."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Any

import polars as pl

from ..calls import Call, Handler, Reply, Route, RouteTable
from ..queries import Refused, Source, view_source
from ..tables import Table, Version, View
from .materialize_info import table_properties, unique_string_values, view_properties
from .materialize_live import live_query
from .materialize_protocol import (
    flag,
    json_reply,
    number_of,
    on_error,
    owner_of,
    refuse_expired,
    version_of,
    wrong_method,
)
from .materialize_queries import join_query, table_query, view_query

if TYPE_CHECKING:
    from ..world import World

SERVER_VERSION = "5.26.4"


def api_versions(_: World, __: Call) -> Reply:
    """Numbers of the APIs that the service speaks."""
    return json_reply([2, 3])


def server_version(_: World, __: Call) -> Reply:
    """Version of the service."""
    return json_reply(SERVER_VERSION)


def versions(world: World, call: Call) -> Reply:
    """Numbers of the versions, in no order to rely on; expired ones on demand."""
    return json_reply([version.version for version in _listed(world, call)])


def versions_metadata(world: World, call: Call) -> Reply:
    """Records of the versions."""
    return json_reply([_version_record(version, call) for version in _listed(world, call)])


def version_metadata(world: World, call: Call) -> Reply:
    """Record of one version, also of an expired one."""
    version = world.annotations.version(call.params["datastack"], number_of(call))
    return json_reply("No version found", 404) if version is None else json_reply(_version_record(version, call))


def _listed(world: World, call: Call) -> list[Version]:
    everything = flag(call, "expired")
    owned = [version for version in world.versions if version.datastack == call.params["datastack"]]
    return [version for version in owned if version.valid or everything]


def _version_record(version: Version, call: Call) -> dict[str, Any]:
    """A version as it is shown: naive UTC times.

    The real server leaves out a fraction that is zero, and caveclient cannot parse that: only strict mode does it.
    """

    def shown(time: datetime | None) -> str | None:
        return time.isoformat(timespec="auto" if call.strict else "microseconds") if time else None

    return {
        "id": version.id,
        "datastack": version.datastack,
        "version": version.version,
        "time_stamp": shown(version.time),
        "expires_on": shown(version.expires_on),
        "valid": version.valid,
        "status": version.status,
        "is_merged": version.is_merged,
    }


def tables_v2(world: World, call: Call) -> Reply:
    """Names of the tables of a version."""
    datastack, number = call.params["datastack"], number_of(call)
    version = world.annotations.version(datastack, number)
    if version is None:
        raise Refused(f"version {number} does not exist for {datastack} ", 404, aborted=True)
    return json_reply(list(version.tables))


def tables_v3(world: World, call: Call) -> Reply:
    """Names of the tables of a version; an unknown one and one without tables look alike."""
    version = world.annotations.version(call.params["datastack"], number_of(call))
    return json_reply(list(version.tables)) if version and version.tables else json_reply(None, 404)


def tables_metadata(world: World, call: Call) -> Reply:
    """Records of all tables of a version."""
    version = version_of(world, call)
    records = [_table_record(world, world.tables[name], version) for name in version.tables]
    return json_reply(records, 200 if records else 404)


def table_metadata(world: World, call: Call) -> Reply:
    """Record of one table of a version."""
    number, datastack, name = number_of(call), call.params["datastack"], call.params["table"]
    if number > 0:
        version = version_of(world, call)
        if name in version.tables:
            return json_reply(_table_record(world, world.tables[name], version))
    return json_reply(f"No table named '{name}' found for version '{number}' in datastack '{datastack}'", 404)


def _table_record(world: World, table: Table, version: Version) -> dict[str, Any]:
    """The record that merges the registries of versions, annotations and (where there are root ids) segmentations."""
    datastack = world.datastacks[version.datastack]
    record = {
        "id": version.table_id(table.name),
        "aligned_volume": datastack.aligned_volume,
        "table_name": table.name,
        "valid": True,
        "created": table.created.isoformat(),
        "schema": table.schema_type,
        "schema_type": table.schema_type,
        "user_id": table.user_id,
        "description": table.description,
        "notice_text": table.notice_text,
        "reference_table": table.reference_table,
        "flat_segmentation_source": table.flat_segmentation_source,
        **_resolution(table.voxel_resolution),
        "write_permission": table.write_permission,
        "read_permission": table.read_permission,
        "last_modified": table.modified.isoformat(),
    }
    if table.bound_points:
        looked_up = max(v.time for v in world.versions if table.name in v.tables)
        record |= {
            "segmentation_source": None,
            "pcg_table_name": datastack.segmentation,
            "last_updated": looked_up.isoformat(),
        }
    return record


def _resolution(nanometres: tuple[float, float, float]) -> dict[str, float]:
    return {f"voxel_resolution_{axis}": float(nm) for axis, nm in zip("xyz", nanometres, strict=True)}


def table_count(world: World, call: Call) -> Reply:
    """The number of rows that a table was frozen with."""
    version, name = version_of(world, call), call.params["table"]
    if name not in version.tables:
        where = f"version {version.version} in datastack {version.datastack}"
        raise Refused(f"Analysis table '{name}' not found for {where}", 404, aborted=True)
    refuse_expired(version, name)
    return json_reply(world.annotations.frozen(name, version).height)


def views(world: World, call: Call) -> Reply:
    """Records of all views of a version, by name."""
    version = version_of(world, call)
    shown = world.views.values() if version.valid else ()
    return json_reply({view.name: _view_record(view, owner_of(world, version)) for view in shown})


def view_metadata(world: World, call: Call) -> Reply:
    """Record of one view."""
    view = world.views.get(call.params["view"])
    owner = owner_of(world, version_of(world, call))
    if view is None:
        raise Refused("No row was found for one()", 404)
    return json_reply(_view_record(view, owner) | {"table_name": view.name})


def _view_record(view: View, owner: Version) -> dict[str, Any]:
    return {
        "id": view.id,
        "description": view.description,
        "datastack_name": owner.datastack,
        "notice_text": view.notice_text,
        "live_compatible": view.live_compatible,
        **_resolution(view.voxel_resolution),
    }


def view_schema(world: World, call: Call) -> Reply:
    """Columns of one view with their types."""
    version, name = version_of(world, call), call.params["view"]
    if name not in world.views:
        engine = f"{owner_of(world, version).datastack}__mat{version.version}"
        raise Refused(f"Could not reflect: requested table(s) not available in Engine({engine}): ({name})", 404)
    refuse_expired(version, name)
    return json_reply(_view_schema(view_source(world.annotations, name, version)))


def view_schemas(world: World, call: Call) -> Reply:
    """Columns of all views with their types, by view."""
    version = version_of(world, call)
    shown = world.views if version.valid else {}
    schemas = {name: _view_schema(view_source(world.annotations, name, version)) for name in shown}
    return json_reply(schemas, 200 if schemas else 404)


def _view_schema(source: Source) -> dict[str, dict[str, str]]:
    return {column: _schema_type(source, column) for column in source.columns}


def _schema_type(source: Source, column: str) -> dict[str, str]:
    if source.is_point(column):
        return {"type": "SpatialPoint"}
    dtype = source.frame.schema[column]
    if isinstance(dtype, pl.Datetime):
        return {"type": "string", "format": "date-time"}
    if dtype.is_integer():
        return {"type": "integer"}
    if dtype.is_numeric():
        return {"type": "number" if dtype.is_decimal() else "float"}
    return {"type": "boolean" if dtype == pl.Boolean else "string"}


def _routes() -> tuple[Route, ...]:
    """The service's table. caveclient mixes both APIs: ``tables`` and ``count`` of v2, the rest of v3."""
    get, post = ("GET",), ("POST",)
    metadata = [
        ("/versions", versions),
        ("/metadata", versions_metadata),
        ("/version/{version}", version_metadata),
        ("/version/{version}/tables/metadata", tables_metadata),
        ("/version/{version}/table/{table}/metadata", table_metadata),
        ("/version/{version}/table/{table}/count", table_count),
    ]
    v2: list[tuple[tuple[str, ...], str, Handler]] = [
        *((get, path, handler) for path, handler in metadata),
        (get, "/version/{version}/tables", tables_v2),
    ]
    v3: list[tuple[tuple[str, ...], str, Handler]] = [
        *((get, path, handler) for path, handler in metadata),
        (get, "/version/{version}/tables", tables_v3),
        (post, "/version/{version}/table/{table}/query", table_query),
        (post, "/version/{version}/query", join_query),
        (post, "/query", live_query),
        (get, "/version/{version}/views", views),
        (get, "/version/{version}/views/schemas", view_schemas),
        (get, "/version/{version}/views/{view}/metadata", view_metadata),
        (get, "/version/{version}/views/{view}/schema", view_schema),
        (post, "/version/{version}/views/{view}/query", view_query),
        (get, "/version/{version}/table/{table}/info", table_properties),
        (get, "/version/{version}/views/{view}/info", view_properties),
        (get, "/table/{table}/unique_string_values", unique_string_values),
    ]
    return (
        Route(get, "/materialize/api/versions", api_versions, permission=None),
        Route(get, "/materialize/version", server_version, permission=None),
        *(
            Route(methods, f"/materialize/api/{api}/datastack/{{datastack}}{path}", handler, resource="datastack")
            for api, rows in (("v2", v2), ("v3", v3))
            for methods, path, handler in rows
        ),
    )


TABLE = RouteTable("materialize", _routes(), on_error=on_error, wrong_method=wrong_method)
