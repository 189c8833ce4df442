"""How fast is the sandbox itself? Small requests over keep-alive connections, from a bare asyncio client.

The server is a child process; its CPU time comes from the kernel (Linux), so a client that is slower than the server
does not distort it.
"""

from __future__ import annotations

import asyncio
import os
import time
from pathlib import Path
from typing import Any

import numpy as np

from cortexclient.sandbox import SandboxProcess, World

from .report import keep

CONNECTIONS = 16
REQUESTS = 4_800


def cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(") ", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def request(sandbox: SandboxProcess, method: str, path: str, body: bytes = b"") -> bytes:
    head = (
        f"{method} {path} HTTP/1.1\r\nHost: {sandbox.url.removeprefix('http://')}\r\n"
        f"Authorization: Bearer {sandbox.token}\r\nAccept: */*\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


async def one_connection(port: int, message: bytes, times: int) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    for _ in range(times):
        writer.write(message)
        head = await reader.readuntil(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200 "), head
        await reader.readexactly(int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0]))
    writer.close()
    await writer.wait_closed()


async def flood(port: int, message: bytes, total: int) -> None:
    await asyncio.gather(*(one_connection(port, message, total // CONNECTIONS) for _ in range(CONNECTIONS)))


def measure(sandbox: SandboxProcess, name: str, message: bytes, rounds: int) -> dict[str, Any]:
    port = int(sandbox.url.rsplit(":", 1)[1])
    asyncio.run(flood(port, message, REQUESTS // 10))
    rates, costs = [], []
    for _ in range(rounds):
        cpu, start = cpu_seconds(sandbox.pid), time.perf_counter()
        asyncio.run(flood(port, message, REQUESTS))
        rates.append(REQUESTS / (time.perf_counter() - start))
        costs.append((cpu_seconds(sandbox.pid) - cpu) / REQUESTS)
    return {"request": name, "per_s": float(np.median(rates)), "server_cpu_ms": float(np.median(costs) * 1e3)}


def run(rounds: int = 3) -> None:
    """Measure requests that cost the handler more and more."""
    world = World.synthesize(nuclei=20_000, edits=20_000)
    nuclei = world.tables["nucleus_detection_v0"].rows["pt_supervoxel_id"].to_numpy()
    nodes = nuclei[nuclei > 0].astype("<u8")
    with SandboxProcess(world) as sandbox:
        roots = f"/segmentation/api/v1/table/{world.graph.table}/roots_binary?timestamp=1700000000"
        rows = [measure(sandbox, "info/health", request(sandbox, "GET", "/info/health"), rounds)]
        for count in (1, 100, 2_000):
            message = request(sandbox, "POST", roots, nodes[:count].tobytes())
            rows.append(measure(sandbox, f"roots_binary, {count} ids", message, rounds))
    keep("foundation", "sandbox server", {"connections": CONNECTIONS, "requests": REQUESTS, "rounds": rounds}, rows)
