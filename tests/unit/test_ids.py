"""Ids: whatever they come in, they come out as exact int64, or are refused."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cortexclient.errors import CortexUsageError
from cortexclient.ids import INT64_MAX, as_ids, batches, layer_of, unique_ids

ONE_APART = [864691135858491438, 864691135858491439]
IDS = st.lists(st.one_of(st.integers(0, INT64_MAX), st.integers(2**53, 2**53 + 8)), max_size=40)

CONTAINERS: dict[str, Callable[[list[int]], Any]] = {
    "list": list,
    "tuple": tuple,
    "generator": iter,
    "list of numpy integers": lambda ids: [np.uint64(i) if i % 2 else np.int64(i) for i in ids],
    "digits": lambda ids: [str(i) for i in ids],
    "digits and integers": lambda ids: [str(i) if i % 2 else i for i in ids],
    "int64": lambda ids: np.array(ids, np.int64),
    "uint64": lambda ids: np.array(ids, np.uint64),
    "big-endian": lambda ids: np.array(ids, ">i8"),
    "object": lambda ids: np.array(ids, object),
    "array of digits": lambda ids: np.array([str(i) for i in ids], str),
    "array of bytes": lambda ids: np.array([str(i).encode() for i in ids], bytes),
    "Series": lambda ids: pd.Series(ids, dtype=np.int64),
    "Series of UInt64": lambda ids: pd.Series(ids, dtype="UInt64"),
    "Series of Int64": lambda ids: pd.Series(ids, dtype="Int64"),
    "Series of objects": lambda ids: pd.Series(ids, dtype=object),
    "Series of Arrow integers": lambda ids: pd.Series(ids, dtype=pd.ArrowDtype(pa.int64())),
    "Series of digits": lambda ids: pd.Series([str(i) for i in ids], dtype="string"),
    "Index": lambda ids: pd.Index(ids, dtype=np.int64),
    "polars": lambda ids: pl.Series(ids, dtype=pl.Int64),
    "polars UInt64": lambda ids: pl.Series(ids, dtype=pl.UInt64),
    "polars digits": lambda ids: pl.Series([str(i) for i in ids], dtype=pl.String),
    "Arrow": lambda ids: pa.array(ids, pa.int64()),
    "Arrow uint64": lambda ids: pa.array(ids, pa.uint64()),
    "Arrow chunks": lambda ids: pa.chunked_array([ids[:1], ids[1:]], pa.int64()),
    "Arrow digits": lambda ids: pa.array([str(i) for i in ids], pa.string()),
}


@pytest.mark.parametrize("container", CONTAINERS)
@settings(max_examples=25)
@given(ids=IDS)
def test_every_container_gives_the_exact_ids_in_order(container: str, ids: list[int]) -> None:
    given_ids = ids + ids[:2]  # duplicates are kept
    array = as_ids(CONTAINERS[container](given_ids))
    assert array.dtype == np.int64
    assert array.tolist() == given_ids


@pytest.mark.parametrize("container", CONTAINERS)
def test_neighbours_above_two_to_the_53_stay_apart(container: str) -> None:
    assert as_ids(CONTAINERS[container](ONE_APART)).tolist() == ONE_APART


@pytest.mark.parametrize("one", [ONE_APART[1], str(ONE_APART[1]), np.uint64(ONE_APART[1]), np.array(ONE_APART[1])])
def test_one_id_is_an_array_of_one(one: Any) -> None:
    assert as_ids(one).tolist() == [ONE_APART[1]]


@pytest.mark.parametrize("many", [range(3), {0: "a", 1: "b", 2: "c"}, {0, 1, 2}])
def test_other_iterables(many: Any) -> None:
    assert as_ids(many).tolist() == [0, 1, 2]


def test_an_int64_array_is_not_copied() -> None:
    ids = np.array(ONE_APART, np.int64)
    assert as_ids(ids) is ids


@pytest.mark.parametrize(
    ("values", "why"),
    [
        ([864691135858491438.0], "floats"),
        ([ONE_APART[0], 1.0], "floats"),
        (1.0, "floats"),
        (np.array([1.0]), "floats"),
        (np.array(1.0), "floats"),
        (pd.Series([1.0, np.nan]), "floats"),
        (pl.Series([1.5]), "floats"),
        (pa.array([1.0]), "floats"),
        (np.array([ONE_APART[0], 1.0], object), "floats"),
        ([float("nan")], "missing"),
        ([True], "booleans"),
        ([ONE_APART[0], True], "booleans"),
        ((np.True_, 7), "booleans"),
        (True, "booleans"),
        (np.array([True, False]), "booleans"),
        (pl.Series([True]), "booleans"),
        ([ONE_APART[0], None], "missing"),
        (pd.Series([1, None], dtype="Int64"), "missing"),
        ([pd.NaT], "missing"),
        (pl.Series([1, None]), "1 of the root_ids are null"),
        (pa.array([None, 1, None]), "2 of the root_ids are null"),
        ([2**63], "does not fit"),
        (None, "missing"),
        (pd.NA, "missing"),
        (..., "no id"),
        ([1, 2**64 + 1], "does not fit"),
        ([str(2**63)], "does not fit"),
        (np.array([1, 2**63], np.uint64), "above 2**63 - 1: 9223372036854775808"),
        (["12.0"], "decimal digits"),
        (["1_000"], "decimal digits"),
        ([""], "decimal digits"),
        (["٣"], "decimal digits"),
        (["0x10"], "decimal digits"),
        ([b"\xff"], "decimal digits"),
        ([[1, 2], [3, 4]], "holds a list, which is no id"),
        (pd.DataFrame({"a": [1], "b": [2]}), "one-dimensional"),
        (np.ones((2, 2), np.int64), "one-dimensional"),
        ([dt.date(2024, 1, 1)], "no id"),
        (pd.DatetimeIndex(["2024-01-01"]), "times"),
        (np.array([5], "m8[ns]"), "times"),
        ([1 + 2j], "no id"),
        ([...], "no id"),
    ],
    ids=str,
)
def test_what_is_no_id_is_refused_with_the_reason(values: Any, why: str) -> None:
    with pytest.raises(CortexUsageError) as caught:
        as_ids(values, "root_ids")
    assert why in str(caught.value)
    assert "root_ids" in str(caught.value)


def test_no_ids_are_an_empty_array() -> None:
    for empty in ([], (), np.array([]), pd.Series([], dtype=float), pl.Series([]), iter(())):
        assert as_ids(empty).dtype == np.int64
        assert len(as_ids(empty)) == 0


@given(ids=IDS)
def test_unique_ids_are_sorted_and_their_inverse_restores_the_input(ids: list[int]) -> None:
    unique, inverse = unique_ids(as_ids(ids))
    assert unique.tolist() == sorted(set(ids))
    assert unique[inverse].tolist() == ids


@given(ids=IDS, size=st.integers(1, 60))
def test_batches_are_few_and_balanced(ids: list[int], size: int) -> None:
    parts = batches(as_ids(ids), size)
    assert [i for part in parts for i in part.tolist()] == ids
    sizes = [len(part) for part in parts]
    assert len(parts) == -(-len(ids) // size)
    assert not parts or max(sizes) - min(sizes) <= 1


def test_the_layer_is_the_highest_byte() -> None:
    assert layer_of(np.array([864691135858491438, 89529934389098311, 0], np.int64)).tolist() == [12, 1, 0]
