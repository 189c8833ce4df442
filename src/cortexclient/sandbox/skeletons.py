"""Skeletons: the recorded ones, those that are made of level-2 graphs, and the service's cache and queue of them."""

from __future__ import annotations

import math
import secrets
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import polars as pl

from . import costs
from .graph import NEVER, Graph
from .layout import Ids
from .level2 import NO_RECORDS, Floats, Level2Cache, level2_graph

SOMA, AXON, DENDRITE = 1, 2, 3
GENERATORS: Final = 15
"""Workers that make skeletons (the service's default); its estimates follow from it."""

META: Final[Mapping[str, Any]] = {
    "soma_radius": 7500.0,
    "collapse_soma": True,
    "collapse_function": "sphere",
    "invalidation_d": 7500,
    "smooth_vertices": None,
    "compute_radius": None,
    "shape_function": None,
    "smooth_iterations": None,
    "smooth_neighborhood": None,
    "smooth_r": None,
    "cc_vertex_thresh": None,
    "remove_zero_length_edges": None,
    "collapse_params": None,
    "timestamp": None,
    "skeleton_type": "pcg_skel",
}
"""How all skeletons are made; what the service does not tell is null."""


@dataclass(frozen=True, slots=True)
class Skeleton:
    """One skeleton of version 4.

    ``vertices`` (n, 3) nm, ``edges`` (n - 1, 2) child and parent, ``radius`` (n,) nm, ``compartment`` (n,) SWC codes,
    ``level2`` (m,) ids, and ``vertex_of`` (m,) the vertex that each of them belongs to.
    """

    root_id: int
    vertices: Floats
    edges: Ids
    root: int
    radius: Floats
    compartment: Ids
    level2: Ids
    vertex_of: Ids

    def meta(self, datastack: str, version: int) -> dict[str, Any]:
        """How it was made, and of what."""
        soma = dict(zip(("soma_pt_x", "soma_pt_y", "soma_pt_z"), self.vertices[self.root].tolist(), strict=True))
        about = {"meta": {"datastack": datastack, "space": "l2cache"}, "skeleton_version": version}
        return {"root_id": self.root_id} | soma | dict(META) | about

    def parents(self) -> Ids:
        """(n,) parent of each vertex, -1 for the root; edges may point either way."""
        parent = np.full(len(self.vertices), -1, np.int64)
        for vertex, before in breadth_first(len(self.vertices), self.edges, self.root):
            parent[vertex] = before
        return parent


@dataclass(frozen=True)
class Shapes:
    """What is recorded of the forms of a world's objects.

    Parameters
    ----------
    level2
        Records of level-2 nodes, see `cortexclient.sandbox.level2.COLUMNS`.
    skeletons
        ``root_id``, ``root``: the skeletons, and the root vertex of each.
    vertices
        ``root_id``, ``x``, ``y``, ``z``, ``radius`` (nm), ``compartment``; vertex by vertex.
    edges
        ``root_id``, ``a``, ``b``: vertices.
    members
        ``root_id``, ``level2``, ``vertex``.
    refused
        ``root_id``: what the service refuses from the start.
    """

    level2: pl.DataFrame = field(default_factory=NO_RECORDS.clone)
    skeletons: pl.DataFrame = field(default_factory=lambda: _empty(root_id=pl.Int64, root=pl.Int64))
    vertices: pl.DataFrame = field(
        default_factory=lambda: _empty(
            root_id=pl.Int64, x=pl.Float64, y=pl.Float64, z=pl.Float64, radius=pl.Float64, compartment=pl.Int64
        )
    )
    edges: pl.DataFrame = field(default_factory=lambda: _empty(root_id=pl.Int64, a=pl.Int64, b=pl.Int64))
    members: pl.DataFrame = field(default_factory=lambda: _empty(root_id=pl.Int64, level2=pl.Int64, vertex=pl.Int64))
    refused: pl.DataFrame = field(default_factory=lambda: _empty(root_id=pl.Int64))

    def recorded(self) -> dict[int, Skeleton]:
        """The recorded skeletons by root."""
        parts = {
            name: {int(root[0]): rows for root, rows in frame.group_by("root_id", maintain_order=True)}
            for name, frame in (("vertices", self.vertices), ("edges", self.edges), ("members", self.members))
        }
        found = {}
        for root_id, root in self.skeletons.select("root_id", "root").iter_rows():
            rows = parts["vertices"][root_id]
            edges = parts["edges"].get(root_id, self.edges.clear())
            members = parts["members"][root_id]
            found[root_id] = Skeleton(
                root_id=root_id,
                vertices=np.ascontiguousarray(rows.select("x", "y", "z").to_numpy(), np.float64),
                edges=np.ascontiguousarray(edges.select("a", "b").to_numpy(), np.int64),
                root=root,
                radius=rows["radius"].to_numpy().astype(np.float64),
                compartment=rows["compartment"].to_numpy().astype(np.int64),
                level2=members["level2"].to_numpy(),
                vertex_of=members["vertex"].to_numpy(),
            )
        return found


