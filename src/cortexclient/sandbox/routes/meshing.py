"""The meshing service (``/meshing``, a part of PyChunkedGraph): which fragments an object's mesh is made of."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import numpy as np

from .. import costs
from ..calls import Call, Reply, Route, RouteTable
from ..layout import Ids
from ..meshes import MINISHARD_BITS, PRESHIFT_BITS, Meshes
from .chunkedgraph import VERSION
from .chunkedgraph_lookups import inside, parse_bounds
from .chunkedgraph_protocol import HTML, flag, json_reply, malformed, node_id, on_error, open_graph

if TYPE_CHECKING:
    from ..world import World

SERVICE: Final = "/meshing"


def index(_: World, __: Call) -> Reply:
    """The greeting of the service."""
    return Reply(f"PyChunkedGraph Meshing v{VERSION}".encode(), content_type=HTML)


def api_versions(_: World, call: Call) -> Reply:
    """The API versions that the service speaks."""
    return json_reply(call, [0, 1])


def version(_: World, call: Call) -> Reply:
    """The version of the software."""
    return json_reply(call, VERSION)


def manifest(world: World, call: Call) -> Reply:
    """List the fragments of a node; none for an unknown one.

    With ``verify`` names say where the fragment is; without, where to look for it. A body, if there is one, wins over
    the query, and is read whatever its Content-Type: cloud-volume sends one with its GET, without any.
    """
    graph, call = open_graph(world, call)
    meshes, node, box = world.meshes, node_id(call), parse_bounds(call)
    with malformed("start_layer"):
        asked = dict(call.json()) if call.body else {}
        start_layer = int(asked.get("start_layer", call.query.get("start_layer", meshes.top_layer)))
    pieces = meshes.pieces(node, start_layer)
    if box is not None:
        layers = graph.layout.layer(pieces)
        kept = [inside(graph.layout, pieces[layers == layer], box) for layer in np.unique(layers)]
        pieces = np.concatenate(kept) if kept else pieces
    fragments = _names(meshes, pieces, verify=flag(call, "verify"))
    if flag(call, "prepend_seg_ids"):
        fragments = [f"~{piece}:{name}" for piece, name in zip(pieces.tolist(), fragments, strict=True)]
    answer: dict[str, Any] = {"fragments": fragments}
    if flag(call, "return_seg_ids") or asked.get("return_seg_ids"):
        answer["seg_ids"] = pieces
    if asked.get("return_seg_id_layers"):
        answer["seg_id_layers"] = graph.layout.layer(pieces)
    if asked.get("return_seg_chunk_coordinates"):
        answer["seg_chunk_coordinates"] = graph.layout.chunk(pieces)
    return json_reply(call, answer, price=costs.MANIFEST_PER_NODE * len(pieces))


def _names(meshes: Meshes, nodes: Ids, *, verify: bool) -> list[str]:
    return [
        _initial_name(meshes, node, verify=verify) if initial else meshes.dynamic_name(node)
        for node, initial in zip(nodes.tolist(), meshes.is_initial(nodes), strict=True)
    ]


def _initial_name(meshes: Meshes, node: int, *, verify: bool) -> str:
    layout, name = meshes.graph.layout, meshes.shard_name(node)
    if verify:
        offset, size = meshes.place(node)
        return f"~{name}:{offset}:{size}"
    layer, _, file = name.partition("/")
    minishard = (node >> PRESHIFT_BITS) & ((1 << MINISHARD_BITS) - 1)
    return f"~{node}:{layer}:{node - int(layout.segment(node))}:{file}:{minishard}"


TABLE: Final = RouteTable(
    "meshing",
    (
        Route(("GET",), f"{SERVICE}/api/v1/", index, None),
        Route(("GET",), f"{SERVICE}/api/versions", api_versions),
        Route(("GET",), f"{SERVICE}/api/version", version),
        Route(("GET",), f"{SERVICE}/api/v1/table/{{table}}/manifest/{{node_id}}:0", manifest, "view", "table"),
        Route(("GET",), f"{SERVICE}/1.0/{{table}}/manifest/{{node_id}}:0", manifest, "view", "table"),
    ),
    on_error=on_error,
    gzips=True,
)
