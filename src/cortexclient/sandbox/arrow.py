"""Bodies of table queries, as MaterializationEngine 5.26 writes them: Arrow IPC streams and JSON records.

The real server serialises pandas frames with nullable dtypes; readers get those dtypes back from the ``pandas`` entry
of the schema's metadata, which is written here by hand, so that no pandas is needed.
"""

from __future__ import annotations

import json
from typing import Any, Final, Literal

import numpy as np
import numpy.typing as npt
import orjson
import polars as pl
import pyarrow as pa

Ids = npt.NDArray[np.int64]

CONTENT_TYPE: Final = "data.arrow"
INDEX: Final = "__index_level_0__"

_ARROW: Final[dict[pl.DataType, pa.DataType]] = {
    pl.Int64(): pa.int64(),
    pl.Int32(): pa.int32(),
    pl.Float32(): pa.float32(),
    pl.Float64(): pa.float64(),
    pl.Boolean(): pa.bool_(),
    pl.String(): pa.string(),
    pl.Null(): pa.null(),
    pl.Datetime("ns"): pa.timestamp("ns"),
    pl.Datetime("ns", "UTC"): pa.timestamp("ns", "UTC"),
}

_PANDAS: Final[dict[pl.DataType, tuple[str, str]]] = {
    pl.Int64(): ("int64", "Int64"),
    pl.Int32(): ("int32", "Int32"),
    pl.Float32(): ("float32", "Float32"),
    pl.Float64(): ("float64", "Float64"),
    pl.Boolean(): ("bool", "boolean"),
    pl.String(): ("unicode", "string"),
    pl.Null(): ("empty", "object"),
    pl.Datetime("ns"): ("datetime", "datetime64[ns]"),
    pl.Datetime("ns", "UTC"): ("datetimetz", "datetime64[ns]"),
}
"""Column type -> how pandas calls it, with and without its nullable extension types."""


def wire_types(frame: pl.DataFrame, *, view: bool) -> pl.DataFrame:
    """Give each column the type that the server would send.

    Columns of tables are read by their declared types (Float is 32 bits, times are UTC). Those of views are not in the
    server's list of types: they keep the database's (64 bits, times without zone), and have none if there are no rows.
    The latter goes for strings everywhere.
    """
    casts = []
    for name, dtype in frame.schema.items():
        if dtype.is_float() or dtype.is_decimal():
            casts.append(pl.col(name).cast(pl.Float64 if view else pl.Float32))
        elif isinstance(dtype, pl.Datetime):
            time = pl.col(name).cast(pl.Datetime("ns"))
            casts.append(time if view else time.dt.replace_time_zone("UTC"))
        elif dtype == pl.String and frame[name].null_count() == frame.height:
            casts.append(pl.lit(None, pl.Null).alias(name))
    typed = frame.with_columns(casts)
    if view and frame.is_empty():
        untyped = [c for c in frame.columns if frame.schema[c] != pl.Int32]
        typed = typed.with_columns(pl.lit(None, pl.Null).alias(c) for c in untyped)
    return typed


def to_stream(frame: pl.DataFrame, accept_encoding: str, *, index: Ids | None = None, nullable: bool = True) -> bytes:
    """An Arrow IPC stream: schema, one record batch (also for no rows), end of stream.

    Parameters
    ----------
    frame
        Columns of the types that `wire_types` makes.
    accept_encoding
        The request's header: ``lz4`` or ``zstd`` in it compress the buffers (the former wins).
    index
        Row labels left over by a filter; None: 0, 1, 2... An index that is no range travels as a column of its own
        (pandas does that), which readers other than pandas see.
    nullable
        False for counts, which come in a plain numpy frame.
    """
    frame = frame.rechunk()
    arrays = [frame[name].to_arrow().cast(_ARROW[dtype]) for name, dtype in frame.schema.items()]
    fields = [pa.field(name, _ARROW[dtype]) for name, dtype in frame.schema.items()]
    step = _range_step(index) if index is not None else 1
    if index is not None and step is None:
        arrays.append(pa.array(index))
        fields.append(pa.field(INDEX, pa.int64()))
    labels = _index_metadata(frame.height, index, step)
    schema = pa.schema(fields, metadata={"pandas": json.dumps(_pandas_metadata(frame, labels, nullable=nullable))})
    batch = pa.RecordBatch.from_arrays(arrays, schema=schema)
    codec: Literal["lz4", "zstd"] | None = "lz4" if "lz4" in accept_encoding else None
    if codec is None and "zstd" in accept_encoding:
        codec = "zstd"
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, batch.schema, options=pa.ipc.IpcWriteOptions(compression=codec)) as writer:
        writer.write_batch(batch)
    body: bytes = sink.getvalue().to_pybytes()
    return body


def to_records(frame: pl.DataFrame) -> bytes:
    """JSON records as pandas writes them: times in epoch milliseconds (floor), floats with ten decimals."""
    casts = []
    for name, dtype in frame.schema.items():
        if dtype.is_float():
            casts.append(pl.col(name).cast(pl.Float64).round(10))
        elif isinstance(dtype, pl.Datetime):
            casts.append(pl.col(name).dt.epoch("ms"))
    return orjson.dumps(frame.with_columns(casts).to_dicts())


def _range_step(index: Ids) -> int | None:
    """The step of labels that are evenly spaced; None if they are not a range to pandas, as fewer than two are not."""
    steps = np.unique(np.diff(index))
    return int(steps[0]) if len(steps) == 1 else None


def _index_metadata(height: int, index: Ids | None, step: int | None) -> list[Any]:
    if step is None:
        return [INDEX]
    start = 0 if index is None else int(index[0])
    stop = height if index is None else int(index[-1]) + step
    return [{"kind": "range", "name": None, "start": start, "stop": stop, "step": step}]


def _pandas_metadata(frame: pl.DataFrame, labels: list[Any], *, nullable: bool) -> dict[str, Any]:
    columns = []
    for name, dtype in frame.schema.items():
        kind, extension = _PANDAS[dtype]
        zone = {"timezone": "UTC"} if kind == "datetimetz" else None
        numpy_type = extension if nullable else kind
        columns.append(_column(name, name, kind, numpy_type, zone))
    if labels == [INDEX]:
        columns.append(_column(None, INDEX, "int64", "int64", None))
    return {
        "index_columns": labels,
        "column_indexes": [_column(None, None, "unicode", "object", {"encoding": "UTF-8"})],
        "columns": columns,
        "creator": {"library": "pyarrow", "version": "20.0.0"},
        "pandas_version": "2.3.0",
    }


def _column(
    name: str | None, field: str | None, kind: str, numpy_type: str, metadata: dict[str, str] | None
) -> dict[str, Any]:
    return {"name": name, "field_name": field, "pandas_type": kind, "numpy_type": numpy_type, "metadata": metadata}
