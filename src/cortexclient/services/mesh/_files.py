"""Meshes as files, each there only when it is whole."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np

from ...errors import CortexError, CortexUsageError

FileFormat = Literal["ply", "draco"]
SUFFIXES: Final = {"ply": ".ply", "draco": ".drc"}


class MeshFiles:
    """A folder with one file for each mesh.

    Nothing is tried any more once a file could not be written: a full disk is full for all of them.
    """

    def __init__(self, folder: Path, file_format: FileFormat) -> None:
        if file_format not in SUFFIXES:
            raise CortexUsageError(f"file_format={file_format!r}: must be one of {', '.join(SUFFIXES)}")
        self._folder = folder
        self._format = file_format
        self._broken: OSError | None = None

    def path(self, node: int) -> Path:
        """Where the mesh of an object goes."""
        return self._folder / f"{node}{SUFFIXES[self._format]}"

    def check(self, node: int) -> None:
        """Refuse to fetch what could not be written."""
        if self._broken is not None:
            raise self._refusal(node, self._broken)

    def write(self, node: int, mesh: Any) -> Path:
        """Write a mesh beside its place, and move it there when the disk has all of it."""
        data = mesh.to_ply() if self._format == "ply" else _draco(mesh)
        unfinished: str | None = None
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            with tempfile.NamedTemporaryFile(dir=self._folder, prefix=f".{node}-", delete=False) as file:
                unfinished = file.name
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            Path(unfinished).replace(self.path(node))
        except OSError as error:
            if unfinished is not None:
                Path(unfinished).unlink(missing_ok=True)
            self._broken = error
            raise self._refusal(node, error) from error
        return self.path(node)

    def _refusal(self, node: int, error: OSError) -> CortexError:
        text = f"{self.path(node)} was not written ({error.strerror or error}); files that are there are whole: "
        return CortexError(text + "make room and call again, only what is missing is fetched", ids=(node,))


def _draco(mesh: Any) -> bytes:
    """On a lattice of whole nanometres, so that vertices of the graph's meshes stay what they are."""
    import DracoPy

    vertices = np.asarray(mesh.vertices, np.float32)
    low = np.floor(vertices.min(axis=0)) if len(vertices) else np.zeros(3)
    bits = int(np.ceil(np.log2((vertices - low).max(initial=1) + 2)))
    encoded: bytes = DracoPy.encode(
        vertices,
        np.asarray(mesh.faces, np.uint32),
        quantization_bits=bits,
        compression_level=1,
        quantization_range=2**bits - 1,
        quantization_origin=low,
        create_metadata=True,
    )
    return encoded
