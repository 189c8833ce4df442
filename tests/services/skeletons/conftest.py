"""A world of each file's own, since its tests fill queues and lists, and end tokens."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import pytest

from cortexclient import AsyncCortexClient
from cortexclient.sandbox import Sandbox, World
from cortexclient.sandbox.graph import NEVER

from ..conftest import client_of


@pytest.fixture(scope="module")
def own_world() -> World:
    return World.default()


@pytest.fixture
def server(own_world: World) -> Iterator[Sandbox]:
    with Sandbox(own_world) as sandbox:
        yield sandbox


@pytest.fixture
async def client(flavour: str, server: Sandbox) -> AsyncIterator[AsyncCortexClient]:
    async with client_of(flavour, server) as client:
        yield client


@pytest.fixture
def cached(own_world: World) -> list[int]:
    """Roots whose skeletons are there."""
    roots = own_world.graph.root_ids()
    return [int(i) for i in roots[own_world.skeletons.cached(roots, 0)]]


@pytest.fixture
def missing(own_world: World) -> list[int]:
    """Retired roots, of which nobody has asked a skeleton."""
    roots = own_world.graph.root_ids()
    roots = roots[own_world.graph.retired(roots) != NEVER]
    return [int(i) for i in roots[~own_world.skeletons.cached(roots, 2**50)]]
