"""Rows of the chunkedgraph: where roots come from, where they went, and who did it."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import numpy as np

from cortexclient.errors import NotFoundError

from . import truth
from .comparisons import (
    same_details,
    same_edges,
    same_id_set,
    same_id_sets,
    same_lineage,
    same_log_frames,
    same_operations,
    same_pair_of_id_sets,
    same_path,
    same_shares,
    same_subgraph,
    same_times,
)
from .facts import Facts, at_ms, at_us
from .rows import Ask, Defect, Raises, Row, ask


def old_and_new(facts: Facts, n: int = 4) -> list[int]:
    """Roots of all ages."""
    return [*facts.retired[:n].tolist(), *facts.some(facts.retired, n).tolist(), *facts.some(facts.current, n).tolist()]


def strangers(facts: Facts) -> list[int]:
    """Ids that are no roots."""
    return [int(facts.unknown(facts.top)[0]), int(facts.supervoxels[0]), 0]


# -- lineage -----------------------------------------------------------------------------------------------------------


def lineages(facts: Facts) -> list[Ask]:
    roots = old_and_new(facts)
    middle = at_ms(facts.edits[len(facts.edits) // 2])
    limits = [
        {"timestamp_past": middle},
        {"timestamp_future": middle},
        {"timestamp_past": at_ms(facts.edits[0]), "timestamp_future": at_ms(facts.edits[-1])},
        {"timestamp_past": facts.future, "timestamp_future": facts.before},
    ]
    return [
        *(ask(root_ids=[root]) for root in roots[:4]),
        ask(root_ids=roots),
        ask(root_ids=roots + roots[:2]),
        ask(root_ids=[]),
        *(ask(root_ids=roots, **limit) for limit in limits),
        *(ask(root_ids=[stranger]) for stranger in strangers(facts)),
        ask(root_ids=[roots[0], strangers(facts)[0]]),
        ask(pin=facts.valid[0].version, root_ids=roots),
    ]


def lineage_of(peers: Any, asked: Ask) -> dict[str, Any]:
    arguments = dict(asked.arguments)
    return peers.cave(asked.pin).chunkedgraph.get_lineage_graph(arguments.pop("root_ids"), **arguments)


def lineage_in_fact(facts: Facts, asked: Ask) -> dict[str, Any]:
    """Every edit between the limits (a pinned version is one), and those that cross them."""
    lineage = facts.lineage
    since = truth.exact_ms(asked["timestamp_past"]) if asked["timestamp_past"] else 0
    until = truth.exact_ms(asked["timestamp_future"], facts=facts, asked=asked)
    links = set()
    for root in truth.as_list(asked["root_ids"]):
        links |= lineage.walk(root, lineage.earlier, lambda one: lineage.born[one] >= since, swap=True)
        links |= lineage.walk(root, lineage.later, lambda one: lineage.born[one] <= until)
    nodes = sorted({*truth.as_list(asked["root_ids"]), *(one for link in links for one in link)})
    return {
        "directed": True,
        "multigraph": False,
        "graph": {},
        "nodes": [lineage.record(one) for one in nodes],
        "links": [{"source": source, "target": target} for source, target in links],
    }


def single_roots(facts: Facts, name: str = "timestamp") -> list[Ask]:
    roots = old_and_new(facts, 3)
    start, end = facts.life(roots[0])
    around = [start, start - timedelta(milliseconds=1), end - timedelta(milliseconds=1), end, facts.future]
    return [
        *(ask(root_id=root) for root in roots),
        *(ask(root_id=roots[0], **{name: when}) for when in around),
        *(ask(root_id=root, **{name: at_ms(facts.edits[len(facts.edits) // 2])}) for root in roots[:6]),
        ask(root_id=roots[0], **{name: at_us(facts.valid[0].time_us)}),
        *(ask(root_id=stranger) for stranger in strangers(facts)),
        ask(pin=facts.newest, root_id=roots[0]),
    ]


def has_moved_on(facts: Facts, asked: Ask) -> bool:
    """Whether the root exists and was not current at the time."""
    root, lineage = asked["root_id"], facts.lineage
    if facts.oracle.layer(root) != facts.top or root not in lineage.born:
        return False
    return not lineage.alive(root, truth.ms(asked["timestamp"], facts=facts, asked=asked))


RETIRED_AMONG_LATEST = Defect(
    "level-2 nodes that an edit replaced count for the retired root that they belonged to", has_moved_on
)


OF_NOTHING = Defect(
    "of an id that is no root there are no shares, and no error", lambda facts, asked: not is_node(facts, asked)
)


def is_node(facts: Facts, asked: Ask) -> bool:
    """Whether the id is of anything that has leaves."""
    return asked["root_id"] in facts.oracle.children


def shares_or_error(facts: Facts, asked: Ask) -> dict[int, float] | Raises:
    return truth.overlaps(facts, asked) if is_node(facts, asked) else Raises(NotFoundError)


def suggested_shares(peers: Any, asked: Ask) -> dict[int, float]:
    arguments = dict(asked.arguments) | {"stop_layer": 2, "return_all": True, "return_fraction_overlap": True}
    found, shares = peers.cave(asked.pin).chunkedgraph.suggest_latest_roots(**arguments)
    return dict(zip(found.tolist(), shares.tolist(), strict=True))


def suggested(find: Callable[[Any, int | None], Any]) -> Callable[[Any, Ask], int]:
    return lambda peers, asked: find(peers, asked.pin).suggest_latest_roots(**asked.arguments, stop_layer=2)


def get_latest_roots(name: str, theirs: Any = None) -> Row:
    return Row(name, single_roots, theirs, same=same_id_set)


def suggest_latest_roots(name: str, find: Callable[[Any, int | None], Any]) -> Row:
    return Row(
        name,
        single_roots,
        suggested(find),
        same=one_of_the_largest,
        known_defects=(RETIRED_AMONG_LATEST,),
        truth=truth.overlaps,
    )


def one_of_the_largest(ours: int, theirs: Any) -> None:
    """``theirs``: a root, or the shares of which one must be the largest."""
    shares = theirs if isinstance(theirs, dict) else {int(theirs): 1.0}
    best = max(shares.values())
    assert ours in {root for root, share in shares.items() if share > best - 1e-9}


# -- past and change ---------------------------------------------------------------------------------------------------


def pasts(facts: Facts) -> list[Ask]:
    roots = old_and_new(facts)
    start = facts.life(roots[0])[0]
    return [
        *(ask(root_ids=roots, timestamp_past=when) for when in facts.instants()),
        ask(root_ids=[roots[0]], timestamp_past=start),
        ask(root_ids=[roots[0]], timestamp_past=start + timedelta(milliseconds=1)),
        ask(root_ids=roots + roots[:3], timestamp_past=at_ms(facts.edits[3])),
        ask(root_ids=[], timestamp_past=start),
        ask(root_ids=[roots[0], strangers(facts)[0]], timestamp_past=start),
        ask(root_ids=facts.supervoxels[:1], timestamp_past=start),
    ]


def changes(facts: Facts) -> list[Ask]:
    edges = [facts.edits[0], facts.edits[1], facts.edits[len(facts.edits) // 2], facts.edits[-1]]
    spans = [(a, b) for i, a in enumerate(edges) for b in edges[i:]]
    return [
        *(ask(timestamp_past=at_ms(a), timestamp_future=at_ms(b)) for a, b in spans),
        ask(timestamp_past=facts.before, timestamp_future=facts.future),
        ask(timestamp_past=at_ms(edges[2])),
        ask(timestamp_past=facts.future, timestamp_future=facts.before),
        ask(pin=facts.valid[0].version, timestamp_past=at_ms(edges[0])),
    ]


def net_change(peers: Any, asked: Ask) -> tuple[Any, Any]:
    """caveclient's lists less what both began and ended in between."""
    old, new = (
        np.asarray(found, np.int64) for found in peers.cave(asked.pin).chunkedgraph.get_delta_roots(**asked.arguments)
    )
    return np.setdiff1d(old, new), np.setdiff1d(new, old)


