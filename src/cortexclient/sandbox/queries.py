"""Queries on tables and views: filters, joins, selections, scaling, limits. All the work is done by polars.

The vocabulary is that of the request bodies (see `query_body`); errors carry the texts of MaterializationEngine 5.26.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import reduce
from typing import Any, Final

import numpy as np
import polars as pl

from .tables import Index, Table, Tables, Version

XYZ: Final = "xyz"
INT64: Final = np.iinfo(np.int64)
DEFAULT_SUFFIXES: Final = ("x", "y", "z", "xx", "yy", "zz")
NUMBER: Final = "row number"
PAGE_ROWS: Final = 47
"""Rows of a database page: what a random sample is made of."""


class Refused(Exception):
    """A query that cannot be answered.

    ``status`` is the code that the case deserves. ``aborted`` tells how the real server came to refuse it: by an HTTP
    abort (its message then begins with the code), or by an exception that slipped through (just the exception's text).
    """

    def __init__(self, message: str, status: int = 400, *, aborted: bool = False) -> None:
        super().__init__(message)
        self.status = status
        self.aborted = aborted


def sql_failure(source: Source, problem: str) -> Refused:
    """What the database would not do; the real message quotes the whole statement."""
    return Refused(f"Execution failed on sql '... FROM {source.name}': {problem}")


@dataclass(frozen=True)
class Source:
    """One table or view as a query sees it.

    Parameters
    ----------
    frame
        Rows, with points as ``_x``, ``_y``, ``_z``.
    columns
        Names to select and filter by, points by their stem. Some (``deleted``) never reach the body.
    resolution
        Nanometres per voxel of the points in ``frame``.
    """

    name: str
    frame: pl.DataFrame
    columns: tuple[str, ...]
    resolution: tuple[float, float, float]
    view: bool = False
    index: Callable[[str], Index] | None = None
    """Finds rows by values of an integer column; None for frames that are made for one query."""

    def is_point(self, column: str) -> bool:
        """Whether the name stands for three columns."""
        return column not in self.frame.columns and f"{column}_x" in self.frame.columns

    def parts(self, column: str) -> list[str]:
        """The columns of the frame that a name stands for; none for what never reaches the body."""
        if self.is_point(column):
            return [f"{column}_{axis}" for axis in XYZ]
        return [column] if column in self.frame.columns else []


@dataclass
class Query:
    """What is asked, the same for all endpoints. ``filters``: kind -> table -> column -> value."""

    filters: Mapping[str, Mapping[str, Mapping[str, Any]]]
    selection: Mapping[str, Sequence[str]] | None = None
    suffixes: Mapping[str, str] = field(default_factory=dict)
    offset: int = 0
    limit: int | None = None
    resolution: tuple[float, ...] | None = None


@dataclass(frozen=True)
class Answer:
    """The rows and columns of an answer, in the types of the tables, and how its columns are called in it."""

    frame: pl.DataFrame
    names: Mapping[str, Mapping[str, str]]
    resolution: tuple[float, ...]


def table_source(tables: Tables, name: str, version: Version) -> Source:
    """A table at a version."""
    table = tables.tables[name]
    columns = model_columns(table, merged=version.is_merged)
    index = functools.partial(tables.index, name, version)
    return Source(name, tables.frozen(name, version), columns, table.voxel_resolution, index=index)


def view_source(tables: Tables, name: str, version: Version) -> Source:
    """A view at a version."""
    frame = tables.view(name, version)
    return Source(name, frame, stems(frame.columns), tables.views[name].voxel_resolution, view=True)


def stems(columns: Iterable[str]) -> tuple[str, ...]:
    """Column names with each ``_x``, ``_y``, ``_z`` folded into its stem."""
    names = list(columns)
    points = {c[:-2] for c in names if c.endswith("_x") and {f"{c[:-2]}_y", f"{c[:-2]}_z"} <= set(names)}
    folded = (c[:-2] if c[:-2] in points and c[-2:] in ("_x", "_y", "_z") else c for c in names)
    return tuple(dict.fromkeys(folded))


def model_columns(table: Table, *, merged: bool) -> tuple[str, ...]:
    """Names of a table's columns in the server's order.

    Merged ("flat") tables have their segmentation columns behind each point, and no bookkeeping; in split ones the
    segmentation columns come last.
    """
    own = [c for c in stems(table.rows.columns) if not c.endswith("_supervoxel_id")]
    segmentation = {f"{p}_position": (f"{p}_supervoxel_id", f"{p}_root_id") for p in table.bound_points}
    if not merged:
        return (*own, *(c for pair in segmentation.values() for c in pair))
    kept = [c for c in own if c not in ("created", "deleted", "superceded_id")]
    return tuple(c for name in kept for c in (name, *segmentation.get(name, ())))


def filtered(source: Source, query: Query) -> pl.DataFrame:
    """The rows of a source that pass all filters on it."""
    numbers = matching(source, query)
    return source.frame if numbers is None else source.frame[numbers]


def matching(source: Source, query: Query) -> pl.Series | None:
    """Numbers of the rows that pass all filters on a source, ascending; None for all of them."""
    asked = {
        (kind, column): value
        for kind, by_table in query.filters.items()
        for column, value in by_table.get(source.name, {}).items()
    }
    indexed = [key for key, value in asked.items() if _is_indexed(source, *key, value)]
    listed = None
    if indexed and source.index:
        wanted = [value for value in asked.pop(indexed[0]) if abs(value) <= INT64.max]
        listed = pl.Series(source.index(indexed[0][1]).find(np.array(wanted, np.int64)))
    conditions = [_condition(source, *key, value) for key, value in asked.items()]
    if not conditions:
        return listed
    needed = {name for condition in conditions for name in condition.meta.root_names()}
    rows = source.frame.select(pl.int_range(pl.len()).alias(NUMBER), *needed)
    try:
        return (rows if listed is None else rows[listed]).filter(conditions)[NUMBER]
    except pl.exceptions.ComputeError as error:
        raise sql_failure(source, f"invalid regular expression: {error}") from error


def _is_indexed(source: Source, kind: str, column: str, value: Any) -> bool:
    """Whether an index finds the rows that a filter lets pass: a list of whole numbers, of an integer column."""
    return (
        kind == "filter_in_dict"
        and column in source.columns
        and source.frame.schema.get(column) == pl.Int64
        and isinstance(value, list)
        and all(type(item) is int for item in value)
    )


def sample(frame: pl.DataFrame, rows: int, seed: int) -> pl.DataFrame:
    """About ``rows`` rows, by whole pages as PostgreSQL's TABLESAMPLE SYSTEM takes them; all if there are no more."""
    if rows >= frame.height:
        return frame
    pages = math.ceil(frame.height / PAGE_ROWS)
    taken = np.random.default_rng(seed).random(pages) < rows / frame.height
    return frame.filter(pl.Series(np.repeat(taken, PAGE_ROWS)[: frame.height]))


def selected(source: Source, wanted: Iterable[str]) -> list[str]:
    """The names that a selection stands for: a root id brings its supervoxel along, just before it."""
    names: dict[str, None] = {}
    for column in wanted:
        supervoxel = column.removesuffix("root_id") + "supervoxel_id"
        if column.endswith("root_id") and supervoxel in source.columns:
            names[supervoxel] = None
        names[column] = None
    return list(names)


def select(source: Source, wanted: Sequence[str] | None, *, strict: bool = False) -> list[str]:
    """Columns of a single table to answer with; all of them if none are named."""
    if wanted is None:
        return list(source.columns)
    for column in wanted:
        if column not in source.columns:
            raise Refused(f"{column} not in model or models for {source.name}")
    names = selected(source, wanted)
    if strict:
        refuse_single_column([(source, names)])
    return names


def refuse_single_column(selections: Sequence[tuple[Source, Sequence[str]]]) -> None:
    """Refuse a selection of just one scalar (MaterializationEngine 5.26: it always fails, having lost the model)."""
    columns = [(source, column) for source, names in selections for column in names]
    if len(columns) == 1 and not columns[0][0].is_point(columns[0][1]):
        source, column = columns[0]
        raise Refused(f"'{_sql_type(source, column)}' object has no attribute '{column}'")


def output_names(
    selections: Sequence[tuple[Source, Sequence[str]]], suffixes: Mapping[str, str]
) -> dict[str, dict[str, str]]:
    """Names in the answer, by table: what several tables have in common gets the table's suffix."""
    order = [source.name for source, _ in selections]
    suffix = dict(zip(order, DEFAULT_SUFFIXES, strict=False)) | {n: s for n, s in suffixes.items() if n in order}
    if len(set(suffix.values())) < len(suffix):
        raise Refused(f"Duplicate suffixes set in {suffix}")
    seen = [column for _, columns in selections for column in columns]
    common = {column for column in seen if seen.count(column) > 1}
    return {
        source.name: {column: column + suffix[source.name] if column in common else column for column in columns}
        for source, columns in selections
    }


def prefixed(name: str, rows: pl.DataFrame) -> pl.DataFrame:
    """The rows with their columns called ``name.column``."""
    return rows.rename({column: f"{name}.{column}" for column in rows.columns})


def joined(sides: Sequence[tuple[Source, pl.DataFrame]], keys: Sequence[tuple[str, str, str, str]]) -> pl.DataFrame:
    """Rows of several sources joined (inner), columns as ``source.column``.

    Parameters
    ----------
    sides
        Sources, and those of their rows that take part; the order of the first one's rows is kept.
    keys
        ``(table, column, table, column)``: which columns must be equal.
    """
    sources = {source.name: source for source, _ in sides}
    frames = {source.name: prefixed(source.name, rows) for source, rows in sides}
    first = sides[0][0].name
    result, done = frames[first], {first}
    for key in keys:
        left, left_column, right, right_column = key if key[0] in done else (*key[2:], *key[:2])
        for table, column in ((left, left_column), (right, right_column)):
            if column not in sources[table].columns:
                raise Refused(repr(column))
        result = result.join(
            frames[right],
            left_on=[f"{left}.{part}" for part in sources[left].parts(left_column)],
            right_on=[f"{right}.{part}" for part in sources[right].parts(right_column)],
            how="inner",
            coalesce=False,
            maintain_order="left_right",
        )
        done.add(right)
    return result


def output(source: Source, names: Mapping[str, str], resolution: Sequence[float], prefix: str = "") -> list[pl.Expr]:
    """The columns of the answer, renamed, points scaled and cut to whole units of ``resolution``.

    (The typed path of MaterializationEngine 5.26 sends Int32 whatever the scale, truncated toward zero.)
    """
    columns = []
    for column, name in names.items():
        if not source.is_point(column):
            columns += [pl.col(prefix + part).alias(name) for part in source.parts(column)]
            continue
        for axis, stored, wanted in zip(XYZ, source.resolution, resolution, strict=True):
            value = pl.col(f"{prefix}{column}_{axis}")
            if stored != wanted:
                value = (value.cast(pl.Float64) * stored / wanted).cast(pl.Int32)
            columns.append(value.alias(f"{name}_{axis}"))
    return columns


def _condition(source: Source, kind: str, column: str, value: Any) -> pl.Expr:
    """One filter as a polars expression."""
    if column not in source.columns:
        raise Refused(column if source.view else repr(column))
    if kind == "filter_spatial_dict":
        return _in_box(source, column, value)
    dtype = source.frame.schema.get(column)
    if kind == "filter_regex_dict":
        if dtype != pl.String:
            raise Refused("Regex filter is only supported on string columns")
        return pl.col(column).str.contains(str(value))
    if not source.parts(column):  # `deleted`: null in every row that is there
        return pl.lit(kind == "filter_equal_dict" and value is None)
    if kind in ("filter_in_dict", "filter_notin_dict"):
        listed = _in_list(source, column, dtype, value)
        return listed if kind == "filter_in_dict" else ~listed
    return _compared(source, column, dtype, kind, value)


def _in_list(source: Source, column: str, dtype: pl.DataType | None, values: Any) -> pl.Expr:
    if not isinstance(values, (list, str)):
        raise Refused(f"'{type(values).__name__}' object is not iterable")
    given = [value for value in values if value is not None]
    if not given:
        return pl.lit(value=False)
    for value in given:
        if isinstance(value, (list, dict)):
            raise Refused(f"Don't know how to literal-quote value {value}")
    try:
        literals = pl.Series(given, dtype=dtype, strict=True)
    except (TypeError, OverflowError):  # quoted or fractional numbers, or such as no column can hold
        read = (_literal(source, column, dtype, value) for value in given)
        literals = pl.Series([value for value in read if _representable(value, dtype)], dtype=dtype)
    return pl.col(column).is_in(literals.implode())


def _compared(source: Source, column: str, dtype: pl.DataType | None, kind: str, value: Any) -> pl.Expr:
    left = pl.col(column)
    if kind == "filter_equal_dict" and value is None:
        return left.is_null()
    right = _literal(source, column, dtype, value)
    if kind == "filter_equal_dict":
        return left == right if _representable(right, dtype) else pl.lit(value=False)
    if isinstance(right, int) and not _representable(right, dtype):
        right = float(right)
    comparisons: dict[str, pl.Expr] = {
        "filter_greater_dict": left > right,
        "filter_less_dict": left < right,
        "filter_greater_equal_dict": left >= right,
        "filter_less_equal_dict": left <= right,
    }
    return comparisons[kind]


def _literal(source: Source, column: str, dtype: pl.DataType | None, value: Any) -> Any:
    """A value from the body as PostgreSQL would read it for a column: quoted numbers are numbers, ``t`` is true."""
    failure = sql_failure(source, f"invalid input for column {column}: {value!r}")
    if dtype is None or isinstance(value, (list, dict)) or (dtype == pl.String and not isinstance(value, str)):
        raise failure
    try:
        if dtype.is_integer():
            number = int(value) if isinstance(value, str) else value
            return int(number) if number == int(number) else float(number)
        if dtype.is_float():
            return float(value)
        if dtype == pl.Boolean:
            return value if isinstance(value, bool) else _BOOLEANS[value.strip().lower()]
        if isinstance(dtype, pl.Datetime):
            time = datetime.fromisoformat(value)
            return time.astimezone(UTC).replace(tzinfo=None) if time.tzinfo else time
    except (ValueError, TypeError, KeyError, AttributeError, OverflowError):
        raise failure from None
    return value


_BOOLEANS: Final = {
    **dict.fromkeys(("t", "true", "yes", "on", "1"), True),
    **dict.fromkeys(("f", "false", "no", "off", "0"), False),
}


def _representable(value: Any, dtype: pl.DataType | None) -> bool:
    """Whether a column of this type can hold the value at all."""
    if dtype is None or not dtype.is_integer():
        return True
    return isinstance(value, int) and INT64.min <= value <= INT64.max


def _in_box(source: Source, column: str, value: Any) -> pl.Expr:
    """Whether a point lies in a box (inclusive), in voxels of the table, never of ``desired_resolution``."""
    if not source.is_point(column):
        raise Refused(f"{source.name}.{column} has no attribute 'intersects_nd'")
    low, high = (np.asarray(corner) for corner in value)
    if (low >= high).any():
        raise Refused(f"min bounds: {low} must be less than max bounds: {high}")
    if len(low) != 3:
        raise sql_failure(source, f"a box of {len(low)} dimensions")
    inside = (
        pl.col(f"{column}_{axis}").is_between(float(a), float(b)) for axis, a, b in zip(XYZ, low, high, strict=True)
    )
    return reduce(lambda left, right: left & right, inside)


def _sql_type(source: Source, column: str) -> str:
    """SQLAlchemy's name for a column's type."""
    dtype = source.frame.schema.get(column, pl.Null())
    if isinstance(dtype, pl.Datetime):
        return "DateTime"
    if dtype.is_float():
        return "Float"
    names = {pl.Int64(): "BigInteger", pl.Int32(): "Integer", pl.Boolean(): "Boolean", pl.String(): "String"}
    return names.get(dtype, "NullType")
