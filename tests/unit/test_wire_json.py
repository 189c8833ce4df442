"""JSON bodies: exact 64-bit integers, whole lists, and nothing but DecodeError for anything else."""

from __future__ import annotations

import json as stdlib_json
import math
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from cortexclient import DecodeError
from cortexclient._wire import json
from cortexclient.ids import INT64_MAX

ID_LISTS = st.lists(st.integers(0, INT64_MAX), max_size=30)
ONE_APART = [2**53, 2**53 + 1, 864691135858491438, 864691135858491439]
NUMBERS = st.one_of(st.integers(), st.floats(allow_nan=False, allow_infinity=False))
VALUES = st.recursive(
    st.one_of(st.none(), st.booleans(), NUMBERS, st.text(max_size=5)),
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(st.text(max_size=3), inner, max_size=3)),
    max_leaves=8,
)

DECODERS: dict[str, Callable[[bytes], Any]] = {
    "decode": json.decode,
    "decode_records": json.decode_records,
    "decode_id_list": lambda body: json.decode_id_list(body, "k"),
    "decode_seconds": lambda body: json.decode_seconds(body, "k", 2),
    "decode_flags": lambda body: json.decode_flags(body, "k", 2),
    "decode_id_lists": json.decode_id_lists,
}


@given(ids=ID_LISTS)
def test_ids_survive_the_round_trip(ids: list[int]) -> None:
    body = json.encode({"root_ids": np.array(ids, np.int64), "other": "x"})
    assert stdlib_json.loads(body)["root_ids"] == ids
    decoded = json.decode_id_list(body, "root_ids", expect=len(ids))
    assert decoded.dtype == np.int64
    assert decoded.tolist() == ids
    assert json.decode(body)["root_ids"] == ids


@given(lists=st.dictionaries(st.integers(0, INT64_MAX), ID_LISTS, max_size=5))
def test_lists_by_id_survive_the_round_trip(lists: dict[int, list[int]]) -> None:
    decoded = json.decode_id_lists(stdlib_json.dumps(lists).encode())
    assert {key: ids.tolist() for key, ids in decoded.items()} == lists
    assert all(ids.dtype == np.int64 for ids in decoded.values())


def test_neighbours_above_two_to_the_53_stay_apart() -> None:
    body = json.encode({"k": ONE_APART})
    assert json.decode_id_list(body, "k").tolist() == ONE_APART
    assert json.decode_id_lists(json.encode({"7": ONE_APART}))[7].tolist() == ONE_APART
    assert json.decode(body)["k"] == ONE_APART


@given(ms=st.lists(st.integers(-(2**41), 2**43), max_size=20))
def test_seconds_become_exact_milliseconds(ms: list[int]) -> None:
    body = stdlib_json.dumps({"timestamp": [value / 1000 for value in ms]}).encode()
    assert json.decode_seconds(body, "timestamp", len(ms)).tolist() == ms


@given(flags=st.lists(st.booleans(), max_size=10))
def test_flags(flags: list[bool]) -> None:
    decoded = json.decode_flags(json.encode({"is_latest": flags}), "is_latest", len(flags))
    assert decoded.dtype == np.bool_
    assert decoded.tolist() == flags


@pytest.mark.parametrize("decoder", ["decode_seconds", "decode_flags"])
@pytest.mark.parametrize("length", [0, 1, 3])
def test_a_list_of_another_length_is_refused(decoder: str, length: int) -> None:
    entry = True if decoder == "decode_flags" else 1.5
    with pytest.raises(DecodeError, match=f"2 entries of 'k' were asked, {length} came back"):
        DECODERS[decoder](json.encode({"k": [entry] * length}))
    with pytest.raises(DecodeError, match="2 entries"):
        json.decode_id_list(json.encode({"k": [1] * length}), "k", expect=2)


@pytest.mark.parametrize("entry", ["1.5", "null", "true", '"7"', "{}", "1, 2.0", str(2**63), str(2**64)])
def test_what_is_no_id_is_refused(entry: str) -> None:
    with pytest.raises(DecodeError):
        json.decode_id_list(f'{{"k": [{entry}]}}'.encode(), "k")
    with pytest.raises(DecodeError):
        json.decode_id_lists(f'{{"5": [{entry}]}}'.encode())


def test_a_list_of_lists_is_no_list_of_ids() -> None:
    with pytest.raises(DecodeError):
        json.decode_id_lists(b'{"5": [[7]]}')
    with pytest.raises(DecodeError, match="1 entries of 'k' were asked, 2 came back"):  # simdjson flattens
        json.decode_id_list(b'{"k": [[7, 8]]}', "k", expect=1)


@pytest.mark.parametrize(
    "body", [b'{"x": [1]}', b'{"5": 7}', b'{"5": "77"}', b"[1]", b"5", b"", b"null", b'{"5": null}']
)
def test_another_document_is_refused(body: bytes) -> None:
    for name in DECODERS.keys() - {"decode"}:
        with pytest.raises(DecodeError):
            DECODERS[name](body)


@pytest.mark.parametrize("decoder", DECODERS)
def test_a_body_cut_anywhere_is_refused(decoder: str) -> None:
    entry = {"decode_flags": "true", "decode_seconds": "1.5"}.get(decoder, str(ONE_APART[3]))
    key = "5" if decoder in ("decode_id_lists", "decode_records") else "k"
    value = f'{{"a": {entry}}}' if decoder == "decode_records" else f"[{entry}, {entry}]"
    body = f'{{"{key}": {value}}}'.encode()
    DECODERS[decoder](body)
    for end in range(len(body)):
        with pytest.raises(DecodeError):
            DECODERS[decoder](body[:end])


@given(body=st.binary(max_size=60))
@example(b'{"k": [1e300, 2]}')
@example(b'{"k": [1e999, 2]}')
@example(b'{"k": ' + b"[" * 2000)
@example(b'{"k": [1], "k": [2]}')
@example(b"\xff\xfe")
def test_random_bytes_are_decoded_or_a_decode_error(body: bytes) -> None:
    _decode_with_all(body)


@given(document=st.one_of(VALUES, st.fixed_dictionaries({"k": VALUES}), st.dictionaries(st.just("12"), VALUES)))
def test_random_documents_are_decoded_or_a_decode_error(document: Any) -> None:
    _decode_with_all(stdlib_json.dumps(document).encode())


def _decode_with_all(body: bytes) -> None:
    for decoder in DECODERS.values():
        try:
            decoder(body)
        except DecodeError as error:
            assert len(str(error)) < 500, "a message must not quote a whole body"  # noqa: PT017


def test_each_thread_has_a_parser_of_its_own() -> None:
    bodies = [json.encode({"k": np.arange(n, n + 2_000) + 2**60}) for n in range(64)]
    with ThreadPoolExecutor(8) as pool:
        sums = pool.map(lambda body: int((json.decode_id_list(body, "k") - 2**60).sum()), bodies)
    assert list(sums) == [sum(range(n, n + 2_000)) for n in range(64)]


def test_an_array_outlives_the_next_document() -> None:
    first = json.decode_id_list(b'{"k": [1, 2, 3]}', "k")
    json.decode_id_list(b'{"k": [7, 8, 9]}', "k")
    assert first.tolist() == [1, 2, 3]
    assert math.prod(first.tolist()) == 6
