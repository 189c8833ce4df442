"""Static meshes, as a flat segmentation's bucket holds them: files to be added to ``World.files``.

A flat segmentation is a copy of one instant: its objects never change, and their meshes are files under their root ids.
The formats are Neuroglancer's ``precomputed`` ones. Multi-resolution meshes have the level-2 chunks as the cells of
their finest level, as the graph's fragments end there; each further level joins eight cells and moves vertices to a
coarser lattice.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final, Literal

import numpy as np

from .layout import Ids
from .meshes import SHARDING, Shard
from .surfaces import Points

if TYPE_CHECKING:
    from .world import World

Kind = Literal["legacy", "multilod", "multilod-sharded"]
BITS: Final = 16
LEVELS: Final = 3
COARSE: Final = 64.0
"""Pitch, nm, of the lattice of level 1; each further one's is twice as wide."""
MESHES: Final = "mesh"


@dataclass(frozen=True, slots=True)
class Piece:
    """What of a mesh is in one cell: vertices in nm, (n, 3), and triangles, (m, 3)."""

    cell: tuple[int, int, int]
    vertices: Points
    faces: Ids


def add_flat_segmentation(world: World, path: str, roots: Iterable[int], kind: Kind) -> None:
    """Publish the meshes of some roots as a flat segmentation at ``bucket/path``, and name it to all clients."""
    meshes = {int(root): _pieces_of(world, int(root)) for root in roots}
    layout = world.graph.layout
    resolution = np.array(layout.resolution, np.float64)
    origin, cell = (np.array(voxels, np.float64) * resolution for voxels in (layout.voxel_offset, layout.chunk_size))
    if kind == "legacy":
        files = legacy_files(meshes)
    else:
        files = multilod_files(meshes, origin, cell, sharded=kind == "multilod-sharded")
    publish(world, path, files)


def publish(world: World, path: str, files: Mapping[str, bytes]) -> None:
    """Put the files of a mesh folder into a volume at ``bucket/path`` that the datastacks name."""
    layout = world.graph.layout
    volume = {
        "type": "segmentation",
        "data_type": "uint64",
        "num_channels": 1,
        "mesh": MESHES,
        "scales": [
            {
                "key": "_".join(map(str, layout.resolution)),
                "resolution": layout.resolution,
                "size": layout.volume_size,
                "voxel_offset": layout.voxel_offset,
                "chunk_sizes": [[64, 64, 16]],
                "encoding": "raw",
            }
        ],
    }
    world.files[f"{path}/info"] = json.dumps(volume).encode()
    world.files |= {f"{path}/{MESHES}/{name}": data for name, data in files.items()}
    for name, stack in world.datastacks.items():
        world.datastacks[name] = replace(stack, flat_segmentations=(*stack.flat_segmentations, path))


def _pieces_of(world: World, root: int) -> list[Piece]:
    """The fragments of a root's level-2 nodes."""
    import DracoPy

    layout, pieces = world.graph.layout, []
    for node in world.meshes.pieces(root, 2).tolist():
        mesh = DracoPy.decode(world.meshes.fragment(node))
        x, y, z = layout.chunk(node).tolist()
        pieces.append(Piece((x, y, z), mesh.points.astype(np.float64), mesh.faces.astype(np.int64)))
    return pieces


# -- legacy ------------------------------------------------------------------------------------------------------------


def legacy_files(meshes: Mapping[int, Sequence[Piece]]) -> dict[str, bytes]:
    """A fragment for each piece, and a list of them for each mesh."""
    files = {"info": json.dumps({"@type": "neuroglancer_legacy_mesh"}).encode()}
    for root, pieces in meshes.items():
        names = [f"{root}:0:{k}" for k in range(len(pieces))]
        files[f"{root}:0"] = json.dumps({"fragments": names}).encode()
        files |= {name: _raw(piece) for name, piece in zip(names, pieces, strict=True)}
    return files


def _raw(piece: Piece) -> bytes:
    head = len(piece.vertices).to_bytes(4, "little")
    return head + piece.vertices.astype("<f4").tobytes() + piece.faces.astype("<u4").tobytes()


