"""Which rows: caveclient's filters, as users write them and as they travel."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, TypeAlias, TypedDict, cast

import numpy as np

from ...errors import CortexUsageError
from ...ids import as_ids


class Filters(TypedDict, total=False):
    """caveclient's filters: each maps columns to what they must be. All conditions must hold."""

    filter_in_dict: Mapping[str, Any]
    """Column to a list of values, of any length. An empty list matches no row."""
    filter_out_dict: Mapping[str, Any]
    """Column to a list of values that it must not have."""
    filter_equal_dict: Mapping[str, Any]
    filter_greater_dict: Mapping[str, Any]
    filter_less_dict: Mapping[str, Any]
    filter_greater_equal_dict: Mapping[str, Any]
    filter_less_equal_dict: Mapping[str, Any]
    filter_spatial_dict: Mapping[str, Any]
    """Point to a box ``[[xmin, ymin, zmin], [xmax, ymax, zmax]]`` in the table's own voxels, both ends included."""
    filter_regex_dict: Mapping[str, str]
    """String column to a PostgreSQL pattern, searched anywhere, case-sensitive."""


WireFilters: TypeAlias = Mapping[str, Mapping[str, Mapping[str, Any]]]
"""Kind, table, column, value: what query bodies hold."""

IN, NOT_IN, SPATIAL = "filter_in_dict", "filter_notin_dict", "filter_spatial_dict"
AT_LEAST, BELOW, ABOVE = "filter_greater_equal_dict", "filter_less_dict", "filter_greater_dict"


def wire_filters(filters: Filters, name: str | None = None) -> WireFilters:
    """Spell filters as the server does.

    Parameters
    ----------
    filters
        By column; by table and column where ``name`` is None, as in joins.
    name
        The one table or view that they are about.
    """
    if unknown := set(filters) - set(Filters.__annotations__):
        near = difflib.get_close_matches(min(unknown), Filters.__annotations__, n=1)
        raise CortexUsageError(
            f"no filter is called {', '.join(sorted(unknown))}; "
            + (f"did you mean {near[0]}?" if near else f"there are {', '.join(Filters.__annotations__)}")
        )
    wire: dict[str, dict[str, dict[str, Any]]] = {}
    for given, conditions in cast(dict[str, Mapping[str, Any]], filters).items():
        if not conditions:
            continue
        kind = NOT_IN if given == "filter_out_dict" else given
        by_table = {name: conditions} if name is not None else conditions
        if not all(isinstance(columns, Mapping) for columns in by_table.values()):
            raise CortexUsageError(f"{given} maps tables to columns here: {{table: {{column: value}}}}")
        wire[kind] = {
            table: {column: _value(kind, column, value) for column, value in columns.items()}
            for table, columns in by_table.items()
        }
    return wire


def _value(kind: str, column: str, value: Any) -> Any:
    if kind in (IN, NOT_IN):
        return _values(column, value)
    if kind == SPATIAL:
        return box(column, value)
    return _scalar(value)


def _values(column: str, values: Any) -> Any:
    """The members of a list filter, each once, in a form that is exact in JSON."""
    if isinstance(values, str) or not hasattr(values, "__len__"):
        raise CortexUsageError(f"a list of values is needed for {column!r}, not {values!r}")
    if column == "id" or column.endswith("_id"):
        return np.sort(np.asarray(list(dict.fromkeys(as_ids(values, column).tolist())), np.int64))
    plain = values.tolist() if hasattr(values, "tolist") else list(values)
    return [_scalar(value) for value in dict.fromkeys(plain)]


def _scalar(value: Any) -> Any:
    if isinstance(value, datetime):
        if value.tzinfo is None:
            raise CortexUsageError(f"{value.isoformat()} has no time zone: write datetime(..., tzinfo=timezone.utc)")
        return value.astimezone(UTC).replace(tzinfo=None).isoformat()  # the databases keep naive UTC
    return value.item() if isinstance(value, np.generic) else value


def box(column: str, value: Any) -> list[list[float]]:
    """Check a box: two corners, the first one below the second on each axis."""
    try:
        corners = np.asarray(value)
    except ValueError:  # ragged
        corners = np.empty(0)
    if corners.shape != (2, 3) or corners.dtype.kind not in "iuf":
        raise CortexUsageError(
            f"a box [[xmin, ymin, zmin], [xmax, ymax, zmax]] is needed for {column!r}, not {value!r}"
        )
    if not (corners[0] < corners[1]).all():
        raise CortexUsageError(
            f"the box of {column!r} is empty: {corners[0].tolist()} is not below {corners[1].tolist()}"
        )
    found: list[list[float]] = corners.tolist()
    return found


def described(filters: WireFilters, most: int = 20) -> dict[str, Any]:
    """Filters as a frame's ``attrs`` tell them: plain JSON, long lists by their length."""

    def told(value: Any) -> Any:
        if hasattr(value, "__len__") and not isinstance(value, str) and len(value) > most:
            return f"{len(value):,} values"
        return value.tolist() if hasattr(value, "tolist") else value

    return {
        kind: {table: {column: told(value) for column, value in columns.items()} for table, columns in tables.items()}
        for kind, tables in filters.items()
    }
