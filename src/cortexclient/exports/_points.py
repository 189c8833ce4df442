"""Points as PostGIS writes them (EWKB), to three columns of whole voxels."""

from __future__ import annotations

import binascii
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import numpy.typing as npt

from ..errors import DecodeError
from ..frames import AXES

if TYPE_CHECKING:
    import polars as pl
    import pyarrow as pa

Z_FLAG: Final = 0x8000_0001
SRID_FLAG: Final = 0x2000_0000
"""https://postgis.net/docs/using_postgis_dbmanagement.html#EWKB_EWKT: point 1, Z 0x80000000, SRID 0x20000000."""
PLAIN: Final = np.dtype([("order", "u1"), ("kind", "<u4"), ("at", "<f8", 3)])
WITH_SRID: Final = np.dtype([("order", "u1"), ("kind", "<u4"), ("srid", "<i4"), ("at", "<f8", 3)])
FORMS: Final = {2 * PLAIN.itemsize: (PLAIN, Z_FLAG), 2 * WITH_SRID.itemsize: (WITH_SRID, Z_FLAG | SRID_FLAG)}


def decode_hex(texts: pa.BinaryArray) -> npt.NDArray[np.float64]:
    """Coordinates of points in hex EWKB, shape (n, 3), float64; NaN where there is none.

    Raises
    ------
    DecodeError
        Something is no point with three coordinates.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    lengths = pc.binary_length(texts).fill_null(0).to_numpy(zero_copy_only=False)
    points = np.full((len(texts), 3), np.nan)
    for length in np.unique(lengths[lengths > 0]).tolist():
        rows = lengths == length
        chosen = texts.filter(pa.array(rows))
        form, kind = FORMS.get(length, (PLAIN, Z_FLAG))
        try:
            packed = np.frombuffer(
                binascii.unhexlify(memoryview(chosen.buffers()[2] or b"")[: length * len(chosen)]), form
            )
        except ValueError as error:
            raise _no_point(chosen) from error
        if ((packed["order"] != 1) | (packed["kind"] != kind)).any():
            raise _no_point(chosen)
        points[rows] = packed["at"]
    return points


def _no_point(texts: Any) -> DecodeError:
    return DecodeError(f"no points with three coordinates (little-endian EWKB in hex) begin {texts[0].as_py()[:70]!r}")


def split_binary(frame: pl.LazyFrame, schema: pl.Schema) -> pl.LazyFrame:
    """Put ``{p}_position_x``, ``_y``, ``_z`` (Int32) in the place of each binary ``{p}_position``; nothing is read.

    The coordinates are the last 24 bytes, with a reference system or without.
    """
    import polars as pl

    columns: list[pl.Expr] = []
    for name, kind in schema.items():
        if kind != pl.Binary or not name.endswith("_position"):
            columns.append(pl.col(name))
            continue
        for axis, start in zip(AXES, (-24, -16, -8), strict=True):
            value = pl.col(name).bin.slice(start, 8).bin.reinterpret(dtype=pl.Float64, endianness="little")
            columns.append(value.cast(pl.Int32).alias(name + axis))
    return frame.select(columns)
