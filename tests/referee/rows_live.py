"""Rows of the materialization service: live rows, joins, synapses."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

import numpy as np
from tests.oracle import BACKUPS, MAIN

from . import truth
from .comparisons import AnyOf, same_rows
from .facts import Facts, at_us
from .rows import Ask, Defect, Row, ask
from .rows_tables import CELL_TYPES, EXCLUSION, SYNAPSES, matching, materialize, version_of

if TYPE_CHECKING:
    from .peers import Peers

NO_SUFFIXES = Defect(
    "without suffixes it is the server's unordered set that says which table's columns get the x",
    lambda _, asked: asked["suffixes"] is None,
)


def live_queries(facts: Facts) -> list[Ask]:
    """Mostly the nuclei, at and around versions and edits; with the filters and joins that live queries know."""
    nuclei = facts.truth(MAIN, facts.newest)
    when = at_us(facts.valid[-1].time_us - 3_600_000_000)
    alive = [root for root in facts.roots.tolist() if facts.lineage.alive(root, truth.ms(when))][:6]
    roots = [row.get("pt_root_id", 0) for row in nuclei]
    held = [root for root in alive if facts.rows_on(root)] or alive
    types = facts.table(*CELL_TYPES)
    moments = [moment for moment in facts.instants() if moment != facts.before]
    around = [at_us(version.time_us) + timedelta(seconds=shift) for version in facts.valid for shift in (-1, 1)]
    ids = {"filter_in_dict": {"id": [row["id"] for row in nuclei][:8]}}
    return [
        *(ask(table=MAIN, timestamp=moment) for moment in (*moments, *around)),
        *(ask(table=table, timestamp=when) for table in facts.world.tables if "synapses" not in table),
        ask(table="nope", timestamp=when),
        ask(table=MAIN, timestamp=when, filter_in_dict={"pt_root_id": held}),
        ask(table=MAIN, timestamp=when, filter_in_dict={"pt_root_id": alive}),
        ask(table=MAIN, timestamp=when, filter_in_dict={"pt_root_id": [*alive, 0]}),
        ask(table=MAIN, timestamp=when, filter_in_dict={"pt_root_id": [*alive, 0]}, allow_invalid_root_ids=True),
        ask(table=MAIN, timestamp=facts.future, filter_in_dict={"pt_root_id": facts.current[:20].tolist()}),
        ask(table=MAIN, timestamp=facts.future, filter_equal_dict={"pt_root_id": roots[0]}),
        ask(table=MAIN, timestamp=when, **ids),
        ask(table=MAIN, timestamp=when, **ids, split_positions=True),
        ask(table=MAIN, timestamp=when, **ids, desired_resolution=[1, 1, 1]),
        ask(table=MAIN, timestamp=when, select_columns={MAIN: ["id", "pt_root_id", "pt_position"]}),
        ask(table=MAIN, timestamp=when, limit=3),
        ask(table=MAIN, timestamp=when, allow_missing_lookups=True),
        ask(
            table=BACKUPS,
            timestamp=when,
            joins=[[BACKUPS, "target_id", MAIN, "id"]],
            suffixes={BACKUPS: "_ref", MAIN: ""},
        ),
        ask(table=types, timestamp=when, joins=[[types, "target_id", MAIN, "id"]], suffixes={types: "_t", MAIN: "_n"}),
    ]


def is_empty(facts: Facts, asked: Ask) -> bool:
    """Whether there never was a row in the table."""
    return asked["table"] in facts.world.tables and facts.world.tables[asked["table"]].rows.is_empty()


def live_rows_in_fact(facts: Facts, asked: Ask) -> Any:
    """The rows of the instant, less those whose supervoxels nobody has looked up yet."""
    limit = asked["limit"]
    rows = matching(facts, Ask({key: value for key, value in asked.arguments.items() if key != "limit"}))
    if rows is None or asked["joins"]:
        return NotImplemented
    if asked["allow_invalid_root_ids"]:
        rows = [row for row in rows if row["pt_root_id"]]
    return rows if limit is None else AnyOf(rows, limit)


def live_query(peers: Peers, asked: Ask) -> Any:
    """caveclient wants filters by table; without the metadata, which it cannot fetch for younger tables."""
    table = asked["table"]
    arguments = {key: {table: value} if key.startswith("filter_") else value for key, value in asked.arguments.items()}
    return materialize(peers, asked).live_live_query(**arguments, metadata=False)


def joins(facts: Facts) -> list[Ask]:
    """Nuclei with their types, their backups and (of several resolutions in the toy) synapses of the same number."""
    types, newest = facts.table(*CELL_TYPES), facts.newest
    typed = [[types, "target_id"], [MAIN, "id"]]
    backed = [[BACKUPS, "target_id"], [MAIN, "id"]]
    name = facts.rows(types, newest)[0]["cell_type"]
    ids = [row["target_id"] for row in facts.rows(types, newest)][:6]
    both = {types: "_t", MAIN: "_n"}
    return [
        ask(tables=typed),
        ask(tables=typed[::-1]),
        ask(tables=typed, suffixes=both),
        ask(tables=typed, suffixes=both, split_positions=True),
        ask(tables=backed, suffixes={BACKUPS: "_ref", MAIN: ""}),
        ask(tables=backed, suffixes={BACKUPS: "", MAIN: "_n"}, desired_resolution=[1, 1, 1]),
        ask(tables=typed, suffixes=both, filter_equal_dict={types: {"cell_type": name}}),
        ask(tables=typed, suffixes=both, filter_in_dict={MAIN: {"id": ids}}),
        ask(tables=typed, suffixes=both, filter_in_dict={MAIN: {"id": ids}, types: {"cell_type": [name]}}),
        ask(tables=typed, suffixes=both, filter_out_dict={MAIN: {"id": ids}}),
        ask(tables=typed, suffixes=both, limit=3),
        ask(tables=typed, suffixes=both, select_columns={types: ["id", "cell_type"], MAIN: ["id", "pt_root_id"]}),
        *(ask(tables=typed, suffixes=both, materialization_version=one.version) for one in facts.valid),
        *(ask(tables=typed, suffixes=both, materialization_version=one.version) for one in facts.expired[:1]),
        ask(tables=[["nope", "id"], [MAIN, "id"]], suffixes=both),
        ask(tables=[[types, "nope"], [MAIN, "id"]], suffixes=both),
        ask(pin=facts.valid[0].version, tables=backed, suffixes={BACKUPS: "_b", MAIN: ""}),
    ]


def joined_in_fact(facts: Facts, asked: Ask) -> Any:
    """The types of nuclei that are there and not excluded, by their ids."""
    types, version = facts.table(*CELL_TYPES), version_of(facts, asked)
    excluded = asked["filter_out_dict"] or {}
    if set(asked.arguments) - {"tables", "suffixes", "filter_out_dict"} or types not in dict(asked["tables"]):
        return NotImplemented
    if dict(asked["tables"])[types] != "target_id":
        return NotImplemented
    there = {row["id"] for row in facts.rows(MAIN, version)} - set(excluded.get(MAIN, {}).get("id", ()))
    return [{"target_id": row["target_id"]} for row in facts.rows(types, version) if row["target_id"] in there]


def synapses_in_fact(facts: Facts, asked: Ask) -> Any:
    if set(asked.arguments) & {"limit", "bounding_box"} or asked["synapse_table"] == "nope":
        return NotImplemented
    wanted = {
        side: set(truth.as_list(asked[f"{side}_ids"])) for side in ("pre", "post") if asked[f"{side}_ids"] is not None
    }
    zeros, selves = asked["include_zeros"] is not False, asked["remove_autapses"] is False
    return [
        row
        for row in facts.truth(facts.table(*SYNAPSES), version_of(facts, asked))
        if all(row[f"{side}_pt_root_id"] in ids for side, ids in wanted.items())
        and (zeros or (row["pre_pt_root_id"] and row["post_pt_root_id"]))
        and (selves or row["pre_pt_root_id"] != row["post_pt_root_id"])
    ]


def synapses_of(facts: Facts) -> list[Ask]:
    table, newest = facts.table(*SYNAPSES), facts.newest
    rows = facts.truth(table, newest)
    pre = sorted({row["pre_pt_root_id"] for row in rows[:60]})[:6]
    post = sorted({row["post_pt_root_id"] for row in rows[:60]})[:6]
    spots = np.array([[row[f"post_pt_position_{axis}"] for axis in "xyz"] for row in rows])
    box = [np.quantile(spots, q, axis=0).astype(int).tolist() for q in (0.1, 0.6)]
    return [
        ask(pre_ids=pre),
        ask(post_ids=post),
        ask(pre_ids=pre, post_ids=post),
        ask(pre_ids=pre[0]),
        ask(pre_ids=np.array(pre), split_positions=True),
        ask(post_ids=post, desired_resolution=[1, 1, 1]),
        ask(pre_ids=pre, remove_autapses=False),
        ask(post_ids=post, include_zeros=False),
        ask(pre_ids=pre, limit=4),
        ask(pre_ids=[0]),
        ask(pre_ids=facts.unknown(facts.top, 2).tolist()),
        ask(pre_ids=pre, bounding_box=box),
        ask(pre_ids=pre, bounding_box=box, bounding_box_column="pre_pt_position"),
        ask(pre_ids=pre, materialization_version=facts.valid[0].version),
        ask(pre_ids=pre, synapse_table=table),
        ask(pre_ids=pre, synapse_table="nope"),
        ask(pin=facts.valid[0].version, pre_ids=pre),
    ]


ROWS: list[Row] = [
    Row(
        "materialize.live_live_query",
        live_queries,
        live_query,
        same=same_rows,
        known_defects=(
            Defect("a table without rows is refused", lambda facts, asked: facts.strict and is_empty(facts, asked)),
            Defect(
                "a limit holds for the frozen and for the younger rows, each by themselves",
                lambda facts, asked: facts.strict and asked["limit"],
            ),
        ),
        truth=live_rows_in_fact,
    ),
    Row(
        "materialize.join_query",
        joins,
        same=same_rows,
        known_defects=(EXCLUSION, NO_SUFFIXES),
        truth=joined_in_fact,
    ),
    Row(
        "materialize.synapse_query",
        synapses_of,
        same=same_rows,
        known_defects=(
            Defect(EXCLUSION.reason, lambda facts, asked: facts.strict and asked["include_zeros"] is False),
        ),
        truth=synapses_in_fact,
    ),
]
