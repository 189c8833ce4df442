"""The portal and the blocking client, within one process."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import pickle
import signal
import threading
import time
import traceback
import weakref
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import httpx
import numpy as np
import pytest
from tests.patience import HANG, until, until_so

from cortexclient import (
    AsyncCortexClient,
    CortexClient,
    CortexUsageError,
    Limits,
    NotFoundError,
    SyncStream,
    _fanout,
    _load,
    _portal,
    load_client,
)
from cortexclient._twin import AHEAD, Twin
from cortexclient.sandbox import Sandbox

from .conftest import Program, finish


async def give(value: object) -> object:
    await asyncio.sleep(0)
    return value


class Slow:
    """Something to wait for that tells what became of it."""

    def __init__(self, cleanup: Callable[[], Awaitable[object]] | None = None) -> None:
        self.cleanup = cleanup
        self.started = threading.Event()
        self.state = "new"

    async def work(self) -> None:
        self.started.set()
        try:
            await asyncio.sleep(2 * HANG)
        except asyncio.CancelledError:
            if self.cleanup:
                await self.cleanup()
            self.state = "cleaned up"
            raise


@contextmanager
def interrupted(slow: Slow) -> Iterator[None]:
    """Raise KeyboardInterrupt in this thread as soon as the work has started, as Ctrl-C does."""
    import _thread

    def press() -> None:
        slow.started.wait(HANG)
        time.sleep(0.05)
        _thread.interrupt_main()

    thread = threading.Thread(target=press)
    # shells start what runs in the background with this signal ignored
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        thread.start()
        with pytest.raises(KeyboardInterrupt):
            yield
    finally:
        signal.signal(signal.SIGINT, before)
    thread.join()


# -- run ---------------------------------------------------------------------------------------------------------------


def test_it_returns_and_raises_what_the_coroutine_does() -> None:
    assert _portal.run(give, 5) == 5

    async def fail() -> None:
        raise NotFoundError("nothing", ids=[3])

    for _ in range(2):
        with pytest.raises(NotFoundError, match="nothing") as caught:
            _portal.run(fail)
        frames = [frame.name for frame in traceback.extract_tb(caught.tb) if frame.filename == _portal.__file__]
        assert frames == ["run"]


def test_an_error_is_not_kept_alive_by_its_traceback() -> None:
    class Heavy(Exception):
        pass

    async def fail() -> None:
        raise Heavy

    gc.disable()
    try:
        try:
            _portal.run(fail)
        except Heavy as error:
            left = weakref.ref(error)
        _portal.run(give, None)  # the loop has turned its back on the call
        assert left() is None
    finally:
        gc.enable()


@pytest.mark.parametrize("kind", [SystemExit, KeyboardInterrupt, TimeoutError, asyncio.CancelledError])
def test_the_loop_survives_what_ends_programs(kind: type[BaseException]) -> None:
    async def fail() -> None:
        raise kind

    with pytest.raises(kind):
        _portal.run(fail)
    assert _portal.run(give, "alive") == "alive"


def test_one_thread_for_all() -> None:
    async def whose() -> int:
        return threading.get_ident()

    idents = {_portal.run(whose) for _ in range(3)}
    with ThreadPoolExecutor(8) as pool:
        idents |= {future.result() for future in [pool.submit(_portal.run, whose) for _ in range(50)]}
    assert len(idents) == 1
    assert threading.get_ident() not in idents
    assert [t.daemon for t in threading.enumerate() if t.name == "cortexclient"] == [True]


def test_context_variables_travel() -> None:
    variable = contextvars.ContextVar("variable", default="unset")

    async def read() -> str:
        found = variable.get()
        variable.set("changed inside")
        return found

    variable.set("of the caller")
    assert _portal.run(read) == "of the caller"
    assert variable.get() == "of the caller"


def test_on_its_own_loop_it_names_the_method_to_await(sandbox: Sandbox) -> None:
    client = CortexClient(sandbox.spec, token=sandbox.token)

    async def mistake() -> None:
        client.chunkedgraph.get_roots([1])

    with pytest.raises(CortexUsageError, match=r"await.*AsyncChunkedGraph\.get_roots"):
        _portal.run(mistake)


async def test_it_works_inside_a_running_loop(sandbox: Sandbox) -> None:
    with CortexClient(sandbox.spec, token=sandbox.token) as client:
        assert client.most_recent_materialization_version() == 1484


def test_an_interrupt_cancels_and_waits_for_the_cleanup() -> None:
    slow = Slow(cleanup=lambda: asyncio.sleep(0.3))
    with interrupted(slow):
        _portal.run(slow.work)
    assert slow.state == "cleaned up"


def test_a_cleanup_that_never_ends_does_not_hold_the_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_portal, "CLEANUP", 0.2)
    may_end = threading.Event()
    slow = Slow(cleanup=lambda: until_so(may_end.is_set))
    with interrupted(slow):
        _portal.run(slow.work)
    assert slow.state == "new"
    may_end.set()
    until(lambda: slow.state == "cleaned up")


# -- clients -----------------------------------------------------------------------------------------------------------


def test_threads_share_a_client(sandbox: Sandbox) -> None:
    roots = sandbox.world.graph.root_ids()[:400]
    with CortexClient(sandbox.spec, token=sandbox.token) as client, ThreadPoolExecutor(16) as pool:
        parts = list(pool.map(client.is_latest_roots, np.split(roots, 40)))
        assert np.concatenate(parts).tolist() == client.is_latest_roots(roots).tolist()


def test_a_view_outlives_its_client_and_closes_with_the_last_reference(sandbox: Sandbox) -> None:
    graph = CortexClient(sandbox.spec, token=sandbox.token).at(version=1412).chunkedgraph
    gc.collect()
    assert graph.segmentation_info()["graph"]["n_layers"] == sandbox.world.graph.layout.n_layers
    transport = graph._inner._session.transport
    assert not transport.closed
    del graph
    gc.collect()
    _portal.run(give, None)
    assert transport.closed


def test_threads_of_a_child_find_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    """Another's would be closed with its last reference, under the services that were taken from it."""
    both = threading.Barrier(2)

    def find() -> object:
        if _portal.generation():
            both.wait(HANG)
        return object()

    twin = Twin._of(find)
    monkeypatch.setattr(_portal, "_generation", 1)
    with ThreadPoolExecutor(2) as threads:
        assert len({*threads.map(lambda _: twin._inner, range(2))}) == 1


