"""Worlds of different shapes, each behind a sandbox with the peers and this package's client pointed at it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import pytest

from cortexclient import AsyncCortexClient
from cortexclient.sandbox import Sandbox, World
from cortexclient.sandbox.address import dataset_spec

pytest.register_assert_rewrite("tests.referee.comparisons")

from .facts import Facts  # noqa: E402 (after its assertions have been told to explain themselves)
from .peers import Peers  # noqa: E402

WORLDS: dict[str, tuple[Callable[[], World], bool]] = {
    "default": (World.default, False),
    "edited": (lambda: World.synthesize(1, nuclei=40, edits=400, backups=16, versions=5, expired=2), True),
    "v1dd": (lambda: World.synthesize(2, nuclei=120, edits=150, dataset="v1dd", versions=3, expired=1), False),
    "quiet": (
        lambda: World.synthesize(3, nuclei=200, edits=30, fragments=900, backups=60, versions=3, expired=0),
        True,
    ),
}
"""Synthetic worlds, and whether their servers have the real ones' defects."""
RECORDED = "toy"
"""The one that was recorded from real servers, whose defects it has."""
WORLDS_IN_ALL = len(WORLDS) + 1


@dataclass(frozen=True)
class Bench:
    """Everything that a row is tried on."""

    number: int
    recorded: bool
    """Whether the world was recorded from real servers."""
    facts: Facts
    sandbox: Sandbox
    peers: Peers
    client: AsyncCortexClient
    runner: asyncio.Runner


@pytest.fixture(scope="session")
def referee_home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A HOME for the peers, which live longer than one test."""
    with pytest.MonkeyPatch.context() as patch:
        home = tmp_path_factory.mktemp("home")
        patch.setenv("HOME", str(home))
        yield home


@pytest.fixture(scope="session")
def runner() -> Iterator[asyncio.Runner]:
    """One loop for all clients of the session: the peers block, so that tests are not coroutines."""
    with asyncio.Runner() as runner:
        yield runner


@pytest.fixture(scope="session", params=[*WORLDS, RECORDED])
def bench(request: pytest.FixtureRequest, referee_home: Path, runner: asyncio.Runner) -> Iterator[Bench]:
    world, strict = made_world(request)
    with Sandbox(world, strict=strict) as sandbox:
        spec = dataset_spec(world, sandbox.url)
        client, facts = AsyncCortexClient(spec, token=sandbox.token), Facts(world, strict)
        number = [*WORLDS, RECORDED].index(request.param)
        yield Bench(
            number, request.param == RECORDED, facts, sandbox, Peers(spec, sandbox.token, facts), client, runner
        )
        runner.run(client.aclose())


def made_world(request: pytest.FixtureRequest) -> tuple[World, bool]:
    if request.param in WORLDS:
        make, strict = WORLDS[request.param]
        return make(), strict
    toy = World.from_toy(request.getfixturevalue("shared_data"))
    if max(operation.time_ms for operation in toy.graph.operations.values()) > datetime.now(UTC).timestamp() * 1000:
        pytest.skip("the recorded world lies in the future of this machine's clock")
    return toy, True