def _joined(pieces: Sequence[Piece]) -> Piece:
    starts = np.cumsum([0, *(len(piece.vertices) for piece in pieces)])
    faces = [piece.faces + start for piece, start in zip(pieces, starts, strict=False)]
    return Piece(pieces[0].cell, np.concatenate([piece.vertices for piece in pieces]), np.concatenate(faces))


# -- several levels of detail --------------------------------------------------------------------------------------


def multilod_files(
    meshes: Mapping[int, Sequence[Piece]], origin: Points, cell: Points, *, sharded: bool = False
) -> dict[str, bytes]:
    """A manifest and the fragments of all levels for each mesh; ``cell`` (3,) nm is the size of those of level 0."""
    info: dict[str, Any] = {
        "@type": "neuroglancer_multilod_draco",
        "vertex_quantization_bits": BITS,
        "transform": [1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1, 0],
        "lod_scale_multiplier": 1.0,
    }
    written = {root: _levels(pieces, origin, cell) for root, pieces in meshes.items()}
    if sharded:
        manifests = {root: manifest for root, (manifest, _) in written.items()}
        shard = Shard.write(manifests, ahead={root: fragments for root, (_, fragments) in written.items()})
        return {"info": json.dumps(info | {"sharding": SHARDING}).encode(), "0.shard": shard.data}
    files = {"info": json.dumps(info).encode()}
    for root, (manifest, fragments) in written.items():
        files |= {f"{root}.index": manifest, str(root): fragments}
    return files


def _levels(pieces: Sequence[Piece], origin: Points, cell: Points) -> tuple[bytes, bytes]:
    """The manifest of a mesh and all of its fragments, level after level."""
    tables, data = [], []
    for level in range(LEVELS):
        found = sorted(_level(pieces, level), key=lambda piece: piece.cell)
        data.append([_draco(piece, origin, cell * 2**level) for piece in found])
        positions = np.array([piece.cell for piece in found], "<u4").T
        tables.append(positions.tobytes() + np.array([len(d) for d in data[-1]], "<u4").tobytes())
    manifest = b"".join(
        [
            np.array([*cell, *origin], "<f4").tobytes(),
            LEVELS.to_bytes(4, "little"),
            (COARSE * 2.0 ** np.arange(LEVELS)).astype("<f4").tobytes(),
            np.zeros((LEVELS, 3), "<f4").tobytes(),
            np.array([len(fragments) for fragments in data], "<u4").tobytes(),
            *tables,
        ]
    )
    return manifest, b"".join(fragment for fragments in data for fragment in fragments)


def _level(pieces: Sequence[Piece], level: int) -> list[Piece]:
    """The mesh at a level of detail: one piece for each cell."""
    cells: dict[tuple[int, int, int], list[Piece]] = {}
    for piece in pieces:
        x, y, z = piece.cell
        cells.setdefault((x >> level, y >> level, z >> level), []).append(piece)
    joined = [replace(_joined(there), cell=cell) for cell, there in cells.items()]
    return joined if level == 0 else [_coarse(piece, COARSE * 2 ** (level - 1)) for piece in joined]


def _coarse(piece: Piece, pitch: float) -> Piece:
    """With vertices on a wider lattice; triangles that become lines go, but never all of them."""
    steps = np.rint(piece.vertices / pitch).astype(np.int64)
    _, first, number = np.unique(steps, axis=0, return_index=True, return_inverse=True)
    faces = number.reshape(-1)[piece.faces]
    thick = (faces != np.roll(faces, 1, axis=1)).all(axis=1)
    return Piece(piece.cell, piece.vertices[first], faces[thick] if thick.any() else faces[:1])


def _draco(piece: Piece, origin: Points, cell: Points) -> bytes:
    """In whole steps of a cell's own lattice, whose first and last lie on its walls."""
    import DracoPy

    most = 2**BITS - 1
    steps = np.rint(((piece.vertices - origin) / cell - piece.cell) * most)
    encoded: bytes = DracoPy.encode(
        np.clip(steps, 0, most).astype(np.float32),
        piece.faces.astype(np.uint32),
        quantization_bits=BITS,
        compression_level=1,
        quantization_range=most,
        quantization_origin=np.zeros(3),
        create_metadata=True,
    )
    return encoded
