"""The blocking client where processes are interrupted, forked, spawned, and end."""

from __future__ import annotations

import os
import signal
import sys
import time

import numpy as np
import pytest
from tests.patience import HANG

from cortexclient.sandbox import Sandbox

from .conftest import Program, finish

needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
needs_proc = pytest.mark.skipif(sys.platform != "linux", reason="open sockets are counted under /proc")

HEAD = """
import os, sys, time
import numpy as np
from cortexclient import CortexClient, load_client

client = CortexClient("minnie_public")
roots = np.array({roots})
expected = {expected}

def check(client, roots=roots):
    found = client.chunkedgraph.is_latest_roots(roots).tolist()
    assert found == expected[: len(roots)], found
"""


@pytest.fixture
def head(sandbox: Sandbox) -> str:
    """The beginning of a program that can ask something and check the answer."""
    graph = sandbox.world.graph
    roots = graph.root_ids()[::300]
    expected = (graph.retired(roots) == np.iinfo(np.int64).max).tolist()
    return HEAD.format(roots=roots.tolist(), expected=expected)


# -- Ctrl-C ------------------------------------------------------------------------------------------------------------


@needs_proc
def test_ctrl_c_ends_the_call_and_its_connections(program: Program, sandbox: Sandbox, head: str) -> None:
    process = program(
        head
        + """
def sockets():
    names = [os.path.join("/proc/self/fd", fd) for fd in os.listdir("/proc/self/fd")]
    return sum(os.path.islink(n) and os.readlink(n).startswith("socket:") for n in names)

check(client)
idle = sockets()
print("ready")
sys.stdin.readline()
try:
    client.chunkedgraph.get_leaves_many(roots)
except KeyboardInterrupt:
    print("interrupted", sockets() - idle)
sys.stdin.readline()
check(client)
print("alive")
"""
    )
    assert process.stdin is not None
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    sandbox.weather.latency = HANG
    before = sandbox.counters.snapshot().total.requests
    print("go", file=process.stdin, flush=True)
    while sandbox.counters.snapshot().total.requests == before:
        time.sleep(0.01)
    start = time.perf_counter()
    process.send_signal(signal.SIGINT)
    line = process.stdout.readline()
    assert time.perf_counter() - start < sandbox.weather.latency, "it did not wait for the answer"
    word, more_sockets = line.split()
    assert word == "interrupted"
    assert int(more_sockets) <= 0  # the requests that were under way took their connections with them
    sandbox.weather.latency = 0.0
    print("go on", file=process.stdin, flush=True)
    assert finish(process) == "alive\n"


# -- fork and spawn ----------------------------------------------------------------------------------------------------

FORK = ["-W", "ignore:This process:DeprecationWarning"]  # CPython 3.12 warns of forks beside threads


@needs_fork
def test_forked_workers_use_a_client_of_their_parent(program: Program, head: str) -> None:
    text = """
import multiprocessing
check(client)                       # open before the fork
view, graph = client.at(version=1412), client.chunkedgraph

def work(k):
    check(client)
    check(view)
    graph.segmentation_info()
    return os.getpid(), client.stats.requests

if __name__ == "__main__":
    with multiprocessing.get_context("fork").Pool(3) as pool:
        results = pool.map(work, range(12), chunksize=1)
        check(client)               # at the same time
        pool.close()
        pool.join()
    assert os.getpid() not in {pid for pid, _ in results}
    check(client)
    check(view)
    print(len(results))
"""
    assert finish(program(head + text, *FORK)) == "12\n"


@needs_fork
def test_a_child_that_ends_as_programs_do_harms_neither_itself_nor_its_parent(program: Program, head: str) -> None:
    # its interpreter collects everything, its parent's open connections among it
    text = """
import gc
check(client)
for use in (False, True):
    pid = os.fork()
    if pid == 0:
        if use:
            check(client)
        del client
        gc.collect()
        sys.exit(0)
    assert os.waitpid(pid, 0)[1] == 0
    check(client)
print("unharmed")
"""
    assert finish(program(head + text, *FORK)) == "unharmed\n"


