"""What is made of the rows that came: the same columns in the same order on all routes, points in the unit wanted."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from math import gcd, lcm
from typing import TYPE_CHECKING, Any

from ...errors import CortexUsageError, DecodeError
from ...frames import AXES, scaled
from ._filters import NOT_IN, described
from ._row_query import FINER, RowQuery

if TYPE_CHECKING:
    import pyarrow as pa

BOOKKEEPING = ("id", "created", "superceded_id", "valid")
"""The first columns of every table. Some routes leave some of them out (MaterializationEngine 5.26): live queries of
split versions ``valid`` (they only give valid rows) and ``superceded_id`` (null in those), merged versions ``created``.
"""
ALWAYS_NULL = ("superceded_id", "deleted")


@dataclass(frozen=True)
class Part:
    """Rows as they came, and what the reply says of them."""

    table: pa.Table
    resolution: tuple[float, ...] | None
    """Of the points, nm per axis."""
    names: dict[str, dict[str, str]]
    """Table to its columns (points by their stem) and what they are called in the answer."""
    cut: bool = False


def checked_unit(desired: Sequence[float] | None) -> tuple[float, ...] | None:
    """The unit that is wanted for points: three lengths above zero, nm."""
    unit = None if desired is None else tuple(map(float, desired))
    if unit is not None and (len(unit) != 3 or min(unit) <= 0):
        raise CortexUsageError(
            f"desired_resolution={desired}: give the nm of one unit on each of three axes, above zero"
        )
    return unit


def resolution_of(part: Part, desired: Sequence[float] | None) -> tuple[float, ...] | None:
    """The unit of the points of an answer: nm per axis."""
    if desired is not None:
        if part.resolution is None:
            raise DecodeError("the server does not tell the unit of its points: the header dataframe_resolution lacks")
        return checked_unit(desired)
    return part.resolution


def finished(part: Part, query: RowQuery, desired: Sequence[float] | None) -> pa.Table:
    """The rows of one part as the user gets them."""
    table, wanted = part.table, resolution_of(part, desired)
    if part.resolution is not None and wanted is not None:
        # a grid was asked in finer units: the values are (nearly) multiples of FINER
        finer = FINER if query.grid is not None else 1
        table = scaled(table, part.resolution, wanted, finer)
    table = _excluded(_with_utc(table), query, part.names)
    if query.view:
        return chosen(table, None if query.select is None else query.select[query.name])
    if query.select is not None:
        columns = [part.names.get(name, {}).get(c, c) for name in _order(query) for c in query.select.get(name, ())]
        return table.select(_parts_of(table, columns))
    return _arranged(table, query, part.names)


def joined(tables: list[pa.Table]) -> pa.Table:
    """Parts of one answer; a column without any value may lack its type in some of them."""
    import pyarrow as pa

    return pa.concat_tables(tables, promote_options="default") if len(tables) != 1 else tables[0]


def chosen(table: pa.Table, columns: Sequence[str] | None) -> pa.Table:
    """Some columns of an answer, points by their stem; None: all of them."""
    if columns is None:
        return table
    for column in columns:
        if column not in table.column_names and column + AXES[0] not in table.column_names:
            raise no_column("the answer", column, _stems(table.column_names))
    return table.select(_parts_of(table, columns))


def no_column(of: str, column: str, there: Iterable[str]) -> CortexUsageError:
    """The error about a column that is not there."""
    near = difflib.get_close_matches(column, there, n=1, cutoff=0)
    return CortexUsageError(f"{of} has no column {column!r}; did you mean {near[0]}?")


def attributes(query: RowQuery, resolution: Sequence[float] | None) -> dict[str, Any]:
    """What a frame tells of itself: plain JSON."""
    when = {"timestamp": query.when.isoformat()} if not isinstance(query.when, int) else {}
    version = {"materialization_version": query.when} if isinstance(query.when, int) else {}
    return {
        "table_name": query.name,
        **version,
        **when,
        "dataframe_resolution": None if resolution is None else list(resolution),
        "filters": described(query.filters),
    }


def common_grid(resolutions: Iterable[Sequence[float]]) -> tuple[float, ...] | None:
    """The nm per axis of which the points of all tables are multiples; None if they share their resolution."""
    distinct = {tuple(resolution) for resolution in resolutions}
    if len(distinct) < 2:
        return None
    return tuple(float(_common([Fraction(str(value)) for value in axis])) for axis in zip(*distinct, strict=True))


def _common(values: list[Fraction]) -> Fraction:
    below = lcm(*(value.denominator for value in values))
    return Fraction(gcd(*(int(value * below) for value in values)), below)


def _order(query: RowQuery) -> list[str]:
    """Tables in the order of their columns in an answer: first the one whose names carry no suffix."""
    return sorted(query.tables, key=lambda name: bool(query.suffixes.get(name)))


def _with_utc(table: pa.Table) -> pa.Table:
    """Views' times lack the zone that tables' have."""
    import pyarrow as pa
    import pyarrow.compute as pc

    for index, field in enumerate(table.schema):
        if pa.types.is_timestamp(field.type) and field.type.tz is None:
            table = table.set_column(index, field.name, pc.assume_timezone(table.column(index), "UTC"))
    return table


def _excluded(table: pa.Table, query: RowQuery, names: dict[str, dict[str, str]]) -> pa.Table:
    """Apply exclusion filters here too: the servers accept and ignore them (MaterializationEngine 5.26).

    As in SQL, a row without a value does not pass.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    for name, columns in query.filters.get(NOT_IN, {}).items():
        for given, values in columns.items():
            column = names.get(name, {}).get(given, given)
            if column not in table.column_names:
                raise no_column(name, given, names.get(name) or _stems(table.column_names))
            listed = pa.array(values, table.schema.field(column).type)
            kept = pc.and_(pc.is_valid(table.column(column)), pc.invert(pc.is_in(table.column(column), listed)))
            table = table.filter(kept)
    return table


