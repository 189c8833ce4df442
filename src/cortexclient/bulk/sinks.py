"""Where the answers of a part go until it is whole: rows into memory, objects into a file for each."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

import anyio.to_thread
import numpy as np
import pyarrow as pa

from ..errors import CortexError, MissingDependency
from ..skeletons import Skeleton
from .ledger import Stamp, write_file

STEP_NM: Final = 1.0
"""Places of Draco meshes are multiples of this; real fragments are on a coarser lattice."""
MOST_BITS: Final = 30


def _swc(skeleton: Skeleton) -> bytes:
    return skeleton.to_swc().encode()


def _draco(mesh: Any) -> bytes:
    try:
        import DracoPy
    except ImportError as error:
        raise MissingDependency("DracoPy", "mesh", "writing Draco files") from error
    vertices = np.asarray(mesh.vertices, np.float64)
    low = np.floor(vertices.min(axis=0))
    bits = max(1, math.ceil(math.log2(max(float((vertices - low).max()) / STEP_NM, 1) + 1)))
    if bits > MOST_BITS:
        raise CortexError(f"the mesh is larger than Draco can hold in steps of {STEP_NM:g} nm", ids=(mesh.segid,))
    encoded: bytes = DracoPy.encode(
        vertices,
        np.asarray(mesh.faces),
        quantization_bits=bits,
        quantization_range=(2**bits - 1) * STEP_NM,
        quantization_origin=low,
    )
    return encoded


FILES: Final[Mapping[str, tuple[str, Callable[[Any], bytes]]]] = {"swc": (".swc", _swc), "draco": (".drc", _draco)}
"""Sinks with a file for each object: its suffix, and how the object is written."""


class Sink:
    """Takes the answers of one part.

    Parameters
    ----------
    folder
        That of the job.
    kind
        ``parquet``, or one of `FILES`.
    """

    def __init__(self, folder: Path, kind: str) -> None:
        self.files: dict[str, Stamp] = {}
        self._folder = folder
        self._kind = kind
        self._tables: list[pa.Table] = []
        self._records: list[dict[str, Any]] = []

    def add(self, rows: pa.Table) -> None:
        """Take rows."""
        self._tables.append(rows)

    async def put(self, root: int, value: Any) -> None:
        """Take an object: write its file, or make a row of it."""
        if self._kind in FILES:
            self._records.append(await anyio.to_thread.run_sync(self._write, root, value))
        else:
            self._records.append(_skeleton_row(value))

    def _write(self, root: int, value: Any) -> dict[str, Any]:
        suffix, encode = FILES[self._kind]
        path = self._folder / self._kind / f"{root}{suffix}"
        path.parent.mkdir(exist_ok=True)
        body = encode(value)
        name = str(path.relative_to(self._folder))
        self.files[name] = write_file(path, lambda file: file.write(body))
        return {"root_id": root, "file": name, "bytes": len(body), "n_vertices": len(value.vertices)}

    def rows(self, given: str) -> pa.Table:
        """All rows so far; without any, a table with the column ``given`` alone."""
        tables = [*self._tables]
        if self._records:
            columns = _FILE_COLUMNS if self._kind in FILES else _SKELETON_COLUMNS
            tables.append(pa.Table.from_pylist(self._records, pa.schema(columns)))
        if not tables:
            return pa.schema([(given, pa.int64())]).empty_table()
        return pa.concat_tables(tables, promote_options="permissive")


_INTEGERS, _NUMBERS = pa.list_(pa.int64()), pa.list_(pa.float64())
_FILE_COLUMNS: Final[Mapping[str, pa.DataType]] = {
    "root_id": pa.int64(),
    "file": pa.string(),
    "bytes": pa.int64(),
    "n_vertices": pa.int64(),
}
_SKELETON_COLUMNS: Final[Mapping[str, pa.DataType]] = {
    "root_id": pa.int64(),
    **dict.fromkeys(("x", "y", "z", "radius"), _NUMBERS),
    **dict.fromkeys(("parent", "compartment", "lvl2_ids", "mesh_to_skel_map"), _INTEGERS),
}


def _skeleton_row(skeleton: Skeleton) -> dict[str, Any]:
    """A skeleton as lists: a vertex has x, y, z and radius (nm), and a parent (-1: none) instead of edges."""
    x, y, z = skeleton.vertices.T
    return {
        "root_id": skeleton.root_id,
        "x": x,
        "y": y,
        "z": z,
        "radius": skeleton.radius,
        "parent": skeleton.parents(),
        "compartment": skeleton.compartment,
        "lvl2_ids": skeleton.lvl2_ids,
        "mesh_to_skel_map": skeleton.mesh_to_skel_map,
    }


def in_order(rows: pa.Table, key: str) -> pa.Table:
    """Rows in ascending order of the ids that they are about."""
    return rows.take(np.argsort(rows.column(key).to_numpy(), kind="stable"))
