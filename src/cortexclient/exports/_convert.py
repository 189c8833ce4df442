"""A gzipped dump to typed Parquet, in one pass and in bounded memory."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, cast

import numpy as np
import numpy.typing as npt

from ..errors import DecodeError
from ..frames import AXES
from ._columns import GEOMETRY, TIMES, Column, has_header_row
from ._points import decode_hex

if TYPE_CHECKING:
    import pyarrow as pa

BLOCK: Final = 1 << 20
"""Bytes of text that are parsed at once; more costs memory and gains nothing."""
ROWS: Final = 1 << 18
"""Of a row group."""
START: Final = 1 << 16
"""Bytes in which the first record ends."""


class _Text:
    """A gzipped file as the text in it, for Arrow's reader; what is wrong with it is told as such."""

    closed = False

    def __init__(self, path: Path, url: str) -> None:
        from isal import igzip

        self._file: Any = igzip.open(path, "rb")  # type: ignore[no-untyped-call]
        self._url = url
        self.stopped = False
        self.last = b"\n"

    def read(self, size: int = -1) -> bytes:
        """Give the next bytes of the text."""
        import zlib

        if self.stopped:
            raise InterruptedError("nobody waits for this any more")
        try:
            data: bytes = self._file.read(size)
        except (OSError, EOFError, zlib.error) as error:
            raise DecodeError(f"{self._url} is damaged or cut off: {error}") from error
        self.last = data[-1:] or self.last
        return data

    def start(self) -> str:
        """The beginning of the text, read again afterwards."""
        text = self.read(START).decode(errors="replace")
        self._file.seek(0)
        return text

    def close(self) -> None:
        self._file.close()


class _NotWhole(Exception):
    """A point lies between voxels: all points must be floats."""


class Conversion:
    """The making of a Parquet file from a dump, in a thread.

    Parameters
    ----------
    source
        The dump.
    target
        Where the result is to be: it is there whole, or not at all.
    columns
        Of the dump.
    url
        What the dump is called in errors.
    tell
        Is told how many rows were written, from the thread.

    Notes
    -----
    Points become ``{p}_x``, ``_y``, ``_z``: Int32, or Float64 if any of the whole table lies between voxels. Times are
    UTC microseconds. Integers are delta-packed, which is a third smaller than the gzipped text and costs less than any
    compression. An empty field is null, a quoted empty one the empty text, as PostgreSQL copies them out.
    """

    def __init__(
        self, source: Path, target: Path, columns: list[Column], url: str, tell: Callable[[int], object]
    ) -> None:
        self._source = source
        self._target = target
        self._columns = columns
        self._url = url
        self._tell = tell
        self._text: _Text | None = None
        self._stopped = False
        self._written = 0

    def stop(self) -> None:
        """End it soon, leaving nothing behind."""
        self._stopped = True
        if self._text is not None:
            self._text.stopped = True

    def run(self) -> None:
        """Convert.

        Raises
        ------
        DecodeError
            The dump is damaged, cut off, or not what its header says.
        """
        try:
            self._write(np.int32)
        except _NotWhole:
            self._tell(-self._written)
            self._write(np.float64)

    def _write(self, coordinate: type[np.generic]) -> None:
        import pyarrow.parquet as pq

        self._written = 0
        text = self._text = _Text(self._source, self._url)
        self._target.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=f"{self._target.name}-", suffix=".new", dir=self._target.parent)
        text.stopped = self._stopped
        batches = self._batches(text, coordinate)
        try:
            with os.fdopen(handle, "wb") as file:
                first = next(batches)
                with pq.ParquetWriter(file, first.schema, **_layout(first.schema)) as writer:
                    for table in _grouped(first, batches):
                        writer.write_table(table, row_group_size=len(table) or None)
                        self._written += len(table)
                        self._tell(len(table))
                if text.last != b"\n":
                    raise DecodeError(f"{self._url} ends in the middle of a line: its last row may be cut off")
                file.flush()
                os.fsync(file.fileno())
            Path(name).replace(self._target)
        finally:
            text.close()
            with suppress(FileNotFoundError):
                Path(name).unlink()

    def _batches(self, text: _Text, coordinate: type[np.generic]) -> Iterator[pa.Table]:
        """An empty table with the types of all, then the rows."""
        import pyarrow as pa
        from pyarrow import csv

        skipped = int(has_header_row(text.start(), self._columns, self._url))
        types = {column.name: column.arrow() for column in self._columns}
        empty = pa.schema(types.items()).empty_table()
        yield self._finished(empty, coordinate)
        convert = csv.ConvertOptions(
            column_types=types,
            true_values=["t", "true"],
            false_values=["f", "false"],
            null_values=[""],
            strings_can_be_null=True,
            quoted_strings_can_be_null=False,
        )
        parse = csv.ParseOptions(newlines_in_values=any(column.is_text for column in self._columns))
        for block in _records(text):
            # whole blocks in memory: Arrow's stream reads ahead in threads that may outlive Python, and then never end
            read = csv.ReadOptions(column_names=list(types), use_threads=False, skip_rows=skipped)
            skipped = 0
            try:
                yield self._finished(csv.read_csv(cast(Any, pa.BufferReader(block)), read, parse, convert), coordinate)
            except pa.ArrowInvalid as error:
                if "Empty CSV file" not in str(error):
                    raise DecodeError(f"{self._url} is not what its header says: {str(error)[:300]}") from error

    def _finished(self, table: pa.Table, coordinate: type[np.generic]) -> pa.Table:
        """Points split, times in UTC."""
        import pyarrow as pa

        done: dict[str, Any] = {}
        for column in self._columns:
            values = table.column(column.name)
            if column.sql == TIMES[0]:
                done[column.name] = values.cast(pa.timestamp("us", "UTC"))
            elif column.sql == GEOMETRY:
                points = decode_hex(cast("pa.BinaryArray", values.combine_chunks()))
                done |= {column.name + axis: _axis(points[:, k], coordinate) for k, axis in enumerate(AXES)}
            else:
                done[column.name] = values
        return pa.table(done)


