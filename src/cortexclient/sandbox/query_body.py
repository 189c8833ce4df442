"""Which bodies the query endpoints accept: MaterializationEngine 5.26's schemas, in marshmallow's words."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any, Final

Check = Callable[[Any], Any]


class InvalidBody(Exception):
    """A body that breaks its schema. ``errors``: field -> messages."""

    def __init__(self, errors: Mapping[str, list[str]]) -> None:
        super().__init__(f"the body is not valid: {errors}")
        self.errors = dict(errors)


class _Invalid(ValueError):
    """A value that its field does not accept."""


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise _Invalid("Not a valid string.")
    return value


def _integer(value: Any) -> int:
    if isinstance(value, bool):
        raise _Invalid("Not a valid integer.")
    try:
        return int(value)
    except (TypeError, ValueError):
        raise _Invalid("Not a valid integer.") from None


def _number(value: Any) -> float:
    try:
        return float(value)
    except (TypeError, ValueError):
        raise _Invalid("Not a valid number.") from None


def _time(value: Any) -> datetime:
    try:
        return datetime.fromisoformat(value)
    except (TypeError, ValueError):
        raise _Invalid("Not a valid datetime.") from None


def _list_of(check: Check, length: int | None = None) -> Check:
    def checked(value: Any) -> list[Any]:
        if not isinstance(value, list):
            raise _Invalid("Not a valid list.")
        if length is not None and len(value) != length:
            raise _Invalid(f"Length must be {length}.")
        return [check(item) for item in value]

    return checked


def _dict_of(check: Check) -> Check:
    def checked(value: Any) -> dict[str, Any]:
        if not isinstance(value, dict):
            raise _Invalid("Not a valid mapping type.")
        return {key: check(item) for key, item in value.items()}

    return checked


def _anything(value: Any) -> Any:
    return value


FILTERS: Final = (
    "filter_in_dict",
    "filter_notin_dict",
    "filter_equal_dict",
    "filter_greater_dict",
    "filter_less_dict",
    "filter_greater_equal_dict",
    "filter_less_equal_dict",
    "filter_spatial_dict",
    "filter_regex_dict",
)
"""All have two levels: table (or view) name -> column -> value."""

_COMMON: Final[dict[str, Check]] = {
    **dict.fromkeys(FILTERS, _dict_of(_dict_of(_anything))),
    "offset": _integer,
    "limit": _integer,
    "desired_resolution": _list_of(_number, 3),
}
TABLE_QUERY: Final[dict[str, Check]] = {**_COMMON, "select_columns": _list_of(_text)}
JOIN_QUERY: Final[dict[str, Check]] = {
    **_COMMON,
    "tables": _list_of(_list_of(_text, 2)),
    "select_columns": _list_of(_text),
    "select_column_map": _dict_of(_list_of(_text)),
    "suffixes": _list_of(_text),
    "suffix_map": _dict_of(_text),
}
LIVE_QUERY: Final[dict[str, Check]] = {
    **_COMMON,
    "table": _text,
    "timestamp": _time,
    "join_tables": _list_of(_list_of(_text, 4)),
    "select_columns": _dict_of(_list_of(_text)),
    "suffixes": _dict_of(_text),
}
REQUIRED: Final = ("tables", "table", "timestamp")


def checked(body: Any, fields: Mapping[str, Check]) -> dict[str, Any]:
    """The body with every value of its right type: quoted and fractional limits become integers.

    Raises
    ------
    InvalidBody
        Unknown, missing or null fields, or values of the wrong type.
    """
    if not isinstance(body, dict):
        raise InvalidBody({"_schema": ["Invalid input type."]})
    errors = {name: ["Unknown field."] for name in body if name not in fields}
    errors |= {n: ["Missing data for required field."] for n in REQUIRED if n in fields and n not in body}
    errors |= {name: ["Field may not be null."] for name in fields if name in body and body[name] is None}
    values = {}
    for name in [name for name in fields if body.get(name) is not None]:
        try:
            values[name] = fields[name](body[name])
        except _Invalid as problem:
            errors[name] = [str(problem)]
    if errors:
        raise InvalidBody(errors)
    return values
