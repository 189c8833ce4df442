"""Every URL that cortexclient asks, in one table.

``path`` may name ``{datastack}``, ``{table}`` (the chunkedgraph's table id) and whatever the call adds. ``batch`` is
how many ids one request should carry: the servers set no cap on most lists, but a root look-up costs them 0.35 ms for
each id, so that batches of some 1,000 keep all of a service's workers busy, and none of them long while the limits on
requests at once still open up.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Scope = Literal["global", "local"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """One row of the table: which URL, and what the transport must know about it."""

    service: str
    """Whose workers it occupies; requests at once are counted by it."""
    name: str
    method: str
    path: str
    scope: Scope = "local"
    """Global services (info, auth, schema, state) live on the spec's server, local ones where the info record says."""
    category: str | None = None
    """What its requests a minute are counted as, by the name that the service's chart has for it; None: not limited."""
    idempotent: bool = True
    """Asking twice changes nothing: a broken connection may be tried again. True for all reads, POST included."""
    batch: int | None = None
    price: float = 0.003
    """Seconds of the server's work for one request, whatever it asks (measured on PyChunkedGraph 2.21: login and
    parsing; for table queries an assumption)."""
    price_per_id: float = 0.0
    """Seconds of the server's work for each distinct id, or each row returned (measured and assumed likewise)."""
    accept_encoding: str = "gzip"
    content_type: str | None = None
    expects: str = ""
    """The Content-Type that a good answer starts with; empty where the real servers lie about it."""

    def __str__(self) -> str:
        return f"{self.service}/{self.name}"


JSON = "application/json"
ARROW = "data.arrow"
"""What the materialization service calls Arrow IPC streams; not a registered media type."""

_P = "/segmentation/api/v1/table/{table}"
_M2 = "/materialize/api/v2/datastack/{datastack}"
_M3 = "/materialize/api/v3/datastack/{datastack}"
_I = "/info/api/v2"


def _info(name: str, path: str) -> Endpoint:
    return Endpoint(service="info", name=name, method="GET", path=path, scope="global", expects=JSON)


def _graph(
    name: str,
    method: str,
    path: str,
    *,
    batch: int | None = None,
    price_per_id: float = 0.0,
    binary: bool = False,
    accept_encoding: str = "gzip",
) -> Endpoint:
    # GETs with a body are the service's own way (valid_nodes, past_id_mapping): a POST there is a 405
    return Endpoint(
        accept_encoding=accept_encoding,
        service="chunkedgraph",
        name=name,
        method=method,
        path=path,
        batch=batch,
        price_per_id=price_per_id,
        content_type=None if binary else JSON,
    )


def _table(name: str, path: str, category: str | None = "fast_query") -> Endpoint:
    return Endpoint(service="materialize", name=name, method="GET", path=path, category=category)


def _query(name: str, path: str) -> Endpoint:
    # only zstd is offered: the server compresses the Arrow buffers then, and puts no gzip around them
    return Endpoint(
        service="materialize",
        name=name,
        method="POST",
        path=path,
        category="query",
        price=0.200 if name == "live_query" else 0.020,
        price_per_id=5e-6,
        content_type=JSON,
        accept_encoding="zstd",
        expects=ARROW,
    )


def _skeleton(name: str, method: str, path: str, *, batch: int | None = None, category: str | None = None) -> Endpoint:
    # POSTs only read, or queue what is queued once: all may be tried again
    return Endpoint(
        service="skeleton",
        name=name,
        method=method,
        path=path,
        category=category,
        batch=batch,
        content_type=JSON if method == "POST" else None,
    )


def _state(name: str, method: str, path: str) -> Endpoint:
    content_type = JSON if method == "POST" else None
    return Endpoint(
        service="state",
        name=name,
        method=method,
        path=f"/nglstate/api/v1/{path}",
        scope="global",
        idempotent=method == "GET",
        content_type=content_type,
    )


