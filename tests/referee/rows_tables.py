"""Rows of the materialization service: frozen tables and views."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import numpy as np
from tests.oracle import BACKUPS, MAIN

from cortexclient.errors import CortexUsageError, TruncatedResult

from .comparisons import (
    microseconds,
    same_count,
    same_rows,
    same_selection,
)
from .facts import Facts, at_ms, at_us
from .rows import Ask, Defect, Raises, Row, ask

if TYPE_CHECKING:
    from .peers import Peers

SYNAPSES = ("synapses_pni_2", "synapses_v1dd", "synapses_toy")
CELL_TYPES = ("aibs_metamodel_celltypes_v661", "cell_type_manual")
PROOFREADING = "proofreading_status_and_strategy"


def materialize(peers: Peers, asked: Ask) -> Any:
    return peers.cave(asked.pin).materialize


# -- rows of tables ----------------------------------------------------------------------------------------------------


def filters(facts: Facts) -> Iterable[dict[str, Any]]:
    """Filters of every kind, with values that some rows have and values that none has."""
    nuclei = facts.truth(MAIN, facts.newest)
    ids = [row["id"] for row in nuclei]
    roots = [row.get("pt_root_id", 0) for row in nuclei if row.get("pt_root_id")]
    volumes = sorted(row["volume"] for row in nuclei if row["volume"] is not None)
    types = facts.table(*CELL_TYPES)
    names = sorted({row["cell_type"] for row in facts.rows(types, facts.newest)})
    synapses = facts.table(*SYNAPSES)
    ends = sorted({row["pre_pt_root_id"] for row in facts.truth(synapses, facts.newest)[:40]})[:3]
    created = sorted(row["created"].replace(tzinfo=UTC) for row in nuclei)[len(nuclei) // 2]
    box = np.array([[row[f"pt_position_{axis}"] for axis in "xyz"] for row in nuclei])
    low, high = np.quantile(box, 0.2, axis=0).astype(int), np.quantile(box, 0.9, axis=0).astype(int) + 1
    yield {"table": MAIN, "filter_in_dict": {"id": ids[:5]}}
    yield {"table": MAIN, "filter_in_dict": {"id": np.array(ids[:5])}}
    yield {"table": MAIN, "filter_in_dict": {"id": ids[:3] * 2 + [1]}}
    yield {"table": MAIN, "filter_in_dict": {"id": []}}
    yield {"table": MAIN, "filter_in_dict": {"pt_root_id": roots[:6]}}
    yield {"table": MAIN, "filter_in_dict": {"pt_root_id": [0]}}
    yield {"table": MAIN, "filter_in_dict": {"pt_root_id": facts.unknown(facts.top, 2).tolist()}}
    yield {"table": MAIN, "filter_in_dict": {"pt_root_id": [*roots[:2], *facts.retired[:3].tolist()]}}
    yield {"table": MAIN, "filter_equal_dict": {"id": ids[0]}}
    yield {"table": MAIN, "filter_equal_dict": {"pt_root_id": roots[0]}}
    yield {"table": MAIN, "filter_greater_dict": {"volume": volumes[-4]}}
    yield {"table": MAIN, "filter_less_dict": {"volume": volumes[3]}}
    yield {"table": MAIN, "filter_greater_equal_dict": {"id": sorted(ids)[-4]}}
    yield {"table": MAIN, "filter_less_equal_dict": {"id": sorted(ids)[3]}}
    yield {"table": MAIN, "filter_greater_dict": {"volume": volumes[1]}, "filter_less_dict": {"id": sorted(ids)[9]}}
    yield {"table": MAIN, "filter_greater_dict": {"created": created}}
    yield {"table": MAIN, "filter_less_equal_dict": {"created": created}}
    yield {"table": MAIN, "filter_spatial_dict": {"pt_position": [low.tolist(), high.tolist()]}}
    yield {"table": MAIN, "filter_spatial_dict": {"pt_position": np.stack([low, high])}}
    yield {"table": MAIN, "filter_spatial_dict": {"pt_position": [high.tolist(), low.tolist()]}}
    yield {"table": MAIN, "filter_in_dict": {"nope": [1]}}
    yield {"table": MAIN, "filter_out_dict": {"id": ids[:-5]}}
    yield {"table": MAIN, "filter_out_dict": {"id": ids[:5]}, "filter_in_dict": {"id": ids[:9]}}
    yield {"table": types, "filter_out_dict": {"cell_type": names[:1]}}
    yield {"table": types, "filter_equal_dict": {"cell_type": names[0]}}
    yield {"table": types, "filter_in_dict": {"cell_type": names[:2]}}
    yield {"table": types, "filter_regex_dict": {"cell_type": "^" + names[0][:2]}}
    yield {"table": types, "filter_regex_dict": {"cell_type": "P"}}
    yield {"table": types, "filter_regex_dict": {"id": "1"}}
    yield {"table": types, "filter_in_dict": {"target_id": ids[:10]}}
    yield {"table": BACKUPS, "filter_in_dict": {"target_id": facts.backed[:3]}}
    yield {"table": PROOFREADING, "filter_equal_dict": {"status_axon": True}}
    yield {"table": PROOFREADING, "filter_in_dict": {"status_axon": [True, False]}}
    yield {"table": synapses, "filter_in_dict": {"pre_pt_root_id": ends}}
    yield {"table": synapses, "filter_in_dict": {"post_pt_root_id": ends}, "filter_greater_dict": {"size": 1000}}
    yield {"table": synapses, "filter_equal_dict": {"pre_pt_root_id": ends[0], "post_pt_root_id": ends[0]}}


def shapes(facts: Facts) -> Iterable[dict[str, Any]]:
    """What is asked of the rows: columns, how many, in which unit."""
    some = {"filter_in_dict": {"id": [row["id"] for row in facts.rows(MAIN, facts.newest)][:7]}}
    yield {"select_columns": ["id", "pt_root_id"]}
    yield {"select_columns": ["pt_position", "id"]}
    yield {"select_columns": ["pt_position"]}
    yield {"select_columns": ["id"]}
    yield {"select_columns": ["id", "nope"]}
    yield {"select_columns": []}
    yield {"limit": 3}
    yield {"limit": 3, "offset": 2}
    yield {"offset": 5}
    yield {"offset": 10**6}
    yield {"limit": 10**6}
    yield {"limit": 0}
    yield {"limit": -1}
    yield some | {"split_positions": True}
    yield some | {"split_positions": False}
    yield some | {"desired_resolution": [1, 1, 1]}
    yield some | {"desired_resolution": [1.0, 2.5, 40.0], "split_positions": True}
    yield some | {"desired_resolution": [1000, 1000, 1000]}
    yield some | {"desired_resolution": [1, 1]}
    yield some | {"desired_resolution": [0, 0, 0]}
    yield some | {"select_columns": ["id", "pt_position"], "desired_resolution": [1, 1, 1], "split_positions": True}


def table_queries(facts: Facts) -> list[Ask]:
    versions = [version.version for version in (*facts.valid, *facts.expired[:1])]
    return [
        *(ask(table=name) for name in facts.world.tables),
        *(ask(table=name, merge_reference=False) for name in facts.world.tables),
        ask(table=facts.table(*SYNAPSES), split=False),
        *(ask(table=MAIN, timestamp=when) for when in (at_us(facts.valid[0].time_us), at_ms(facts.edits[-1]))),
        *(ask(table="nope", materialization_version=version) for version in (None, facts.newest)),
        *(ask(**one) for one in filters(facts)),
        *(ask(table=MAIN, **one) for one in shapes(facts)),
        *(ask(table=MAIN, materialization_version=version) for version in (*versions, 99_999)),
        *(ask(pin=version.version, table=BACKUPS) for version in facts.valid),
    ]


def query_table(peers: Peers, asked: Ask) -> Any:
    return materialize(peers, asked).query_table(
        **{key: value for key, value in asked.arguments.items() if key != "split"}
    )


def version_of(facts: Facts, asked: Ask) -> int:
    return int(asked["materialization_version"] or asked["version"] or asked.pin or facts.newest)


NEITHER = {"filter_spatial_dict", "filter_regex_dict", "offset", "limit"}
"""Arguments that the truth below does not know."""

COMPARE: dict[str, Callable[[Any, Any], bool]] = {
    "filter_in_dict": lambda value, wanted: value in list(wanted),
    "filter_out_dict": lambda value, unwanted: value not in list(unwanted),
    "filter_equal_dict": lambda value, wanted: value == wanted,
    "filter_greater_dict": lambda value, bound: value > bound,
    "filter_less_dict": lambda value, bound: value < bound,
    "filter_greater_equal_dict": lambda value, bound: value >= bound,
    "filter_less_equal_dict": lambda value, bound: value <= bound,
}


def matching(facts: Facts, asked: Ask) -> list[dict[str, Any]] | None:
    """The rows that pass the filters; None where there is no such table, version or column, or no truth worked out."""
    table, version, when = asked["table"], version_of(facts, asked), asked["timestamp"]
    known = version in {one.version for one in facts.valid} and table in facts.world.tables
    if not known or NEITHER & set(asked.arguments):
        return None
    rows = facts.live_truth(table, int(microseconds(when)[0])) if when else facts.truth(table, version)
    columns = {column for kind in COMPARE for column in asked[kind] or ()}
    return None if rows and columns - set(rows[0]) else [row for row in rows if passes(row, asked)]


def passes(row: dict[str, Any], asked: Ask) -> bool:
    return all(
        row[column] is not None and passing(row[column], _naive(bound))
        for kind, passing in COMPARE.items()
        for column, bound in (asked[kind] or {}).items()
    )


def _naive(bound: Any) -> Any:
    """Times as rows have them: naive UTC."""
    return bound.astimezone(UTC).replace(tzinfo=None) if isinstance(bound, datetime) else bound


def rows_in_fact(facts: Facts, asked: Ask) -> Any:
    """The rows that match, as dictionaries; of a merged reference table only its own ids."""
    if asked["select_columns"] == []:
        return Raises(CortexUsageError)
    rows = matching(facts, asked)
    if rows is None:
        return NotImplemented
    if asked["split"] is False and len(rows) > facts.world.row_cap:
        return Raises(TruncatedResult)
    base = facts.world.tables[asked["table"]].reference_table
    if base is None or asked["merge_reference"] is False:
        return rows
    there = {row["id"] for row in facts.rows(base, version_of(facts, asked))}
    return [{name: row[name] for name in ("id", "target_id")} for row in rows if row["target_id"] in there]


def excludes_and_is_ignored(facts: Facts, asked: Ask) -> bool:
    return facts.strict and asked["filter_out_dict"] is not None


def is_cut(facts: Facts, asked: Ask) -> bool:
    """Whether more rows match than the server gives out, and no limit was asked for."""
    rows = matching(facts, asked)
    return rows is not None and len(rows) > facts.world.row_cap


def selects_one(facts: Facts, asked: Ask) -> bool:
    columns = asked["select_columns"]
    return facts.strict and columns is not None and len(columns) == 1 and not columns[0].startswith("pt_")


EXCLUSION = Defect("exclusion filters are accepted and ignored by the real servers", excludes_and_is_ignored)
CAP = Defect("an answer that the server cut is given out as if it were whole, with a line in a log", is_cut)
ONE_COLUMN = Defect("the real servers fail to select one plain column", selects_one)
NO_COLUMN = Defect("to select nothing gives everything", lambda _, asked: asked["select_columns"] == [])
CLIENT_SIDE = Defect(
    "query_table(timestamp=) works from the version before: rows added or deleted since are wrong",
    lambda _, asked: asked["timestamp"] is not None,
)


# -- views, counts, whole tables ---------------------------------------------------------------------------------------


def view_queries(facts: Facts) -> list[Ask]:
    name = next(iter(facts.world.views))
    of_nuclei = [one for one in filters(facts) if one.pop("table") == MAIN]
    versions = [version.version for version in (*facts.valid, *facts.expired[:1])]
    return [
        *(ask(view_name=view) for view in facts.world.views),
        ask(view_name="nope"),
        ask(view_name=MAIN),
        *(ask(view_name=name, **one) for one in of_nuclei),
        *(ask(view_name=name, **one) for one in shapes(facts)),
        *(ask(view_name=name, materialization_version=version) for version in versions),
        ask(pin=facts.valid[0].version, view_name=name),
    ]


def view_in_fact(facts: Facts, asked: Ask) -> Any:
    """The nuclei with the roots of their effective points, one row for each; not of cells with several backups."""
    if asked["select_columns"] == []:
        return Raises(CortexUsageError)
    rows = matching(facts, asked | {"table": MAIN}) if "lookup" in asked["view_name"] else None
    if rows is None or "pt_root_id" in (asked["filter_in_dict"] or {}) | (asked["filter_equal_dict"] or {}):
        return NotImplemented
    points = facts.oracle.points(facts.world.version(version_of(facts, asked)).time_us).of_cell
    ms = facts.world.version(version_of(facts, asked)).time_us // 1000
    return [
        {"id": row["id"], "pt_root_id": facts.oracle.root_at(point, ms), "orig_root_id": row["pt_root_id"]}
        for row in rows
        for point in points[row["id"]]
    ]


def counts(facts: Facts) -> list[Ask]:
    return [
        *(ask(table=name) for name in facts.world.tables),
        *(ask(**one) for one in filters(facts)),
        *(ask(table=MAIN, materialization_version=version.version) for version in (*facts.valid, *facts.expired[:1])),
        ask(table=MAIN, materialization_version=99_999),
    ]


def count_in_fact(facts: Facts, asked: Ask) -> Any:
    found = rows_in_fact(facts, asked | {"merge_reference": False})
    return found if found is NotImplemented else len(found)


def query_count(peers: Peers, asked: Ask) -> Any:
    return materialize(peers, asked).query_table(**asked.arguments, merge_reference=False, get_counts=True)


def whole_tables(facts: Facts) -> list[Ask]:
    synapses = facts.table(*SYNAPSES)
    nuclei = [row["id"] for row in facts.rows(MAIN, facts.newest)]
    return [
        *(ask(table=MAIN, columns=["pt_root_id"], version=version.version) for version in facts.valid),
        *(ask(table=synapses, columns=["pre_pt_root_id", "size"], version=version.version) for version in facts.valid),
        ask(table=BACKUPS, columns=["nope"], version=facts.newest),
        ask(table=synapses, columns=["size", "id"], version=facts.newest, filter_greater_dict={"size": 2_000}),
        ask(table=synapses, columns=["size"], version=facts.newest, filter_less_dict={"size": 0}),
        ask(table=BACKUPS, columns=["target_id", "pt_supervoxel_id"], version=facts.newest),
        ask(table=MAIN, columns=["volume"], version=facts.newest, filter_in_dict={"id": nuclei[:9]}),
        ask(table=MAIN, columns=["id"], version=facts.newest, filter_out_dict={"id": nuclei[:9]}),
        ask(table=MAIN, columns=["volume"], version=99_999),
        ask(table="nope", columns=["volume"], version=facts.newest),
        *(ask(table=MAIN, columns=["volume"], version=version.version) for version in facts.expired[:1]),
        ask(table=facts.table(*CELL_TYPES), columns=["target_id", "cell_type"], version=facts.newest),
    ]


def whole_table(peers: Peers, asked: Ask) -> Any:
    rest = {key: value for key, value in asked.arguments.items() if key.startswith("filter_")}
    return materialize(peers, asked).query_table(
        asked["table"],
        select_columns=list(dict.fromkeys(["id", *asked["columns"]])),
        materialization_version=asked["version"],
        merge_reference=False,
        split_positions=True,
        **rest,
    )


ROWS: list[Row] = [
    Row(
        "materialize.query_table",
        table_queries,
        query_table,
        same=same_rows,
        known_defects=(EXCLUSION, CAP, ONE_COLUMN, NO_COLUMN, CLIENT_SIDE),
        truth=rows_in_fact,
    ),
    Row(
        "materialize.query_view",
        view_queries,
        same=same_rows,
        known_defects=(EXCLUSION, ONE_COLUMN, NO_COLUMN),
        truth=view_in_fact,
    ),
    Row(
        "materialize.query_count",
        counts,
        query_count,
        same=same_count,
        known_defects=(EXCLUSION,),
        truth=count_in_fact,
    ),
    Row(
        "materialize.fetch_complete",
        whole_tables,
        whole_table,
        same=same_selection,
        known_defects=(EXCLUSION, CAP),
        truth=lambda facts, asked: rows_in_fact(facts, asked | {"merge_reference": False}),
    ),
]
