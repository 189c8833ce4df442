"""Ids: 64-bit integers that must never become floats.

Above 2**53 a float64 can no longer tell neighbouring integers apart, and every CAVE id is above it. So whatever comes
in becomes an int64 array here, exactly, or is refused with the reason.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterable
from typing import Any, cast

import numpy as np
import numpy.typing as npt

from ._types import IdArray, Ids
from .errors import CortexUsageError, shorten_ids

INT64_MAX = 2**63 - 1
LAYER_SHIFT = 56
"""The highest eight bits of a chunkedgraph id are its layer (supervoxels 1, level-2 chunks 2, ... roots at the top)."""


def as_ids(values: Ids, name: str = "ids") -> IdArray:
    """Turn anything id-like into an int64 array, exactly.

    Parameters
    ----------
    values
        One id or many: int, list, range, numpy array, pandas Series or Index, polars Series, Arrow array, strings of
        digits. Order and duplicates are kept.
    name
        How messages call the argument.

    Returns
    -------
    (n,) int64

    Raises
    ------
    CortexUsageError
        For floats, booleans, nulls, values beyond int64 and anything that is not an id.
    """
    if isinstance(values, np.ndarray) and values.dtype == np.int64 and values.ndim == 1:
        return values
    if np.isscalar(values) or not (isinstance(values, Iterable) or hasattr(values, "__array__")):
        return _exact([values], name)
    if isinstance(values, list | tuple) or not hasattr(values, "__array__"):
        return _from_elements(list(cast(Iterable[Any], values)), name)
    _refuse_nulls(values, name)
    array = np.asarray(values)
    if array.ndim == 0:
        return as_ids(array.item(), name)
    if array.ndim != 1:
        raise CortexUsageError(f"{name} must be one-dimensional, not of shape {array.shape}")
    return _from_array(array, name)


def _from_elements(values: list[Any], name: str) -> IdArray:
    # never np.asarray(values): it makes floats of some mixtures of integers, and integers of booleans
    if set(map(type, values)) <= {int, np.int64}:
        with contextlib.suppress(OverflowError):
            return np.array(values, np.int64)
    return _exact(values, name)


def _from_array(array: npt.NDArray[Any], name: str) -> IdArray:
    kind = array.dtype.kind
    if array.size == 0 or kind == "i":
        return array.astype(np.int64)
    if kind == "u":
        return _from_unsigned(array, name)
    if kind == "f":
        raise _float_error(name)
    if kind in "mM":
        raise CortexUsageError(f"{name} are times, not ids")
    return _exact(array.tolist(), name)


def _refuse_nulls(values: Any, name: str) -> None:
    nulls = getattr(values, "null_count", 0)  # polars has a method, Arrow an attribute
    count = nulls() if callable(nulls) else nulls
    if count:
        raise CortexUsageError(f"{count} of the {name} are null: drop them first, a missing id has no answer")
    if getattr(values, "hasnans", False) and values.dtype.kind in "iu":  # pandas' Int64, which asarray makes floats
        raise _null_error(name)


def _from_unsigned(array: npt.NDArray[Any], name: str) -> IdArray:
    if array.size and int(array.max()) > INT64_MAX:
        raise CortexUsageError(f"{name} holds values above 2**63 - 1: {shorten_ids(array[array > INT64_MAX])}")
    return array.astype(np.int64)


def _exact(values: list[Any], name: str) -> IdArray:
    return np.fromiter((_one(value, name) for value in values), np.int64, len(values))


def _one(value: Any, name: str) -> int:
    if isinstance(value, bool | np.bool_):
        raise CortexUsageError(f"{name} holds booleans, not ids: {value}")
    if isinstance(value, float | np.floating):
        raise _null_error(name) if math.isnan(value) else _float_error(name)
    if isinstance(value, int | np.integer):
        number = int(value)
    elif isinstance(value, str | bytes):
        text = value.decode("ascii", "replace") if isinstance(value, bytes) else value
        if not (text.isascii() and text.strip().removeprefix("-").isdigit()):
            raise CortexUsageError(f"{name} holds {value!r}, which is no id: strings must be decimal digits")
        number = int(text)
    elif value is None or type(value).__name__ in {"NAType", "NaTType"}:
        raise _null_error(name)
    else:
        raise CortexUsageError(f"{name} holds a {type(value).__name__}, which is no id")
    if not -INT64_MAX <= number <= INT64_MAX:
        raise CortexUsageError(f"{name} holds {number}, which does not fit a signed 64-bit integer")
    return number


def _null_error(name: str) -> CortexUsageError:
    return CortexUsageError(f"{name} holds missing values: drop them first, a missing id has no answer")


def _float_error(name: str) -> CortexUsageError:
    return CortexUsageError(
        f"{name} are floats. A float holds 53 bits and an id needs 64, so some of these are already another cell's id. "
        "Go back to where they became floats (a pandas column with gaps does it: read it with dtype='Int64')"
    )


def unique_ids(ids: IdArray) -> tuple[IdArray, IdArray]:
    """Sort and deduplicate: ``unique[inverse] == ids``.

    Never ``np.unique`` without ``return_inverse`` here: on mostly distinct ids its hash path takes 20 times a sort.
    """
    if len(ids) == 1:
        return ids, np.zeros(1, np.int64)
    unique, inverse = np.unique(ids, return_inverse=True)
    return unique, inverse


def layer_of(ids: IdArray) -> IdArray:
    """Chunkedgraph layer of each id (the highest eight bits); 0 and negative ids have layer 0 or less."""
    return ids >> LAYER_SHIFT


def batches(ids: IdArray, size: int) -> list[IdArray]:
    """Cut into the fewest batches of at most ``size``, balanced so that none is much smaller than the others."""
    if not len(ids):
        return []
    return np.array_split(ids, math.ceil(len(ids) / size))
