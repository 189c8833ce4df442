"""Arrow bodies: whole or refused."""

from __future__ import annotations

import random

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cortexclient import DecodeError
from cortexclient._wire.arrow import decode_table

ONE_APART = [2**53, 2**53 + 1, 864691135858491438, 864691135858491439]


def stream(table: pa.Table, compression: str | None = None, rows: int = 2) -> bytes:
    sink = pa.BufferOutputStream()
    options = pa.ipc.IpcWriteOptions(compression=compression)
    with pa.ipc.new_stream(sink, table.schema, options=options) as writer:
        writer.write_table(table, max_chunksize=rows)
    return sink.getvalue().to_pybytes()


@pytest.fixture
def table() -> pa.Table:
    return pa.table({"id": ONE_APART, "name": ["a", None, "c", "d"], "x": [1.5, None, 0.0, -2.0]})


@pytest.mark.parametrize("compression", [None, "zstd", "lz4"])
def test_a_table_survives_the_round_trip(table: pa.Table, compression: str | None) -> None:
    decoded = decode_table(stream(table, compression))
    assert decoded.equals(table)
    assert decoded["id"].to_pylist() == ONE_APART


def test_the_index_of_the_servers_frame_is_no_column(table: pa.Table) -> None:
    carried = table.append_column("__index_level_0__", pa.array([0, 5, 6, 9])).replace_schema_metadata({"pandas": "{}"})
    decoded = decode_table(stream(carried))
    assert decoded.column_names == table.column_names
    assert not decoded.schema.metadata


def test_an_empty_table_keeps_its_types(table: pa.Table) -> None:
    assert decode_table(stream(table.slice(0, 0))).schema == table.schema


@pytest.mark.parametrize("compression", [None, "zstd"])
def test_a_stream_cut_anywhere_is_refused(table: pa.Table, compression: str | None) -> None:
    body = stream(table, compression)
    for end in range(len(body)):
        with pytest.raises(DecodeError):
            decode_table(body[:end])


@given(body=st.binary(max_size=200))
def test_random_bytes_are_refused(body: bytes) -> None:
    for tried in (body, body + b"\xff\xff\xff\xff\0\0\0\0"):
        with pytest.raises(DecodeError):
            decode_table(tried)


def test_a_damaged_stream_is_a_decode_error_or_a_table(table: pa.Table) -> None:
    body = stream(table, "zstd")
    rng = random.Random(0)
    for _ in range(500):
        damaged = bytearray(body)
        damaged[rng.randrange(len(body))] ^= 1 << rng.randrange(8)
        try:
            decoded = decode_table(bytes(damaged))
        except DecodeError:
            continue
        assert isinstance(decoded, pa.Table)


@pytest.mark.parametrize("body", [b"", b"<html>login</html>", b'{"message": "no"}'])
def test_what_is_no_stream_says_so(body: bytes) -> None:
    with pytest.raises(DecodeError, match="Arrow stream"):
        decode_table(body)