def _arranged(table: pa.Table, query: RowQuery, names: dict[str, dict[str, str]]) -> pa.Table:
    """Bookkeeping first, then the schema's own columns, then supervoxels and roots; of a join table by table."""
    order: list[str] = []
    for name in _order(query):
        called = names.get(name) or {stem: stem for stem in _stems(table.column_names)}
        table, first = _bookkeeping(table, query, called)
        own = [called[column] for column in called if column not in BOOKKEEPING and column != "deleted"]
        ids = [column for column in own if _is_lookup(column, own)]
        order += [*first, *(column for column in own if column not in ids), *ids]
    dropped = {called.get(column) for called in names.values() for column in ALWAYS_NULL} | {"deleted"}
    left = [column for column in _stems(table.column_names) if column not in {*order, *dropped}]
    return table.select(_parts_of(table, [*order, *left]))


def _bookkeeping(table: pa.Table, query: RowQuery, called: dict[str, str]) -> tuple[pa.Table, list[str]]:
    """The first columns of a table; those that this route leaves out are put in."""
    import pyarrow as pa

    wanted = [column for column in BOOKKEEPING if not (query.joins and column == "superceded_id")]
    suffix = called.get("id", "id").removeprefix("id")
    rows = table.num_rows
    missing: dict[str, pa.Array[Any]] = {
        "created": pa.nulls(rows, pa.timestamp("ns", "UTC")),
        "superceded_id": pa.nulls(rows, pa.int64()),
        "valid": pa.repeat(pa.scalar(True), rows),
    }
    found = [called.get(column, column + suffix) for column in wanted]
    for column, shown in zip(wanted, found, strict=True):
        if shown not in table.column_names and column in missing:
            table = table.append_column(shown, missing[column])
    return table, found


def _is_lookup(column: str, columns: list[str]) -> bool:
    """Whether a column is the supervoxel or root of a bound point (``valid_id`` and ``query_root_id`` are not)."""
    for mine, other in (("_supervoxel_id", "_root_id"), ("_root_id", "_supervoxel_id")):
        if mine in column and column.replace(mine, other) in columns:
            return True
    return False


def _stems(columns: list[str]) -> list[str]:
    """Column names with the parts of each point folded into its stem."""
    points = {name[:-2] for name in columns if name.endswith(AXES[0]) and name[:-2] + AXES[1] in columns}
    return list(dict.fromkeys(name[:-2] if name[:-2] in points else name for name in columns))


def _parts_of(table: pa.Table, columns: Iterable[str]) -> list[str]:
    """The columns of the table that these names stand for, points by their stem; none for what is not there."""
    there = set(table.column_names)
    parts = ([name] if name in there else [name + axis for axis in AXES] for name in columns)
    return list(dict.fromkeys(part for names in parts for part in names if part in there))
