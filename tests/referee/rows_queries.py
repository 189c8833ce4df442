"""Rows of ``client.tables``, ``client.views`` and of synapses, against caveclient's managers and cortical-tools."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from tests.oracle import BACKUPS, MAIN

from cortexclient import AsyncCortexClient

from .comparisons import same_rows
from .facts import Facts
from .peers import Peers
from .rows import Ask, Defect, Row, ask

SYNAPSES = ("synapses_pni_2", "synapses_v1dd", "synapses_toy")
EDGE = ["pre_pt_root_id", "post_pt_root_id"]


def same_table(ours: pd.DataFrame, theirs: pd.DataFrame | int) -> None:
    """The same columns and rows, in any order; ``theirs`` perhaps the number of rows alone.

    The columns of a join come in no order on the server, and columns that it leaves out are null here.
    """
    if isinstance(theirs, int):
        assert len(ours) == theirs
        return
    extra = [name for name in ours.columns if name not in theirs.columns]
    assert set(theirs.columns) <= set(ours.columns)
    assert ours[extra].isna().all(axis=None)
    same_rows(ours[sorted(theirs.columns)], theirs[sorted(theirs.columns)])


# -- tables and views --------------------------------------------------------------------------------------------------


def nuclei(facts: Facts) -> list[dict[str, Any]]:
    """Filters of the table of nuclei, and of the view of them."""
    rows = facts.truth(MAIN, facts.newest)
    ids = [row["id"] for row in rows]
    roots = sorted({row["pt_root_id"] for row in rows if row.get("pt_root_id")})
    volumes = sorted(row["volume"] for row in rows if row["volume"] is not None)
    return [
        {},
        {"id": ids[0]},
        {"id": ids[:5]},
        {"id": np.array(ids[:5])},
        {"id": [*ids[:3], 1]},
        {"pt_root_id": roots[0]},
        {"pt_root_id": roots[:4]},
        {"pt_root_id": [*roots[:2], *facts.retired[:3].tolist()]},
        {"volume": {">": volumes[-4]}},
        {"volume": {">=": volumes[2], "<": volumes[-3]}},
        {"volume": {"<=": volumes[3]}, "id": ids[:9]},
        {"id": []},
    ]


def boxes(facts: Facts) -> list[dict[str, Any]]:
    points = np.array([[row[f"pt_position_{axis}"] for axis in "xyz"] for row in facts.truth(MAIN, facts.newest)])
    low, high = np.quantile(points, 0.1, axis=0).astype(int), np.quantile(points, 0.8, axis=0).astype(int) + 1
    return [{"pt_position_bbox": [low.tolist(), high.tolist()]}, {"pt_position_bbox": np.stack([low, high])}]


def table_queries(facts: Facts) -> list[Ask]:
    backups = facts.truth(BACKUPS, facts.newest)
    first = backups[0]
    on_both = {"pt_ref_root_id": [first.get("pt_root_id", 0)], "id_ref": [first["id"]]}
    named = [{}, {"target_id": [row["target_id"] for row in backups[:3]]}, {"id_ref": first["id"]}, on_both]
    shapes: list[dict[str, Any]] = [{"limit": 3}, {"desired_resolution": [1, 1, 1]}, {"split_positions": True}]
    versions = [version.version for version in facts.valid]
    return [
        *(ask(table=MAIN, filters=one) for one in [*nuclei(facts), *boxes(facts)]),
        *(ask(table=BACKUPS, filters=one) for one in named),
        *(ask(table=MAIN, filters={"id": first["target_id"]}, how=one) for one in shapes),
        *(ask(pin=version, table=MAIN, filters={}) for version in versions),
        *(ask(table=name, filters={}) for name in facts.world.tables),
        ask(table="nope", filters={}),
    ]


def view_queries(facts: Facts) -> list[Ask]:
    name = next(iter(facts.world.views))
    return [ask(table=name, filters=one) for one in [*nuclei(facts), *boxes(facts)]] + [ask(table="nope", filters={})]


def of_ours(kind: str) -> Any:
    async def ours(client: AsyncCortexClient, asked: Ask) -> Any:
        found = await getattr(client, kind)[asked["table"]](**asked["filters"]).query(**asked["how"] or {})
        return found.drop(columns="superceded_id", errors="ignore") if kind == "tables" else found

    return ours


def of_theirs(kind: str) -> Any:
    def theirs(peers: Peers, asked: Ask) -> Any:
        manager = getattr(peers.cave(asked.pin).materialize, kind)
        found = manager[asked["table"]](**asked["filters"]).query(**asked["how"] or {})
        return found.drop(columns="superceded_id", errors="ignore")

    return theirs


def is_cut(facts: Facts, asked: Ask) -> bool:
    """Whether the whole of a table is asked for, which has more rows than the server gives out."""
    if asked["table"] not in facts.world.tables or asked["filters"] or asked["how"] or asked.pin is not None:
        return False
    return len(facts.rows(asked["table"], facts.newest)) > facts.world.row_cap


def how_many(facts: Facts, asked: Ask) -> Any:
    """How many rows match, where the peer cannot tell: none of an empty list, one of a row's own id."""
    if "id_ref" in asked["filters"]:
        return 1
    if is_cut(facts, asked):
        return len(facts.rows(asked["table"], facts.newest))
    if "pt_position_bbox" in asked["filters"] and asked["table"] in facts.world.views:
        low, high = np.asarray(asked["filters"]["pt_position_bbox"])
        rows = facts.world.annotations.view(asked["table"], facts.world.version(facts.newest))
        points = rows.select("pt_position_x", "pt_position_y", "pt_position_z").to_numpy()
        return int(((points >= low) & (points <= high)).all(axis=1).sum())
    return 0 if isinstance(asked["filters"].get("id"), list) and not asked["filters"]["id"] else NotImplemented


