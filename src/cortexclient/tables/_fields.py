"""What a table can be filtered by: the columns of its schema, and the names that its filters go by.

The names are caveclient's: a column's own, ``p_position_bbox`` for the point ``p``. Of a reference table that is
joined with the table it refers to, a name that both have gets ``_ref``: ``id_ref``, and for the point ``pt``
``pt_ref_root_id`` and ``pt_ref_position_bbox``.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from numbers import Real
from typing import Any, Literal, NamedTuple, cast

import numpy as np

from ..errors import CortexUsageError, NotFoundError
from ..ids import as_ids
from ..services.materialize._filters import IN, SPATIAL, Filters, WireFilters, wire_filters

Kind = Literal["integer", "float", "boolean", "string", "time", "point"]

COMPARISONS = {
    ">": "filter_greater_dict",
    "<": "filter_less_dict",
    ">=": "filter_greater_equal_dict",
    "<=": "filter_less_equal_dict",
}
EQUAL = "filter_equal_dict"
BYTES: dict[Kind, int] = {"integer": 8, "float": 4, "boolean": 1, "string": 16, "time": 8, "point": 12}
"""In Arrow, uncompressed; of a string about."""
BOOKKEEPING: dict[str, Kind] = {"id": "integer", "created": "time", "valid": "boolean"}
BOUND = {"_root_id": "integer", "_supervoxel_id": "integer", "_position": "point"}


@dataclass(frozen=True)
class Info:
    """A table or view of a version."""

    name: str
    description: str = ""
    resolution: tuple[float, ...] | None = None
    """nm per voxel of its points."""
    reference_table: str | None = None
    columns: Mapping[str, Kind] | None = None
    """None: nobody tells, so that nothing can be checked."""


class Field(NamedTuple):
    """A filter: which column of which table it is about."""

    table: str
    column: str
    kind: Kind | None


def table_columns(schema: Mapping[str, Any]) -> dict[str, Kind]:
    """The columns of a table, from its JSON schema; nullable ones too."""
    definition = schema["definitions"][schema["$ref"].rpartition("/")[2]]
    columns: dict[str, Kind] = dict(BOOKKEEPING)
    for name, described in definition["properties"].items():
        point = str(described.get("$ref", "")).rpartition("/")[2]
        if point == "BoundSpatialPoint":
            columns |= cast(dict[str, Kind], {name + ending: kind for ending, kind in BOUND.items()})
        elif point:
            columns[f"{name}_position"] = "point"
        elif (kind := _kind(described)) is not None:
            columns[name] = kind
    return columns


def view_columns(schema: Mapping[str, Any]) -> dict[str, Kind]:
    """The columns of a view, from its schema."""
    kinds = {name: "point" if d.get("type") == "SpatialPoint" else _kind(d) for name, d in schema.items()}
    return cast(dict[str, Kind], {name: kind for name, kind in kinds.items() if kind is not None})


def _kind(described: Mapping[str, Any]) -> Kind | None:
    """The kind of a scalar. ``format`` says more than ``type``, which may be a list with "null"."""
    types = described.get("type", [])
    named = [described.get("format"), *([types] if isinstance(types, str) else types)]
    kinds: dict[Any, Kind] = {"date-time": "time", "number": "float"}
    kinds |= {kind: kind for kind in ("integer", "float", "boolean", "string")}
    return next((kinds[name] for name in named if name in kinds), None)


def fields_of(info: Info, base: Info | None = None) -> dict[str, Field] | None:
    """The filters of a table by name, ``base`` being the table that it refers to; None: not known."""
    if info.columns is None or (base is not None and base.columns is None):
        return None
    own, theirs = info.columns, {} if base is None else base.columns or {}
    found = {} if base is None else {_argument(c, kind): Field(base.name, c, kind) for c, kind in theirs.items()}
    for column, kind in own.items():
        name = _referring(column, own) if column in theirs else column
        found[_argument(name, kind)] = Field(info.name, column, kind)
    return found


def _argument(column: str, kind: Kind) -> str:
    return f"{column}_bbox" if kind == "point" else column


def _referring(column: str, columns: Mapping[str, Kind]) -> str:
    """The name of a column that the other table has too: ``_ref`` stands behind the name of a point."""
    for ending in BOUND:
        stem = column.removesuffix(ending)
        if column.endswith(ending) and f"{stem}_position" in columns:
            return f"{stem}_ref{ending}"
    return f"{column}_ref"


def row_bytes(infos: Iterable[Info], selected: Iterable[str] | None) -> int:
    """How many bytes a row takes about, of some columns or of all."""
    columns = {name: kind for info in infos for name, kind in (info.columns or {"": "string"}).items()}
    return sum(BYTES[columns.get(name, "string")] for name in (columns if selected is None else selected))


def conditions(info: Info, base: Info | None, arguments: Mapping[str, Any]) -> WireFilters:
    """Turn keyword arguments into filters, checked where the schema is known.

    Raises
    ------
    CortexUsageError
        A name or a value that the column does not have; with the nearest name.
    """
    fields = fields_of(info, base)
    by_kind: dict[str, dict[str, dict[str, Any]]] = {}
    for argument, value in arguments.items():
        field = _guessed(argument, info, base) if fields is None else fields.get(argument)
        if field is None:
            raise unknown(f"{info.name} has no filter", argument, fields or {})
        if value is not None:
            for kind, plain in _read(argument, field, value):
                by_kind.setdefault(kind, {}).setdefault(field.table, {})[field.column] = plain
    return wire_filters(cast(Filters, by_kind))


def _guessed(argument: str, info: Info, base: Info | None) -> Field:
    """The column of an argument where no schema tells: the server will say if there is none."""
    column = argument.removesuffix("_bbox")
    table = info if base is None or "_ref" in column else base
    return Field(table.name, column.replace("_ref", "") if base else column, "point" if column != argument else None)


def _read(argument: str, field: Field, value: Any) -> list[tuple[str, Any]]:
    """The conditions that an argument's value stands for: kind of filter, and value."""
    if field.kind == "point":
        return [(SPATIAL, value)]
    if isinstance(value, Mapping):
        if not value or not value.keys() <= COMPARISONS.keys():
            raise CortexUsageError(f"{argument}={dict(value)!r}: comparisons are {', '.join(COMPARISONS)}")
        if field.kind in ("string", "boolean"):
            raise CortexUsageError(f"{argument} holds {field.kind}s, which are not compared by {', '.join(value)}")
        return [(COMPARISONS[sign], _one(argument, field, bound)) for sign, bound in value.items()]
    if isinstance(value, str) or np.isscalar(value) or isinstance(value, datetime):
        return [(EQUAL, _one(argument, field, value))]
    if field.kind == "integer":
        return [(IN, as_ids(value, argument))]
    values = value.tolist() if hasattr(value, "tolist") else list(value)
    return [(IN, [_one(argument, field, item) for item in values])]


