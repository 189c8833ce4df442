"""Synthetic worlds: consistent histories, faithful tables, all the odd cases, and the same every time."""

from __future__ import annotations

import contextlib
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from polars.testing import assert_frame_equal
from tests.oracle import Oracle, oracle_cell_to_root, oracle_for, oracle_root_to_cell
from tests.sandbox.world_checks import (
    assert_connected,
    assert_contiguous,
    assert_in_volume,
    assert_nested,
    assert_one_root_each,
    assert_points_placed,
    assert_same_world,
    level2_edges,
)

from cortexclient.sandbox import world as world_module
from cortexclient.sandbox.edits import merge, split
from cortexclient.sandbox.graph import NEVER
from cortexclient.sandbox.world import World
from cortexclient.sandbox.worlds.examples_page import CELLS, ROOTS

NUCLEI, BACKUPS = "nucleus_detection_v0", "nucleus_alternative_points"


@pytest.fixture(scope="module")
def world() -> World:
    return World.synthesize(seed=3, nuclei=600, edits=1_500, versions=4, expired=6)


@pytest.fixture(scope="module")
def oracle(world: World) -> Oracle:
    return oracle_for(world)


def instants(world: World) -> list[int]:
    """Times that matter: the start, version times, edits and the milliseconds around them."""
    edits = sorted({o.time_ms for o in world.graph.operations.values()})
    versions = [v.time_us // 1000 for v in world.versions]
    return [world.graph.created_ms, *versions, *edits[::300], *(t - 1 for t in edits[::400]), edits[-1] + 1]


def test_every_supervoxel_has_exactly_one_root_at_any_time(world: World) -> None:
    assert_one_root_each(world.graph, instants(world))


def test_lifetimes_are_contiguous(world: World) -> None:
    assert_contiguous(world.graph)


def test_merges_join_and_splits_part(world: World) -> None:
    lineage = world.graph.lineage
    rows = pl.DataFrame({"former": lineage.former, "new": lineage.new, "operation": lineage.operation_id})
    for operation, former, new in (
        rows.group_by("operation").agg(pl.col("former").n_unique(), pl.col("new").n_unique()).iter_rows()
    ):
        kind = world.graph.operations[operation].kind
        assert (former, new) == ((2, 1) if kind == "merge" else (1, 2))


def test_an_edit_gives_new_level_2_ids_where_it_touches_and_keeps_the_others(world: World) -> None:
    graph = world.graph
    for operation in list(graph.operations.values())[:200]:
        formers = graph.lineage.former[graph.lineage.operation_id == operation.id]
        before = np.concatenate([graph.leaves(f, 2) for f in formers.tolist()])
        after = np.concatenate([graph.leaves(r, 2) for r in operation.roots])
        assert len(np.setdiff1d(after, before)) == len(np.setdiff1d(before, after)) == 2
        assert (graph.created(np.setdiff1d(after, before)) == operation.time_ms).all()


def test_ids_follow_the_layout(world: World) -> None:
    assert_nested(world.graph)
    assert set(np.unique(world.graph.layout.layer(world.graph.cells.parent)).tolist()) >= {2, 3, 4, 5, 12}


def test_a_node_that_skips_no_layer_has_several_children(world: World) -> None:
    graph = world.graph
    nodes = np.unique(graph.cells.parent)
    inner = nodes[(graph.layout.layer(nodes) > 2) & (graph.layout.layer(nodes) < graph.layout.n_layers)]
    _, owner = graph.children_of(inner)
    assert (np.bincount(owner) >= 2).all()


def test_every_object_is_connected(world: World) -> None:
    for root in world.graph.root_ids()[::10].tolist():
        assert_connected(world.graph, root)


def test_a_cell_can_be_edited_further() -> None:
    """The edges are those of the tree: a branch that is split off and merged again leaves a consistent graph."""
    graph = World.synthesize(nuclei=60, edits=100).graph
    now = max(o.time_ms for o in graph.operations.values()) + 1_000
    current = graph.root_ids()[graph.retired(graph.root_ids()) == NEVER]
    edges = {root: sorted(level2_edges(graph, root)) for root in current.tolist()}
    joints = [pairs[-1] for pairs in edges.values() if len(pairs) > 2][:10]
    for number, joint in enumerate(joints):
        a, b = (int(graph.leaves(node)[0]) for node in joint)
        split(graph, [a], [b], user="1", time_ms=now + 1_000 * number)
        merge(graph, a, b, user="1", time_ms=now + 1_000 * number + 500)
    assert len(joints) == 10
    assert_one_root_each(graph, [now + 500, now + 10_000])
    assert_contiguous(graph)


def test_operations_are_numbered_in_time_and_roots_are_not(world: World) -> None:
    operations = world.graph.operations
    assert len(operations) == 1_500
    times = [operations[o].time_ms for o in sorted(operations)]
    assert times == sorted(times)
    roots = world.graph.root_ids()
    assert abs(np.corrcoef(roots.astype(float), world.graph.created(roots).astype(float))[0, 1]) < 0.1


def test_times_coincide_here_and_there(world: World) -> None:
    times = [o.time_ms for o in world.graph.operations.values()]
    assert len(set(times)) < len(times)
    assert {v.time_us // 1000 for v in world.versions} <= set(times)
    roots = world.graph.root_ids()
    lifetime = world.graph.retired(roots) - world.graph.created(roots)
    assert lifetime.min() < 100


def test_roots_of_a_version_are_alive_at_its_time(world: World) -> None:
    for version in (v for v in world.versions if v.valid):
        time = version.time_us // 1000
        for name, table in world.tables.items():
            frame = world.annotations.frozen(name, version)
            for point in table.bound_points:
                roots = frame[f"{point}_root_id"].to_numpy()
                bound = frame[f"{point}_supervoxel_id"].to_numpy() != 0
                assert (roots[~bound] == 0).all()
                assert (world.graph.created(roots[bound]) <= time).all()
                assert (world.graph.retired(roots[bound]) > time).all()


def test_live_rows_at_a_version_are_its_rows(world: World) -> None:
    versions = [v for v in world.versions if v.valid and v.datastack == "minnie65_public"]
    for version in versions:
        for name in world.tables:
            live = world.annotations.live(name, version.time_us, versions[0]).rows
            assert_frame_equal(live, world.annotations.frozen(name, version))


def test_points_lie_in_the_chunk_of_their_supervoxel(world: World) -> None:
    assert_points_placed(world)


def test_versions_are_listed_with_times_that_clients_can_read(world: World) -> None:
    assert sorted({v.status for v in world.versions}) == ["AVAILABLE", "EXPIRED"]
    for datastack in world.datastacks:
        own = [v for v in world.versions if v.datastack == datastack]
        assert [v.valid for v in own].count(True) == 4
        assert len(own) == 10
        assert own[-1].valid
        assert all(v.time_us % 1_000_000 for v in own)
        assert [v.time_us for v in own] == sorted(v.time_us for v in own)
        assert any(v.time_us % 1000 for v in own)
        assert any(v.time_us % 1000 == 0 for v in own)
    assert len({v.id for v in world.versions}) == len(world.versions)


def test_odd_nuclei_and_backups_are_there(world: World) -> None:
    nuclei, backups = world.tables[NUCLEI].rows, world.tables[BACKUPS].rows
    first, last = (world.versions[k].time for k in (0, 9))
    assert nuclei["id"].is_unique().all()
    assert (nuclei["pt_supervoxel_id"] == 0).sum() >= 3
    assert (~nuclei["valid"]).sum() >= 3
    assert nuclei.filter(pl.col("created") > first).height >= 3
    assert nuclei.filter(pl.col("deleted").is_between(first, last)).height >= 1
    assert (~backups["valid"]).sum() >= 3
    assert backups.filter("valid")["target_id"].is_duplicated().sum() >= 2
    assert set(backups["target_id"]) <= set(nuclei["id"])
    for rows in (nuclei, backups):
        assert (rows["valid"] == rows["deleted"].is_null()).all()
        assert (rows["deleted"] > rows["created"]).all()


def test_every_outcome_of_the_mapping_occurs(world: World, oracle: Oracle) -> None:
    annotations = world.version().time_us
    roots = world.graph.root_ids().tolist()
    answers = [oracle.root_to_cell(root, annotations) for root in roots]
    assert {(a.status, a.source) for a in answers} == {
        ("ok", "main"), ("ok", "backup"), ("ok", "main_replaced"), ("multiple", None), ("none", None)
    }  # fmt: skip
    assert oracle.root_to_cell(roots[0] + 1, annotations).status == "invalid"
    assert oracle.root_to_cell(int(world.graph.cells.node[0]), annotations).status == "invalid"
    cells = [oracle.cell_to_root(c, annotations, annotations // 1000) for c in oracle.points(annotations).of_cell]
    assert {(a.status, a.source) for a in cells} == {
        ("ok", "main"), ("ok", "backup"), ("multiple", None), ("none", None)
    }  # fmt: skip


def test_there_and_back_again_is_the_same_root(world: World, oracle: Oracle) -> None:
    annotations = world.version().time_us
    roots = world.graph.root_ids()
    created, retired = world.graph.created(roots), world.graph.retired(roots)
    seen = 0
    for root, born, died in zip(roots[::3].tolist(), created[::3].tolist(), retired[::3].tolist(), strict=True):
        cell = oracle.root_to_cell(root, annotations)
        if cell.status != "ok" or cell.source == "main_replaced":
            continue
        for time in {born, died - 1} - {NEVER - 1}:
            back = oracle.cell_to_root(cell.id, annotations, time)
            assert back.status == "multiple" or back.id == root
            seen += back.id == root
    assert seen > 200


def test_a_crowd_of_seven_nuclei_shares_a_root(world: World) -> None:
    frame = world.annotations.frozen(NUCLEI, world.version())
    sizes = frame.filter(pl.col("pt_root_id") != 0)["pt_root_id"].value_counts()["count"]
    assert sizes.max() == 7
    assert (sizes == 2).sum() >= 2


def test_the_look_up_view_prefers_the_backup(world: World, oracle: Oracle) -> None:
    version = world.version()
    rows = world.annotations.view("nucleus_detection_lookup_v1", version)
    main = dict(world.annotations.frozen(NUCLEI, version).select("id", "pt_root_id").iter_rows())
    points = oracle.points(version.time_us)
    assert set(rows["id"]) == set(main)
    for row in rows.iter_rows(named=True):
        assert row["orig_root_id"] == main[row["id"]]
        assert row["pt_supervoxel_id"] in points.of_cell[row["id"]]
        if row["pt_supervoxel_id"]:
            assert row["pt_root_id"] == oracle.root_at(row["pt_supervoxel_id"], version.time_us // 1000)


def test_assessed_roots_were_alive_when_they_were_assessed(world: World) -> None:
    rows = world.tables["proofreading_status_and_strategy"].rows.filter(pl.col("superceded_id").is_null())
    rows = rows.unique("pt_supervoxel_id", keep="first", maintain_order=True)
    born = world.graph.created(rows["valid_id"].to_numpy())
    assert (born <= rows["created"].dt.epoch("ms").to_numpy()).all()
    assert world.graph.is_root(rows["valid_id"].to_numpy()).all()


@pytest.mark.parametrize(("nuclei", "edits"), [(1, 0), (1, 1), (5, 40), (40, 3), (200, 2_000)])
def test_small_and_odd_sizes_work(nuclei: int, edits: int) -> None:
    world = World.synthesize(nuclei=nuclei, edits=edits, versions=1, expired=0)
    assert len(world.graph.operations) == edits
    assert len(world.tables[NUCLEI].rows) == nuclei
    for table in world.tables.values():
        assert (table.rows["deleted"] > table.rows["created"]).drop_nulls().all()
    assert len(world.versions) == 2


def test_two_worlds_of_one_seed_are_equal_and_of_two_seeds_are_not() -> None:
    first, same, other = (World.synthesize(seed=s, nuclei=100, edits=200) for s in (1, 1, 2))
    assert_same_world(first, same)
    assert not np.array_equal(first.graph.root_ids(), other.graph.root_ids())


def test_a_saved_world_comes_back_unchanged(world: World, tmp_path: Path) -> None:
    world.save(tmp_path)
    assert not list(tmp_path.rglob("*.pkl"))
    assert_same_world(world, World.load(tmp_path))


def test_another_format_is_refused(tmp_path: Path) -> None:
    (tmp_path / "world.json").write_text('{"format": 0}')
    with pytest.raises(ValueError, match="make it anew"):
        World.load(tmp_path)


def test_v1dd_has_its_own_geometry_and_names() -> None:
    world = World.synthesize(dataset="v1dd", nuclei=50, edits=100)
    assert world.graph.layout.resolution == (9, 9, 45)
    assert set(world.datastacks) == {"v1dd", "v1dd_public"}
    assert "synapses_v1dd" in world.tables
    assert world.graph.layout.layer(world.graph.root_ids()).tolist() == [11] * len(world.graph.root_ids())
    assert_in_volume(world.graph)


def test_objects_stay_in_the_volume(world: World) -> None:
    assert_in_volume(world.graph)


def test_the_default_world_holds_the_ids_of_the_examples() -> None:
    world = World.default()
    current, old, between = ROOTS
    answers = [oracle_root_to_cell(world, root) for root in ROOTS]
    assert [(a.status, a.source) for a in answers] == [("ok", "main")] * 3
    assert len({a.id for a in answers} & set(CELLS)) == 3
    assert {oracle_cell_to_root(world, cell).status for cell in CELLS} == {"ok"}
    assert oracle_cell_to_root(world, answers[0].id).id == current
    valid = [v.time_us // 1000 for v in world.versions if v.valid]
    alive = {r: [world.graph.created([r])[0] <= t < world.graph.retired([r])[0] for t in valid] for r in ROOTS}
    assert any(alive[old])
    assert not alive[old][-1]
    assert not any(alive[between])
    assert {117, 1412, 1484} <= {v.version for v in world.versions if v.valid}
    synapses = world.annotations.frozen("synapses_pni_2", world.version())
    assert synapses.filter(pl.col("pre_pt_root_id") == current).height > 20
    assert synapses.filter(pl.col("post_pt_root_id") == current).height > 20


def test_a_version_is_found_by_number_or_is_the_newest(world: World) -> None:
    assert world.version().time_us == max(v.time_us for v in world.versions)
    oldest = world.versions[0]
    assert world.version(oldest.version) is oldest
    with pytest.raises(LookupError, match="no version 99999"):
        world.version(99_999)


def test_a_description_names_what_is_there(world: World) -> None:
    text = world.describe()
    assert text["operations"] == 1_500
    assert text["tables"][NUCLEI] == 600


def test_threads_find_the_same_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a test sets on one of them, the server must see."""
    made: list[object] = []
    second = threading.Barrier(2)

    def slowly(*arguments: Any) -> object:
        with contextlib.suppress(threading.BrokenBarrierError):
            second.wait(0.2)
        made.append(arguments)
        return object()

    monkeypatch.setattr(world_module, "Skeletons", slowly)
    world = World.synthesize(1, nuclei=5, edits=2, synapses=1, versions=1, expired=0)
    with ThreadPoolExecutor(2) as threads:
        found = {*threads.map(lambda _: world.skeletons, range(2))}
    assert len(found) == len(made) == 1