def test_closing(sandbox: Sandbox) -> None:
    with CortexClient(sandbox.spec, token=sandbox.token) as client:
        view = client.at(version=1412)
        client.info.get_datastacks()
        assert not client.closed
    assert client.closed
    assert view.closed
    client.close()
    with pytest.raises(CortexUsageError, match="closed"):
        view.info.get_datastacks()


def test_building_one_starts_no_thread(program: Program) -> None:
    text = """
import sys, threading
from cortexclient.datasets.minnie_public import client
from cortexclient import load_client
print(client, client.at(version=3).chunkedgraph, client.closed)
assert load_client("minnie65_public") is client
assert threading.active_count() == 1
heavy = {"pandas", "polars", "pyarrow", "httpx", "aiohttp", "caveclient", "cloudvolume", "meshparty"} & set(sys.modules)
assert not heavy, heavy
"""
    assert "minnie_public" in finish(program(text))


def test_load_client_gives_one_client_for_each_dataset() -> None:
    one = load_client("v1dd")
    assert load_client("v1dd") is one
    assert load_client(one.spec) is one
    assert load_client("v1dd_public") is not one
    one.close()
    assert load_client("v1dd") is not one
    with pytest.raises(NotFoundError, match="v1dd"):
        load_client("v1ddd")


def test_threads_that_load_a_client_get_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    both = threading.Barrier(2)

    class Made(CortexClient):
        def __init__(self, *arguments: Any) -> None:
            both.wait(HANG)
            super().__init__(*arguments)

    monkeypatch.setattr(_load, "CortexClient", Made)
    monkeypatch.setattr(_load, "_clients", {})
    with ThreadPoolExecutor(2) as pool:
        assert len({*pool.map(load_client, ["v1dd", "v1dd"])}) == 1


@pytest.mark.parametrize("kind", [CortexClient, AsyncCortexClient])
def test_a_pickle_keeps_the_settings_and_no_secret(kind: type, sandbox: Sandbox) -> None:
    token = "a-very-secret-token"
    client = kind(sandbox.spec, version=1412, token=token, limits=Limits(in_flight=3), server="http://127.0.0.1:9/x")
    data = pickle.dumps(client)
    assert token.encode() not in data
    copy = pickle.loads(data)
    assert type(copy) is kind
    assert repr(copy) == repr(client)
    assert (copy.spec, copy.version, copy.server_address) == (sandbox.spec, 1412, "http://127.0.0.1:9/x")
    inner = copy._inner if kind is CortexClient else copy
    assert inner._session.limits == Limits(in_flight=3)