def _one(argument: str, field: Field, value: Any) -> Any:
    """One value, exactly, if the column can hold it."""
    if field.kind == "integer":
        return int(as_ids(value, argument)[0])
    value = value.item() if isinstance(value, np.generic) else value
    fits = {
        "float": isinstance(value, Real) and not isinstance(value, bool),
        "boolean": isinstance(value, bool),
        "string": isinstance(value, str),
        "time": isinstance(value, datetime),
    }
    if field.kind is not None and not fits[field.kind]:
        raise CortexUsageError(f"{argument}={value!r}: the column {field.column} of {field.table} holds {field.kind}s")
    return value


def unknown(problem: str, name: str, known: Iterable[str]) -> CortexUsageError:
    """The error for a name that is wrong in the call itself."""
    return CortexUsageError(f"{problem} {name!r}; {_hint(name, known)}")


def not_found(problem: str, name: str, known: Iterable[str]) -> NotFoundError:
    """The error for a name that the server does not have."""
    nearest = difflib.get_close_matches(name, known, n=3, cutoff=0.4)
    return NotFoundError(f"{problem} {name!r}; {_hint(name, known)}", nearest=nearest)


def _hint(name: str, known: Iterable[str]) -> str:
    known = sorted(known)
    nearest = difflib.get_close_matches(name, known, n=3, cutoff=0.4)
    return f"did you mean {' or '.join(nearest)}?" if nearest else f"there are {', '.join(known)}"