def net_change_in_fact(facts: Facts, asked: Ask) -> tuple[list[int], list[int]]:
    """What the edits did that were logged in between, which is when they are complete: just after they count."""
    until = truth.ms(asked["timestamp_future"], facts=facts, asked=asked)
    since, lineage = truth.ms(asked["timestamp_past"]), facts.lineage
    logged = {one.id for one in facts.graph.operations.values() if since <= one.logged_ms <= until}
    old = {root for root, operation in lineage.retired_by.items() if operation in logged}
    new = {heir for root in old for heir in lineage.later[root]}
    return sorted(old - new), sorted(new - old)


# -- logs --------------------------------------------------------------------------------------------------------------


def root_logs(facts: Facts, **others: Any) -> list[Ask]:
    roots = old_and_new(facts, 3)
    return [*(ask(root_id=root, **others) for root in roots), *(ask(root_id=other) for other in strangers(facts))]


def tabular_logs(facts: Facts) -> list[Ask]:
    roots = old_and_new(facts, 3)
    return [
        *(ask(root_ids=[root]) for root in roots),
        ask(root_ids=roots),
        ask(root_ids=roots, filtered=False),
        ask(root_ids=roots + roots[:2]),
        ask(root_ids=[]),
        *(ask(root_ids=[stranger]) for stranger in strangers(facts)),
        ask(root_ids=[roots[0], strangers(facts)[0]]),
    ]


