"""From what objects consisted of to the tree above it: level-2 nodes, their ancestors and the roots.

The tree follows the ingest of the real service: a node of layer ``L`` stands for a connected part of an object inside
one chunk of layer ``L``; a part that has a single child gets no node of its own, its child is passed on upwards
(PyChunkedGraph calls these skip connections). A node lasts from state to state as long as its children are the same,
so what an edit did not touch keeps its id and is merely given a new parent.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ..graph import Cells, Layout
from ..layout import Ids


@dataclass(frozen=True, slots=True)
class Members:
    """Which level-2 nodes each state of each object consists of.

    ``state`` and ``node`` are equally long; ``edges`` holds pairs of row numbers that are connected. Of a state that
    no edge belongs to, all nodes in one chunk are taken for connected.
    """

    state: Ids
    node: Ids
    edges: tuple[Ids, Ids]


def grow(layout: Layout, members: Members, *, time_ms: Ids, root: Ids, first_segment: int = 1) -> Cells:
    """The parent cells between level 2 and the roots.

    Parameters
    ----------
    layout
        Geometry of the ids.
    members
        In any order.
    time_ms, root
        For each state: when it began, and its root id.
    first_segment
        Lowest segment id of the nodes made here.
    """
    born = np.empty(len(time_ms), np.int64)
    born[np.argsort(time_ms, kind="stable")] = np.arange(len(time_ms))
    place = morton(layout.chunk(members.node))
    order = np.lexsort((members.node, place, born[members.state]))
    state, node, place = members.state[order], members.node[order], place[order]
    age = rank(node)
    row = np.empty(len(order), np.int64)
    row[order] = np.arange(len(order))
    a, b = row[members.edges[0]], row[members.edges[1]]
    mapped = np.zeros(len(time_ms), bool)
    mapped[state[a]] = True
    cells = []
    for layer in range(3, layout.n_layers):
        part = _parts(state, place >> (3 * (layer - 2)), a, b, mapped)
        rows = np.argsort(part, kind="stable") if len(a) else np.arange(len(part))
        first = np.flatnonzero(np.diff(part[rows], prepend=-1))
        count = np.diff(first, append=len(rows))
        head = rows[first]
        parents, ages = node[head], age[head]
        joined = np.flatnonzero(count > 1)
        if len(joined):
            sums = np.add.reduceat(_mixed(node[rows]), first)[joined]
            which, example = _persistent(parents[joined], ages[joined], sums)
            example = joined[example]
            chunk = unmorton(place[head[example]] >> (3 * (layer - 2)))
            made = layout.make(layer, chunk, first_segment + rank(layout.make(layer, chunk, 0)))
            parents[joined] = made[which]
            ages[joined] = rank(which)
            children = rows[ranges(first[example], count[example])]
            times = time_ms[state[head[example]]]
            cells.append((node[children], np.repeat(made, count[example]), np.repeat(times, count[example])))
        if len(a):
            group = np.empty(len(rows), np.int64)
            group[rows] = np.repeat(np.arange(len(first)), count)
            a, b = group[a], group[b]
            a, b = a[a != b], b[a != b]
        state, node, place, age = state[head], parents, place[head], ages
    cells.append((node, root[state], time_ms[state]))
    return Cells(*(np.concatenate(column) for column in zip(*cells, strict=True)))


def _persistent(child: Ids, age: Ids, content: npt.NDArray[Any]) -> tuple[Ids, Ids]:
    """Which of the groups are one node that lasts over several states.

    Parameters
    ----------
    child
        The first child of each group; groups come in order of time.
    age
        In how many earlier states that child has been.
    content
        Equal for groups of equal children.

    Returns
    -------
    The number of each group's node, and of each node the first group.
    """
    order = np.argsort(child, kind="stable")
    child, age, content = child[order], age[order], content[order]
    lasts = (child[1:] == child[:-1]) & (age[1:] == age[:-1] + 1) & (content[1:] == content[:-1])
    begins = np.append(True, ~lasts)
    which = np.empty(len(order), np.int64)
    which[order] = np.cumsum(begins) - 1
    return which, order[begins]


def _parts(state: Ids, chunk: Ids, a: Ids, b: Ids, mapped: npt.NDArray[np.bool_]) -> Ids:
    """The lowest row that each row is connected to within one state and chunk; rows are sorted by both."""
    new = np.diff(state, prepend=-1) != 0
    new |= np.diff(chunk, prepend=-1) != 0
    run: Ids = np.flatnonzero(new)[np.cumsum(new) - 1]
    if not len(a):
        return run
    inside = run[a] == run[b]
    return np.where(mapped[state], components(len(state), a[inside], b[inside]), run)


def components(n: int, a: Ids, b: Ids) -> Ids:
    """For each of ``n`` vertices the lowest vertex that the edges ``a``-``b`` connect it to."""
    label = np.arange(n)
    while True:
        low, high = np.minimum(label[a], label[b]), np.maximum(label[a], label[b])
        apart = low != high
        if not apart.any():
            return label
        a, b = a[apart], b[apart]
        np.minimum.at(label, high[apart], low[apart])
        while (label != (further := label[label])).any():
            label = further


def rank(key: Ids) -> Ids:
    """For each row its number among the rows of equal key, from 0, in row order."""
    order = np.argsort(key, kind="stable")
    first = np.diff(key[order], prepend=-1) != 0
    start = np.flatnonzero(first)
    ranks = np.empty(len(key), np.int64)
    ranks[order] = np.arange(len(key)) - np.repeat(start, np.diff(start, append=len(key)))
    return ranks


def ranges(start: Ids, count: Ids) -> Ids:
    """All of ``range(start, start + count)``, one after the other."""
    ends: Ids = np.cumsum(count)
    total = int(ends[-1]) if len(ends) else 0
    numbers: Ids = np.arange(total) + np.repeat(start - (ends - count), count)
    return numbers


def morton(chunk: npt.NDArray[np.int64]) -> Ids:
    """Interleave chunk coordinates (n, 3) of up to 10 bits; shifted by three, a code is the chunk of the next layer."""
    code = np.zeros(len(chunk), np.int64)
    for axis in range(3):
        spread = chunk[:, axis].copy()
        for shift, mask in ((16, 0x30000FF), (8, 0x300F00F), (4, 0x30C30C3), (2, 0x9249249)):
            spread = (spread | (spread << shift)) & mask
        code |= spread << axis
    return code


def unmorton(code: Ids) -> npt.NDArray[np.int64]:
    """Chunk coordinates (n, 3) of interleaved codes."""
    axes = []
    for axis in range(3):
        packed = (code >> axis) & 0x9249249
        for shift, mask in ((2, 0x30C30C3), (4, 0x300F00F), (8, 0x30000FF), (16, 0x3FF)):
            packed = (packed | (packed >> shift)) & mask
        axes.append(packed)
    return np.stack(axes, axis=1)


def _mixed(ids: Ids) -> npt.NDArray[Any]:
    """Scatter ids over 64 bits (the finaliser of splitmix64), so that sums of different sets of ids differ."""
    x = ids.view(np.uint64)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))
