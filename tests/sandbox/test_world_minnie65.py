"""The world of real neurons: what is real is unchanged, what is invented fits it."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from tests.oracle import oracle_cell_to_root, oracle_root_to_cell
from tests.sandbox.world_checks import (
    assert_contiguous,
    assert_in_volume,
    assert_nested,
    assert_one_root_each,
    assert_points_placed,
    level2_edges,
)

from cortexclient.sandbox.graph import NEVER
from cortexclient.sandbox.world import World
from cortexclient.sandbox.worlds.examples_page import CELLS, ROOTS
from cortexclient.sandbox.worlds.forest import components
from cortexclient.sandbox.worlds.minnie65 import FIRST_MADE, REAL_MS
from cortexclient.sandbox.worlds.neurons import SINGLE

NUCLEI = "nucleus_detection_v0"
CROWD = 864691135858491438


@pytest.fixture(scope="module")
def world(shared_data: Path) -> World:
    return World.from_minnie65(shared_data)


@pytest.fixture(scope="module")
def seen(shared_data: Path) -> pl.DataFrame:
    return pl.read_parquet(shared_data / "nuclei.parquet")


def neuron_roots(data: Path) -> list[int]:
    return pl.read_parquet(data / "neurons" / "minnie65_83" / "neurons.parquet")["root_id"].to_list()


def test_history_is_consistent(world: World) -> None:
    an_edit = next(o.time_ms for o in world.graph.operations.values())
    assert_one_root_each(world.graph, [an_edit, REAL_MS[False], world.version().time_us // 1000])
    assert_contiguous(world.graph)


def test_ids_follow_the_layout(world: World) -> None:
    assert_nested(world.graph)
    assert_in_volume(world.graph)
    assert set(range(2, 13)) == set(np.unique(world.graph.layout.layer(world.graph.cells.parent)).tolist())


def test_points_lie_in_the_chunk_of_their_supervoxel(world: World) -> None:
    assert_points_placed(world)


def test_neurons_have_their_real_level_2_nodes(world: World, shared_data: Path) -> None:
    l2 = pl.read_parquet(shared_data / "neurons" / "minnie65_83" / "l2.parquet")
    real = {root: set(ids) for root, ids in l2.group_by("root_id").agg("l2_id").iter_rows()}
    for root, nodes in real.items():
        assert set(world.graph.leaves(root, 2).tolist()) == nodes
        assert world.graph.created([root])[0] <= REAL_MS[False] < world.graph.retired([root])[0]
    single = pl.read_parquet(shared_data / "neurons" / str(SINGLE) / "l2_attributes.parquet")["l2_id"]
    assert set(world.graph.leaves(SINGLE, 2).tolist()) == set(single.to_list())
    assert world.graph.created([SINGLE])[0] <= REAL_MS[True] < world.graph.retired([SINGLE])[0]


def test_level_2_graphs_are_the_real_ones(world: World, shared_data: Path) -> None:
    folder = shared_data / "neurons" / "minnie65_83"
    l2, edges = (pl.read_parquet(folder / name) for name in ("l2.parquet", "l2_edges.parquet"))
    for root in neuron_roots(shared_data)[:5]:
        ids = l2.filter(pl.col("root_id") == root)["l2_id"].to_numpy()
        pairs = np.sort(ids[edges.filter(pl.col("root_id") == root).select("a", "b").to_numpy()], axis=1)
        assert level2_edges(world.graph, root) == set(map(tuple, pairs.tolist()))


def test_most_neurons_were_edited_before_and_after(world: World, shared_data: Path) -> None:
    roots = np.array(neuron_roots(shared_data))
    assert (world.graph.created(roots) > world.graph.created_ms).sum() > 50
    assert (world.graph.retired(roots) < NEVER).sum() > 50
    assert len(world.graph.operations) > 400


def test_real_synapses_belong_to_their_neurons(world: World, shared_data: Path) -> None:
    rows = pl.read_parquet(shared_data / "neurons" / "minnie65_83" / "synapses.parquet")
    points = differ = 0
    for side in ("pre", "post"):
        roots = world.graph.roots(rows[f"{side}_pt_supervoxel_id"].to_numpy(), REAL_MS[False])
        recorded = rows[f"{side}_pt_root_id"].to_numpy()
        mine = (rows["side"] == side).to_numpy()
        assert np.array_equal(roots[mine], recorded[mine])
        level2 = world.graph.roots(rows[f"{side}_pt_supervoxel_id"].to_numpy()[mine], REAL_MS[False], stop_layer=2)
        assert np.array_equal(level2, rows["l2_id"].to_numpy()[mine])
        points, differ = points + len(rows), differ + int((roots != recorded).sum())
    # some partners were recorded under a root of another time; they cannot all be right at once
    assert differ / points < 0.0005


def test_real_synapse_rows_are_unchanged(world: World, shared_data: Path) -> None:
    real = pl.read_parquet(shared_data / "synapses.parquet").unique("id").sort("id")
    rows = world.tables["synapses_pni_2"].rows
    assert rows["id"].is_unique().all()
    kept = rows.join(real.select("id"), on="id", how="semi").sort("id")
    for column in ("id", "pre_pt_supervoxel_id", "post_pt_supervoxel_id"):
        assert kept[column].to_list() == real[column].to_list()
    assert (kept["size"] == real["size"]).all()
    assert (kept["ctr_pt_position_z"] * 40 == real["ctr_pt_position_z_nm"]).all()
    assert rows["created"].dt.date().unique().to_list() == [datetime(2020, 11, 4).date()]  # noqa: DTZ001
    assert len(rows) > 314_000


def test_real_nuclei_map_as_recorded(world: World, seen: pl.DataFrame) -> None:
    supervoxel = dict(world.tables[NUCLEI].rows.select("id", "pt_supervoxel_id").iter_rows())
    assert set(seen["id"]) <= set(supervoxel)
    frozen = dict(world.annotations.frozen(NUCLEI, world.version(1718)).select("id", "pt_root_id").iter_rows())
    checked = 0
    for row in seen.drop_nulls("pt_root_id").iter_rows(named=True):
        cell, root = row["id"], row["pt_root_id"]
        assert supervoxel[cell] in world.graph.leaves(root)
        if row["version"] == "1718":
            assert frozen[cell] == root
        elif row["as_of"]:
            time_ms = int(datetime.fromisoformat(row["as_of"]).timestamp() * 1000)
            assert world.graph.roots([supervoxel[cell]], time_ms)[0] == root
            assert oracle_cell_to_root(world, cell, time_ms=time_ms).id == root
        else:
            continue
        checked += 1
    assert checked == 33 + 14 + 11


def test_recorded_values_of_nuclei_are_unchanged(world: World, seen: pl.DataFrame) -> None:
    rows = world.tables[NUCLEI].rows
    for recorded, own in (("pt_supervoxel_id", "pt_supervoxel_id"), ("pt_position_x_vx", "pt_position_x")):
        known = dict(seen.drop_nulls(recorded).select("id", recorded).iter_rows())
        assert len(known) == 5
        assert dict(rows.filter(pl.col("id").is_in(list(known))).select("id", own).iter_rows()) == known
    volumes = rows.filter(pl.col("id").is_in(seen["id"].to_list())).drop_nulls("volume")
    assert sorted(round(v) for v in volumes["volume"]) == [255, 293, 293, 354, 374]


def test_the_crowd_of_seven_is_ambiguous(world: World, seen: pl.DataFrame) -> None:
    assert oracle_root_to_cell(world, CROWD) == (-1, "multiple", None)
    crowd = seen.filter(pl.col("pt_root_id") == CROWD)["id"].unique().to_list()
    assert len(crowd) == 7
    assert {oracle_cell_to_root(world, cell).id for cell in crowd} == {CROWD}


def test_nuclei_seen_in_two_roots_were_edited_in_between(world: World, seen: pl.DataFrame) -> None:
    roots = seen.drop_nulls("pt_root_id").group_by("id").agg(pl.col("pt_root_id").unique())
    two = roots.filter(pl.col("pt_root_id").list.len() == 2)
    assert len(two) == 8
    lineage = set(zip(world.graph.lineage.former.tolist(), world.graph.lineage.new.tolist(), strict=True))
    for pair in two["pt_root_id"].to_list():
        assert (pair[0], pair[1]) in lineage or (pair[1], pair[0]) in lineage


def test_every_neuron_has_a_nucleus_and_a_few_a_backup(world: World, shared_data: Path) -> None:
    cells = {}
    for number, root in enumerate(sorted([*neuron_roots(shared_data), SINGLE])):
        answer = oracle_root_to_cell(world, root)
        assert answer.id == FIRST_MADE + number
        cells[answer.id] = answer.source
    assert sorted(cells.values()).count("backup") == 5


def test_the_ids_of_the_examples_are_there(world: World) -> None:
    answers = [oracle_root_to_cell(world, root) for root in ROOTS]
    assert len({a.id for a in answers} & set(CELLS)) == 3
    assert {oracle_cell_to_root(world, cell).status for cell in CELLS} == {"ok"}


def test_recorded_types_and_strategies_are_there(world: World, shared_data: Path) -> None:
    real = pl.read_parquet(shared_data / "proofreading.parquet").sort("target_id")
    rows = world.tables["proofreading_status_and_strategy"].rows
    assert sorted(rows["valid_id"]) == sorted(real["pt_root_id"])
    assert rows["status_axon"].sum() == real["status_axon"].sum() == 6
    version = world.version(1718)
    assert (world.annotations.frozen("proofreading_status_and_strategy", version)["pt_root_id"] > 0).all()
    types = world.tables["aibs_metamodel_celltypes_v661"].rows
    assert len(types) == 33
    assert set(types["target_id"]) <= set(world.tables[NUCLEI].rows["id"])
    column = world.annotations.frozen("allen_v1_column_types_slanted", version)
    assert set(column["pt_root_id"]) == {864691135969106021, 864691135517345674, 864691135428608048}


def test_a_node_stands_for_a_connected_part(world: World, shared_data: Path) -> None:
    """Below each layer-4 node of one neuron the level-2 graph is in one piece."""
    root = neuron_roots(shared_data)[0]
    l2 = pl.read_parquet(shared_data / "neurons" / "minnie65_83" / "l2.parquet").filter(pl.col("root_id") == root)
    edges = pl.read_parquet(shared_data / "neurons" / "minnie65_83" / "l2_edges.parquet").filter(
        pl.col("root_id") == root
    )
    ids, ends = l2["l2_id"].to_numpy(), edges.select("a", "b").to_numpy()
    nodes = world.graph.leaves(root, 4)
    assert len(nodes) > 100
    for node in nodes.tolist():
        below = np.isin(ids, world.graph.leaves(node, 2))
        inside = below[ends[:, 0]] & below[ends[:, 1]]
        label = components(len(ids), ends[inside, 0].astype(np.int64), ends[inside, 1].astype(np.int64))
        assert len(np.unique(label[below])) == 1
