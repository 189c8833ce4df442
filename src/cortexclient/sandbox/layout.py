"""How a chunkedgraph id spells its layer, its chunk and its segment, and where chunks lie in space."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Self

import numpy as np
import numpy.typing as npt

Ids = npt.NDArray[np.int64]


def unique_ids(ids: Ids) -> Ids:
    """Each id once, sorted; `numpy.unique` takes twenty times as long for a million integers."""
    ordered = np.sort(ids)
    return ordered[np.append(True, ordered[1:] != ordered[:-1])] if len(ordered) else ordered


def as_ids(ids: npt.ArrayLike) -> Ids:
    """Ids as int64; uint64 input is reinterpreted, never rounded."""
    array = np.asarray(ids)
    if array.dtype == np.uint64:
        return array.view(np.int64)
    return array.astype(np.int64, copy=False)


@dataclass(frozen=True)
class Layout:
    """The geometry of one chunkedgraph.

    An id has 64 bits: ``layer`` (8) ``x`` ``y`` ``z`` (``spatial_bits[layer]`` each) and the segment id in the rest.
    Chunk coordinates count from ``voxel_offset``; a chunk of layer ``L`` spans ``chunk_size * fanout**(L - 2)`` voxels,
    those of layers 1 and 2 are the same.

    Parameters
    ----------
    n_layers
        The layer of the roots.
    spatial_bits
        Bits per dimension, for each layer from 1 to ``n_layers``.
    chunk_size, voxel_offset, volume_size
        In voxels of ``resolution``.
    resolution
        Nanometres per voxel.
    """

    n_layers: int
    spatial_bits: Mapping[int, int]
    chunk_size: tuple[int, int, int]
    resolution: tuple[int, int, int]
    voxel_offset: tuple[int, int, int]
    volume_size: tuple[int, int, int]
    layer_bits: int = 8
    fanout: int = 2

    @classmethod
    def minnie65(cls) -> Self:
        """The layout of minnie65 (its published segmentation info)."""
        return cls(
            n_layers=12,
            spatial_bits={1: 10} | {layer: 12 - layer for layer in range(2, 12)} | {12: 1},
            chunk_size=(256, 256, 512),
            resolution=(8, 8, 40),
            voxel_offset=(26385, 30308, 14850),
            volume_size=(192424, 131051, 13008),
        )

    @cached_property
    def _bits(self) -> Ids:
        """Bits per dimension by layer; 0 for layers that do not exist."""
        bits = np.zeros(1 << self.layer_bits, np.int64)
        for layer, n in self.spatial_bits.items():
            bits[layer] = n
        return bits

    @property
    def layer_shift(self) -> int:
        """Position of the lowest bit of the layer."""
        return 64 - self.layer_bits

    def layer(self, ids: npt.ArrayLike) -> Ids:
        """Layer of each id, shape as given; any id has one, known or not."""
        return (as_ids(ids) >> self.layer_shift) & ((1 << self.layer_bits) - 1)

    def chunk(self, ids: npt.ArrayLike) -> Ids:
        """Chunk coordinates of each id, shape (..., 3), in chunks of the id's own layer."""
        array = as_ids(ids)
        bits = self._bits[self.layer(array)]
        mask = (np.int64(1) << bits) - 1
        return np.stack([(array >> (self.layer_shift - k * bits)) & mask for k in (1, 2, 3)], axis=-1)

    def segment(self, ids: npt.ArrayLike) -> Ids:
        """Segment id of each id within its chunk."""
        array = as_ids(ids)
        free = self.layer_shift - 3 * self._bits[self.layer(array)]
        return array & ((np.int64(1) << free) - 1)

    def segments(self, node: int) -> int:
        """How many segment ids there are in the chunk of ``node``."""
        return 1 << (self.layer_shift - 3 * int(self._bits[self.layer(node)]))

    def make(self, layer: npt.ArrayLike, chunk: npt.ArrayLike, segment: npt.ArrayLike) -> Ids:
        """Compose ids from ``layer`` (...), ``chunk`` (..., 3) and ``segment`` (...), broadcast against each other."""
        layers, chunks, segments = as_ids(layer), as_ids(chunk), as_ids(segment)
        bits = self._bits[layers]
        ids = (layers << self.layer_shift) | segments
        for k in (1, 2, 3):
            ids = ids | (chunks[..., k - 1] << (self.layer_shift - k * bits))
        return as_ids(ids)

    def chunk_voxels(self, layer: int) -> Ids:
        """Voxels that a chunk of ``layer`` spans, shape (3,)."""
        return as_ids(np.asarray(self.chunk_size, np.int64) * self.fanout ** max(layer - 2, 0))

    def chunk_at(self, voxels: npt.ArrayLike, layer: int = 2) -> Ids:
        """Chunk of ``layer`` that holds each absolute voxel position, shape (..., 3)."""
        return as_ids((as_ids(voxels) - np.asarray(self.voxel_offset, np.int64)) // self.chunk_voxels(layer))
