"""Chunkedgraph: the log of edits, by root, by operation and by user."""

from __future__ import annotations

import csv
import io
import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from .. import costs
from ..auth import Accounts
from ..calls import Call, Reply
from ..graph import Graph, Operation
from .chunkedgraph_protocol import (
    HTML,
    ChunkedGraphError,
    body_ids,
    flag,
    json_reply,
    malformed,
    moment,
    open_graph,
    timestamp_ms,
    wire,
)
from .chunkedgraph_time import checked_root, refuse_non_roots, trace

if TYPE_CHECKING:
    from ..world import World

NAMES: Final = {str(user.id): (user.name, user.affiliation) for user in Accounts().users.values()}
"""What the auth service tells the chunkedgraph about users."""


@dataclass(frozen=True, slots=True)
class Edit:
    """One operation in the history of a root.

    ``before`` and ``after`` are the roots it replaced and made that belong to that history. ``in_neuron``: it touched
    the root itself, not only a part that was split off again; ``relevant``: it changed what belongs to the root.
    """

    operation: Operation
    before: list[int]
    after: list[int]
    in_neuron: bool
    relevant: bool


def history(graph: Graph, root: int, *, filtered: bool) -> list[tuple[int, Edit]]:
    """The edits in the past of a root by operation id, numbered; ``filtered`` drops those that do not matter to it."""
    before, after = defaultdict[int, set[int]](set), defaultdict[int, set[int]](set)
    links = np.array(trace(graph, [root], past_s=0.0).links, np.int64).reshape(-1, 2)
    for (former, new), number in zip(links.tolist(), graph.retired_by(links[:, 0]).tolist(), strict=True):
        before[number].add(former)
        after[number].add(new)
    operations = [graph.operations[number] for number in sorted(before)]
    judged = zip(operations, _judge(graph, root, operations), strict=True)
    edits = [Edit(o, sorted(before[o.id]), sorted(after[o.id]), *verdict) for o, verdict in judged]
    return [(row, edit) for row, edit in enumerate(edits) if not filtered or (edit.in_neuron and edit.relevant)]


def _judge(graph: Graph, root: int, operations: list[Operation]) -> Iterator[tuple[bool, bool]]:
    """Whether each edit is in a neuron, and whether it is relevant.

    A merge is in the neuron if both its sides are, and relevant unless they were one object before any edit. A split is
    in the neuron if one of its sides is, and relevant unless both are in the same object now. Operations logged without
    edges count as both.
    """
    edges = [o.added_edges or o.removed_edges for o in operations]
    ends = np.array([end for pairs in edges for pair in pairs for end in pair], np.int64)
    now = graph.roots(ends, int(graph.created([root])[0])).reshape(-1, 2)
    first = graph.roots(ends, graph.created_ms).reshape(-1, 2)
    stop = 0
    for operation, pairs in zip(operations, edges, strict=True):
        start, stop = stop, stop + len(pairs)
        here, there = now[start:stop], first[start:stop]
        if not pairs:
            yield True, True
        elif operation.added_edges:
            yield bool((here == root).all()), bool((there[:, 0] != there[:, 1]).any())
        else:
            yield bool((here == root).any()), bool((here[:, 0] != here[:, 1]).any())


def change_log(world: World, call: Call) -> Reply:
    """Counts of splits and merges in the history of a root, by user, and the roots it came from."""
    graph, call = open_graph(world, call)
    edits = [edit for _, edit in history(graph, checked_root(graph, call), filtered=flag(call, "filtered"))]
    by_user: dict[str, Counter[bool]] = defaultdict(Counter)
    for edit in edits:
        by_user[edit.operation.user][edit.operation.is_merge] += 1
    total = sum(by_user.values(), Counter[bool]())
    answer = {
        "n_splits": total[False],
        "n_mergers": total[True],
        "user_info": {user: {"n_splits": n[False], "n_mergers": n[True]} for user, n in by_user.items()},
        "operations_ids": np.array([edit.operation.id for edit in edits], np.int64),
        "past_ids": wire([root for edit in edits for root in edit.before]),
    }
    return json_reply(call, answer, price=_log_price(edits))


