"""Binary bodies of ids."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cortexclient import DecodeError
from cortexclient._wire import binary
from cortexclient.ids import INT64_MAX

ID_LISTS = st.lists(st.integers(0, INT64_MAX), max_size=50)


@given(ids=ID_LISTS)
def test_ids_survive_the_round_trip(ids: list[int]) -> None:
    body = binary.encode_ids(np.array(ids, np.int64))
    assert len(body) == 8 * len(ids)
    decoded = binary.decode_ids(body, expect=len(ids))
    assert decoded.dtype == np.int64
    assert decoded.tolist() == ids


def test_the_wire_is_little_endian() -> None:
    assert binary.encode_ids(np.array([1, 2**56], ">i8")) == b"\1" + bytes(7) + bytes(7) + b"\1"


def test_neighbours_above_two_to_the_53_stay_apart() -> None:
    ids = np.array([2**53, 2**53 + 1, 864691135858491438, 864691135858491439], np.int64)
    assert binary.decode_ids(binary.encode_ids(ids), 4).tolist() == ids.tolist()


@given(ids=ID_LISTS, cut=st.integers(1, 16))
def test_a_body_of_another_length_is_refused(ids: list[int], cut: int) -> None:
    body = binary.encode_ids(np.array(ids, np.int64))
    for wrong in {body[:-cut], body + bytes(cut)} - {body}:
        with pytest.raises(DecodeError, match=f"{8 * len(ids)} bytes must come back, not {len(wrong)}"):
            binary.decode_ids(wrong, expect=len(ids))


def test_an_id_that_is_too_large_is_named() -> None:
    body = np.array([5, 2**63 + 3], "<u8").tobytes()
    with pytest.raises(DecodeError, match=str(2**63 + 3)):
        binary.decode_ids(body, expect=2)


@given(body=st.binary(max_size=64), expect=st.integers(0, 8))
def test_random_bytes_are_ids_or_a_decode_error(body: bytes, expect: int) -> None:
    try:
        ids = binary.decode_ids(body, expect)
    except DecodeError:
        return
    assert binary.encode_ids(ids) == body