DATASTACK = _info("datastack", f"{_I}/datastack/full/{{datastack}}")
DATASTACKS = _info("datastacks", f"{_I}/datastacks")
ALIGNED_VOLUMES = _info("aligned_volumes", f"{_I}/aligned_volume")
ALIGNED_VOLUME = _info("aligned_volume", f"{_I}/aligned_volume/{{aligned_volume}}")
ALIGNED_VOLUME_BY_ID = _info("aligned_volume_by_id", f"{_I}/aligned_volume/id/{{id}}")
VOLUME_DATASTACKS = _info("volume_datastacks", f"{_I}/aligned_volume/{{aligned_volume}}/datastacks")
IMAGE_MIRRORS = _info("image_mirrors", f"{_I}/datastack/{{datastack}}/image_sources")
INFO_VERSION = _info("version", "/info/version")
SCHEMAS = Endpoint(
    service="schema", name="types_all", method="GET", path="/schema/api/v2/types_all", scope="global", expects=JSON
)

SEGMENTATION_INFO = _graph("info", "GET", "/segmentation/table/{table}/info")
GRAPH_VERSION = _graph("version", "GET", "/segmentation/api/version")
ROOTS_BINARY = _graph("roots_binary", "POST", f"{_P}/roots_binary", batch=1_000, price_per_id=0.35e-3, binary=True)
# digits of times are noise: gzip takes half of their 15 bytes an id, and a third of the client's work
ROOT_TIMESTAMPS = _graph(
    "root_timestamps",
    "POST",
    f"{_P}/root_timestamps",
    batch=2_500,
    price_per_id=0.15e-3,
    accept_encoding="identity",
)
IS_LATEST_ROOTS = _graph("is_latest_roots", "POST", f"{_P}/is_latest_roots", batch=2_500, price_per_id=0.15e-3)
VALID_NODES = _graph("valid_nodes", "GET", f"{_P}/valid_nodes", batch=2_500, price_per_id=0.15e-3)
LEAVES = _graph("leaves", "GET", f"{_P}/node/{{id}}/leaves")
# of level-2 nodes only: inner nodes that two of its ids share are given to one of them (PyChunkedGraph 2.21)
LEAVES_MANY = _graph("leaves_many", "POST", f"{_P}/node/leaves_many", batch=100)
CHILDREN = _graph("children", "GET", f"{_P}/node/{{id}}/children")
# 1.2 ms for each generation, of which a root has about ten
LINEAGE_GRAPH = _graph("lineage_graph", "POST", f"{_P}/lineage_graph_multiple", batch=100, price_per_id=12e-3)
PAST_ID_MAPPING = _graph("past_id_mapping", "GET", f"{_P}/past_id_mapping", batch=100)
DELTA_ROOTS = _graph("delta_roots", "GET", f"{_P}/delta_roots")
CHANGE_LOG = _graph("change_log", "GET", f"{_P}/root/{{id}}/change_log")
TABULAR_CHANGE_LOG = _graph("tabular_change_log", "GET", f"{_P}/tabular_change_log_many", batch=5)
MERGE_LOG = _graph("merge_log", "GET", f"{_P}/root/{{id}}/merge_log")
OPERATION_DETAILS = _graph("operation_details", "GET", f"{_P}/operation_details", batch=500)
USER_OPERATIONS = _graph("user_operations", "GET", f"{_P}/user_operations")
LEVEL2_GRAPH = _graph("level2_graph", "GET", f"{_P}/node/{{id}}/lvl2_graph")
SUBGRAPH = _graph("subgraph", "GET", f"{_P}/node/{{id}}/subgraph")
CONTACT_SITES = _graph("contact_sites", "GET", f"{_P}/node/{{id}}/contact_sites")
FIND_PATH = _graph("find_path", "POST", f"{_P}/graph/find_path")
MINIMAL_COVERING_NODES = _graph("minimal_covering_nodes", "POST", f"{_P}/minimal_covering_nodes")
OLDEST_TIMESTAMP = _graph("oldest_timestamp", "GET", f"{_P}/oldest_timestamp")

MESH_MANIFEST = Endpoint(
    service="meshing", name="manifest", method="GET", path="/meshing/api/v1/table/{table}/manifest/{id}:0"
)

