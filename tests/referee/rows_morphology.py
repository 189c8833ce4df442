"""Rows of what objects look like: skeletons, level-2 data; and of Neuroglancer states.

Skeletons with synapses (``client.get_skeleton``) are held against pcg_skel in ``tests/services``, on real neurons.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from cortexclient.errors import CortexUsageError

from . import truth
from .comparisons import same, same_id_set
from .facts import Facts
from .rows import Ask, Defect, Raises, Row, Theirs, ask, once
from .rows_client import cortical
from .rows_graph import one_node

if TYPE_CHECKING:
    from .peers import Peers

ATTRIBUTES = (
    "rep_coord_nm",
    "pca",
    "pca_val",
    "chunk_intersect_count",
    "size_nm3",
    "area_nm2",
    "max_dt_nm",
    "mean_dt_nm",
)


# -- level-2 data ------------------------------------------------------------------------------------------------------


def chunks(facts: Facts) -> list[Ask]:
    level2 = facts.some(facts.level2, 20).tolist()
    return [
        ask(l2_ids=level2),
        ask(l2_ids=np.array(level2)),
        ask(l2_ids=level2[:1]),
        *(ask(l2_ids=level2[:5], attributes=[name]) for name in ATTRIBUTES),
        ask(l2_ids=level2[:5], attributes=["rep_coord_nm", "size_nm3"]),
        ask(l2_ids=level2[:3] * 2),
        ask(l2_ids=[*level2[:3], *facts.unknown(2).tolist()]),
        ask(l2_ids=facts.unknown(2, 2).tolist()),
        ask(l2_ids=level2[:2], attributes=["nope"]),
        ask(l2_ids=[*level2[:2], int(facts.roots[0])]),
    ]


OTHER_LAYERS = Defect(
    "an id of another layer is asked, and makes the service queue work that cannot succeed",
    lambda facts, asked: any(facts.oracle.layer(one) != 2 for one in truth.as_list(asked["l2_ids"])),
)


def same_set(ours: Any, theirs: Any) -> None:
    assert sorted(ours) == sorted(theirs)


def same_text(ours: str, theirs: Any) -> None:
    """caveclient makes a Version of it."""
    assert ours == str(theirs)


def same_records(ours: Mapping[int, Any], theirs: Mapping[str, Any]) -> None:
    """Records by id; caveclient's keys are text."""
    same(ours, {int(key): record for key, record in theirs.items()})


def same_measures(ours: pd.DataFrame, theirs: pd.DataFrame) -> None:
    """The same values by id and column; here a column that was asked is there even if nothing of it is computed."""
    assert set(ours.index) == set(theirs.index.astype("int64"))
    for column in ours.columns:
        mine, other = ours[column], theirs.get(column, pd.Series(np.nan, theirs.index))
        assert np.array_equal(mine, other.astype(float).reindex(ours.index), equal_nan=True), column
    assert set(theirs.columns) <= set(ours.columns)


def measures(find: Callable[[Peers, Ask], Any]) -> Theirs:
    """caveclient's frame, of which the vectors of chunks without a record are uninitialised memory (``np.empty``)."""

    def theirs(peers: Peers, asked: Ask) -> pd.DataFrame:
        frame = find(peers, asked)(**asked.arguments).astype(float)
        records = peers.cave(asked.pin).l2cache.get_l2data(asked["l2_ids"])
        unknown = [int(key) for key, record in records.items() if not record]
        frame.loc[frame.index.isin(unknown)] = np.nan
        return frame

    return theirs


# -- skeletons ---------------------------------------------------------------------------------------------------------


def cells(facts: Facts) -> list[Ask]:
    """What is there, and not: nothing is made, which would take its time."""
    current = facts.some(facts.current, 12).tolist()
    old = facts.retired[:3].tolist()
    strangers = [*facts.unknown(facts.top).tolist(), int(facts.level2[0])]
    return [
        *(ask(root_ids=[one]) for one in current[:3]),
        ask(root_ids=current),
        ask(root_ids=np.array(current)),
        ask(root_ids=current[:3] + current[:2]),
        ask(root_ids=[*current[:3], *old]),
        ask(root_ids=old),
        ask(root_ids=[*current[:2], *strangers]),
        ask(root_ids=[]),
    ]


