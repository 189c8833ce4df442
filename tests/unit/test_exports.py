"""Dumps to typed Parquet, points out of geometries: no network, no bucket."""

from __future__ import annotations

import gzip
import struct
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from cortexclient.errors import DecodeError
from cortexclient.exports import _convert
from cortexclient.exports._columns import has_header_row, read_columns
from cortexclient.exports._convert import Conversion
from cortexclient.exports._points import decode_hex, split_binary


def point(x: float, y: float, z: float, srid: int | None = None) -> bytes:
    """EWKB, written out by hand."""
    kind = struct.pack("<BI", 1, 0x80000001) if srid is None else struct.pack("<BIi", 1, 0xA0000001, srid)
    return kind + struct.pack("<3d", x, y, z)


def converted(folder: Path, text: bytes, header: bytes) -> pa.Table:
    source, target, told = folder / "t.csv.gz", folder / "t.parquet", []
    source.write_bytes(gzip.compress(text))
    Conversion(source, target, read_columns(header, "header"), "dump", told.append).run()
    table = pq.read_table(target)
    assert sum(told) == len(table)
    assert {path.name for path in folder.iterdir()} - {"home"} == {"t.csv.gz", "t.parquet"}
    return table


def columns(folder: Path, text: bytes, header: bytes) -> dict[str, list[Any]]:
    return converted(folder, text, header).to_pydict()


# -- values ------------------------------------------------------------------------------------------------------------


def test_every_type(tmp_path: Path) -> None:
    header = (
        b"a,bigint\nb,integer\nc,smallint\nd,double precision\ne,real\nf,boolean\ng,character varying\nh,text\n"
        b"i,timestamp without time zone\nj,timestamp with time zone\nk,date\nl,numeric\nm,ARRAY\n"
    )
    text = (
        b'9007199254740993,1,2,1.5,2.5,t,x,"a ""b"", c\nd",2020-01-02 03:04:05.678901,2020-01-02 03:04:05+00,'
        b'2020-01-02,12345678901234567890,"{1,2}"\n'
        b",,,,,,,,,,,,\n"
    )
    table = converted(tmp_path, text, header)
    assert table.slice(0, 1).to_pylist() == [
        {
            "a": 9007199254740993,
            "b": 1,
            "c": 2,
            "d": 1.5,
            "e": 2.5,
            "f": True,
            "g": "x",
            "h": 'a "b", c\nd',
            "i": datetime(2020, 1, 2, 3, 4, 5, 678901, tzinfo=UTC),
            "j": datetime(2020, 1, 2, 3, 4, 5, tzinfo=UTC),
            "k": date(2020, 1, 2),
            "l": "12345678901234567890",
            "m": "{1,2}",
        }
    ]
    assert set(table.slice(1).to_pylist()[0].values()) == {None}
    kinds = [str(field.type) for field in table.schema]
    assert kinds[:6] == ["int64", "int32", "int16", "double", "float", "bool"]


def test_an_empty_text_is_not_a_null(tmp_path: Path) -> None:
    assert columns(tmp_path, b'1,""\n2,\n', b"id,bigint\ntag,text\n")["tag"] == ["", None]


def test_a_dump_without_rows(tmp_path: Path) -> None:
    table = converted(tmp_path, b"", b"id,bigint\npt_position,USER-DEFINED\nflag,boolean\n")
    assert len(table) == 0
    assert table.column_names == ["id", "pt_position_x", "pt_position_y", "pt_position_z", "flag"]


def test_two_gzip_members_are_one_dump(tmp_path: Path) -> None:
    source, target = tmp_path / "t.csv.gz", tmp_path / "t.parquet"
    source.write_bytes(gzip.compress(b"1\n") + gzip.compress(b"2\n"))
    Conversion(source, target, read_columns(b"id,bigint\n", "header"), "dump", lambda _: None).run()
    assert pq.read_table(target)["id"].to_pylist() == [1, 2]


