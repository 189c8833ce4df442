"""Rows of the chunkedgraph: nodes up and down the tree."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import numpy as np

from cortexclient.errors import NotFoundError

from . import truth
from .comparisons import (
    same_flags,
    same_id_set,
    same_id_sets,
    same_ids,
    same_lifetimes,
    same_times,
)
from .facts import Facts, at_ms
from .rows import Ask, Defect, Raises, Row, ask, once


def mixed(facts: Facts, *arrays: Any) -> list[int]:
    """Ids of several kinds, shuffled."""
    joined = np.concatenate([np.atleast_1d(np.asarray(array, np.int64)) for array in arrays])
    return facts.some(joined, len(joined)).tolist()


# -- upwards -----------------------------------------------------------------------------------------------------------


def root_lookups(facts: Facts) -> list[Ask]:
    supervoxels = facts.some(facts.supervoxels, 40)
    edited = facts.leaves(facts.retired[0])
    end = facts.life(facts.retired[0])[1]
    kinds = [*supervoxels[:4], *facts.unknown(1, 2), 0, *facts.level2[:3], *facts.middle[:2], *facts.retired[:2]]
    asked = [
        ask(supervoxel_ids=supervoxels),
        ask(supervoxel_ids=int(supervoxels[0])),
        ask(supervoxel_ids=[]),
        ask(supervoxel_ids=np.repeat(supervoxels[:5], 3).tolist()),
        ask(supervoxel_ids=edited, timestamp=end),
        ask(supervoxel_ids=edited, timestamp=end - timedelta(milliseconds=1)),
        ask(supervoxel_ids=edited, timestamp=end - timedelta(microseconds=1)),
        ask(supervoxel_ids=mixed(facts, kinds)),
        ask(supervoxel_ids=mixed(facts, kinds), timestamp=facts.before),
        ask(supervoxel_ids=facts.unknown(1, 3)),
        ask(supervoxel_ids=[0]),
        ask(supervoxel_ids=facts.some(facts.level2, 20)),
        ask(supervoxel_ids=mixed(facts, facts.retired[:5], facts.current[:5], facts.unknown(facts.top))),
        ask(pin=facts.newest, supervoxel_ids=supervoxels),
        ask(pin=facts.valid[0].version, supervoxel_ids=supervoxels),
    ]
    asked += [ask(supervoxel_ids=mixed(facts, supervoxels, edited), timestamp=when) for when in facts.instants()]
    asked += [
        ask(supervoxel_ids=supervoxels, timestamp=facts.instants()[6], stop_layer=layer)
        for layer in (1, 2, 3, facts.top - 1, facts.top, facts.top + 1)
    ]
    return asked


def nobody_is_known(facts: Facts, asked: Ask) -> bool:
    """Whether some ids are unknown at that time, and no id of the request climbs anywhere."""
    ids = [one for one in truth.as_list(asked["supervoxel_ids"]) if one > 0]
    found = truth.roots(facts, asked)
    climbs = [one != root and root for one, root in zip(truth.as_list(asked["supervoxel_ids"]), found, strict=True)]
    return bool(ids) and 0 in found and not any(climbs) and (asked["stop_layer"] or 0) <= facts.top


ECHO = Defect("a request in which no id has a parent comes back as it was sent", nobody_is_known)


def get_roots(name: str, theirs: Any = None) -> Row:
    return Row(
        name,
        root_lookups,
        theirs,
        same=same_ids,
        known_defects=(ECHO,),
        truth=truth.roots,
    )


def single_lookups(facts: Facts) -> list[Ask]:
    supervoxel = int(facts.leaves(facts.retired[0])[0])
    asked = [ask(supervoxel_id=supervoxel, timestamp=when) for when in facts.instants() if when != facts.before]
    return [
        *asked,
        ask(supervoxel_id=supervoxel),
        ask(supervoxel_id=supervoxel, level2=True),
        ask(supervoxel_id=supervoxel, level2=True, timestamp=at_ms(facts.edits[0])),
        ask(supervoxel_id=int(facts.unknown(1)[0])),
        ask(supervoxel_id=int(facts.level2[0])),
        ask(supervoxel_id=int(facts.retired[0])),
        ask(pin=facts.newest, supervoxel_id=supervoxel),
    ]


# -- lifetimes ---------------------------------------------------------------------------------------------------------


def latest_lookups(facts: Facts) -> list[Ask]:
    roots = mixed(facts, facts.some(facts.roots, 30), facts.retired[:4], facts.current[:4])
    nodes = mixed(facts, facts.some(facts.level2, 5), facts.supervoxels[:3], facts.unknown(facts.top, 2), 0)
    return [
        ask(root_ids=roots),
        ask(root_ids=int(facts.current[0])),
        ask(root_ids=[]),
        ask(root_ids=[0]),
        ask(root_ids=roots + roots[:5]),
        ask(root_ids=nodes),
        ask(root_ids=nodes, timestamp=at_ms(facts.edits[0])),
        ask(pin=facts.valid[0].version, root_ids=roots),
        *(ask(root_ids=roots, timestamp=when) for when in facts.instants()),
        *(
            ask(root_ids=facts.retired[:6], timestamp=facts.life(root)[side])
            for root in facts.retired[:2]
            for side in (0, 1)
        ),
    ]


def node_lookups(facts: Facts) -> list[Ask]:
    kinds = {
        "supervoxels": facts.some(facts.supervoxels, 10),
        "level 2": facts.some(facts.level2, 10),
        "middle": facts.some(facts.middle, 10),
        "roots": facts.some(facts.roots, 20),
        "unknown": np.concatenate([facts.unknown(layer) for layer in (1, 2, facts.top)]),
        "none": np.array([0, 1, 12_345]),
    }
    every = np.concatenate(list(kinds.values()))
    return [
        *(ask(node_ids=ids.tolist()) for ids in kinds.values()),
        ask(node_ids=mixed(facts, every)),
        ask(node_ids=mixed(facts, every, every)),
        ask(node_ids=[]),
        ask(node_ids=[-5, int(facts.roots[0])]),
        ask(pin=facts.newest, node_ids=mixed(facts, every)),
    ]


def birthdays(facts: Facts) -> list[Ask]:
    roots = facts.some(facts.roots, 40)
    return [
        ask(root_ids=roots),
        ask(root_ids=roots.tolist() + roots[:3].tolist()),
        ask(root_ids=facts.retired[:10]),
        ask(root_ids=[]),
        ask(root_ids=[int(facts.current[0])]),
        ask(root_ids=facts.some(facts.level2, 10)),
        ask(root_ids=mixed(facts, roots[:3], facts.unknown(facts.top))),
        ask(root_ids=facts.unknown(facts.top, 2)),
        ask(root_ids=[0]),
        ask(pin=facts.newest, root_ids=roots),
    ]


def timestamps(facts: Facts) -> list[Ask]:
    roots = facts.some(facts.roots, 40)
    start, end = facts.life(facts.retired[0])
    around = [
        start,
        start + timedelta(milliseconds=1),
        end - timedelta(milliseconds=1),
        end,
        end + timedelta(milliseconds=1),
    ]
    return [
        *birthdays(facts),
        ask(root_ids=facts.retired[:10], latest=True),
        ask(root_ids=roots, latest=True, timestamp=facts.future),
        ask(root_ids=roots, latest=True, timestamp=at_ms(facts.edits[-1] + 5)),
        ask(root_ids=roots, latest=True, timestamp=at_ms(facts.edits[0])),
        ask(root_ids=mixed(facts, roots[:2], facts.unknown(facts.top)), latest=True),
        ask(root_ids=facts.unknown(facts.top, 2), latest=True),
        *(ask(root_ids=[int(facts.retired[0])], latest=True, timestamp=when) for when in around),
    ]


ONLY_UNKNOWN = Defect(
    "ids of which none exists are answered with an empty list, which says nothing about which they were",
    lambda facts, asked: (
        len(asked["root_ids"])
        and not asked["latest"]
        and not np.isin(np.asarray(asked["root_ids"]), facts.nodes[facts.graph.layout.layer(facts.nodes) > 1]).any()
    ),
)


def times_or_error(facts: Facts, asked: Ask) -> Any:
    """Births, or the last milliseconds of lives up to a time."""
    lineage, ids = facts.lineage, truth.as_list(asked["root_ids"])
    if not all(one in lineage.born for one in ids):
        return Raises(NotFoundError)
    if not asked["latest"]:
        return [at_ms(lineage.born[one]) for one in ids]
    now = truth.ms(asked["timestamp"], facts=facts, asked=asked)
    return [at_ms(min(lineage.died.get(one, now), now) - 1) for one in ids]


def lifetimes_by_two_calls(peers: Any, asked: Ask) -> dict[str, Any]:
    graph = peers.cave(asked.pin).chunkedgraph
    ids, when = asked["root_ids"], asked["timestamp"]
    starts = graph.get_root_timestamps(ids, latest=False)
    if not len(starts) and len(ids):
        raise ValueError("no id is known")
    ends = graph.get_root_timestamps(ids, latest=True, timestamp=when)
    current = graph.is_latest_roots(ids, timestamp=when)
    ended = [None if now else end + timedelta(milliseconds=1) for now, end in zip(current, ends, strict=True)]
    return {"start": starts, "end": ended}


# -- downwards ---------------------------------------------------------------------------------------------------------


def places(facts: Facts) -> list[dict[str, Any]]:
    """Bounds and stop layers."""
    root = int(facts.retired[0])
    box = facts.box(root)
    return [
        {},
        {"bounds": box},
        {"bounds": box, "stop_layer": 2},
        {"bounds": np.array([[0, 1], [0, 1], [0, 1]])},
        *({"stop_layer": layer} for layer in (1, 2, 3, facts.top - 1, facts.top)),
    ]


def one_node(facts: Facts) -> list[Ask]:
    others = [facts.current[0], facts.level2[0], facts.middle[0], facts.supervoxels[0], facts.unknown(facts.top)[0], 0]
    root, box = int(facts.retired[0]), facts.box(int(facts.retired[0]))
    return [
        *(ask(root_id=root, **place) for place in places(facts)),
        *(ask(root_id=int(other)) for other in others),
        ask(root_id=int(facts.retired[1]), stop_layer=2),
        ask(root_id=root, bounds=np.array([[-5, 10], [0, 10], [0, 10]])),
        ask(root_id=root, bounds=box[:, ::-1]),
        ask(pin=facts.newest, root_id=root),
    ]


def many_nodes(facts: Facts) -> list[Ask]:
    root = int(facts.retired[0])
    return [
        *(ask(root_ids=facts.some(facts.current, 8).tolist(), **place) for place in places(facts)),
        ask(root_ids=[root]),
        ask(root_ids=[]),
        ask(root_ids=facts.related),
        ask(root_ids=facts.related[::-1], stop_layer=2),
        ask(root_ids=facts.related, bounds=facts.box(facts.related[0])),
        ask(root_ids=[root, root]),
        ask(root_ids=mixed(facts, facts.some(facts.current, 3), facts.unknown(facts.top), 0)),
        ask(root_ids=facts.supervoxels[:3].tolist()),
        ask(root_ids=facts.some(facts.roots, 30).tolist()),
    ]


def share_nodes(facts: Facts, asked: Ask) -> bool:
    """Whether some of the ids share material, as a root and its successors do."""
    nodes = [truth.descend(facts.oracle, one, 1) for one in dict.fromkeys(truth.as_list(asked["root_ids"])) if one]
    return sum(map(len, nodes)) > len(set().union(*nodes))


LEAVES_MANY_DEFECTS = (
    Defect(
        "a list of supervoxels is answered with itself, where a single one is answered with nothing",
        lambda facts, asked: any(facts.oracle.layer(one) == 1 for one in truth.as_list(asked["root_ids"])),
    ),
    Defect(
        "a repeated id is a 500",
        lambda facts, asked: facts.strict and len(set(asked["root_ids"])) < len(asked["root_ids"]),
    ),
    Defect(
        "what two ids of one request share is given to the last of them only",
        lambda facts, asked: facts.strict and share_nodes(facts, asked),
    ),
)


def child_lookups(facts: Facts) -> list[Ask]:
    kinds = (*facts.current[:3], *facts.retired[:3], *facts.level2[:2], *facts.middle[:2], facts.supervoxels[0])
    return [ask(node_id=int(node)) for node in (*kinds, facts.unknown(facts.top)[0], facts.unknown(2)[0], 0)]


ROWS: list[Row] = [
    get_roots("chunkedgraph.get_roots"),
    Row("chunkedgraph.get_root_id", single_lookups),
    Row("chunkedgraph.is_latest_roots", latest_lookups, same=same_flags),
    Row(
        "chunkedgraph.is_valid_nodes",
        node_lookups,
        same=same_flags,
        known_defects=(
            Defect(
                "a pinned client is told of the nodes until then, not of all", lambda _, asked: asked.pin is not None
            ),
        ),
        truth=lambda facts, asked: np.isin(asked["node_ids"], facts.nodes),
    ),
    Row(
        "chunkedgraph.get_root_timestamps",
        timestamps,
        same=same_times,
        known_defects=(ONLY_UNKNOWN,),
        truth=times_or_error,
    ),
    Row(
        "chunkedgraph.get_root_lifetimes",
        lambda facts: (
            [asked for asked in timestamps(facts) if not asked["latest"]]
            + [ask(root_ids=facts.some(facts.roots, 20), timestamp=facts.future)]
        ),
        lifetimes_by_two_calls,
        same=same_lifetimes,
    ),
    Row("chunkedgraph.get_leaves", one_node, same=same_id_set),
    Row(
        "chunkedgraph.get_leaves_many",
        many_nodes,
        same=same_id_sets,
        known_defects=LEAVES_MANY_DEFECTS,
        truth=truth.leaves_many,
    ),
    Row("chunkedgraph.get_children", child_lookups, same=same_id_set),
    Row("chunkedgraph.segmentation_info", once),
    Row("chunkedgraph.base_resolution", once),
    Row("chunkedgraph.table_name", once),
    Row("chunkedgraph.cloudvolume_path", once),
]
