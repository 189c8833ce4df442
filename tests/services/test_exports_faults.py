"""Bulk exports that break: resumed, or told, and never half in the cache."""

from __future__ import annotations

import asyncio
import gzip
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from cortexclient import AsyncCortexClient, RetryPolicy
from cortexclient.errors import (
    ConnectError,
    CortexError,
    DeadlineExceeded,
    DecodeError,
    MissingPermission,
    NotFoundError,
    ServerError,
    UnavailableError,
)
from cortexclient.exports import _convert, _fetch, _service
from cortexclient.sandbox import Faults, Sandbox, World

from .conftest import client_of

QUICK = RetryPolicy(attempts=3, base=0.001, cap=0.002)
ROWS = 20_000
HEADER = b"id,bigint\nvalid,boolean\ntag,character varying\nsize,double precision\n"
LINES = [f"{864691135000000001 + n},{'tf'[n % 2]},tag {n},{n / 4}\n".encode() for n in range(ROWS)]
DUMP = gzip.compress(b"".join(LINES))
DATA = r"t\.csv\.gz$"


@pytest.fixture(scope="module")
def lab() -> Iterator[Sandbox]:
    """A sandbox whose bucket ``lab`` holds what each test puts there."""
    with Sandbox(World.synthesize(4, nuclei=20, edits=10, synapses=20, versions=1, expired=0)) as sandbox:
        yield sandbox


@pytest.fixture
async def client(flavour: str, lab: Sandbox) -> Any:
    lab.faults = ""
    lab.world.files.clear()
    put(lab, DUMP)
    async with client_of(flavour, lab, retry=QUICK) as client:
        client.set_export_cloudpath("gs://lab/exports")
        yield client
    lab.faults = ""


def put(lab: Sandbox, dump: bytes, header: bytes | None = HEADER) -> None:
    lab.world.files["lab/exports/v7/t.csv.gz"] = dump
    if header is not None:
        lab.world.files["lab/exports/v7/t_header.csv"] = header


def kept() -> list[Path]:
    """What is in the cache."""
    folder = _fetch.cache_folder() / "exports"
    return sorted(folder.iterdir()) if folder.is_dir() else []


async def table(client: AsyncCortexClient) -> pd.DataFrame:
    return await client.exports.get_table("t", 7)


async def test_the_calm_day(client: AsyncCortexClient) -> None:
    frame = await table(client)
    assert frame["id"].tolist() == [864691135000000001 + n for n in range(ROWS)]
    assert frame["valid"].tolist() == [n % 2 == 0 for n in range(ROWS)]
    assert frame["size"].dtype == np.float64
    assert [path.suffix for path in kept()] == [".parquet"]


# -- the server --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["503", "429", "502", "reset", "reset-body", "truncated", "short", "slow"])
async def test_one_fault_is_lived_through(client: AsyncCortexClient, lab: Sandbox, kind: str) -> None:
    """Wherever it falls: on the list, the header or the data."""
    for only in ("/storage/lab$", "header", DATA):
        lab.faults = Faults(kind, only=only, times=1, slow_seconds=0.05)
        await client.exports.reset_available_files()
        assert len(await table(client)) == ROWS
        assert lab.faults.dealt == 1
        for path in kept():
            path.unlink()


@pytest.mark.parametrize(
    ("kind", "error"),
    [
        ("403", MissingPermission),
        ("401", MissingPermission),
        ("404", NotFoundError),
        ("503", ServerError),
        ("reset", ConnectError),
        ("truncated", ConnectError),
    ],
)
@pytest.mark.parametrize("only", ["/storage/lab$", DATA])
async def test_a_lasting_fault_is_told(
    client: AsyncCortexClient, lab: Sandbox, kind: str, error: type[CortexError], only: str
) -> None:
    lab.faults = Faults(kind, only=only)
    with pytest.raises(error, match="gs://lab/exports"):
        await table(client)
    assert [path for path in kept() if path.suffix != ".part"] == []
    lab.faults = ""
    assert len(await table(client)) == ROWS


async def test_a_broken_download_goes_on_where_it_broke(
    client: AsyncCortexClient, lab: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_fetch, "PIECE", 1024)
    lab.faults = Faults("reset-body", only=DATA)
    with pytest.raises(ConnectError):
        await table(client)
    (part,) = kept()
    had = part.stat().st_size
    assert 0 < had < len(DUMP)
    assert part.read_bytes() == DUMP[:had]
    lab.faults = ""
    told: list[Any] = []
    lab.counters.reset()
    frame = await client.exports.get_table("t", 7, progress=told.append)
    assert len(frame) == ROWS
    objects = lab.counters.snapshot().routes["GET /storage/{bucket}/{path:path}"]  # and not the lists
    assert objects.bytes_out == len(HEADER) + len(DUMP) - had
    assert [report.total for report in told if report.done == len(DUMP)] == [len(DUMP)]
    assert told[-1].done == ROWS
    assert [path.suffix for path in kept()] == [".parquet"]


async def test_a_part_of_another_object_is_not_gone_on_with(
    client: AsyncCortexClient, lab: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_fetch, "PIECE", 1024)
    lab.faults = Faults("reset-body", only=DATA)
    with pytest.raises(ConnectError):
        await table(client)
    lab.faults = ""
    put(lab, gzip.compress(b"".join(LINES[:10])))
    await client.exports.reset_available_files()
    assert len(await table(client)) == 10


async def test_what_was_replaced_meanwhile_is_told(client: AsyncCortexClient, lab: Sandbox) -> None:
    await client.exports.available_files()
    put(lab, gzip.compress(b"".join(reversed(LINES))))
    with pytest.raises(UnavailableError, match="replaced"):
        await table(client)
    assert (await table(client))["id"][0] == 864691135000000000 + ROWS