def cells_of_versions(facts: Facts) -> list[Ask]:
    """The same of older versions, and by each way; where the bucket is shut, the service does."""
    current = facts.some(facts.current, 12).tolist()
    return [
        *cells(facts),
        *(ask(root_ids=current[:3], skeleton_version=version) for version in (-1, 0, 1, 2, 3, 4)),
        *(ask(root_ids=current[3:6], method=method) for method in ("service", "bucket", "auto")),
    ]


def single_cells(facts: Facts) -> list[Ask]:
    ids = [*facts.some(facts.current, 6).tolist(), *facts.retired[:2].tolist(), int(facts.unknown(facts.top)[0]), 0]
    return [ask(root_id=one) for one in ids]


async def without_making(client: Any, asked: Ask) -> Any:
    return await client.skeleton.get_skeletons(**asked.arguments, generate=False)


async def one_without_making(client: Any, asked: Ask) -> Any:
    return await client.skeleton.get_skeleton(**asked.arguments, generate=False)


def from_cache(peers: Peers, asked: Ask) -> dict[int, Any]:
    version = {} if asked["skeleton_version"] is None else {"skeleton_version": asked["skeleton_version"]}
    found = peers.cave(asked.pin).skeleton.fetch_skeletons(truth.as_list(asked["root_ids"]), **version)
    return {int(root): skeleton for root, skeleton in found.items()}


def one_from_cache(peers: Peers, asked: Ask) -> Any:
    return from_cache(peers, ask(root_ids=[asked["root_id"]]))[asked["root_id"]]


def same_skeletons(ours: Mapping[int, Any], theirs: Mapping[int, Any]) -> None:
    assert set(ours) == set(theirs)
    for root, skeleton in ours.items():
        same_skeleton(skeleton, theirs[root])


def same_skeleton(ours: Any, theirs: Mapping[str, Any]) -> None:
    """The same tree: arrays here, lists there."""
    pairs = {
        "vertices": "vertices",
        "edges": "edges",
        "radius": "radius",
        "compartment": "compartment",
        "lvl2_ids": "lvl2_ids",
        "mesh_to_skel_map": "mesh_to_skel_map",
    }
    for mine, other in pairs.items():
        unless = np.empty(0, np.int64) if other == "lvl2_ids" else None  # older versions have none
        same(getattr(ours, mine), np.asarray(theirs.get(other, unless)))
    assert ours.root == theirs["root"]


def exist(peers: Peers, asked: Ask) -> dict[int, bool]:
    """caveclient gives a bare bool for a single id."""
    ids = truth.as_list(asked["root_ids"])
    found = peers.cave(asked.pin).skeleton.skeletons_exist(root_ids=ids)
    return {ids[0]: found} if isinstance(found, bool) else found


def same_existence(ours: Mapping[int, bool], theirs: Mapping[int, bool]) -> None:
    assert dict(ours) == dict(theirs)


def prefixes(facts: Facts) -> list[Ask]:
    roots = [str(one) for one in facts.some(facts.current, 3).tolist()]
    return [
        *(ask(root_id_prefixes=[int(root[:n])]) for root in roots for n in (16, 17, 18)),
        ask(root_id_prefixes=[int(root) for root in roots]),
        ask(root_id_prefixes=[int(roots[0][:8])], limit=3),
        ask(root_id_prefixes=[1]),
    ]


def refused(peers: Peers, asked: Ask) -> list[int]:
    """caveclient gives the list of all datastacks."""
    cave = peers.cave(asked.pin)
    frame = cave.skeleton.get_refusal_list()
    mine = frame[frame["DATASTACK_NAME"] == cave.datastack_name]["ROOT_ID"]
    return [int(root) for root in mine]


# -- states ------------------------------------------------------------------------------------------------------------