def test_a_pickled_client_looks_its_token_up_where_it_is(sandbox: Sandbox) -> None:
    with CortexClient(sandbox.spec, token=sandbox.token) as client:
        client.info.get_datastacks()
        data = pickle.dumps(client)
    with sandbox.env(), pickle.loads(data) as copy:
        assert copy.info.get_datastacks() == sorted(sandbox.world.datastacks)


def test_a_client_over_the_users_own_connections_is_not_pickled() -> None:
    with pytest.raises(CortexUsageError, match="http_client"):
        pickle.dumps(CortexClient("minnie_public", http_client=httpx.AsyncClient()))


def test_an_asynchronous_client_belongs_to_one_loop(sandbox: Sandbox) -> None:
    client = AsyncCortexClient(sandbox.spec, token=sandbox.token)

    async def use() -> None:
        await client.info.get_datastacks()

    with asyncio.Runner() as first, asyncio.Runner() as second:
        first.run(use())
        with pytest.raises(CortexUsageError, match="event loop"):
            second.run(use())
        first.run(client.aclose())


# -- streams -----------------------------------------------------------------------------------------------------------


class Fetch:
    """Fetches squares and keeps count."""

    def __init__(self, pause: float = 0.0) -> None:
        self.pause = pause
        self.started = self.running = 0

    async def __call__(self, one: int) -> int:
        self.started += 1
        self.running += 1
        try:
            await asyncio.sleep(self.pause)
            if one % 10 == 3:
                raise NotFoundError("threes are missing", ids=[one])
            if one == 999:
                raise CortexUsageError("this hits every id alike")
            return one * one
        finally:
            self.running -= 1


def stream(fetch: Fetch, ids: range, workers: int = 4) -> SyncStream[int]:
    return SyncStream(_fanout.stream(np.array(ids), fetch, workers=workers), None)  # type: ignore[arg-type]


def settle() -> None:
    """Let the loop do what it has been asked to."""
    for _ in range(200):
        _portal.run(asyncio.sleep, 0)


def test_a_stream_gives_every_outcome_once() -> None:
    outcomes = list(stream(Fetch(), range(500)))
    assert sorted(o.id for o in outcomes) == list(range(500))
    assert {o.id: o.value for o in outcomes if o.ok} == {i: i * i for i in range(500) if i % 10 != 3}
    assert all(isinstance(o.error, NotFoundError) for o in outcomes if not o.ok)


def test_an_empty_stream_ends() -> None:
    empty = stream(Fetch(), range(0))
    assert list(empty) == []
    assert list(empty) == []


def test_an_error_for_all_ends_the_stream() -> None:
    ending = stream(Fetch(), range(990, 1010))
    with pytest.raises(CortexUsageError, match="every id alike") as caught:
        list(ending)
    assert list(ending) == []
    frames = [f.name for f in traceback.extract_tb(caught.tb) if f.filename == _portal.__file__]
    assert frames == []


def test_a_slow_reader_slows_the_fetching() -> None:
    fetch = Fetch()
    with stream(fetch, range(100_000)) as outcomes:
        next(outcomes)
        settle()
        assert fetch.started <= 2 * AHEAD + 3 * 4


def test_leaving_the_block_ends_the_fetching_at_once() -> None:
    fetch = Fetch(pause=0.01)
    with stream(fetch, range(100_000)) as outcomes:
        for outcome in outcomes:
            if outcome.id > 20:
                break
    assert fetch.running == 0
    assert list(outcomes) == []


def test_a_forgotten_stream_ends() -> None:
    fetch = Fetch(pause=0.01)
    for _ in stream(fetch, range(100_000)):
        break
    gc.collect()
    until(lambda: not fetch.running)
    assert fetch.started < 1000


def test_a_stream_forgotten_in_another_thread_ends() -> None:
    fetch = Fetch(pause=0.01)
    thread = threading.Thread(target=lambda: next(stream(fetch, range(100_000))))
    thread.start()
    thread.join()
    gc.collect()
    until(lambda: not fetch.running)


def test_a_stream_that_nobody_reads_costs_nothing() -> None:
    fetch = Fetch()
    stream(fetch, range(10)).close()
    stream(fetch, range(10))
    gc.collect()
    assert fetch.started == 0


def test_an_interrupt_ends_the_stream() -> None:
    slow = Slow()

    async def wait(one: int) -> None:
        await slow.work()

    waiting = SyncStream(_fanout.stream(np.arange(3), wait, workers=2), None)  # type: ignore[arg-type]
    with interrupted(slow):
        next(waiting)
    assert slow.state == "cleaned up"
    assert list(waiting) == []
