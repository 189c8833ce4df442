"""Real neurons with made-up histories: their level-2 graphs are real, the edits that led to them and on are not.

The real graph of a neuron is that of one state, which has the real root id. Edits are invented around it: earlier
merges join parts of the real graph, which were objects of their own before; earlier splits take away made-up debris;
later splits cut off parts of the real graph, later merges add debris. A part is a subtree of the graph's spanning tree,
and an edit touches all level-2 nodes with an edge across the cut, as a real one does.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NamedTuple, Self

import numpy as np
import numpy.typing as npt
import polars as pl

from ..layout import Ids, Layout
from .forest import ranges, rank
from .history import History
from .proofreading import FACES, users

Bools = npt.NDArray[np.bool_]

SINGLE: Final = 864691135101289504
"""The neuron with a record of its own; the others share ``minnie65_83``."""

MOST_EDITS: Final = 24


@dataclass(frozen=True, slots=True)
class Neurons:
    """The level-2 graphs of all neurons, as one graph.

    Nodes are numbered along the spanning trees, depth first from the somata: those of neuron ``i`` are
    ``start[i]:start[i + 1]``, the soma's is ``start[i]``, and the subtree of node ``v`` is ``v:v + size[v]``.
    """

    root: Ids
    start: Ids
    level2: Ids
    size: Ids
    a: Ids
    b: Ids

    @classmethod
    def read(cls, data: Path) -> Self:
        """Read ``neurons/`` below ``data``."""
        root, nodes, edges = _read_shared(data / "neurons" / "minnie65_83")
        single, soma, more = _read_single(data / "neurons" / str(SINGLE))
        first = len(nodes)
        neuron = np.append(nodes["neuron"].to_numpy(), np.full(len(single), len(root)))
        level2 = np.append(nodes["l2_id"].to_numpy(), single)
        somata = np.append(np.flatnonzero(nodes["soma"].to_numpy()), first + soma)
        a, b = np.concatenate([edges, first + more], axis=1)
        position, size = _spanning_trees(len(level2), a, b, somata)
        order = np.argsort(position)
        start = np.append(np.searchsorted(neuron[order], np.arange(len(root) + 1)), len(order))
        return cls(np.append(root, SINGLE), start, level2[order], size[order], position[a], position[b])

    @property
    def neuron(self) -> Ids:
        """Number of the neuron that each node belongs to."""
        return np.repeat(np.arange(len(self.root)), np.diff(self.start))


def _read_shared(folder: Path) -> tuple[Ids, pl.DataFrame, npt.NDArray[np.int64]]:
    """Roots, nodes (``neuron``, ``l2_id``, ``soma``) and edges (2, n) of the neurons in common files.

    The soma's node is the first of those on the skeleton's root vertex.
    """
    neurons = pl.read_parquet(folder / "neurons.parquet").with_row_index("neuron")
    keys = neurons.select("root_id", pl.col("neuron").cast(pl.Int64), "skeleton_root_vertex")
    nodes = (
        pl.read_parquet(folder / "l2.parquet")
        .join(keys, on="root_id", maintain_order="left")
        .with_columns(at_root=pl.col("skeleton_vertex") == pl.col("skeleton_root_vertex"))
        .with_columns(soma=pl.col("at_root") & (pl.col("at_root").cum_sum().over("root_id") == 1))
        .sort("neuron", maintain_order=True)
    )
    first = np.append(0, np.cumsum(neurons["n_l2"].to_numpy()))
    edges = pl.read_parquet(folder / "l2_edges.parquet").join(keys, on="root_id", maintain_order="left")
    offset = first[edges["neuron"].to_numpy()]
    return (
        neurons["root_id"].to_numpy(),
        nodes,
        np.stack([offset + edges["a"].to_numpy(), offset + edges["b"].to_numpy()]),
    )


def _read_single(folder: Path) -> tuple[Ids, int, npt.NDArray[np.int64]]:
    """Level-2 ids, row of the largest (the soma's) and edges (2, n) of the neuron with a record of its own."""
    nodes = pl.read_parquet(folder / "l2_attributes.parquet")
    level2 = nodes["l2_id"].cast(pl.Int64).to_numpy()
    pairs = pl.read_parquet(folder / "l2_graph.parquet").cast(pl.Int64).to_numpy().T
    order = np.argsort(level2)
    return level2, int(nodes["size_nm3"].arg_max() or 0), order[np.searchsorted(level2, pairs, sorter=order)]


def _spanning_trees(n: int, a: Ids, b: Ids, sources: Ids) -> tuple[Ids, Ids]:
    """Breadth-first spanning trees from the sources: depth-first number of each node, size of its subtree."""
    tail, head = np.append(a, b), np.append(b, a)
    order = np.argsort(tail, kind="stable")
    head = head[order]
    first = np.searchsorted(tail[order], np.arange(n + 1))
    parent, seen = np.full(n, -1), np.zeros(n, bool)
    seen[sources] = True
    levels = [sources]
    while len(levels[-1]):
        front = levels[-1]
        count = first[front + 1] - first[front]
        near, via = head[ranges(first[front], count)], np.repeat(front, count)
        fresh, example = np.unique(near[~seen[near]], return_index=True)
        parent[fresh] = via[~seen[near]][example]
        seen[fresh] = True
        levels.append(fresh)
    if not seen.all():
        raise ValueError(f"{int((~seen).sum())} level-2 nodes are not connected to the soma of their neuron")
    size = np.ones(n, np.int64)
    for level in reversed(levels[1:]):
        np.add.at(size, parent[level], size[level])
    position = np.zeros(n, np.int64)
    position[sources] = np.cumsum(size[sources]) - size[sources]
    for level in levels[1:]:
        order = level[np.argsort(parent[level], kind="stable")]
        before = np.cumsum(size[order]) - size[order]
        brothers = rank(parent[order])
        eldest = np.maximum.accumulate(np.where(brothers == 0, np.arange(len(order)), 0))
        position[order] = position[parent[order]] + 1 + before - before[eldest]
    return position, size


class Event(NamedTuple):
    """One edit: a part joins or leaves the neuron."""

    time: int
    part: int
    joins: bool


@dataclass(slots=True)
class _Neuron:
    """One neuron and the parts that it is at times made of; nodes are counted from the soma, debris comes last."""

    patch: Ids
    level2: Ids
    part: Ids
    a: Ids
    b: Ids
    inside: Bools
    events: list[Event]

    def touched(self, event: Event) -> Bools:
        """Nodes with an edge across the cut of an event, at its moment."""
        mine = self.part == event.part
        there = self.inside | mine
        across = (mine[self.a] != mine[self.b]) & there[self.a] & there[self.b]
        touched = np.zeros(len(self.part), bool)
        touched[self.a[across]] = touched[self.b[across]] = True
        return touched

    def renewals(self) -> Iterator[tuple[Event, Bools]]:
        """The events in order, each with what it touches; afterwards ``inside`` is what it was."""
        inside = self.inside.copy()
        for event in self.events:
            yield event, self.touched(event)
            self.inside = self.inside ^ (self.part == event.part)
        self.inside = inside


def write_neurons(history: History, neurons: Neurons, real_ms: Ids, end_ms: int, rng: np.random.Generator) -> Ids:
    """Record all neurons with invented edits.

    Parameters
    ----------
    history
        Where everything is written.
    neurons
        What is real.
    real_ms
        For each neuron a time at which its root is the real one.
    end_ms
        Time of the last edit.
    rng
        Draws edits.

    Returns
    -------
    The patch of each node.
    """
    chunk = history.layout.make(2, history.layout.chunk(neurons.level2), 0)
    patches = history.patches.add(chunk=chunk)
    history.supervoxels.add(patch=patches, id=0)
    history.contacts.add(a=patches[neurons.a], b=patches[neurons.b])
    of_edge = np.argsort(neurons.a, kind="stable")
    first_edge = np.searchsorted(neurons.a[of_edge], neurons.start)
    for i, root in enumerate(neurons.root.tolist()):
        low, high = neurons.start[i], neurons.start[i + 1]
        rows = of_edge[first_edge[i] : first_edge[i + 1]]
        neuron = _Neuron(
            patch=patches[low:high],
            level2=neurons.level2[low:high],
            part=np.zeros(high - low, np.int64),
            a=neurons.a[rows] - low,
            b=neurons.b[rows] - low,
            inside=np.ones(high - low, bool),
            events=[],
        )
        _invent(history, neuron, neurons.size[low:high], rng, real_ms=int(real_ms[i]), end_ms=end_ms)
        _write(history, neuron, root, int(real_ms[i]), rng)
    return patches


def _invent(
    history: History, neuron: _Neuron, size: Ids, rng: np.random.Generator, *, real_ms: int, end_ms: int
) -> None:
    """Choose parts and events. Two of three edits are merges before the real state and splits after it."""
    count = int(np.clip(round(rng.lognormal(np.log(5), 0.8)), 1, MOST_EDITS))
    early = rng.random(count) < 0.6
    real = rng.random(count) < 0.67
    margin = 86_400_000
    spans = (history.created_ms + margin, real_ms - margin), (real_ms + margin, end_ms - margin)
    times = [int(rng.integers(*spans[0 if before else 1])) for before in early]
    for number, (time, before, is_real) in enumerate(zip(times, early.tolist(), real.tolist(), strict=True), start=1):
        if is_real and _cut(neuron, size, number, rng):
            joins = before
        else:
            _add_debris(history, neuron, number, rng)
            joins = not before
        neuron.inside &= (neuron.part != number) | (not joins)
        neuron.events.append(Event(time, number, joins))
    neuron.events.sort()


def _cut(neuron: _Neuron, size: Ids, number: int, rng: np.random.Generator) -> bool:
    """Make a subtree the part ``number``, if one is found that overlaps no other part."""
    candidates = np.flatnonzero((size >= 3) & (size <= len(size) // 4))
    best, fewest = None, len(neuron.a)
    for node in rng.choice(candidates, min(12, len(candidates)), replace=False).tolist():
        subtree = slice(node, node + int(size[node]))
        if neuron.part[subtree].any():
            continue
        mine = np.zeros(len(neuron.part), bool)
        mine[subtree] = True
        crossing = int((mine[neuron.a] != mine[neuron.b]).sum())
        if crossing < fewest:
            best, fewest = subtree, crossing
    if best is not None:
        neuron.part[best] = number
    return best is not None


def _add_debris(history: History, neuron: _Neuron, number: int, rng: np.random.Generator) -> None:
    """Make a chain of a few patches next to the neuron the part ``number``."""
    length, n = int(rng.integers(2, 5)), len(neuron.part)
    beside = int(rng.choice(np.flatnonzero(neuron.part == 0)))
    chunks = history.chunk(neuron.patch[[beside]])
    for _ in range(length):
        chunks = np.append(chunks, _step(chunks[-1:], history.layout, rng), axis=0)
    patches = history.grow_patches(chunks[1:], 1)
    neuron.a = np.append(neuron.a, [beside, *range(n, n + length - 1)])
    neuron.b = np.append(neuron.b, np.arange(n, n + length))
    neuron.patch = np.append(neuron.patch, patches)
    neuron.level2 = np.append(neuron.level2, np.zeros(length, np.int64))
    neuron.part = np.append(neuron.part, np.full(length, number))
    neuron.inside = np.append(neuron.inside, np.ones(length, bool))
    history.contacts.add(a=neuron.patch[neuron.a[-length:]], b=patches)


def _step(chunk: npt.NDArray[np.int64], layout: Layout, rng: np.random.Generator) -> npt.NDArray[np.int64]:
    """A chunk that shares a face with this one, within the volume."""
    step = FACES[rng.integers(0, len(FACES), 1)]
    last = np.asarray(layout.volume_size) // np.asarray(layout.chunk_size) - 1
    stays: Bools = (chunk + step >= 0) & (chunk + step <= last)
    return chunk + np.where(stays, step, -step)


def _write(history: History, neuron: _Neuron, root: int, real_ms: int, rng: np.random.Generator) -> None:
    """Write the states and operations of one neuron. Nodes have their real ids in the real state, others elsewhere."""
    real, last = neuron.level2, np.full(len(neuron.part), -1)
    early = sum(event.time <= real_ms for event in neuron.events)
    for number, (_, touched) in enumerate(neuron.renewals()):
        if number < early:
            last[touched] = number
    neuron.level2 = history.level2.add(patch=neuron.patch, time=history.created_ms, id=np.where(last < 0, real, 0))
    outer = {
        event.part: _write_state(history, neuron, neuron.part == event.part, history.created_ms)
        for event in neuron.events
        if event.joins
    }
    state = _write_state(history, neuron, neuron.inside, history.created_ms, root if early == 0 else 0)
    for number, (event, touched) in enumerate(neuron.renewals()):
        ids = np.where((last == number) & (number < early), real, 0)[touched]
        neuron.level2[touched] = history.level2.add(patch=neuron.patch[touched], time=event.time, id=ids)
        mine = neuron.part == event.part
        now = neuron.inside ^ mine
        new = _write_state(history, neuron, now, event.time, root if number == early - 1 else 0)
        other = outer[event.part] if event.joins else _write_state(history, neuron, mine, event.time)
        at = neuron.patch[touched & ~mine][:1], neuron.patch[touched & mine][:1]
        operation = history.edit(
            np.array([event.time]),
            merge=event.joins,
            user=users(1, rng),
            at=at,
            new=new,
            other=-1 if event.joins else other,
        )
        former = [state, other] if event.joins else [state, state]
        history.lineage.add(
            former=np.concatenate(former), new=np.concatenate([new, new if event.joins else other]), operation=operation
        )
        state = new


def _write_state(history: History, neuron: _Neuron, nodes: Bools, time_ms: int, root: int = 0) -> Ids:
    """A state of these nodes and the edges among them."""
    state = history.states.add(time=[time_ms], id=root)
    row = np.full(len(nodes), -1)
    row[nodes] = history.members.add(state=state, level2=neuron.level2[nodes])
    a, b = row[neuron.a], row[neuron.b]
    among = (a >= 0) & (b >= 0)
    history.links.add(a=a[among], b=b[among])
    return state
