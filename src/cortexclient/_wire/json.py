"""JSON bodies: bare 64-bit integers, which most JSON parsers round. These do not.

Lists of ids and times go through simdjson straight into arrays (five times faster than through Python integers);
everything else through orjson. A parser must not be shared between threads, so each thread has its own.
"""

from __future__ import annotations

import json as stdlib_json
import threading
from collections.abc import Mapping
from typing import Any, Literal, TypeVar

import numpy as np
import numpy.typing as npt
import orjson
import simdjson

from .._types import BoolArray, IdArray
from ..errors import DecodeError
from ..ids import INT64_MAX

T = TypeVar("T")

_threads = threading.local()
_EXACT_SECONDS = 2**53 / 1000
"""Below this, a float holds every millisecond."""


def encode(value: object) -> bytes:
    """Compact JSON; numpy arrays and integers become lists and integers."""
    return orjson.dumps(value, option=orjson.OPT_SERIALIZE_NUMPY)


def decode(body: bytes) -> Any:
    """Any JSON document.

    Raises
    ------
    DecodeError
        If it is none, or cut short.
    """
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise DecodeError(f"the reply is not JSON ({error}): {body[:60]!r}") from error


def decode_as(body: bytes, kind: type[T]) -> T:
    """A JSON document of one kind: ``dict``, ``list``, ``str`` ...

    Raises
    ------
    DecodeError
        If it is of another one: proxies, and handlers that forget the status, send their errors as a 200.
    """
    value = decode(body)
    if not isinstance(value, kind):
        raise DecodeError(f"a JSON {kind.__name__} was promised: {body[:60]!r}")
    return value


def decode_records(body: bytes) -> dict[int, dict[str, Any]]:
    """``{"<id>": {...}, ...}`` by integer id."""
    value = decode_as(body, dict)
    if not all(isinstance(record, dict) and key.isdecimal() for key, record in value.items()):
        raise DecodeError(f"records by their ids were promised: {body[:60]!r}")
    return {int(key): record for key, record in value.items()}


def decode_lenient(body: bytes) -> Any:
    """Any JSON document in which ``Infinity`` stands for a number: the chunkedgraph writes it for affinities."""
    try:
        return stdlib_json.loads(body)
    except ValueError as error:
        raise DecodeError(f"the reply is not JSON ({error}): {body[:60]!r}") from error


def decode_id_list(body: bytes, key: str, expect: int | None = None) -> IdArray:
    """``{key: [ids]}`` to (n,) int64."""
    array = _number_list(body, key, "u")
    if len(array) and array.max() > INT64_MAX:
        raise DecodeError(f"{key!r} holds an id above 2**63 - 1: {array.max()}")
    return _checked(array.astype(np.int64), key, expect)


def decode_seconds(body: bytes, key: str, expect: int) -> npt.NDArray[np.int64]:
    """``{key: [seconds as floats]}`` to (n,) int64 milliseconds since the epoch (the servers keep whole ones)."""
    array = _number_list(body, key, "d")
    if not (np.abs(array) < _EXACT_SECONDS).all():
        raise DecodeError(f"{key!r} holds a time that no server can mean: {body[:60]!r}")
    return _checked(np.rint(array * 1000).astype(np.int64), key, expect)


def decode_flags(body: bytes, key: str, expect: int) -> BoolArray:
    """``{key: [true, false, ...]}`` to (n,) bool."""
    values = _member(decode(body), key)
    if not isinstance(values, list) or not all(isinstance(value, bool) for value in values):
        raise DecodeError(f"{key!r} is not a list of booleans")
    return _checked(np.array(values, np.bool_), key, expect)


def decode_id_lists(body: bytes) -> dict[int, IdArray]:
    """``{"<id>": [ids], ...}`` to a dict of (n,) int64 by integer id."""
    value = decode(body)
    if not isinstance(value, Mapping):
        raise DecodeError(f"an object of id lists was promised, not {type(value).__name__}")
    try:
        return {int(key): _exact_ids(ids) for key, ids in value.items()}
    except (ValueError, OverflowError) as error:
        raise DecodeError(f"an object of id lists was promised: {body[:60]!r}") from error


def _exact_ids(values: Any) -> IdArray:
    # np.array makes integers of floats, booleans and digits
    if not isinstance(values, list) or not set(map(type, values)) <= {int}:
        raise ValueError("not a list of integers")
    return np.array(values, np.int64)


def _member(value: Any, key: str) -> Any:
    if not isinstance(value, Mapping) or key not in value:
        raise DecodeError(f"the reply has no {key!r}: {str(value)[:60]}")
    return value[key]


def _number_list(body: bytes, key: str, of_type: Literal["u", "d"]) -> npt.NDArray[Any]:
    parser = getattr(_threads, "parser", None)
    if parser is None:
        parser = _threads.parser = simdjson.Parser()
    try:
        # the parser refuses its next document while a part of the last one is alive: keep none of it
        document = parser.parse(body)
        numbers = document[key] if isinstance(document, simdjson.Object) else None
        if not isinstance(numbers, simdjson.Array):
            raise DecodeError(f"the reply has no list {key!r}: {body[:60]!r}")
        return np.frombuffer(numbers.as_buffer(of_type=of_type), np.uint64 if of_type == "u" else np.float64).copy()
    except (ValueError, KeyError, TypeError, RuntimeError) as error:
        raise DecodeError(f"{key!r} is not a list of numbers ({error}): {body[:60]!r}") from error


def _checked(array: npt.NDArray[Any], key: str, expect: int | None) -> npt.NDArray[Any]:
    if expect is not None and len(array) != expect:
        raise DecodeError(f"{expect} entries of {key!r} were asked, {len(array)} came back")
    return array
