"""Static meshes: those of a flat segmentation, each object whole in one place (Neuroglancer's precomputed formats).

Three layouts: a list of raw or Draco fragments for each object (``neuroglancer_legacy_mesh``), one file of Draco
fragments with several levels of detail (``neuroglancer_multilod_draco``), and many of those in shards.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Self

import numpy as np
import numpy.typing as npt

from .._quietly import quietly
from ..errors import DecodeError, MissingDependency
from . import json
from .meshes import Part, Vertices, decode

Span = tuple[int, int]
"""Bytes ``[start, stop)`` of an object."""

MULTILOD: Final = "neuroglancer_multilod_draco"
_U32: Final = np.dtype("<u4")
_F32: Final = np.dtype("<f4")


@dataclass(frozen=True, slots=True)
class ShardIndex:
    """How the values of many objects share files (``neuroglancer_uint64_sharded_v1``)."""

    spec: Mapping[str, Any]

    @property
    def head(self) -> int:
        """Bytes of the index that a shard begins with."""
        return 16 << int(self.spec["minishard_bits"])

    def place(self, node: int) -> tuple[str, Span]:
        """File of an object's shard, and where in its head the index of its minishard is told."""
        try:
            sharding = quietly("cloudvolume.datasource.precomputed.sharding")
        except ImportError as error:
            raise MissingDependency("cloud-volume", "mesh", "client.mesh") from error
        at = sharding.ShardingSpecification.from_dict(dict(self.spec)).compute_shard_location(node)
        row = 16 * int(at.minishard_number)
        return f"{at.shard_number}.shard", (row, row + 16)

    def minishard(self, row: bytes) -> Span | None:
        """Where in the shard the index of a minishard is; None if it is empty."""
        start, stop = (self.head + int(x) for x in np.frombuffer(row, "<u8"))
        if stop < start:
            raise DecodeError(f"a shard's index is wrong: a minishard from byte {start} to {stop}")
        return (start, stop) if stop > start else None

    def value(self, index: bytes, node: int) -> Span | None:
        """Where in the shard the value of an object is, by the index of its minishard; None if it is not there."""
        raw = _inflated(index) if self.spec.get("minishard_index_encoding", "raw") == "gzip" else index
        if len(raw) % 24:
            raise DecodeError(f"a minishard's index has {len(raw)} bytes, which are no rows of 24")
        keys, gaps, sizes = np.frombuffer(raw, "<u8").reshape(3, -1)
        stops = np.cumsum(gaps + sizes)
        row = np.flatnonzero(np.cumsum(keys) == np.uint64(node))
        if not len(row):
            return None
        stop = self.head + int(stops[row[0]])
        return stop - int(sizes[row[0]]), stop

    def unpacked(self, value: bytes) -> bytes:
        """A value as it was before it was put in."""
        return _inflated(value) if self.spec.get("data_encoding", "raw") == "gzip" else value


def _inflated(data: bytes) -> bytes:
    try:
        return zlib.decompress(data, zlib.MAX_WBITS | 16)
    except zlib.error as error:
        raise DecodeError(f"a part of a shard is no gzip ({error})") from error


@dataclass(frozen=True, slots=True)
class StaticSource:
    """Where the meshes of a flat segmentation are, and how they are written.

    ``transform`` (3, 4) makes nm of what is stored; ``bits`` is the quantization of a multi-resolution mesh.
    """

    folder: str
    multilod: bool
    bits: int
    transform: npt.NDArray[np.float64]
    shards: ShardIndex | None

    @classmethod
    def read(cls, folder: str, info: Mapping[str, Any]) -> Self:
        """From the ``info`` of the mesh folder; there may be none."""
        try:
            kind = str(info.get("@type", "neuroglancer_legacy_mesh"))
            multilod = kind == MULTILOD
            if not multilod and (kind != "neuroglancer_legacy_mesh" or info.get("sharding")):
                raise DecodeError(f"meshes of an unknown kind: {kind}")
            return cls(
                folder=folder,
                multilod=multilod,
                bits=int(info["vertex_quantization_bits"]) if multilod else 0,
                transform=np.array(info.get("transform", np.eye(4)[:3]), np.float64).reshape(3, 4),
                shards=ShardIndex(info["sharding"]) if info.get("sharding") else None,
            )
        except (KeyError, TypeError, ValueError) as error:
            raise DecodeError(f"the info of the mesh folder is incomplete: {error!r}") from error

    def placed(self, vertices: npt.NDArray[Any]) -> Vertices:
        """Vertices in nm."""
        if not np.array_equal(self.transform, np.eye(4)[:3]):
            vertices = vertices @ self.transform[:, :3].T + self.transform[:, 3]
        return np.asarray(vertices, np.float32)


