"""Answers that follow from a world's raw facts, worked out in plain Python by walking one node at a time."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any

import numpy as np
from tests.oracle import Oracle

from .facts import Facts, Lineage
from .rows import Ask


def exact_ms(when: datetime | None, *, facts: Facts | None = None, asked: Ask | None = None) -> float:
    """An instant with its microseconds; none: the pinned version's, else now. Lineages are cut there."""
    if when is None and facts is not None and asked is not None and asked.pin is not None:
        return float(facts.world.version(asked.pin).time_us / 1000)
    return (when or datetime.now(UTC)).timestamp() * 1000


def ms(when: datetime | None, *, facts: Facts | None = None, asked: Ask | None = None) -> int:
    """An instant as the graph keeps it, in whole milliseconds. Roots are looked up there."""
    return int(exact_ms(when, facts=facts, asked=asked))


def as_list(ids: Any) -> list[int]:
    return [int(one) for one in np.atleast_1d(np.asarray(ids)).tolist()]


def climb(oracle: Oracle, node: int, time_ms: int, stop: int) -> int:
    """The first ancestor at or above a layer; 0 if there is none."""
    while oracle.layer(node) < stop:
        written = [cell for cell in oracle.parents.get(node, ()) if cell[0] <= time_ms]
        if not written:
            return 0
        node = max(written)[1]
    return node


def roots(facts: Facts, asked: Ask) -> list[int]:
    time_ms, stop = ms(asked["timestamp"], facts=facts, asked=asked), asked["stop_layer"] or facts.top
    return [climb(facts.oracle, one, time_ms, stop) if one > 0 else 0 for one in as_list(asked["supervoxel_ids"])]


def descend(oracle: Oracle, node: int, layer: int) -> set[int]:
    """The descendants of exactly one layer, the node itself included."""
    if oracle.layer(node) <= layer:
        return {node} if oracle.layer(node) == layer else set()
    return set().union(*(descend(oracle, child, layer) for child in oracle.children.get(node, ())))


def leaves_of(facts: Facts, node: int, asked: Ask) -> list[int]:
    """Descendants of a node above supervoxels, in the chunks that a box touches."""
    oracle, layer = facts.oracle, asked["stop_layer"] or 1
    if oracle.layer(node) < 2 or node not in oracle.children:
        return []
    found = np.array(sorted(descend(oracle, node, layer)), np.int64)
    box = asked["bounds"]
    if box is not None and len(found):
        layout = facts.graph.layout
        low = np.asarray(layout.voxel_offset) + layout.chunk(found) * layout.chunk_voxels(layer)
        touched = (low < np.asarray(box)[:, 1]) & (low + layout.chunk_voxels(layer) > np.asarray(box)[:, 0])
        found = found[touched.all(axis=1)]
    return found.tolist()


def leaves_many(facts: Facts, asked: Ask) -> dict[int, list[int]]:
    return {one: leaves_of(facts, one, asked) for one in as_list(asked["root_ids"])}


def overlaps(facts: Facts, asked: Ask) -> dict[int, float]:
    """Shares of a root's level-2 chunks, each split over its supervoxels, by the root they lie on at a time."""
    time_ms = ms(asked["timestamp"], facts=facts, asked=asked)
    chunks = descend(facts.oracle, asked["root_id"], 2)
    shares: dict[int, float] = defaultdict(float)
    for chunk in chunks:
        supervoxels = facts.oracle.children[chunk]
        for one in supervoxels:
            shares[facts.oracle.root_at(one, time_ms)] += 1 / len(supervoxels) / len(chunks)
    return dict(shares)


def past_ids(facts: Facts, asked: Ask) -> dict[int, list[int]]:
    """Where the lineage of each root ends when it is walked back past every root that a time does not precede."""
    lineage, past = facts.lineage, exact_ms(asked["timestamp_past"])
    return {one: sorted(_ends(lineage, one, past)) for one in as_list(asked["root_ids"])}


def _ends(lineage: Lineage, root: int, past_ms: float) -> Iterable[int]:
    seen, front, ends = {root}, [root], set[int]()
    while front:
        one = front.pop()
        before = lineage.earlier.get(one, set()) if lineage.born[one] >= past_ms else set()
        ends |= set() if before else {one}
        front += before - seen
        seen |= before
    return ends


def undone(facts: Facts) -> set[int]:
    """Edits that do not stand any more: undone, and not redone since. An undoing or redoing stands for its edit."""
    edit: dict[int, int] = {}
    gone: set[int] = set()
    for number, operation in sorted(facts.graph.operations.items()):
        target = operation.undo_operation_id or operation.redo_operation_id
        if target is None or operation.status:
            continue
        edit[number] = edit.get(target, target)
        undoing = bool(operation.undo_operation_id)
        (gone.add if undoing != is_undoing(facts, target) else gone.discard)(edit[number])
    return gone


def is_undoing(facts: Facts, number: int) -> bool:
    return bool(facts.graph.operations[number].undo_operation_id)