@needs_fork
def test_children_of_children(program: Program, head: str) -> None:
    text = """
def descend(depth):
    check(client)
    if depth:
        pid = os.fork()
        if pid == 0:
            descend(depth - 1)
            sys.exit(0)
        assert os.waitpid(pid, 0)[1] == 0
        check(client)

descend(3)
print("done")
"""
    assert finish(program(head + text, *FORK)) == "done\n"


@needs_fork
def test_a_fork_at_any_moment(program: Program, head: str) -> None:
    """Other threads are in the middle of calls when the process forks."""
    text = """
import threading
check(client)
stop = threading.Event()

def busy():
    while not stop.is_set():
        check(client)

threads = [threading.Thread(target=busy) for _ in range(4)]
for thread in threads:
    thread.start()
for _ in range(20):
    pid = os.fork()
    if pid == 0:
        check(client)
        os._exit(0)
    assert os.waitpid(pid, 0)[1] == 0
stop.set()
for thread in threads:
    thread.join()
print("done")
"""
    assert finish(program(head + text, *FORK)) == "done\n"


@needs_fork
def test_what_cannot_follow_into_a_child_says_so(program: Program, head: str) -> None:
    text = """
import asyncio, httpx
from cortexclient import AsyncCortexClient, CortexUsageError, SyncStream
from cortexclient._fanout import stream

async def fetch(one):
    return one

def refused(call):
    try:
        call()
    except CortexUsageError as error:
        print(error)

given = CortexClient("minnie_public", http_client=httpx.AsyncClient())
outcomes = SyncStream(stream(roots, fetch, workers=1), client)
next(outcomes)
pid = os.fork()
if pid == 0:
    refused(lambda: next(outcomes))
    refused(lambda: given.info)
    outcomes.close()
    os._exit(0)
assert os.waitpid(pid, 0)[1] == 0
assert len(list(outcomes)) == len(roots) - 1
"""
    first, second = finish(program(head + text, *FORK)).splitlines()
    assert "belongs to the process" in first
    assert "http_client" in second


def test_spawned_workers_get_a_pickled_client(program: Program, head: str) -> None:
    text = """
import multiprocessing

def work(client, k):
    check(client, roots[:k])
    return k

if __name__ == "__main__":
    check(client)
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        print(sorted(pool.starmap(work, [(client, 3), (client, 5), (client.at(version=1412), 7)])))
        pool.close()
        pool.join()
"""
    assert finish(program(head + text)) == "[3, 5, 7]\n"


# -- the end of the interpreter ----------------------------------------------------------------------------------------


def test_a_client_that_is_left_open_closes_with_the_interpreter(program: Program, head: str) -> None:
    # a clean-up that does not end would hold it up for longer than the test waits
    text = "from cortexclient import _portal\n_portal.CLEANUP = 1e6\ncheck(client)\nprint('last line')"
    assert finish(program(head + text)) == "last line\n"


def test_the_interpreter_does_not_wait_for_what_is_under_way(program: Program, head: str, sandbox: Sandbox) -> None:
    text = """
import threading
from cortexclient import SyncStream
from cortexclient._fanout import stream
import asyncio

async def fetch(one):
    await asyncio.sleep(0.01 if one == 1 else 60)
    return one

check(client)
outcomes = SyncStream(stream(np.array([1, 2, 3]), fetch, workers=3), client)
print(next(outcomes).id)
sys.stdin.readline()
threading.Thread(target=client.chunkedgraph.get_leaves_many, args=(roots,), daemon=True).start()
time.sleep(0.5)
print("last line")
"""
    process = program(head + text)
    assert process.stdin is not None
    assert process.stdout is not None
    assert process.stdout.readline() == "1\n"
    sandbox.weather.latency = 60.0
    print("go", file=process.stdin, flush=True)
    assert process.stdout.readline() == "last line\n"
    start = time.perf_counter()
    assert finish(process) == ""
    assert time.perf_counter() - start < sandbox.weather.latency


def test_asynchronous_and_blocking_clients_side_by_side(program: Program, head: str) -> None:
    text = """
import asyncio
from cortexclient import AsyncCortexClient

async def main():
    async with AsyncCortexClient("minnie_public") as other:
        check(client)
        assert (await other.chunkedgraph.is_latest_roots(roots)).tolist() == expected

asyncio.run(main())
check(client)
print("both")
"""
    assert finish(program(head + text)) == "both\n"