def test_rows_come_in_their_order_through_many_groups(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_convert, "ROWS", 1_000)
    monkeypatch.setattr(_convert, "BLOCK", 4_096)
    ids = np.random.default_rng(0).integers(0, 2**62, 20_000)
    text = b"".join(b"%d,t\n" % i for i in ids.tolist())
    assert columns(tmp_path, text, b"id,bigint\nvalid,boolean\n")["id"] == ids.tolist()
    assert pq.read_metadata(tmp_path / "t.parquet").num_row_groups > 10


# -- header rows -------------------------------------------------------------------------------------------------------


def test_a_header_row_is_recognised(tmp_path: Path) -> None:
    header = b"id,bigint\nname,text\n"
    assert columns(tmp_path, b"id,name\n1,a\n2,id\n", header) == {"id": [1, 2], "name": ["a", "id"]}


def test_the_first_record_is_a_row(tmp_path: Path) -> None:
    assert columns(tmp_path, b"1,a\n2,b\n", b"id,bigint\nname,text\n")["id"] == [1, 2]


def test_names_that_are_values_are_decided_by_all_of_them() -> None:
    named = read_columns(b"a,text\nb,text\n", "header")
    assert has_header_row("a,b\n", named, "dump")
    assert has_header_row('"a","b"\n', named, "dump")
    assert not has_header_row("a,c\n", named, "dump")
    assert not has_header_row("", named, "dump")
    with pytest.raises(DecodeError, match="begins with 3 fields"):
        has_header_row("a,b,c\n", named, "dump")


def test_a_header_may_be_quoted() -> None:
    assert [c.sql for c in read_columns(b'"id","bigint"\n"t","timestamp without time zone"\n', "h")] == [
        "bigint",
        "timestamp without time zone",
    ]


# -- points ------------------------------------------------------------------------------------------------------------


def test_points_of_both_forms_and_none() -> None:
    texts = [point(1, 2, 3).hex().upper(), None, point(4, 5, 6.5, srid=0).hex(), point(-7, 8, 9).hex()]
    found = decode_hex(pa.array([t and t.encode() for t in texts], pa.binary()))
    np.testing.assert_array_equal(found, [[1, 2, 3], [np.nan] * 3, [4, 5, 6.5], [-7, 8, 9]])


@pytest.mark.parametrize(
    "text",
    [
        b"00" + point(1, 2, 3).hex().encode()[2:],  # big-endian
        struct.pack("<BI2d", 1, 1, 1, 2).hex().encode(),  # without z
        point(1, 2, 3).hex().encode()[:-2],
        b"x" * 58,
        b"12",
    ],
)
def test_what_is_no_point_is_told(text: bytes) -> None:
    with pytest.raises(DecodeError, match="no points with three coordinates"):
        decode_hex(pa.array([point(1, 2, 3).hex().encode(), text], pa.binary()))


def test_points_are_whole_voxels_unless_one_is_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_convert, "BLOCK", 100)
    monkeypatch.setattr(_convert, "ROWS", 10)
    header = b"pt_position,USER-DEFINED\nid,bigint\n"
    whole = [point(n, 2, 3).hex().encode() + b",%d\n" % n for n in range(50)]
    table = converted(tmp_path, b"".join(whole), header)
    assert [str(field.type) for field in table.schema] == ["int32", "int32", "int32", "int64"]
    table = converted(tmp_path, b"".join([*whole, point(1.5, 2, 3).hex().encode() + b",51\n", b",52\n"]), header)
    assert [str(field.type) for field in table.schema] == ["double", "double", "double", "int64"]
    assert table["pt_position_x"].to_pylist() == [*map(float, range(50)), 1.5, None]


def test_binary_points_of_lakes() -> None:
    frame = pl.LazyFrame(
        {"id": [1, 2, 3], "pt_position": [point(1, -2, 3), None, point(4, 5, 6, srid=4)], "blob": [b"a", b"b", b"c"]}
    )
    found = split_binary(frame, frame.collect_schema()).collect()
    assert found.columns == ["id", "pt_position_x", "pt_position_y", "pt_position_z", "blob"]
    assert found.rows() == [(1, 1, -2, 3, b"a"), (2, None, None, None, b"b"), (3, 4, 5, 6, b"c")]
    assert found.schema["pt_position_x"] == pl.Int32