def _records(text: _Text) -> Iterator[bytes]:
    """The text in blocks that end where a record does: at a line break outside quotes."""
    rest = b""
    while data := text.read(BLOCK):
        data = rest + data
        end = data.rfind(b"\n") + 1
        while end and data.count(b'"', 0, end) % 2:
            end = data.rfind(b"\n", 0, end - 1) + 1
        if end:
            yield data[:end]
        rest = data[end:]
    if rest:
        yield rest


def _axis(values: npt.NDArray[np.float64], coordinate: type[np.generic]) -> pa.Array[Any]:
    import pyarrow as pa

    missing = np.isnan(values)
    whole = np.where(missing, 0, values)
    if coordinate is np.int32 and ((whole != np.trunc(whole)) | (np.abs(whole) >= 2**31)).any():
        raise _NotWhole
    return pa.array(whole.astype(coordinate), mask=missing)


def _grouped(first: pa.Table, batches: Iterator[pa.Table]) -> Iterator[pa.Table]:
    """The rows in groups of about `ROWS`."""
    import pyarrow as pa

    waiting, rows = [first], 0
    for batch in batches:
        waiting.append(batch)
        rows += len(batch)
        if rows >= ROWS:
            yield pa.concat_tables(waiting)
            waiting, rows = [], 0
    if waiting:
        yield pa.concat_tables(waiting)


def _layout(schema: pa.Schema) -> dict[str, Any]:
    """How Parquet keeps each column."""
    import pyarrow as pa

    packed = [f.name for f in schema if pa.types.is_integer(f.type) or pa.types.is_timestamp(f.type)]
    text = [field.name for field in schema if pa.types.is_string(field.type)]
    return {
        "compression": {field.name: "none" if field.name in packed else "zstd" for field in schema},
        "use_dictionary": text,
        "column_encoding": dict.fromkeys(packed, "DELTA_BINARY_PACKED"),
    }


def is_whole(path: Path) -> bool:
    """Whether a file that was converted once is there and can still be read."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        pq.read_metadata(path)
    except (FileNotFoundError, pa.ArrowInvalid):
        return False
    return True
