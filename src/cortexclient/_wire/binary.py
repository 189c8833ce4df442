"""Binary bodies of the chunkedgraph: little-endian uint64, no header, no padding."""

from __future__ import annotations

import numpy as np

from .._types import IdArray
from ..errors import DecodeError
from ..ids import INT64_MAX

_WIRE = np.dtype("<u8")


def encode_ids(ids: IdArray) -> bytes:
    """(n,) int64 to 8n bytes."""
    return ids.astype(_WIRE, copy=False).tobytes()


def decode_ids(body: bytes, expect: int) -> IdArray:
    """8n bytes to (n,) int64, in the order of the request.

    Raises
    ------
    DecodeError
        If there are not exactly ``expect`` ids, or one does not fit int64.
    """
    if len(body) != expect * _WIRE.itemsize:
        raise DecodeError(f"{expect} ids were asked, so {expect * 8} bytes must come back, not {len(body)}")
    ids = np.frombuffer(body, _WIRE)
    if len(ids) and ids.max() > INT64_MAX:
        raise DecodeError(f"the reply holds an id above 2**63 - 1: {ids.max()}")
    return ids.astype(np.int64)
