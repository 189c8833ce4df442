"""Skeletons as they come: packed JSON from the service, HDF5 files from its bucket; numbers go straight into arrays.

Bodies are gzip by themselves, not by Content-Encoding; the service's bulk replies hold them as hexadecimal text in a
JSON object.
"""

from __future__ import annotations

import binascii
import io
from collections.abc import Callable, Mapping
from dataclasses import fields
from typing import Any, Final, Literal

import numpy as np
import numpy.typing as npt
import simdjson
from isal import igzip, igzip_lib

from .._types import IdArray
from ..errors import DecodeError, MissingDependency
from ..ids import INT64_MAX
from ..skeletons import Skeleton
from . import json

GZIP = b"\x1f\x8b"
_INTEGERS: Final = "u"
_NUMBERS: Final = "d"
HDF5 = b"\x89HDF\r\n\x1a\n"
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
    return _readable(_decode, body, root_id)


def decode_h5(body: bytes, root_id: int) -> Skeleton:
    """One file of the service's bucket, packed or not: the same skeleton as the service's JSON gives.

    Raises
    ------
    DecodeError
        As of `decode_flatdict`.
    MissingDependency
        h5py is not installed.
    """
    return _readable(_decode_h5, body, root_id)


def _readable(decode: Callable[[bytes, int], Skeleton], body: bytes, root_id: int) -> Skeleton:
    try:
        return decode(unpack(body), root_id)
    except DecodeError as error:
        error.ids = (root_id,)
        raise
    except (AttributeError, ValueError, KeyError, TypeError, RuntimeError, OSError) as error:
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


def _decode_h5(body: bytes, root_id: int) -> Skeleton:
    """The format is meshparty's (``skeleton_io``, file version 2), and the level-2 ids (SkeletonService 0.23)."""
    try:
        import h5py
    except ImportError as error:
        raise MissingDependency("h5py", "skeleton", "method='bucket'") from error
    if not body.startswith(HDF5):
        raise DecodeError(f"an HDF5 file was promised: {body[:40]!r}")
    with h5py.File(h5py.h5f.open_file_image(body)) as file:
        properties = file.get("vertex_properties", {})
        level2 = file["lvl2_ids"][()] if "lvl2_ids" in file else np.empty(0, np.int64)
        meta = json.decode(file["meta"][()].tobytes()) if "meta" in file else {}
        vertices = file["vertices"][()].astype(np.float64, copy=False)
        kinds = _property(properties, "compartment", np.empty(0)).astype(np.int64)
        skeleton = Skeleton(
            root_id=root_id,
            vertices=_frozen(vertices.reshape(-1, 3)),
            edges=_whole(file["edges"][()].reshape(-1, 2)),
            root=int(file["root"][()]),
            radius=_property(properties, "radius", np.full(len(vertices), np.nan)),
            compartment=_frozen(kinds),
            lvl2_ids=_whole(level2),
            mesh_to_skel_map=_whole(file["mesh_to_skel_map"][()]),
            meta=meta | {"skeleton_version": 4},  # only this version is stored
        )
    _check(skeleton, meta.get("root_id", root_id))
    return skeleton


def _property(properties: Any, name: str, default: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """A property of the vertices, which these files hold as JSON text."""
    if name not in properties:
        return _frozen(default)
    values: Any = simdjson.Parser().parse(properties[name][()])
    return _frozen(np.frombuffer(values.as_buffer(of_type=_NUMBERS), np.float64))


def _whole(array: npt.NDArray[Any]) -> IdArray:
    if array.dtype.kind not in "ui" and array.size:
        raise DecodeError(f"integers were promised, not {array.dtype}")
    if array.size and (array.min() < 0 or array.max() > INT64_MAX):
        raise DecodeError("an integer is below zero or above 2**63 - 1")
    return _frozen(array.astype(np.int64, copy=False))


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


def to_archive(skeleton: Skeleton) -> bytes:
    """Write a skeleton down: an archive of its arrays, as numpy does it, and the rest as JSON."""
    arrays = {item.name: getattr(skeleton, item.name) for item in fields(skeleton)}
    rest = {name: arrays.pop(name) for name in ("root_id", "root", "meta")}
    file = io.BytesIO()
    np.savez(file, rest=np.frombuffer(json.encode(rest), np.uint8), **arrays)
    return file.getvalue()


def from_archive(data: bytes) -> Skeleton:
    """Read what `to_archive` wrote."""
    with np.load(io.BytesIO(data), allow_pickle=False) as archive:
        arrays = {name: archive[name] for name in archive.files}
    rest = json.decode(arrays.pop("rest").tobytes())
    values: dict[str, Any] = {name: _frozen(array) for name, array in arrays.items()} | rest
    return Skeleton(**values)
