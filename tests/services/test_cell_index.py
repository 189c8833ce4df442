"""The index of roots and cells: it says what the translation says, and what follows from the world's raw facts."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pytest
from pyarrow import parquet
from tests.oracle import oracle_root_to_cell

from cortexclient import AsyncCortexClient, CellIndex, CortexClient, CortexUsageError, NotFoundError
from cortexclient.mapping._index import FILE, read, write
from cortexclient.sandbox import Sandbox, World

from .conftest import client_of


def every_root(world: World) -> np.ndarray[Any, np.dtype[np.int64]]:
    return np.sort(world.graph.root_ids())


@pytest.fixture(scope="module")
def index(sandboxes: dict[str, Sandbox], tmp_path_factory: pytest.TempPathFactory) -> CellIndex:
    """Of one version, for those who only look things up."""
    sandbox, folder = sandboxes["async"], tmp_path_factory.mktemp("index") / "new" / "folder"
    with CortexClient(sandbox.spec, token=sandbox.token) as client:
        return client.build_cell_index(folder, version=1412)


async def test_it_says_what_the_translation_says(
    client: AsyncCortexClient, sandbox: Sandbox, world: World, tmp_path: Path
) -> None:
    index = await client.build_cell_index(tmp_path)
    roots = np.random.default_rng(1).permutation(every_root(world))
    asked = np.concatenate([roots, roots[:5], [0, 5, -1, 100]])
    before = sandbox.counters.snapshot().total.requests
    found = index.root_to_cell(asked, detail=True)
    assert sandbox.counters.snapshot().total.requests == before, "nothing is asked"
    theirs = await client.root_id_to_cell_id(asked, detail=True)
    assert found.index.equals(theirs.index)
    assert found.attrs["version"] == theirs.attrs["version"] == index.version
    for name in ("cell_id", "status", "n_matches"):
        assert found[name].to_list() == theirs[name].to_list(), name
    assert [s or None for s in found["source"].fillna("")] == [s or None for s in theirs["source"].fillna("")]
    assert found["cell_id"].dtype == found.index.dtype == np.int64
    lives = await client.root_lifetimes(roots)
    held = found["status"][: len(roots)].isin(["ok", "multiple"]).to_numpy()
    assert 0 < held.sum() < len(roots)
    assert (found["start"][: len(roots)][held] == lives["start"][held]).all()
    ends = found["end"][: len(roots)][held]
    assert ((ends == lives["end"][held]) | (ends.isna() & lives["is_latest"][held])).all()
    assert list(index.root_to_cell(roots[:3]).columns) == ["cell_id"]


def test_it_says_what_the_world_says(index: CellIndex, world: World) -> None:
    assert index.version == 1412
    found = index.root_to_cell(every_root(world), detail=True)
    for root, cell, status in zip(found.index, found["cell_id"], found["status"], strict=True):
        truth = oracle_root_to_cell(world, root, 1412)
        assert (cell, status) == (truth.id, truth.status), root


async def test_an_id_that_never_was_is_none_here(client: AsyncCortexClient, index: CellIndex, world: World) -> None:
    unknown = int(every_root(world)[-1]) + 12_345
    assert index.root_to_cell([unknown], detail=True)["status"].to_list() == ["none"]
    assert (await client.root_id_to_cell_id([unknown], detail=True))["status"].to_list() == ["invalid"]


def test_files_are_translated_block_by_block(
    index: CellIndex, world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cortexclient.mapping._index.BLOCK", 1000)
    ids = np.random.default_rng(2).choice(np.append(every_root(world), [7, 8]), 4_321)
    parquet.write_table(pa.table({"other": ids * 0, "root_id": ids}), tmp_path / "in.parquet")
    assert index.map_file(tmp_path / "in.parquet", tmp_path / "out.parquet") == 4_321
    rows = pl.read_parquet(tmp_path / "out.parquet")
    found = index.root_to_cell(ids, detail=True)
    assert rows.columns == ["root_id", "cell_id", "status"]
    assert rows["root_id"].to_list() == ids.tolist()
    assert rows["cell_id"].to_list() == found["cell_id"].to_list()
    assert rows["status"].to_list() == found["status"].to_list()
    with pytest.raises(CortexUsageError, match="there is no column 'nothing'"):
        index.map_file(tmp_path / "in.parquet", tmp_path / "new.parquet", column="nothing")
    parquet.write_table(pa.table({"root_id": ids / 2}), tmp_path / "floats.parquet")
    with pytest.raises(CortexUsageError, match="column root_id"):
        index.map_file(tmp_path / "floats.parquet", tmp_path / "new.parquet")
    parquet.write_table(pa.table({"root_id": ids.astype(np.uint64)}), tmp_path / "unsigned.parquet")
    assert index.map_file(tmp_path / "unsigned.parquet", tmp_path / "out.parquet", column="root_id") == 4_321
    assert not list(tmp_path.glob(".*")), "no draft is left"


def test_it_opens_again_and_only_if_it_is_one(index: CellIndex, tmp_path: Path) -> None:
    opened = CellIndex(index.folder)
    assert opened.facts == index.facts
    assert len(opened) == len(index) > 0
    assert f"{len(index):,} roots" in repr(opened)
    with pytest.raises(NotFoundError, match="there is no index"):
        CellIndex(tmp_path)
    parquet.write_table(pa.table({"root": [1]}), tmp_path / "cell_index.parquet")
    with pytest.raises(CortexUsageError, match="no index of this package"):
        CellIndex(tmp_path)


async def test_a_refresh_asks_about_what_changed_and_nothing_else(flavour: str, tmp_path: Path) -> None:
    world = World.synthesize(seed=3, nuclei=150, edits=150, backups=20, versions=2, expired=0)
    with Sandbox(world) as sandbox:
        async with client_of(flavour, sandbox) as client:
            first = await client.build_cell_index(tmp_path)
            since = datetime.now(UTC)
            idle = await client.refresh_cell_index(tmp_path)
            assert len(idle) == len(first)
            assert (await client.changes(since)).empty

            edits = sorted(world.graph.operations)[-12:]
            undone = [world.graph.undo(edit) for edit in reversed(edits)]
            redone = [world.graph.redo(edit) for edit in edits[:6]]
            made = {root for edit in undone + redone if edit is not None for root in edit.roots}

            begun = sandbox.counters.snapshot().total.requests
            index = await client.refresh_cell_index(tmp_path)
            assert sandbox.counters.snapshot().total.requests - begun < 60
            everything = index.root_to_cell(every_root(world), detail=True)
            truth = [oracle_root_to_cell(world, root) for root in everything.index]
            assert everything["cell_id"].to_list() == [answer.id for answer in truth]
            assert everything["status"].to_list() == [answer.status for answer in truth]
            lives = await client.root_lifetimes(everything.index)
            held = everything["status"] != "none"
            assert (everything["end"].isna() == lives["is_latest"])[held].all()
            assert held.sum() == len(index) > len(first)

            changes = await client.changes(since)
            begun_since = set(changes.index[changes["change"] == "began"])
            assert begun_since == {root for root in made if lives["is_latest"][root]}
            assert len(begun_since) < len(made), "some of them passed"
            truth_of = everything["cell_id"]
            assert changes["cell_id"].to_list() == truth_of[changes.index].to_list()
            newest = await client.most_recent_materialization_version()
            assert begun_since <= set((await client.changes(newest)).index)
            await _refuses_another_dataset(client, tmp_path)


async def _refuses_another_dataset(client: AsyncCortexClient, folder: Path) -> None:
    facts, rows = read(folder)
    write(folder, replace(facts, datastack="another"), rows)
    assert (folder / FILE).is_file()
    with pytest.raises(CortexUsageError, match="an index of another"):
        await client.refresh_cell_index(folder)
