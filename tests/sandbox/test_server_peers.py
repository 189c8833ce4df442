"""The referees: unmodified caveclient and cortical-tools on a sandbox."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import requests

from cortexclient.sandbox import Faults, Sandbox, World

caveclient = pytest.importorskip("caveclient")
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")

NUCLEI = "nucleus_detection_v0"


@pytest.fixture(scope="module")
def default() -> Iterator[Sandbox]:
    with Sandbox() as sandbox:
        yield sandbox


@pytest.fixture(scope="module")
def toy(shared_data: Path) -> Iterator[Sandbox]:
    with Sandbox(World.from_toy(shared_data)) as sandbox:
        yield sandbox


@pytest.fixture(params=["default", "toy"])
def sandbox(request: pytest.FixtureRequest) -> Sandbox:
    found: Sandbox = request.getfixturevalue(request.param)
    found.faults = ""
    found.counters.reset()
    return found


def cave(sandbox: Sandbox, token: str | None = None, **more: Any) -> Any:
    return caveclient.CAVEclient(
        sandbox.spec.datastack,
        server_address=sandbox.url,
        auth_token=token or sandbox.token,
        write_server_cache=False,
        **more,
    )


def supervoxels(sandbox: Sandbox) -> Any:
    column = sandbox.world.tables[NUCLEI].rows["pt_supervoxel_id"].drop_nulls().to_numpy()
    return column[column > 0][:50]


def test_a_client_is_made_with_two_requests(sandbox: Sandbox):
    client = cave(sandbox)
    assert list(sandbox.counters.snapshot().routes) == [
        "GET /info/version",
        "GET /info/api/v2/datastack/full/{datastack}",
    ]
    assert client.local_server == sandbox.url
    assert client.chunkedgraph.table_name == sandbox.world.datastacks[sandbox.spec.datastack].segmentation
    assert set(sandbox.counters.snapshot().total.statuses) == {200}


def test_info(sandbox: Sandbox):
    info = cave(sandbox).info
    stack = sandbox.world.datastacks[sandbox.spec.datastack]
    assert info.get_datastacks() == list(sandbox.world.datastacks)
    assert info.get_aligned_volumes() == [stack.aligned_volume]
    assert info.segmentation_source() == f"graphene://{sandbox.url}/segmentation/table/{stack.segmentation}"
    assert info.viewer_resolution().tolist() == list(stack.viewer_resolution)


def test_roots(sandbox: Sandbox):
    nodes = supervoxels(sandbox)
    roots = cave(sandbox).chunkedgraph.get_roots(nodes).astype(np.int64)
    now = int(1e15)
    assert roots.tolist() == sandbox.world.graph.roots(nodes, now).tolist()


def test_tables(sandbox: Sandbox):
    client = cave(sandbox)
    version = sandbox.world.version(datastack=sandbox.spec.datastack)
    assert client.materialize.version == version.version
    assert set(client.materialize.tables.table_names) == set(version.tables)
    frame = client.materialize.query_table(NUCLEI)
    frozen = sandbox.world.annotations.frozen(NUCLEI, version).filter("valid")
    wanted = dict(zip(frozen["id"], frozen["pt_root_id"], strict=True))
    assert dict(zip(frame["id"], frame["pt_root_id"], strict=True)) == wanted


def test_nothing_was_ever_redirected(sandbox: Sandbox):
    client = cave(sandbox)
    client.chunkedgraph.get_roots(supervoxels(sandbox))
    client.materialize.query_table(NUCLEI, limit=2)
    assert set(sandbox.counters.snapshot().total.statuses) == {200}


def test_a_bad_token_and_none(sandbox: Sandbox):
    with pytest.raises(requests.HTTPError, match="invalid_token"):
        cave(sandbox, token="f" * 32)
    with pytest.raises(caveclient.base.AuthException):
        caveclient.CAVEclient(sandbox.spec.datastack, server_address=sandbox.url, write_server_cache=False)


def test_terms_of_service_open_a_browser(sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch):
    opened: list[str] = []
    monkeypatch.setattr("webbrowser.open", opened.append)
    with pytest.raises(requests.HTTPError, match="Terms of Service"):
        cave(sandbox, token="tos-token")
    assert opened == [f"{sandbox.url}/auth/api/v1/tos/3/accept"]


def test_no_permission(sandbox: Sandbox):
    with pytest.raises(requests.HTTPError, match="missing_permission"):
        cave(sandbox, token="noperm-token")


@pytest.mark.parametrize("kind", ["503", "429-retry-after", "reset"])
def test_it_survives_what_it_retries(default: Sandbox, kind: str):
    client = cave(default)
    graph = client.chunkedgraph
    default.faults = Faults(kind, times=2, retry_after=0, only="/roots_binary")
    assert len(graph.get_roots(supervoxels(default))) == 50
    assert default.faults.dealt == 2


@pytest.mark.parametrize("kind", ["429", "500"])
def test_it_fails_on_what_it_does_not_retry(default: Sandbox, kind: str):
    graph = cave(default).chunkedgraph
    default.faults = Faults(kind, times=1, only="/roots_binary")
    with pytest.raises(requests.HTTPError, match=kind):
        graph.get_roots(supervoxels(default))


def test_cortical_tools(default: Sandbox, scratch_home: Path):
    common = pytest.importorskip("cortical_tools.common")
    default.faults = ""
    secrets = scratch_home / ".cloudvolume" / "secrets"
    secrets.mkdir(parents=True)
    host = default.url.removeprefix("http://")
    (secrets / f"{host}-cave-secret.json").write_text(json.dumps({"token": default.token}))
    spec = default.spec
    client = common.DatasetClient(
        caveclient=cave(default),
        cell_id_lookup_view=spec.cell_id_view,
        root_id_lookup_main_table=spec.nucleus_table,
        root_id_lookup_alt_tables=list(spec.backup_tables),
    )
    view = client.cave.materialize.query_view(spec.cell_id_view)
    alone = view[view["pt_root_id"] > 0].drop_duplicates("pt_root_id", keep=False).head(5)
    cells = client.root_id_to_cell_id(alone["pt_root_id"].to_list())
    assert cells[alone["pt_root_id"]].tolist() == alone["id"].tolist()
    roots = client.cell_id_to_root_id(alone["id"].to_list(), materialization_version=client.cave.materialize.version)
    assert roots[alone["id"]].tolist() == alone["pt_root_id"].tolist()
