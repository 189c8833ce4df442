"""What of a mesh is wanted, what came of it, and the object that users get."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final, Literal, Self

import numpy as np

from ..._quietly import quietly
from ..._types import IdArray
from ..._wire.meshes import Fragment, MeshSource, Part, Vertices, decode, join, weld
from ...errors import CortexError, CortexUsageError, DecodeError, MissingDependency, NotFoundError, TooLarge

Source = Literal["auto", "graphene", "static"]
SOURCES: Final = ("auto", "graphene", "static")
Bounds = tuple[tuple[int, int], tuple[int, int], tuple[int, int]]


@dataclass(frozen=True, slots=True)
class Wish:
    """What of a mesh is wanted, and where it may come from."""

    source: Source = "graphene"
    lod: int = 0
    bounds: str | None = None
    max_bytes: int | None = None
    allow_missing: bool = False
    start_layer: int | None = None

    @classmethod
    def of(
        cls, source: Source, lod: int | None, bounds: Bounds | None, max_bytes: int | None, allow_missing: bool
    ) -> Self:
        """What the user said, checked: meshes of the graph have no levels of detail, static ones no bounds."""
        if source not in SOURCES:
            raise CortexUsageError(f"source={source!r}: must be one of {', '.join(SOURCES)}")
        if max_bytes is not None and max_bytes <= 0:
            raise CortexUsageError(f"max_bytes={max_bytes}: must be above zero")
        if lod:
            if source == "graphene" or bounds is not None:
                raise CortexUsageError(f"lod={lod}: meshes of the graph (and parts of them) have one level, 0")
            source = "static"
        if bounds is None:
            return cls(source, lod or 0, None, max_bytes, allow_missing)
        if source == "static":
            raise CortexUsageError("static meshes come whole: bounds need source='graphene'")
        box = np.asarray(bounds)
        if box.shape != (3, 2) or box.dtype.kind not in "iu" or (box[:, 0] >= box[:, 1]).any():
            raise CortexUsageError("bounds are ((x0, x1), (y0, y1), (z0, z1)) in whole voxels, each from low to high")
        text = "_".join(f"{low}-{high}" for low, high in box.tolist())
        return cls("graphene", 0, text, max_bytes, allow_missing)


class Assembly:
    """The fragments of one mesh on their way into it: the ledger of what was asked, what came, what is missing."""

    def __init__(self, node: int, fragments: list[Fragment], source: MeshSource) -> None:
        self.node = node
        self.fragments = fragments
        self.missing: dict[Fragment, CortexError] = {}
        self._source = source
        self._parts: dict[Fragment, Part] = {}

    def take(self, data: dict[Fragment, bytes]) -> list[Fragment]:
        """Decode fragments; those that cannot be read are told."""
        broken = []
        for fragment, body in data.items():
            try:
                self._parts[fragment] = decode(body)
            except DecodeError as error:
                self.missing[fragment] = error
                broken.append(fragment)
            else:
                self.missing.pop(fragment, None)
        return broken

    @property
    def decoded(self) -> list[Fragment]:
        """What is there, in the order of the manifest."""
        return [fragment for fragment in self.fragments if fragment in self._parts]

    @property
    def nodes(self) -> IdArray:
        """The node of each decoded fragment."""
        return np.array([fragment.node or self.node for fragment in self.decoded], np.int64)

    def vertices(self) -> list[tuple[int, Vertices]]:
        """The vertices of each decoded fragment, with its node."""
        return [(fragment.node, self._parts[fragment][0]) for fragment in self.decoded]

    def mesh(self) -> Any:
        """The mesh of what is there as cloud-volume's; None if nothing is. The fragments are let go."""
        if not self._parts:
            return None
        nodes, joined = self.nodes, join([self._parts[fragment] for fragment in self.decoded])
        self._parts.clear()
        welded = weld(joined, nodes.tolist(), self._source)
        return cloudvolume_mesh(welded, self.node, [lost.path for lost in self.missing])

    def incomplete(self, mesh: Any) -> CortexError:
        """The error that names what is missing."""
        names = {(f"{f.path} [{f.start}, {f.stop})" if f.stop else f.path): why for f, why in self.missing.items()}
        return incomplete(self.node, len(self.fragments), names, mesh)


def cloudvolume_mesh(part: Part, node: int, missing: list[str]) -> Any:
    """Vertices and triangles as cloud-volume's Mesh."""
    mesh = _mesh_type()(*part, segid=node, encoding_type="draco")
    mesh.missing_fragments = missing
    return mesh


def _mesh_type() -> Any:
    try:
        return quietly("cloudvolume").Mesh
    except ImportError as error:
        raise MissingDependency("cloud-volume", "mesh", "client.mesh") from error


def incomplete(node: int, asked: int, missing: dict[str, CortexError], mesh: Any) -> CortexError:
    """The error of a mesh that lacks fragments; ``partial`` is the mesh without them."""
    names, first = ", ".join(list(missing)[:3]), next(iter(missing.values()))
    kind = DecodeError if isinstance(first, DecodeError) else NotFoundError
    error = kind(
        f"{len(missing):,} of {asked:,} fragments are missing or broken ({names}): "
        "allow_missing=True makes the mesh of the others",
        ids=(node,),
    )
    error.partial = mesh
    error.__cause__ = first
    return error


def refuse_above(max_bytes: int | None, size: int, fragments: int, node: int) -> None:
    """Refuse a mesh that is larger than its user allows."""
    if max_bytes is not None and size > max_bytes:
        text = f"the mesh has {fragments:,} fragments of {size:,} bytes, above max_bytes={max_bytes:,}: "
        raise TooLarge(text + "allow more, or take the part within bounds=", ids=(node,))
