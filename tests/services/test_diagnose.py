"""How the services are: told, never raised."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest
from tests.patience import HANG

from cortexclient import AsyncCortexClient, DatasetSpec, RetryPolicy
from cortexclient.sandbox import Faults, Sandbox, World

from .conftest import client_of

SERVICES = ["info", "chunkedgraph", "materialize", "l2cache", "skeleton"]


@pytest.fixture
def own_sandbox(world: World) -> Iterator[Sandbox]:
    with Sandbox(world, latency=0.005) as sandbox:
        yield sandbox


async def test_all_is_well(flavour: str, own_sandbox: Sandbox) -> None:
    async with client_of(flavour, own_sandbox) as client:
        found = await client.diagnose()
    assert found.ok
    assert [status.service for status in found.services] == SERVICES
    assert found["chunkedgraph"].version == "2.21.1"
    assert found["materialize"].version
    assert {found[name].token for name in ("info", "chunkedgraph", "materialize")} == {"accepted"}
    for status in found.services:
        assert status.url == own_sandbox.url
        assert status.latency_ms is not None
        assert 5 <= status.latency_ms < 1_000 * HANG
    assert found.token_source == "token="
    assert own_sandbox.token not in repr(found) + found._repr_html_()
    assert "all is well" in repr(found)
    frame = found.to_frame()
    assert frame.index.tolist() == SERVICES
    assert frame["reachable"].all()


async def test_one_that_is_down_is_told_from_the_others(flavour: str, own_sandbox: Sandbox) -> None:
    own_sandbox.faults = Faults("503", only="^/materialize")
    async with client_of(flavour, own_sandbox, retry=RetryPolicy(attempts=2, base=0.01, cap=0.01)) as client:
        found = await client.diagnose(timeout=HANG)
    assert not found.ok
    assert [status.service for status in found.services if not status.ok] == ["materialize"]
    assert not found["materialize"].reachable
    assert "there is trouble" in repr(found)


async def test_a_silent_one_ends_with_its_time(flavour: str, own_sandbox: Sandbox) -> None:
    own_sandbox.faults = Faults("slow", only="/segmentation/api/version", slow_seconds=1000)
    async with client_of(flavour, own_sandbox) as client:
        for seconds in (0.5, 5, 50):  # on a busy machine the others need more than the first
            found = await client.diagnose(timeout=seconds)
            if found["info"].ok:
                break
    status = found["chunkedgraph"]
    assert not status.reachable
    assert f"timeout={seconds}" in str(status.problem)
    assert found["info"].ok


async def test_a_refused_token(flavour: str, own_sandbox: Sandbox) -> None:
    async with client_of(flavour, own_sandbox, token="no-such-token") as client:
        found = await client.diagnose()
    assert found["info"].token == "refused"
    assert found["info"].reachable
    assert found["info"].version
    assert "does not know this token" in str(found["info"].problem)


async def test_a_missing_token(flavour: str, own_sandbox: Sandbox) -> None:
    async with client_of(flavour, own_sandbox, token=None) as client:
        found = await client.diagnose()
    assert found["info"].token == "missing"
    assert found.token_source == "nowhere"


async def test_nobody_there(flavour: str) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))  # and it does not listen
        port = closed.getsockname()[1]
        spec = DatasetSpec(name="nowhere", datastack="nowhere", server=f"http://127.0.0.1:{port}")
        made = type("Elsewhere", (), {"spec": spec, "token": "x"})
        async with client_of(flavour, made) as client:  # type: ignore[arg-type]
            found = await client.diagnose(timeout=2.0)
    assert [status.reachable for status in found.services] == [False] * len(SERVICES)
    assert found["info"].url == spec.server
    assert all(status.problem for status in found.services)


async def test_a_client_without_network_says_so_in_html(sandbox: Sandbox) -> None:
    async with AsyncCortexClient(sandbox.spec, token=sandbox.token) as client:
        shown = (await client.diagnose())._repr_html_()
        assert shown.count("<tr>") == 1 + len(SERVICES)