CAP = Defect("an answer that the server cut is given out as if it were whole", is_cut)
EMPTY = Defect("an empty list is dropped: all rows come", lambda _, asked: asked["filters"].get("id") == [])
RENAMED = Defect(
    "of two renamed filters only the last is renamed",
    lambda _, asked: len(asked["filters"]) == 2 and "id_ref" in asked["filters"],
)
BOXES = Defect(
    "the box of a view names a column that there is not", lambda _, asked: "pt_position_bbox" in asked["filters"]
)


def filtered(defect: Defect, kind: type) -> Defect:
    """A defect that shows only where the filter is of that type (arrays cannot be compared with ``==``)."""
    return Defect(
        defect.reason, lambda facts, asked: isinstance(asked["filters"].get("id"), kind) and defect.when(facts, asked)
    )


# -- synapses ----------------------------------------------------------------------------------------------------------


def synapse_queries(facts: Facts) -> list[Ask]:
    rows = facts.truth(facts.table(*SYNAPSES), facts.newest)
    roots = sorted({row.get("pre_pt_root_id", 0) for row in rows} - {0})
    others = sorted({row.get("post_pt_root_id", 0) for row in rows} - {0})
    sides = [{"pre": True, "post": True}, {"pre": True, "post": False}, {"pre": False, "post": True}]
    asked = [roots[:1], roots[:3], [*roots[:5], *others[:5]], facts.retired[:3].tolist()]
    return [ask(root_ids=ids, **side) for ids in asked for side in sides]


def synapses_of_theirs(peers: Peers, asked: Ask) -> Any:
    return peers.cortical(asked.pin).query_synapses(**asked.arguments, progress=False)


def edges_of_theirs(peers: Peers, asked: Ask) -> pd.DataFrame:
    found = synapses_of_theirs(peers, asked)
    grouped = found.astype(dict.fromkeys(EDGE, "int64")).groupby(EDGE, as_index=False)
    return grouped.agg(n_synapses=("id", "size"), sum_size=("size", lambda sizes: sizes.sum(min_count=1))).sort_values(
        EDGE
    )


def same_edges(ours: pd.DataFrame, theirs: pd.DataFrame) -> None:
    assert ours[[*EDGE, "n_synapses"]].to_numpy().tolist() == theirs[[*EDGE, "n_synapses"]].to_numpy().tolist()
    np.testing.assert_allclose(ours["sum_size"].astype(float), theirs["sum_size"].astype(float))


ROWS: list[Row] = [
    Row(
        "tables",
        table_queries,
        of_theirs("tables"),
        of_ours("tables"),
        same_table,
        known_defects=(filtered(EMPTY, list), RENAMED, CAP),
        truth=how_many,
    ),
    Row(
        "views",
        view_queries,
        of_theirs("views"),
        of_ours("views"),
        same_table,
        known_defects=(filtered(EMPTY, list), BOXES),
        truth=how_many,
    ),
    Row("query_synapses", synapse_queries, synapses_of_theirs, same=same_table),
    Row("synapse_edges", synapse_queries, edges_of_theirs, same=same_edges),
]
