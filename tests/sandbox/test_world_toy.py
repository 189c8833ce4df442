"""The recorded world: whole, and with the answers that its makers wrote down."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.oracle import oracle_cell_to_root, oracle_root_to_cell

from cortexclient.sandbox.world import World


@pytest.fixture(scope="module")
def world(shared_data: Path) -> World:
    return World.from_toy(shared_data)


def test_everything_recorded_is_there(world: World) -> None:
    assert len(world.graph.operations) == 19
    assert len(world.graph.root_ids()) > 28
    assert len(world.tables["synapses_toy"].rows) == 700
    assert sorted((v.datastack, v.version, v.valid) for v in world.versions) == [
        ("toy", 1, False), ("toy", 2, True), ("toy", 3, True), ("toy", 4, True), ("toy_public", 3, True)
    ]  # fmt: skip
    assert list(world.datastacks) == ["toy", "toy_public"]


@pytest.mark.parametrize("version", [2, 3, 4])
def test_the_oracle_agrees_with_the_recorded_view(world: World, version: int) -> None:
    rows = world.annotations.view("nucleus_detection_lookup_v1", world.version(version))
    assert rows.height > 10
    for cell, root in rows.select("id", "pt_root_id").iter_rows():
        answer = oracle_cell_to_root(world, cell, version)
        assert answer.id == (root or -1)
        assert answer.status == ("ok" if root else "none")


def test_a_backup_decides_and_a_replaced_main_point_may_still_answer(world: World) -> None:
    """Cell 1006: its main point lies on another object than its backup, which it shares with cell 1007."""
    main_root, backup_root = 432345564227568110, 432345564227568001
    assert oracle_cell_to_root(world, 1006) == (backup_root, "ok", "backup")
    assert oracle_root_to_cell(world, main_root) == (1006, "ok", "main_replaced")
    assert oracle_root_to_cell(world, backup_root) == (-1, "multiple", None)


def test_a_point_outside_the_segmentation_has_no_root(world: World) -> None:
    assert oracle_cell_to_root(world, 1018) == (-1, "none", None)


def test_a_deleted_nucleus_is_gone_from_later_versions_only(world: World) -> None:
    assert oracle_cell_to_root(world, 1009, version=3).status == "ok"
    assert oracle_cell_to_root(world, 1009, version=4).status == "none"


def test_it_survives_being_saved(world: World, tmp_path: Path) -> None:
    world.save(tmp_path)
    again = World.load(tmp_path)
    assert again.graph.operations == world.graph.operations
    assert again.graph.layout == world.graph.layout
    assert again.row_cap == world.row_cap == 500
    assert {n: t.rows.to_dicts() for n, t in again.tables.items()} == {
        n: t.rows.to_dicts() for n, t in world.tables.items()
    }
