"""Skeletons as the service sends them: packed JSON, whose numbers go straight into arrays.

Bodies are gzip by themselves, not by Content-Encoding; in bulk they are hexadecimal text in a JSON object.
"""

from __future__ import annotations

import binascii
from collections.abc import Mapping
from typing import Any, Final, Literal

import numpy as np
import numpy.typing as npt
import simdjson
from isal import igzip, igzip_lib

from .._types import IdArray
from ..errors import DecodeError
from ..ids import INT64_MAX
from ..skeletons import Skeleton
from . import json

GZIP = b"\x1f\x8b"
_INTEGERS: Final = "u"
_NUMBERS: Final = "d"
_DAMAGED: Final[tuple[Any, ...]] = (OSError, EOFError, igzip_lib.IsalError)


def unpack(body: bytes) -> bytes:
    """Take the gzip off, if there is one.

    Raises
    ------
    DecodeError
        If it is cut short or damaged, or the body is ``null``: the service says so if it fails while formatting.
    """
    if body.strip() == b"null":
        raise DecodeError("the service failed to format the skeleton: it answered null")
    if not body.startswith(GZIP):
        return body
    try:
        return bytes(igzip.decompress(body))  # type: ignore[no-untyped-call]
    except _DAMAGED as error:
        raise DecodeError(f"the packed reply is damaged or cut short ({error})") from error


def decode_bulk(body: bytes) -> dict[int, str]:
    """``{"<root>": "<hexadecimal text>"}`` by integer root; what the text holds is not looked at."""
    value = json.decode(body)
    if not isinstance(value, Mapping) or not all(isinstance(text, str) for text in value.values()):
        raise DecodeError(f"an object of skeletons was promised: {body[:60]!r}")
    try:
        return {int(key): text for key, text in value.items()}
    except ValueError as error:
        raise DecodeError(f"an object of skeletons was promised: {body[:60]!r}") from error


def decode_hex(text: str, root_id: int) -> Skeleton:
    """One value of a bulk reply."""
    try:
        packed = binascii.unhexlify(text)
    except (binascii.Error, ValueError) as error:
        raise DecodeError(f"the skeleton is no hexadecimal text but {text[:40]!r}", ids=[root_id]) from error
    return decode_flatdict(packed, root_id)


def decode_flatdict(body: bytes, root_id: int) -> Skeleton:
    """One skeleton, packed or not.

    Raises
    ------
    DecodeError
        If it is damaged, cut short, of another root, or its parts do not fit together.
    """
    try:
        return _decode(unpack(body), root_id)
    except DecodeError as error:
        error.ids = (root_id,)
        raise
    except (AttributeError, ValueError, KeyError, TypeError, RuntimeError) as error:
        raise DecodeError(f"the skeleton cannot be read ({error})", ids=[root_id]) from error


def _decode(body: bytes, root_id: int) -> Skeleton:
    # a parser of its own: parts of the document must not outlive it, and one parser serves one document
    parsed = simdjson.Parser().parse(body)
    if not isinstance(parsed, simdjson.Object):
        raise DecodeError("the skeleton is no JSON object")
    document: Any = parsed
    vertices = _array(document, "vertices", _NUMBERS).reshape(-1, 3)
    edges = _integers(document, "edges").reshape(-1, 2)
    members = _integers(document, "mesh_to_skel_map")
    level2 = _integers(document, "lvl2_ids") if "lvl2_ids" in document else np.empty(0, np.int64)
    meta = document["meta"].as_dict() if "meta" in document else {}
    n = len(vertices)
    skeleton = Skeleton(
        root_id=root_id,
        vertices=vertices,
        edges=edges,
        root=int(document["root"]),
        radius=_array(document, "radius", _NUMBERS) if "radius" in document else _constant(n, np.nan),
        compartment=_codes(document),
        lvl2_ids=level2,
        mesh_to_skel_map=members,
        meta=meta,
    )
    _check(skeleton, meta.get("root_id", root_id))
    return skeleton


def _codes(document: Any) -> IdArray:
    """Compartments: integers, which version 2 writes as floats."""
    if "compartment" not in document:
        return np.empty(0, np.int64)
    return _frozen(_array(document, "compartment", _NUMBERS).astype(np.int64))


def _integers(document: Any, name: str) -> IdArray:
    numbers = _array(document, name, _INTEGERS)
    if len(numbers) and numbers.max() > INT64_MAX:
        raise DecodeError(f"{name!r} holds an integer above 2**63 - 1")
    return numbers.view(np.int64)


def _array(document: Any, name: str, of_type: Literal["u", "d"]) -> npt.NDArray[Any]:
    kind = np.uint64 if of_type == _INTEGERS else np.float64
    return _frozen(np.frombuffer(document[name].as_buffer(of_type=of_type), kind))


def _constant(n: int, value: float) -> npt.NDArray[np.float64]:
    return _frozen(np.full(n, value))


def _frozen(array: npt.NDArray[Any]) -> npt.NDArray[Any]:
    array.flags.writeable = False
    return array


def _check(skeleton: Skeleton, named: Any) -> None:
    n = len(skeleton.vertices)
    if named != skeleton.root_id:
        raise DecodeError(f"the skeleton is of root {named}")
    if not n or not 0 <= skeleton.root < n:
        raise DecodeError(f"the root is vertex {skeleton.root} of {n}")
    for name, array in (("edges", skeleton.edges), ("mesh_to_skel_map", skeleton.mesh_to_skel_map)):
        if array.size and array.max() >= n:
            raise DecodeError(f"{name!r} names vertex {array.max()} of {n}")
    if len(skeleton.radius) != n or len(skeleton.compartment) not in (0, n):
        raise DecodeError("radius or compartment do not fit the vertices")
    if len(skeleton.lvl2_ids) not in (0, len(skeleton.mesh_to_skel_map)):
        raise DecodeError("level-2 ids and their map differ in length")
