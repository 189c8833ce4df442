"""The unmodified caveclient and cortical-tools, talking to a sandbox over HTTP."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cortexclient.sandbox import Sandbox, World

caveclient = pytest.importorskip("caveclient", reason="a peer: install caveclient and cortical-tools to run this")
cortical_tools = pytest.importorskip("cortical_tools.common")

pytestmark = pytest.mark.filterwarnings("ignore")  # theirs, about pandas and themselves

STACK, NUCLEI, BACKUPS = "minnie65_phase3_v1", "nucleus_detection_v0", "nucleus_alternative_points"
VIEW = "nucleus_detection_lookup_v1"


@pytest.fixture(scope="module")
def world() -> World:
    return World.synthesize(seed=3, nuclei=150, edits=250)


@pytest.fixture(params=[False, True], ids=["kind", "strict"])
def sandbox(world: World, request: pytest.FixtureRequest, scratch_home: Path) -> Iterator[Sandbox]:
    with Sandbox(world, strict=request.param) as running:
        secrets = scratch_home / ".cloudvolume" / "secrets"
        secrets.mkdir(parents=True)
        (secrets / "cave-secret.json").write_text(json.dumps({"token": running.token}))
        yield running


@pytest.fixture
def client(sandbox: Sandbox) -> Any:
    return caveclient.CAVEclient(STACK, server_address=sandbox.url, auth_token=sandbox.token, write_server_cache=False)


def frozen(world: World, name: str = NUCLEI) -> Any:
    return world.annotations.frozen(name, world.version(datastack=STACK))


def test_caveclient_reads_tables_and_views(client: Any, world: World) -> None:
    materialize = client.materialize
    assert materialize.version == world.version(datastack=STACK).version
    assert materialize.get_timestamp(materialize.version) == world.version(datastack=STACK).time.replace(tzinfo=UTC)
    assert set(materialize.get_tables()) == set(world.tables)
    nuclei = materialize.query_table(NUCLEI)
    assert nuclei["id"].tolist() == frozen(world)["id"].to_list()
    assert nuclei["pt_root_id"].tolist() == frozen(world)["pt_root_id"].to_list()
    assert nuclei.attrs["dataframe_resolution"] == [4.0, 4.0, 40.0]
    assert materialize.get_annotation_count(NUCLEI) == len(nuclei)
    assert materialize.query_table(NUCLEI, get_counts=True)["count"].tolist() == [len(nuclei)]
    assert materialize.query_table(NUCLEI, limit=3, return_df=False)[0]["id"] == nuclei["id"][0]
    backups = materialize.query_table(BACKUPS)
    assert set(backups["id_ref"]) == set(backups["target_id"])
    view = materialize.query_view(VIEW, filter_in_dict={"id": nuclei["id"][:5]})
    assert sorted(view["id"]) == sorted(nuclei["id"][:5])
    assert set(materialize.get_view_schema(VIEW)) >= {"id", "pt_root_id", "pt_position"}


def test_the_managers_of_caveclient(client: Any, world: World) -> None:
    tables, ids = client.materialize.tables, frozen(world)["id"][:3].to_list()
    assert set(tables.table_names) == set(world.tables)
    assert tables[NUCLEI](id=ids).query()["id"].tolist() == ids
    large = tables[NUCLEI](volume={">": 300}).query(desired_resolution=[1, 1, 1], split_positions=True)
    assert (large["volume"] > 300).all()
    assert set(tables[BACKUPS]().query()["id"]) == set(frozen(world, BACKUPS)["target_id"])
    assert len(client.materialize.views[VIEW](id=ids[0]).query()) == 1


def test_both_live_queries_of_caveclient_agree(client: Any, world: World) -> None:
    now = datetime.now(UTC)
    served = client.materialize.live_live_query(NUCLEI, timestamp=now).set_index("id")["pt_root_id"]
    refreshed = client.materialize.query_table(NUCLEI, timestamp=now).set_index("id")["pt_root_id"]
    common = served.index.intersection(refreshed.index)
    assert len(common) > 100
    assert (served[common] == refreshed[common]).all()
    assert set(served.index) == set(world.annotations.live(NUCLEI, 2**52, world.version()).rows["id"])


def test_cortical_tools_maps_cells_and_roots(client: Any, world: World) -> None:
    dataset = cortical_tools.DatasetClient(
        caveclient=client,
        cell_id_lookup_view=VIEW,
        root_id_lookup_main_table=NUCLEI,
        root_id_lookup_alt_tables=[BACKUPS],
    )
    view = world.annotations.view(VIEW, world.version(datastack=STACK))
    truth = dict(zip(view["id"].to_list(), view["pt_root_id"].to_list(), strict=True))
    cells = list(truth)[:20]
    roots = dataset.cell_id_to_root_id(cells)
    assert roots.to_dict() == {cell: truth[cell] for cell in cells}
    current = np.array([root for root in set(roots) if root > 0])
    back = dataset.root_id_to_cell_id(current)
    assert (back > 0).sum() > len(back) / 2
    assert all(truth[cell] == root for root, cell in back.items() if cell > 0 and cell in truth)
