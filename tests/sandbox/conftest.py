"""A world without data and two services of our own, to test what stands around the handlers."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any, Protocol, cast

import pytest

from cortexclient.sandbox import Call, Datastack, Reply, Route, RouteTable, Sandbox, World, routes
from cortexclient.sandbox.graph import Graph

PRICE = 0.2


def echo(world: World, call: Call) -> Reply:
    """Everything the handler was given, as JSON."""
    import json

    shown = {
        "method": call.method,
        "params": dict(call.params),
        "query": dict(call.query),
        "body": call.body.decode("latin-1"),
        "now_ms": call.now_ms,
        "origin": call.origin,
        "user_id": call.user_id,
        "strict": call.strict,
    }
    return Reply(json.dumps(shown).encode())


def fixed(world: World, call: Call) -> Reply:
    """As many bytes as the path says."""
    return Reply(b"x" * int(call.params["size"]), content_type="text/html; charset=utf-8", price=PRICE)


def broken(world: World, call: Call) -> Reply:
    """A handler with a bug."""
    raise KeyError("node_ids")


def own_500(call: Call, error: Exception) -> Reply:
    return Reply(f'{{"message": "{type(error).__name__}"}}'.encode(), 500)


ECHO = RouteTable(
    "echo",
    (
        Route(("GET", "POST"), "/echo/open", echo, permission=None),
        Route(("GET", "POST"), "/echo/login", echo),
        Route(("GET", "POST"), "/echo/table/{table}/view", echo, resource="table"),
        Route(("POST",), "/echo/table/{table}/edit", echo, permission="edit", resource="table"),
        Route(("GET",), "/echo/stack/{datastack}/view", echo, resource="datastack"),
        Route(("GET",), "/echo/number/{n:int}", echo, permission=None),
        Route(("GET",), "/echo/file/{name:path}", echo, permission=None),
        Route(("GET", "POST"), "/echo/fixed/{size:int}", fixed, permission=None),
        Route(("GET",), "/echo/broken", broken, permission=None),
    ),
    on_error=own_500,
    gzips=True,
)
PLAIN = RouteTable(
    "plain",
    (
        Route(("GET",), "/plain/broken", broken, permission=None),
        Route(("POST",), "/plain/write", echo, permission=None),
        Route(("POST",), "/materialize/api/v3/query", echo),
    ),
    wrong_method=lambda call: Reply(b'{"message": "405 Method Not Allowed"}', 500),
)


class Serve(Protocol):
    def __call__(self, **options: Any) -> Sandbox: ...


@pytest.fixture(scope="module")
def replay(shared_data: Path) -> ModuleType:
    """The comparison that the recordings come with."""
    path = shared_data.parent / "tools" / "replay.py"
    if not path.is_file():
        pytest.skip("tools/replay.py is not beside the data folder")
    spec = importlib.util.spec_from_file_location("replay", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def empty_world() -> World:
    """Two datastacks on one table, and no data: the tests of this fixture never reach a handler that needs any."""
    stacks = {name: Datastack(name, "toy_vol", "toy_v1") for name in ("toy", "toy_public")}
    return World("toy", 0, cast("Graph", SimpleNamespace(table="toy_v1")), datastacks=stacks)


@pytest.fixture
def serve(empty_world: World, monkeypatch: pytest.MonkeyPatch) -> Iterator[Serve]:
    """Starts sandboxes of the empty world that also serve the routes above; they end with the test."""
    monkeypatch.setattr(routes, "ALL", (*routes.ALL, ECHO, PLAIN))
    with ExitStack() as stack:
        yield lambda **options: stack.enter_context(Sandbox(empty_world, **options))