def operations(facts: Facts) -> list[Ask]:
    known = np.array(sorted(facts.graph.operations))
    some = facts.some(known, 12).tolist()
    return [
        *(ask(operation_ids=[one]) for one in known[:4].tolist()),
        *(ask(operation_ids=facts.some(known, 5, skip).tolist()) for skip in (1, 2)),
        ask(operation_ids=some),
        ask(operation_ids=some + some[:3]),
        ask(operation_ids=[int(known[-1]) + 1]),
        ask(operation_ids=[some[0], int(known[-1]) + 1]),
        ask(operation_ids=known[-3:].tolist()),
    ]


def user_operations(facts: Facts) -> list[Ask]:
    users = sorted({int(operation.user) for operation in facts.graph.operations.values()})[:3]
    start, end = at_ms(facts.edits[0]), at_ms(facts.edits[-1])
    middle = start + (end - start) / 2
    spans = [(start, end), (start, middle), (middle, end), (facts.before, facts.future), (end, start)]
    return [
        *(ask(user_id=user, timestamp_start=a, timestamp_end=b) for user in (*users, 0) for a, b in spans),
        ask(user_id=987_654, timestamp_start=start, timestamp_end=end),
        ask(user_id=users[0], timestamp_start=start),
    ]


def operations_of(peers: Any, asked: Ask) -> Any:
    return peers.cave(asked.pin).chunkedgraph.get_user_operations(**asked.arguments)


def user_operations_in_fact(facts: Facts, asked: Ask) -> dict[int, int]:
    """Edits that were done and stand, by when they were logged."""
    since, until = truth.ms(asked["timestamp_start"]), truth.ms(asked["timestamp_end"])
    if asked["user_id"] == 0 and facts.strict:
        return {}
    undone = truth.undone(facts)
    return {
        one.id: one.time_ms
        for one in facts.graph.operations.values()
        if since <= one.logged_ms <= until
        and asked["user_id"] in (0, int(one.user))
        and one.kind in ("merge", "split")
        and one.status == 0
        and one.id not in undone
    }


# -- the inside of an object -------------------------------------------------------------------------------------------


def chunk_graphs(facts: Facts) -> list[Ask]:
    roots = old_and_new(facts, 3)
    return [
        *(ask(root_id=root) for root in roots),
        *(ask(root_id=root, bounds=facts.box(root)) for root in roots[:3]),
        ask(root_id=strangers(facts)[0]),
        ask(root_id=roots[0], bounds=np.array([[-1, 2], [0, 2], [0, 2]])),
    ]


def subgraphs(facts: Facts) -> list[Ask]:
    roots = old_and_new(facts, 4)
    return [
        *(ask(root_id=root, bounds=facts.box(root)) for root in roots),
        ask(root_id=strangers(facts)[0], bounds=facts.box(roots[0])),
    ]