def merge_log(world: World, call: Call) -> Reply:
    """Edges that the merges in the history of a root added, and the points (voxels) at which they were made."""
    graph, call = open_graph(world, call)
    edits = [edit for _, edit in history(graph, checked_root(graph, call), filtered=False)]
    merges = [edit.operation for edit in edits if edit.operation.is_merge]
    answer = {
        "merge_edges": [wire(merge.added_edges) for merge in merges],
        "merge_edge_coords": [[list(merge.source_coords), list(merge.sink_coords)] for merge in merges],
    }
    return json_reply(call, answer, price=_log_price(edits))


def _log_price(edits: Iterable[Edit]) -> float:
    return sum(costs.LOG_PER_EDIT for _ in edits)


Columns = dict[str, dict[str, Any]]
"""A data frame as pandas writes it: column -> row number -> value."""


def tabular_change_log(world: World, call: Call) -> Reply:
    """The history of one root as a table; JSON labelled as HTML, real HTML with ``disp=true``."""
    graph, call = open_graph(world, call)
    root = checked_root(graph, call)
    table = _tables(graph, [root], filtered=flag(call, "filtered", default=True))[root]
    price = costs.LOG_PER_EDIT * len(table["operation_id"])
    if flag(call, "disp"):
        return Reply(_as_html(table).encode(), content_type=HTML, price=price)
    return json_reply(call, table, content_type=HTML, price=price)


def tabular_change_log_many(world: World, call: Call) -> Reply:
    """The histories of many roots: ``{root: table}``, each table a JSON text within the JSON."""
    graph, call = open_graph(world, call)
    roots = np.atleast_1d(body_ids(call, "root_ids"))
    refuse_non_roots(graph, roots)
    tables = _tables(graph, roots.tolist(), filtered=flag(call, "filtered", default=True))
    answer = {str(root): json.dumps(table, separators=(",", ":")) for root, table in tables.items()}
    return json_reply(call, answer, price=costs.LOG_PER_EDIT * sum(len(t["operation_id"]) for t in tables.values()))


def _tables(graph: Graph, roots: list[int], *, filtered: bool) -> dict[int, Columns]:
    histories = {root: history(graph, root, filtered=filtered) for root in roots}
    named = any(histories.values())
    return {root: _table(edits, filtered=filtered, named=named) for root, edits in histories.items()}


def _table(edits: list[tuple[int, Edit]], *, filtered: bool, named: bool) -> Columns:
    """The columns of one table; the users' names are only there if any table of the request has rows."""
    columns: dict[str, Any] = {
        "operation_id": lambda edit: edit.operation.id,
        "timestamp": lambda edit: edit.operation.time_ms,
        "user_id": lambda edit: edit.operation.user,
        "before_root_ids": lambda edit: edit.before,
        "after_root_ids": lambda edit: edit.after,
        "is_merge": lambda edit: edit.operation.is_merge,
    }
    if not filtered:
        columns |= {"in_neuron": lambda edit: edit.in_neuron, "is_relevant": lambda edit: edit.relevant}
    if named:
        columns["user_name"] = lambda edit: NAMES.get(edit.operation.user, (None, None))[0]
        columns["user_affiliation"] = lambda edit: NAMES.get(edit.operation.user, (None, None))[1]
    return {name: {str(row): value(edit) for row, edit in edits} for name, value in columns.items()}


def _as_html(table: Columns) -> str:
    import pandas as pd

    frame = pd.DataFrame(table)
    frame["timestamp"] = [moment(time_ms) for time_ms in frame["timestamp"]]
    return str(frame.to_html())


def tabular_change_log_recent(world: World, call: Call) -> Reply:
    """Every operation logged since ``start_time``, refused ones too."""
    graph, call = open_graph(world, call)
    start = timestamp_ms(call, "start_time", 0.0)
    rows = sorted((o for o in graph.operations.values() if o.logged_ms >= start), key=lambda o: o.id)
    answer = {
        "operation_id": {row: o.id for row, o in enumerate(rows)},
        "timestamp": {row: o.time_ms for row, o in enumerate(rows)},
        "user_id": {row: o.user for row, o in enumerate(rows)},
        "is_merge": {row: o.is_merge for row, o in enumerate(rows)},
    }
    return json_reply(call, answer, content_type=HTML, price=costs.NODE_READ_PER_ID * len(rows))


