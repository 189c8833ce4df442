"""A world, servers and clients for all service tests: each test is written once, as an asynchronous one."""

from __future__ import annotations

import functools
import inspect
from collections.abc import AsyncIterator, Iterator
from typing import Any

import anyio.to_thread
import pytest

from cortexclient import AsyncCortexClient, CortexClient
from cortexclient._twin import SyncFlow, Twin
from cortexclient.sandbox import Sandbox, World


@pytest.fixture(scope="session")
def world() -> World:
    """The default world. It is shared: whoever edits one makes one of their own."""
    return World.default()


@pytest.fixture(scope="session")
def sandboxes(world: World) -> Iterator[dict[str, Sandbox]]:
    """The servers of each flavour's tests: one as the real ones are, defects included, one with those repaired."""
    with Sandbox(world, strict=True) as strict, Sandbox(world) as repaired:
        yield {"async": strict, "sync": repaired}


@pytest.fixture(params=["async", "sync"])
def flavour(request: pytest.FixtureRequest) -> str:
    """Which of the two clients the test is about."""
    return str(request.param)


@pytest.fixture
def sandbox(flavour: str, sandboxes: dict[str, Sandbox]) -> Sandbox:
    return sandboxes[flavour]


@pytest.fixture
async def client(flavour: str, sandbox: Sandbox) -> AsyncIterator[AsyncCortexClient]:
    """A client of the sandbox; the blocking one is dressed up as the asynchronous one."""
    async with client_of(flavour, sandbox) as client:
        yield client


def client_of(flavour: str, sandbox: Sandbox, **settings: Any) -> AsyncCortexClient:
    """A client of any sandbox with any settings, in either flavour."""
    made = {"async": AsyncCortexClient, "sync": CortexClient}[flavour]
    return dressed(made(sandbox.spec, **{"token": sandbox.token} | settings))


def dressed(value: Any) -> Any:
    """Something of the blocking client, as the asynchronous one has it; anything else as it is."""
    return Dressed(value) if isinstance(value, Twin | SyncFlow) else value


class Dressed:
    """A blocking object that is used like its asynchronous twin: what blocks runs in a worker thread."""

    def __init__(self, blocking: Any) -> None:
        self._blocking = blocking

    def __getattr__(self, name: str) -> Any:
        original = inspect.getattr_static(type(self._blocking._inner), name, None)
        if original is None:  # a table by its name
            return dressed(getattr(self._blocking, name))
        value = getattr(self._blocking, "close" if name == "aclose" else name)
        if inspect.iscoroutinefunction(original):
            return lambda *args, **kwargs: anyio.to_thread.run_sync(functools.partial(value, *args, **kwargs))
        if isinstance(original, property | functools.cached_property):
            return dressed(value)
        return lambda *args, **kwargs: dressed(value(*args, **kwargs))

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return dressed(self._blocking(*args, **kwargs))

    def __getitem__(self, name: str) -> Any:
        return dressed(self._blocking[name])

    def __repr__(self) -> str:
        return repr(self._blocking)

    async def __aenter__(self) -> Any:
        self._blocking.__enter__()
        return self

    async def __aexit__(self, *error: object) -> None:
        await anyio.to_thread.run_sync(self._blocking.__exit__, *error)

    def __aiter__(self) -> Any:
        return self

    async def __anext__(self) -> Any:
        end = object()
        outcome = await anyio.to_thread.run_sync(next, self._blocking, end)
        if outcome is end:
            raise StopAsyncIteration
        return outcome


CAP = 150


@pytest.fixture(scope="module")
def small_cap() -> Iterator[dict[str, Sandbox]]:
    """Servers that give few rows at once."""
    world = World.synthesize(4, nuclei=400, edits=80, backups=20, versions=3, expired=1)
    world.row_cap = CAP
    with Sandbox(world, strict=True) as strict, Sandbox(world) as repaired:
        yield {"async": strict, "sync": repaired}


@pytest.fixture
def capped_sandbox(small_cap: dict[str, Sandbox], flavour: str) -> Sandbox:
    return small_cap[flavour]


@pytest.fixture
def capped_world(capped_sandbox: Sandbox) -> World:
    return capped_sandbox.world


@pytest.fixture
async def capped(flavour: str, capped_sandbox: Sandbox) -> AsyncIterator[AsyncCortexClient]:
    async with client_of(flavour, capped_sandbox) as client:
        yield client