STATES: tuple[dict[str, Any], ...] = (
    {},
    {"layers": []},
    {"layers": [{"name": "a", "type": "image"}]},
    {"title": "Über 2**53: ö"},
    {"segments": ["864691135885645050"], "n": 864691135885645051},
    {"position": [1.5, -2.25, 3e10]},
    {"deep": {"er": {"est": [1, [2, [3]]]}}},
    {"nothing": None, "yes": True, "no": False},
    {"many": list(range(500))},
    {"empty": {"list": [], "object": {}}},
)


def states(_: Facts) -> list[Ask]:
    return [ask(state=state) for state in STATES]


async def stored(client: Any, asked: Ask) -> Any:
    """The state as it is read back; its number is never the same twice."""
    if asked["state_id"] is not None:
        return await client.state.get_state_json(asked["state_id"])
    return await client.get_state_json(await client.upload_state_json(asked["state"]))


def stored_by_peer(peers: Peers, asked: Ask) -> Any:
    state = peers.cave().state
    number = asked["state_id"] if asked["state_id"] is not None else state.upload_state_json(asked["state"])
    return state.get_state_json(number)


def unknown_states(_: Facts) -> list[Ask]:
    return [ask(state_id=number) for number in (0, 1, -1, 10**15)] + [ask(state=state) for state in STATES]


# -- rows --------------------------------------------------------------------------------------------------------------


def of_cave(service: str, name: str) -> Theirs:
    """A property of one of caveclient's services, or a method without arguments."""

    def theirs(peers: Peers, asked: Ask) -> Any:
        found = getattr(getattr(peers.cave(asked.pin), service), name)
        return found() if callable(found) else found

    return theirs


def l2_row(name: str, theirs: Theirs | None, same_answer: Any) -> Row:
    return Row(
        name,
        chunks,
        theirs,
        same=same_answer,
        known_defects=(OTHER_LAYERS,),
        truth=lambda facts, asked: Raises(CortexUsageError) if OTHER_LAYERS.when(facts, asked) else NotImplemented,
    )


ROWS: list[Row] = [
    Row("l2cache.attributes", once, of_cave("l2cache", "attributes"), same=same_set),
    Row("l2cache.has_cache", once),
    l2_row("l2cache.get_l2data", None, same_records),
    l2_row(
        "l2cache.get_l2data_table",
        measures(lambda peers, asked: peers.cave(asked.pin).l2cache.get_l2data_table),
        same_measures,
    ),
    l2_row("get_l2data", measures(lambda peers, asked: peers.cortical(asked.pin).get_l2data), same_measures),
    Row(
        "get_l2_ids",
        lambda facts: [ask(root_id=one["root_id"]) for one in one_node(facts)],
        cortical("get_l2_ids"),
        same=same_id_set,
    ),
    Row("skeleton.get_version", once, of_cave("skeleton", "get_version"), same=same_text),
    Row("skeleton.get_versions", once, of_cave("skeleton", "get_versions"), same=same_set),
    Row("skeleton.get_skeleton", single_cells, one_from_cache, one_without_making, same=same_skeleton),
    Row("skeleton.get_skeletons", cells_of_versions, from_cache, without_making, same=same_skeletons),
    Row("skeleton.skeletons_exist", cells, exist, same=same_existence),
    Row("skeletons_exist", cells, exist, same=same_existence),
    Row("skeleton.get_refusal_list", once, refused, same=same_id_set),
    Row("skeleton.get_cache_contents", prefixes),
    Row(
        "skeleton.get_precomputed_skeleton_info",
        lambda facts: [ask(skeleton_version=number) for number in (4, 3, 1, 2, 0, -1, 5, 99, 7, 10)],
        lambda peers, asked: peers.cave().skeleton.get_precomputed_skeleton_info(asked["skeleton_version"]),
    ),
    Row("state.upload_state_json", states, stored_by_peer, stored),
    Row("state.get_state_json", unknown_states, stored_by_peer, stored),
    Row("upload_state_json", states, stored_by_peer, stored),
    Row("get_state_json", unknown_states, stored_by_peer, stored),
]