def full_change_log(world: World, call: Call) -> Reply:
    """The whole log as CSV. The newest operation is missing: the service stops one short."""
    graph, call = open_graph(world, call)
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(["user_id", "action", "root_ids", "timestamp"])
    for number in sorted(graph.operations)[: -1 if call.strict else None]:
        operation = graph.operations[number]
        roots = f"[{' '.join(map(str, operation.roots))}]"
        writer.writerow([operation.user, "merge" if operation.is_merge else "split", roots, moment(operation.time_ms)])
    return Reply(text.getvalue().encode(), content_type="text/csv", price=costs.LOG_PER_EDIT * len(graph.operations))


def operation_details(world: World, call: Call) -> Reply:
    """The log records of some operations; unknown ids are left out."""
    graph, call = open_graph(world, call)
    with malformed("operation_ids (a JSON list)"):
        numbers = json.loads(call.query.get("operation_ids", "[]"))
        if not isinstance(numbers, list):
            raise TypeError(f"object of type '{type(numbers).__name__}' has no len()")
    known = [graph.operations[number] for number in numbers if number in graph.operations]
    answer = {str(operation.id): _details(operation) for operation in known}
    return json_reply(call, answer, price=costs.NODE_READ_PER_ID * len(known))


def _details(operation: Operation) -> dict[str, Any]:
    """A log record as the service shows it: what was not recorded is not there, but the resulting roots always are."""
    recorded = {
        name: wire(value)
        for name in ("added_edges", "removed_edges", "source_ids", "sink_ids")
        if (value := getattr(operation, name))
    } | {
        name: value
        for name in (
            "source_coords",
            "sink_coords",
            "bb_offset",
            "affinities",
            "undo_operation_id",
            "redo_operation_id",
        )
        if (value := getattr(operation, name))
    }
    return recorded | {
        "user": operation.user,
        "roots": wire(operation.roots),
        "operation_status": operation.status,
        "operation_exception": operation.exception,
        "operation_ts": str(moment(operation.time_ms)),
        "timestamp": str(moment(operation.time_ms)),
    }


def user_operations(world: World, call: Call) -> Reply:
    """Successful edits of a user between two times, without undone ones and without the undoing itself.

    The service insists on ``end_time`` and knows nobody called 0; out of strict mode both mean what caveclient means:
    until now, and everybody.
    """
    graph, call = open_graph(world, call)
    start = timestamp_ms(call, "start_time", 0.0)
    if call.strict and "end_time" not in call.query:
        raise ChunkedGraphError(400, "Timestamp parameter end_time is not a valid unix timestamp")
    end = timestamp_ms(call, "end_time")
    user = call.query.get("user_id")
    undone = set() if flag(call, "include_undone") else _undone(graph)
    rows = [
        operation
        for _, operation in sorted(graph.operations.items())
        if operation.status == 0 and start <= operation.logged_ms <= end and operation.id not in undone
        if operation.user == user or (user is None and not call.strict)
    ]
    answer = {
        "operation_id": {str(row): operation.id for row, operation in enumerate(rows)},
        "timestamp": {str(row): operation.time_ms for row, operation in enumerate(rows)},
    }
    return json_reply(call, answer, content_type=HTML, price=costs.NODE_READ_PER_ID * len(rows))


def _undone(graph: Graph) -> set[int]:
    """Operations that stand undone, and all undo and redo operations. Undoing a redo undoes the original edit."""
    original: dict[int, int] = {}
    undone: set[int] = set()
    for number, operation in sorted(graph.operations.items()):
        target = operation.undo_operation_id or operation.redo_operation_id
        if target is None or operation.status:
            continue
        original[number] = original.get(target, target)
        if operation.undo_operation_id:
            undone.add(original[number])
        else:
            undone.discard(original[number])
    return undone | set(original)