def _empty(**schema: Any) -> pl.DataFrame:
    return pl.DataFrame(schema=schema)


@dataclass
class Passes:
    """Tokens that open the service's bucket to readers, each for a while."""

    seconds: float = 3600.0
    """For how long a new one is good."""
    _until_ms: dict[str, int] = field(default_factory=dict)

    def issue(self, now_ms: int) -> tuple[str, int]:
        """A new token, and when it expires (UTC milliseconds)."""
        token, until = f"ya29.{secrets.token_hex(32)}", now_ms + int(1000 * self.seconds)
        self._until_ms[token] = until
        return token, until

    def open(self, token: str, now_ms: int) -> bool:
        """Whether a token is good now."""
        return now_ms < self._until_ms.get(token, 0)

    def revoke(self) -> None:
        """Let all tokens expire at once."""
        self._until_ms.clear()


class Skeletons:
    """The skeleton service's bucket, its queue, and its list of roots that it refuses.

    At first the bucket holds the recorded skeletons or, in a world without any, those of the roots that were current at
    ``current_ms``. All others are made when somebody asks for them.

    Parameters
    ----------
    graph, level2
        What skeletons are made of.
    shapes
        What is recorded.
    current_ms
        Time of the newest version.
    """

    def __init__(self, graph: Graph, level2: Level2Cache, shapes: Shapes, current_ms: int) -> None:
        self._graph, self._level2, self._current_ms = graph, level2, current_ms
        self._recorded = shapes.recorded()
        self._made: dict[int, Skeleton] = {}
        self._ready_ms: dict[int, int] = {}
        self.refused: set[int] = set(shapes.refused["root_id"])
        """Roots on the refusal list."""
        self.stuck: set[int] = set()
        """Roots whose skeleton is never finished."""
        self.seconds: float | None = None
        """How long one takes; None: `costs.SKELETON_MADE` where service times are on, else no time."""
        self.passes = Passes()
        """What opens the bucket."""
        self.service_version = "0.23.11"
        """An older service (below 0.23.9) hands out neither many cached skeletons at once nor tokens to its bucket."""

    def get(self, root_id: int) -> Skeleton:
        """The skeleton of a root, whether the bucket holds it or not."""
        skeleton = self._recorded.get(root_id) or self._made.get(root_id)
        if skeleton is None:
            skeleton = self._made[root_id] = make_skeleton(self._graph, self._level2, root_id)
        return skeleton

    def cached(self, ids: Ids, now_ms: int) -> npt.NDArray[np.bool_]:
        """Which ids the bucket has a skeleton of."""
        self._settle(now_ms)
        there = np.isin(ids, list(self._recorded))
        if not self._recorded:
            created, retired = self._graph.created(ids), self._graph.retired(ids)
            there |= self._graph.is_root(ids) & (created <= self._current_ms) & (self._current_ms < retired)
        there |= np.array([self._ready_ms.get(i, NEVER) <= now_ms for i in ids.tolist()], np.bool_)
        return there & ~np.isin(ids, [*self.stuck, *self.refused])

    def queue(self, ids: Ids, now_ms: int, *, timed: bool) -> int:
        """Have the skeletons made that are neither there nor refused; how many these are."""
        wanted = ids[~self.cached(ids, now_ms) & ~np.isin(ids, list(self.refused))].tolist()
        seconds = self.seconds
        if seconds is None:
            seconds = costs.SKELETON_MADE if timed else 0.0
        for place, root_id in enumerate(dict.fromkeys(wanted)):
            wait_ms = int(1000 * seconds * (1 + place // GENERATORS))
            self._ready_ms.setdefault(root_id, NEVER if root_id in self.stuck else now_ms + wait_ms)
        return len(set(wanted))

    def waiting_s(self, root_id: int, now_ms: int) -> float:
        """Seconds until a queued skeleton is there; infinite for one that is stuck."""
        ready = self._ready_ms.get(root_id, NEVER)
        return math.inf if ready >= NEVER else max(0, ready - now_ms) / 1000

    def bucket(self, now_ms: int) -> list[int]:
        """The roots whose skeletons are there; those of roots that nobody asked for are not listed."""
        known = np.array(sorted({*self._recorded, *self._made, *self._ready_ms}), np.int64)
        return [int(i) for i in known[self.cached(known, now_ms)]]

    def refusals(self, now_ms: int) -> list[int]:
        """The roots on the refusal list, sorted."""
        self._settle(now_ms)
        return sorted(self.refused)

    def _settle(self, now_ms: int) -> None:
        """Refuse what the makers have failed at: ids that are no roots."""
        due = [i for i, ready in self._ready_ms.items() if ready <= now_ms]
        for root_id, good in zip(due, self._graph.is_root(np.array(due, np.int64)), strict=True):
            if not good:
                del self._ready_ms[root_id]
                self.refused.add(root_id)


def make_skeleton(graph: Graph, level2: Level2Cache, root_id: int) -> Skeleton:
    """The spanning tree of an object's level-2 graph from its largest node, without some of its twigs.

    About half of the end nodes share the vertex of their parent, so that there are more level-2 nodes than vertices, as
    in a real skeleton. The subtree of the root's first child plays the axon.
    """
    nodes = graph.leaves(root_id, 2)
    table = level2.table(nodes)
    soma = int(np.argmax(table["size_nm3"][:, 0]))
    pairs = np.searchsorted(nodes, level2_graph(graph, root_id))
    parent = np.full(len(nodes), soma, np.int64)
    order = [vertex for vertex, _ in breadth_first(len(nodes), pairs, soma)]
    for vertex, before in breadth_first(len(nodes), pairs, soma):
        parent[vertex] = before
    children = np.bincount(parent[parent >= 0], minlength=len(nodes))
    twig = (children == 0) & (nodes % 2 == 0) & (parent != soma) & (parent >= 0)
    kept = np.flatnonzero(~twig)
    vertex_of = np.searchsorted(kept, np.where(twig, parent, np.arange(len(nodes))))
    compartment = np.full(len(nodes), DENDRITE)
    axon = next((vertex for vertex in order if parent[vertex] == soma), -1)
    for vertex in order:
        if vertex == axon or (parent[vertex] != soma and parent[vertex] >= 0 and compartment[parent[vertex]] == AXON):
            compartment[vertex] = AXON
    compartment[soma] = SOMA
    child = kept[kept != soma]
    return Skeleton(
        root_id=root_id,
        vertices=np.ascontiguousarray(table["rep_coord_nm"][kept]),
        edges=np.searchsorted(kept, np.stack([child, parent[child]], axis=1)),
        root=int(np.searchsorted(kept, soma)),
        radius=np.ascontiguousarray(table["mean_dt_nm"][kept, 0]),
        compartment=compartment[kept],
        level2=nodes,
        vertex_of=vertex_of,
    )


def breadth_first(n: int, edges: Ids, start: int) -> list[tuple[int, int]]:
    """All vertices that ``start`` reaches, nearest first, each with the one it was reached from (-1 for ``start``)."""
    tail, head = np.concatenate([edges, edges[:, ::-1]]).T
    order = np.argsort(tail, kind="stable")
    neighbours = head[order].tolist()
    first = np.searchsorted(tail[order], np.arange(n + 1)).tolist()
    reached, queue = {start: -1}, deque([start])
    while queue:
        vertex = queue.popleft()
        for near in neighbours[first[vertex] : first[vertex + 1]]:
            if near not in reached:
                reached[near] = vertex
                queue.append(near)
    return list(reached.items())
