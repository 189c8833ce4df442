"""Translation on a public datastack whose backup table may be hidden, while its view of nuclei follows the backups."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest

from cortexclient.sandbox import Sandbox, World

from .conftest import client_of

NUCLEI, BACKUPS = "nucleus_detection_v0", "nucleus_alternative_points"


def made(*, hidden: bool) -> World:
    world = World.synthesize(3, dataset="v1dd", nuclei=300, edits=200, backups=40, versions=3, expired=1)
    if hidden:
        world.versions = [replace(v, tables=tuple(t for t in v.tables if t != BACKUPS)) for v in world.versions]
    return world


@pytest.fixture(scope="module")
def servers() -> Iterator[dict[bool, Sandbox]]:
    with Sandbox(made(hidden=False)) as shown, Sandbox(made(hidden=True)) as hidden:
        yield {False: shown, True: hidden}


@pytest.mark.parametrize("hidden", [False, True], ids=["shown", "hidden"])
async def test_cells_have_the_roots_of_the_view_where_the_backups_are_shown(
    flavour: str, servers: dict[bool, Sandbox], hidden: bool
) -> None:
    """cortical-tools takes them from the view; of a cell with several backups it takes any one, which is -1 here."""
    sandbox = servers[hidden]
    cells = sandbox.world.tables[NUCLEI].rows["id"].to_numpy()
    async with client_of(flavour, sandbox) as client:
        found = await client.cell_id_to_root_id(cells, detail=True)
        rows = await client.views["nucleus_alternative_lookup"]().query_polars(["id", "pt_root_id", "orig_root_id"])
        truth = dict(rows.select("id", "orig_root_id" if hidden else "pt_root_id").iter_rows())
        several = {cell for cell, status in found["status"].items() if status == "multiple"}
        replaced = rows.filter(rows["pt_root_id"] != rows["orig_root_id"])
        assert len(replaced) > 20
        assert len(several) < 5
        expected = [-1 if cell in several else truth.get(cell) or -1 for cell in cells.tolist()]
        assert found["root_id"].tolist() == expected
        roots = found["root_id"][found["root_id"] > 0].unique()
        back = await client.root_id_to_cell_id(roots, detail=True)
        alone = back[(back["status"] == "ok") & (back["source"] != "main_replaced")]
        assert found["root_id"].loc[alone["cell_id"]].tolist() == alone.index.tolist()


async def test_live_tables_answer_without_those_that_are_not_there(flavour: str) -> None:
    """Nothing lists live tables: whether there is one shows when it is asked."""
    world = made(hidden=True)
    del world.tables[BACKUPS]
    world.views.clear()
    cells = world.tables[NUCLEI].rows["id"].to_numpy()[:50]
    with Sandbox(world) as sandbox:
        async with client_of(flavour, sandbox) as client:
            live = await client.cell_id_to_root_id(cells, live=True)
            assert np.count_nonzero(live["root_id"] > 0) > 40