def paths(facts: Facts) -> list[Ask]:
    """Between the middles of chunks of one root, in nm."""
    layout = facts.graph.layout
    asked = []
    for root in old_and_new(facts, 4)[8:]:
        chunks = layout.chunk(np.array(sorted(truth.descend(facts.oracle, root, 2)), np.int64))
        voxels = np.asarray(layout.voxel_offset) + (chunks + 0.5) * layout.chunk_size
        ends = voxels * np.asarray(layout.resolution)
        asked += [ask(root_id=root, src_pt=ends[0], dst_pt=end) for end in ends[[0, -1, len(ends) // 2]]]
    return asked


def coverings(facts: Facts) -> list[Ask]:
    """No call without ids: the peer takes the refusal's text for ids, if its length is a multiple of eight."""
    root = int(facts.retired[0])
    leaves = facts.leaves(root).tolist()
    return [
        *(ask(node_ids=leaves[:n]) for n in (1, 2, 3, 4, max(len(leaves) // 2, 1))),
        ask(node_ids=leaves),
        ask(node_ids=facts.level2[:5].tolist()),
        ask(node_ids=facts.some(facts.supervoxels, 10).tolist()),
        ask(node_ids=[root]),
        ask(node_ids=[int(facts.level2[0]), int(facts.level2[0])]),
    ]


ROWS: list[Row] = [
    Row(
        "chunkedgraph.get_lineage_graph",
        lineages,
        lineage_of,
        same=same_lineage,
        known_defects=(Defect("a pinned client walks on past its instant", lambda _, asked: asked.pin is not None),),
        truth=lineage_in_fact,
    ),
    get_latest_roots("chunkedgraph.get_latest_roots"),
    Row(
        "chunkedgraph.get_original_roots",
        lambda facts: single_roots(facts, "timestamp_past"),
        same=same_id_set,
    ),
    Row(
        "chunkedgraph.get_root_overlaps",
        single_roots,
        suggested_shares,
        same=same_shares,
        known_defects=(RETIRED_AMONG_LATEST, OF_NOTHING),
        truth=shares_or_error,
    ),
    suggest_latest_roots("chunkedgraph.suggest_latest_roots", lambda peers, pin: peers.cave(pin).chunkedgraph),
    Row(
        "chunkedgraph.get_past_ids",
        pasts,
        lambda peers, asked: peers.cave(asked.pin).chunkedgraph.get_past_ids(**asked.arguments)["past_id_map"],
        same=same_id_sets,
        known_defects=(Defect("no ids are a 500", lambda facts, asked: facts.strict and not len(asked["root_ids"])),),
        truth=truth.past_ids,
    ),
    Row(
        "chunkedgraph.get_delta_roots",
        changes,
        net_change,
        same=same_pair_of_id_sets,
        known_defects=(Defect("a pinned client goes on until now", lambda _, asked: asked.pin is not None),),
        truth=net_change_in_fact,
    ),
    Row("chunkedgraph.get_oldest_timestamp", lambda facts: [ask(), ask(pin=facts.newest)], same=same_times),
    Row(
        "chunkedgraph.get_change_log",
        lambda facts: [*root_logs(facts), *root_logs(facts, filtered=False)],
    ),
    Row("chunkedgraph.get_merge_log", root_logs),
    Row("chunkedgraph.get_tabular_change_log", tabular_logs, same=same_log_frames),
    Row("chunkedgraph.get_operation_details", operations, same=same_details),
    Row(
        "chunkedgraph.get_user_operations",
        user_operations,
        operations_of,
        same=same_operations,
        known_defects=(Defect("without an end the server refuses", lambda _, asked: asked["timestamp_end"] is None),),
        truth=user_operations_in_fact,
    ),
    Row("chunkedgraph.level2_chunk_graph", chunk_graphs, same=same_edges),
    Row("chunkedgraph.get_subgraph", subgraphs, same=same_subgraph),
    Row("chunkedgraph.find_path", paths, same=same_path),
    Row("chunkedgraph.get_minimal_covering_nodes", coverings, same=same_id_set),
    Row(
        "chunkedgraph.get_contact_sites",
        lambda facts: [
            ask(root_id=root, bounds=facts.box(root), calc_partners=flag)
            for root in old_and_new(facts, 2)
            for flag in (False, True)
        ],
        same=same_id_sets,
    ),
]