def fragment_names(body: bytes) -> list[str]:
    """The fragments that an unsharded legacy mesh is made of."""
    document = json.decode(body)
    names = document.get("fragments") if isinstance(document, Mapping) else None
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise DecodeError(f"the manifest lists no fragments: {body[:60]!r}")
    return names


def decode_fragment(data: bytes, source: StaticSource) -> Part:
    """A legacy fragment, Draco or raw: a count, that many float32 vertices, and uint32 triangles to the end."""
    if data[:5] == b"DRACO":
        vertices, faces = decode(data)
        return source.placed(vertices), faces
    count = int.from_bytes(data[:4], "little")
    rest = len(data) - 4 - 12 * count
    if len(data) < 4 or rest < 0 or rest % 12:
        raise DecodeError(f"not a mesh: {len(data)} bytes with {count} vertices")
    vertices = np.frombuffer(data, _F32, 3 * count, 4).reshape(-1, 3)
    faces = np.frombuffer(data, _U32, offset=4 + 12 * count).reshape(-1, 3)
    if len(faces) and faces.max() >= count:
        raise DecodeError(f"not a mesh: a triangle has vertex {faces.max()} of {count}")
    return source.placed(vertices), faces.astype(np.uint32)


@dataclass(frozen=True, slots=True)
class LodManifest:
    """The table of contents of a multi-resolution mesh; fragments follow each other, the finest level first.

    ``positions`` and ``sizes`` have for each level the cells, (n, 3), and the bytes, (n,), of its fragments.
    """

    chunk: npt.NDArray[np.float32]
    origin: npt.NDArray[np.float32]
    offsets: npt.NDArray[np.float32]
    positions: list[npt.NDArray[np.uint32]]
    sizes: list[npt.NDArray[np.uint32]]

    @classmethod
    def read(cls, body: bytes) -> Self:
        """Read it; every byte must be accounted for."""
        words = np.frombuffer(body[: len(body) // 4 * 4], _U32)
        lods = int(words[6]) if len(words) > 6 else 0
        start = 7 + 5 * lods
        if not 0 < lods <= 64 or len(words) < start:
            raise DecodeError(f"not the manifest of a multi-resolution mesh: {len(body)} bytes")
        floats = words.view(_F32)
        positions, sizes = [], []
        for count in words[7 + 4 * lods : start].tolist():
            positions.append(words[start : start + 3 * count].reshape(3, -1).T if count else np.empty((0, 3), _U32))
            sizes.append(words[start + 3 * count : start + 4 * count])
            start += 4 * count
        if start * 4 != len(body):
            raise DecodeError(f"the manifest of a mesh has {len(body)} bytes, and should have {4 * start}")
        offsets = floats[7 + lods : 7 + 4 * lods].reshape(lods, 3)
        return cls(floats[:3], floats[3:6], offsets, positions, sizes)

    @property
    def lods(self) -> int:
        """How many levels of detail there are."""
        return len(self.sizes)

    @property
    def total(self) -> int:
        """Bytes of all fragments of all levels."""
        return sum(int(sizes.sum(dtype=np.int64)) for sizes in self.sizes)

    def span(self, lod: int) -> Span:
        """Where the fragments of one level are, from the first one of all on."""
        ends = np.cumsum([0, *(sizes.sum(dtype=np.int64) for sizes in self.sizes)])
        return int(ends[lod]), int(ends[lod + 1])

    def decode(self, data: bytes, lod: int, source: StaticSource) -> list[Part]:
        """The fragments of one level; a cell may have none."""
        parts, start = [], 0
        for position, size in zip(self.positions[lod], self.sizes[lod].tolist(), strict=True):
            if size:
                stored, faces = decode(data[start : start + size])
                cell = position + stored / np.float32(2.0**source.bits - 1)
                parts.append((source.placed(self.origin + self.offsets[lod] + self.chunk * 2**lod * cell), faces))
            start += size
        return parts