MATERIALIZE_VERSION = _table("version", "/materialize/version", category=None)
VERSIONS = _table("versions", f"{_M3}/versions")
VERSIONS_METADATA = _table("metadata", f"{_M3}/metadata")
VERSION_METADATA = _table("version_metadata", f"{_M3}/version/{{version}}")
TABLES = _table("tables", f"{_M2}/version/{{version}}/tables")
TABLES_METADATA = _table("tables_metadata", f"{_M3}/version/{{version}}/tables/metadata")
TABLE_METADATA = _table("table_metadata", f"{_M3}/version/{{version}}/table/{{name}}/metadata")
TABLE_COUNT = _table("count", f"{_M2}/version/{{version}}/table/{{name}}/count")
TABLE_QUERY = _query("table_query", f"{_M3}/version/{{version}}/table/{{name}}/query")
JOIN_QUERY = _query("join_query", f"{_M3}/version/{{version}}/query")
LIVE_QUERY = _query("live_query", f"{_M3}/query")
VIEWS = _table("views", f"{_M3}/version/{{version}}/views")
VIEW_METADATA = _table("view_metadata", f"{_M3}/version/{{version}}/views/{{name}}/metadata")
VIEW_SCHEMA = _table("view_schema", f"{_M3}/version/{{version}}/views/{{name}}/schema")
VIEW_SCHEMAS = _table("view_schemas", f"{_M3}/version/{{version}}/views/schemas")
VIEW_QUERY = _query("view_query", f"{_M3}/version/{{version}}/views/{{name}}/query")
UNIQUE_STRING_VALUES = _table("unique_string_values", f"{_M3}/table/{{name}}/unique_string_values")

_L = "/l2cache/api/v1"
L2_ATTRIBUTES = Endpoint(
    service="l2cache",
    name="attributes",
    method="POST",
    path=f"{_L}/table/{{table}}/attributes",
    batch=2_000,
    content_type=JSON,
)
L2_METADATA = Endpoint(service="l2cache", name="attribute_metadata", method="GET", path=f"{_L}/attribute_metadata")
L2_TABLES = Endpoint(service="l2cache", name="table_mapping", method="GET", path=f"{_L}/table_mapping")

_K = "/skeletoncache/api/v1/{datastack}"
SKELETON_VERSION = _skeleton("version", "GET", "/skeletoncache/api/version")
SKELETON_VERSIONS = _skeleton("versions", "GET", "/skeletoncache/api/versions")
SKELETON_INFO = _skeleton("info", "GET", f"{_K}/precomputed/skeleton/{{version}}/info")
# the service reads one skeleton after the other: small chunks keep all of its workers busy, and none of them long
SKELETONS_CACHED = _skeleton("cached", "POST", f"{_K}/bulk/get_cached_skeletons/4/flatdict", batch=25)
SKELETON_TOKEN = _skeleton("token", "POST", f"{_K}/bulk/get_skeleton_token/4")
SKELETON = _skeleton(
    "skeleton", "GET", f"{_K}/precomputed/skeleton/4/{{root}}/flatdict", category="get_skeleton_that_exists"
)
SKELETONS_EXIST = _skeleton(
    "exists", "POST", f"{_K}/precomputed/skeleton/exists", batch=1_000, category="skeleton_exists"
)
SKELETONS_GENERATE = _skeleton(
    "generate", "POST", f"{_K}/bulk/gen_skeletons", batch=1_000, category="get_skeletons_bulk_async"
)
SKELETON_CACHE = _skeleton(
    "query_cache", "GET", f"{_K}/precomputed/skeleton/query_cache/4/{{prefixes}}/{{limit}}", category="query_cache"
)
SKELETON_REFUSALS = _skeleton(
    "refusal_list", "GET", f"{_K}/precomputed/skeleton/get_refusal_list", category="get_refusal_list"
)

STATE = _state("state", "GET", "{id}")
STATE_POST = _state("post", "POST", "post")

ALL: tuple[Endpoint, ...] = tuple(value for value in list(globals().values()) if isinstance(value, Endpoint))
