"""A server that costs next to nothing: every request gets the same short answer after a delay.

Measuring a client against a server that needs more CPU than the client measures the server. This one parses only what
keep-alive needs (the end of the headers and Content-Length) and takes about 0.06 ms a request.

    python benchmarks/small_server.py --delay 0.02      # prints its port, runs until its stdin closes
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import multiprocessing
import re
import selectors
import sys
from collections.abc import Iterator
from multiprocessing.connection import Connection

LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)


def answer_of(size: int) -> bytes:
    """A whole HTTP answer with ``size`` bytes of body."""
    head = (
        f"HTTP/1.1 200 OK\r\nserver: small\r\ndate: Thu, 01 Jan 2026 00:00:00 GMT\r\n"
        f"content-type: application/octet-stream\r\ncontent-length: {size}\r\n\r\n"
    )
    return head.encode() + bytes(size)


class SmallServer(asyncio.Protocol):
    """One connection: answers each request ``delay`` seconds after its last byte."""

    def __init__(self, delay: float, answer: bytes) -> None:
        self.delay = delay
        self.answer = answer
        self.pending = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        self.loop = asyncio.get_running_loop()

    def data_received(self, data: bytes) -> None:
        self.pending = self.pending + data if self.pending else data
        while (end := self.pending.find(b"\r\n\r\n")) >= 0:
            found = LENGTH.search(self.pending, 0, end)
            size = end + 4 + (int(found[1]) if found else 0)
            if len(self.pending) < size:
                return
            self.pending = self.pending[size:]
            self.loop.call_later(self.delay, self.transport.write, self.answer)


def precise_loop() -> asyncio.AbstractEventLoop:
    """A loop on select(): epoll rounds every wait up to a whole millisecond, which is 5 % of 20 ms."""
    return asyncio.SelectorEventLoop(selectors.SelectSelector())


async def serve(delay: float, size: int, tell: Connection | None = None) -> None:
    answer = answer_of(size)
    server = await asyncio.get_running_loop().create_server(lambda: SmallServer(delay, answer), "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    if tell is None:
        print(port, flush=True)
        await asyncio.to_thread(sys.stdin.read)
        return
    tell.send(port)
    await server.serve_forever()


def _main(delay: float, size: int, tell: Connection) -> None:
    with asyncio.Runner(loop_factory=precise_loop) as runner:
        runner.run(serve(delay, size, tell))


@contextlib.contextmanager
def running(delay: float, size: int = 64) -> Iterator[str]:
    """The origin of a server in a process of its own."""
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe()
    process = context.Process(target=_main, args=(delay, size, there), daemon=True)
    process.start()
    try:
        yield f"http://127.0.0.1:{here.recv()}"
    finally:
        process.terminate()
        process.join()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--delay", type=float, default=0.02, help="seconds before each answer")
    parser.add_argument("--size", type=int, default=64, help="bytes of each body")
    options = parser.parse_args()
    with asyncio.Runner(loop_factory=precise_loop) as runner:
        runner.run(serve(options.delay, options.size))