async def test_bytes_that_are_not_those_promised_are_not_kept(
    client: AsyncCortexClient, lab: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    await client.exports.available_files()
    other = bytearray(DUMP)
    other[len(other) // 2] ^= 1
    lab.world.files["lab/exports/v7/t.csv.gz"] = bytes(other)
    promised = lab.world.exports.md5("-", DUMP)
    with monkeypatch.context() as patch:  # a server that does not notice
        patch.setattr(lab.world.exports, "md5", lambda *_: promised)
        with pytest.raises(DecodeError, match="MD5"):
            await table(client)
    assert kept() == []


async def test_a_deadline_leaves_nothing_half(client: AsyncCortexClient, lab: Sandbox) -> None:
    lab.faults = Faults("slow", only=DATA, slow_seconds=5)
    with pytest.raises(DeadlineExceeded):
        await client.exports.get_table("t", 7, timeout=0.3)
    assert [path for path in kept() if path.suffix != ".part"] == []


async def test_a_conversion_that_is_called_off_leaves_nothing_half(
    client: AsyncCortexClient, lab: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    read, begun = _convert._Text.read, threading.Event()

    def endless(self: Any, size: int = -1) -> bytes:
        begun.set()
        while not self.stopped:
            time.sleep(0.001)
        return read(self, size)

    monkeypatch.setattr(_convert._Text, "read", endless)
    for seconds in (0.3, 3.0, 30.0):  # on a busy machine the first may not reach the conversion
        with pytest.raises(DeadlineExceeded):
            await client.exports.get_table("t", 7, timeout=seconds)
        if begun.is_set():
            break
    assert begun.is_set()
    while [path.suffix for path in kept()] != [".part"]:  # the thread ends by itself
        await asyncio.sleep(0.001)
    lab.counters.reset()
    monkeypatch.setattr(_convert._Text, "read", read)
    assert len(await table(client)) == ROWS
    objects = lab.counters.snapshot().routes["GET /storage/{bucket}/{path:path}"]
    assert objects.bytes_out == len(HEADER), "the data was there, whole"


async def test_another_process_may_be_faster(flavour: str, lab: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both fetch the same file; who converts it first clears it up."""
    fetch, faster = _service.fetch, []

    async def late(*arguments: Any) -> None:
        await fetch(*arguments)
        if not faster:
            faster.append(client_of("async", lab))
            faster[0].set_export_cloudpath("gs://lab/exports")
            faster.append(await table(faster[0]))
            await faster[0].aclose()

    lab.world.files.clear()
    put(lab, DUMP)
    monkeypatch.setattr(_service, "fetch", late)
    async with client_of(flavour, lab) as client:
        client.set_export_cloudpath("gs://lab/exports")
        assert len(await table(client)) == len(faster[1]) == ROWS
    assert [path.suffix for path in kept()] == [".parquet"]


# -- the files ---------------------------------------------------------------------------------------------------------


def damaged() -> dict[str, bytes]:
    flipped = bytearray(DUMP)
    flipped[len(flipped) // 2] ^= 0xFF
    bad_sum = bytearray(DUMP)
    bad_sum[-8] ^= 1
    return {
        "flipped": bytes(flipped),
        "bad checksum": bytes(bad_sum),
        "cut": DUMP[: len(DUMP) // 2],
        "cut at the end": DUMP[:-3],
        "no gzip": b"".join(LINES),
        "cut line": gzip.compress(b"".join(LINES)[:-3]),
        "other columns": gzip.compress(b"1,2\n" * 10),
        "columns that change": gzip.compress(b"".join(LINES[:100]) + b"1,t,x\n"),
        "no number": gzip.compress(b"".join(LINES[:100]) + b"one,t,x,1\n"),
        "no flag": gzip.compress(b"1,maybe,x,1\n"),
        "too large": gzip.compress(b"9223372036854775808,t,x,1\n"),
    }


@pytest.mark.parametrize("kind", damaged())
async def test_a_damaged_dump_is_told_and_not_kept(client: AsyncCortexClient, lab: Sandbox, kind: str) -> None:
    put(lab, damaged()[kind])
    with pytest.raises(DecodeError, match=r"gs://lab/exports/v7/t\.csv\.gz"):
        await table(client)
    assert kept() == []
    put(lab, DUMP)
    await client.exports.reset_available_files()
    assert len(await table(client)) == ROWS


@pytest.mark.parametrize("header", [None, b"", b"id\nvalid\n", b"id,bigint\nid,bigint\n", b"id,bigint\n"])
async def test_a_dump_without_a_good_header_is_told(
    client: AsyncCortexClient, lab: Sandbox, header: bytes | None
) -> None:
    lab.world.files.clear()
    put(lab, DUMP, header)
    with pytest.raises(DecodeError, match=r"t_header\.csv|header names 1"):
        await table(client)
    assert kept() == []


async def test_a_file_of_the_users_own_is_never_removed(client: AsyncCortexClient, tmp_path: Path) -> None:
    folder = tmp_path / "mine" / "v7"
    folder.mkdir(parents=True)
    (folder / "t.csv.gz").write_bytes(DUMP[:-3])
    (folder / "t_header.csv").write_bytes(HEADER)
    client.set_export_cloudpath(str(tmp_path / "mine"))
    with pytest.raises(DecodeError):
        await table(client)
    (folder / "t.csv.gz").write_bytes(DUMP)
    await client.exports.reset_available_files()
    assert len(await table(client)) == ROWS
    assert (folder / "t.csv.gz").read_bytes() == DUMP
