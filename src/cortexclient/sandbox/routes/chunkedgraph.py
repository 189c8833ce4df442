"""The chunkedgraph service (``/segmentation``): its routes, and how it answers failures.

The answers are those of PyChunkedGraph 2.21.1. Which of its defects are repaired outside of strict mode is said where
each is raised: a `ChunkedGraphError` with a ``crash`` is a 500 of the real server.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from ..calls import Call, Handler, Reply, Route, RouteTable
from . import chunkedgraph_edits as edits
from . import chunkedgraph_logs as logs
from . import chunkedgraph_lookups as lookups
from . import chunkedgraph_structure as structure
from . import chunkedgraph_time as time
from .chunkedgraph_protocol import HTML, ChunkedGraphError, json_reply, on_error

if TYPE_CHECKING:
    from ..world import World

__all__ = ["ROUTES", "on_error"]

SERVICE: Final = "/segmentation"
TABLE: Final = "/segmentation/api/v1/table/{table}"
VERSION: Final = "2.21.1"


def index(_: World, __: Call) -> Reply:
    """The greeting of the service."""
    return Reply(f"PyChunkedGraph Segmentation v{VERSION}".encode(), content_type=HTML)


def api_versions(_: World, call: Call) -> Reply:
    """The API versions that the service speaks."""
    return json_reply(call, [0, 1])


def version(_: World, call: Call) -> Reply:
    """The version of the software."""
    return json_reply(call, VERSION)


def sleep(_: World, call: Call) -> Reply:
    """Keep a worker busy for some seconds."""
    seconds = int(call.params["seconds"])
    return Reply(f"zzz... {seconds} ... awake".encode(), content_type=HTML, price=float(seconds))


def broken(crash: str) -> Handler:
    """A route that always fails in the service, in both modes: nobody can rely on what it should answer."""

    def handler(_: World, call: Call) -> Reply:
        raise ChunkedGraphError(501, f"{call.path} does not work in PyChunkedGraph {VERSION}", crash=crash)

    return handler


def _table(method: str, path: str, handler: Handler, permission: str = "view") -> Route:
    return Route((method,), TABLE + path, handler, permission, "table")


ROUTES: Final = RouteTable(
    "chunkedgraph",
    (
        Route(("GET",), f"{SERVICE}/api/v1/", index, None),
        Route(("GET",), f"{SERVICE}/api/versions", api_versions),
        Route(("GET",), f"{SERVICE}/api/version", version),
        Route(("GET",), f"{SERVICE}/sleep/{{seconds:int}}", sleep),
        Route(("GET",), f"{SERVICE}/table/{{table}}/info", structure.info, "view", "table"),
        Route(("GET",), f"{SERVICE}/1.0/{{table}}/graph/root", lookups.legacy_root, "view", "table"),
        Route(("POST",), f"{SERVICE}/1.0/{{table}}/segment/{{node_id}}/leaves", lookups.legacy_leaves, "view", "table"),
        _table("POST", "/roots_binary", lookups.roots_binary),
        _table("POST", "/roots", lookups.roots),
        _table("GET", "/node/{node_id}/root", lookups.root),
        _table("GET", "/node/{node_id}/leaves", lookups.leaves),
        _table("POST", "/node/leaves_many", lookups.leaves_many),
        _table("POST", "/leaves_many", lookups.leaves_many),
        _table("GET", "/node/{node_id}/children", lookups.children),
        _table("GET", "/valid_nodes", lookups.valid_nodes),
        _table("POST", "/minimal_covering_nodes", lookups.minimal_covering_nodes),
        _table("GET", "/l2_chunk_children/{chunk_id}", lookups.l2_chunk_children),
        _table("GET", "/l2_chunk_children_binary/{chunk_id}", lookups.l2_chunk_children_binary),
        _table("POST", "/root_timestamps", time.root_timestamps),
        _table("POST", "/is_latest_roots", time.is_latest_roots),
        _table("POST", "/lineage_graph_multiple", time.lineage_graph_multiple),
        _table("GET", "/root/{root_id}/lineage_graph", time.lineage_graph),
        _table("GET", "/past_id_mapping", time.past_id_mapping),
        _table("GET", "/delta_roots", time.delta_roots),
        _table("GET", "/oldest_timestamp", time.oldest_timestamp),
        _table("GET", "/root/{root_id}/last_edit", time.last_edit),
        _table("GET", "/root/{root_id}/change_log", logs.change_log),
        _table("GET", "/root/{root_id}/merge_log", logs.merge_log),
        _table("GET", "/root/{root_id}/tabular_change_log", logs.tabular_change_log),
        _table("GET", "/tabular_change_log_many", logs.tabular_change_log_many),
        _table("GET", "/tabular_change_log_recent", logs.tabular_change_log_recent, "admin_view"),
        _table("GET", "/change_log", logs.full_change_log, "admin_view"),
        _table("GET", "/operation_details", logs.operation_details),
        _table("GET", "/user_operations", logs.user_operations, "admin_view"),
        _table("GET", "/node/{node_id}/lvl2_graph", structure.lvl2_graph),
        _table("GET", "/node/{node_id}/subgraph", structure.subgraph),
        _table("POST", "/graph/find_path", structure.find_path),
        _table("POST", "/graph/split_preview", edits.split_preview),
        _table("POST", "/merge", edits.merge, "edit"),
        _table("POST", "/split", edits.split, "edit"),
        _table("POST", "/undo", edits.undo, "edit"),
        _table("POST", "/redo", edits.redo, "edit"),
        _table("POST", "/supervoxel_lookup", edits.supervoxel_lookup, "admin_view"),
        _table(
            "GET",
            "/node/{node_id}/contact_sites",
            broken("ChunkedGraph.get_subgraph_edges() got an unexpected keyword argument 'connected_edges'"),
        ),
        _table("GET", "/node/contact_sites_pair/{a}/{b}", broken("name 'contact_sites' is not defined")),
        _table(
            "POST",
            "/roots_from_coords",
            broken("module 'pychunkedgraph.app.segmentation.common' has no attribute 'handle_roots_from_coord'"),
        ),
    ),
    on_error=on_error,
    gzips=True,
)
