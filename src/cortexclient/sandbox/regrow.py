"""Rebuild the tree above level-2 nodes that an edit replaced.

What the edit did not touch keeps its id and is merely given a new parent; what lies above a replaced node is made
anew, layer by layer, up to new roots. As in the initial tree, a part that nothing joins in its chunk is passed on
upwards without a node of its own, to the root or to the layer below the one that joins it (skip connections).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np

from .nodes import NEVER, Cells

if TYPE_CHECKING:
    from .graph import Graph

Tie = int | tuple[int, int]
"""What holds parts together: an old node above both, or a new edge between both."""


@dataclass(frozen=True, slots=True)
class Part:
    """A node that waits for its new parent.

    ``side`` tells the objects that come out of a split apart. ``old`` are the old nodes right above what the part
    consists of, ``edges`` the new edges that end in it.
    """

    node: int
    side: int
    old: frozenset[int]
    edges: frozenset[tuple[int, int]] = frozenset()


@dataclass(slots=True)
class Growth:
    """Cells that an edit writes, and ids for the nodes it makes.

    Parameters
    ----------
    graph
        As it is before the edit.
    time_ms
        Of the edit.
    """

    graph: Graph
    time_ms: int
    _cells: list[tuple[int, int]] = field(default_factory=list)
    _next: dict[int, int] = field(default_factory=dict)

    def make(self, layer: int, chunk: tuple[int, ...], children: Iterable[int]) -> int:
        """A new node with the given children."""
        layout = self.graph.layout
        place = int(layout.make(layer, np.array(chunk), 0))
        if layer == layout.n_layers:
            node = self._root_id(place)
        else:
            node = self._next.get(place) or 1 + max(self.graph.nodes_in_chunk(place).tolist(), default=place)
            self._next[place] = node + 1
        self._cells += [(child, node) for child in children]
        return node

    def _root_id(self, place: int) -> int:
        """A root's segment is ``counter * 256 + bucket``: counters run side by side, ids do not increase with time."""
        bucket = (len(self.graph.operations) * 151 + len(self._next) * 59) % 256
        counter = 1 + len(self.graph.operations) // 256
        while (node := place + counter * 256 + bucket) in self._next or self.graph.exists([node])[0]:
            counter += 1
        self._next[node] = node
        return node

    @property
    def cells(self) -> Cells:
        """What was made so far."""
        node, parent = np.array(self._cells, np.int64).reshape(-1, 2).T
        return Cells(node.copy(), parent.copy(), np.full(len(node), self.time_ms, np.int64))


def regrow(growth: Growth, fresh: list[Part], old: set[int], side_of: Callable[[int], int]) -> list[int]:
    """Grow the tree above new level-2 nodes.

    Parameters
    ----------
    growth
        Collects the cells.
    fresh
        The new level-2 nodes.
    old
        Every old node that goes out of use, on all layers: the replaced level-2 nodes and all that lie above them.
    side_of
        The side that a node below an old one, and not itself old, belongs to.

    Returns
    -------
    The new roots, in the order of their sides.
    """
    graph = growth.graph
    by_layer = defaultdict[int, list[int]](list)
    for node in sorted(old):
        by_layer[int(graph.layout.layer(node))].append(node)
    waiting = fresh
    for layer in range(3, graph.layout.n_layers + 1):
        dissolved = by_layer[layer]
        kids, owner = graph.children_of(dissolved)
        spared = [
            Part(kid, side_of(kid), frozenset({dissolved[row]}))
            for kid, row in zip(kids.tolist(), owner.tolist(), strict=True)
            if kid not in old
        ]
        above = dict(zip(dissolved, graph.parents(dissolved, NEVER).tolist(), strict=True))
        waiting = list(_groups(growth, waiting + spared, layer, above))
    return [part.node for part in sorted(waiting, key=lambda part: part.side)]


def _groups(growth: Growth, waiting: list[Part], layer: int, above: Mapping[int, int]) -> Iterator[Part]:
    """Replace the parts that belong together in a chunk of ``layer`` by one new node each."""
    layout = growth.graph.layout
    top = layer == layout.n_layers
    for (_, chunk), parts in _by_side_and_chunk(growth, waiting, layer).items():
        for group in [parts] if top else _connected(parts, above.keys()):
            old = frozenset(above.get(node, node) for part in group for node in part.old)
            edges = frozenset(edge for part in group for edge in part.edges)
            if len(group) == 1 and not top:
                yield replace(group[0], old=old)
            else:
                children = [part.node if len(group) == 1 else _raised(growth, part, layer - 1) for part in group]
                yield Part(growth.make(layer, chunk, children), group[0].side, old, edges)


def _raised(growth: Growth, part: Part, layer: int) -> int:
    """The node of a part that is about to be joined: one of ``layer``, made above the part's node if that is lower.

    A node that stays where it was below its old parent is left as it is.
    """
    layout, graph = growth.graph.layout, growth.graph
    own = int(layout.layer(part.node))
    if own == layer or (graph.parents([part.node], NEVER)[0] in part.old):
        return part.node
    return growth.make(layer, _chunk(growth, part.node, layer), [part.node])


def _by_side_and_chunk(
    growth: Growth, waiting: list[Part], layer: int
) -> dict[tuple[int, tuple[int, ...]], list[Part]]:
    found = defaultdict[tuple[int, tuple[int, ...]], list[Part]](list)
    for part in waiting:
        found[part.side, _chunk(growth, part.node, layer)].append(part)
    return found


def _chunk(growth: Growth, node: int, layer: int) -> tuple[int, ...]:
    """The chunk of ``layer`` that holds ``node``."""
    layout = growth.graph.layout
    return tuple((layout.chunk(node) // layout.fanout ** (layer - int(layout.layer(node)))).tolist())


def _connected(parts: list[Part], dissolved: Iterable[int]) -> list[list[Part]]:
    """Group the parts of one chunk: those below the same old node of this layer, and the two ends of a new edge."""
    here = set(dissolved)
    groups: list[tuple[set[Tie], list[Part]]] = []
    for part in parts:
        ties: set[Tie] = (set(part.old) & here) | set(part.edges)
        members = [part]
        apart = []
        for other_ties, others in groups:
            if ties & other_ties:
                ties |= other_ties
                members = others + members
            else:
                apart.append((other_ties, others))
        groups = [*apart, (ties, members)]
    return [members for _, members in groups]
