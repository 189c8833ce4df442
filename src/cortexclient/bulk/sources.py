"""Where the ids of a job come from: files, arrays, iterators; always in blocks, never all of them as Python objects."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import pyarrow as pa
from pyarrow import csv, parquet

from .._types import IdArray, Ids
from ..errors import CortexUsageError
from ..ids import as_ids

IdSource: TypeAlias = Ids | str | Path | Iterator[int]
"""Anything id-like, an iterator of ids, or a file: ``.parquet``, ``.csv`` with a header, else one id per line."""

BLOCK = 65_536
PILE = 4_000_000
"""Ids that pile up before they are sorted."""


def blocks(source: IdSource, column: str | None, usual: str) -> Iterator[IdArray]:
    """Read ids, exactly.

    Parameters
    ----------
    source
        Where they come from.
    column
        Which column of a file; None: the only one, or the one called ``usual``.

    Yields
    ------
    (n,) int64 in the order of the source

    Raises
    ------
    CortexUsageError
        For whatever is no id, and for a file that cannot be read.
    """
    if not isinstance(source, str | Path):
        yield from _of_values(source)
        return
    path = Path(source)
    if not path.is_file():
        raise CortexUsageError(f"there is no file {path} to read ids from")
    read = {".parquet": _of_parquet, ".csv": _of_csv}.get(path.suffix)
    try:
        for part in read(path, column, usual) if read else _of_lines(path):
            yield as_ids(part, f"the ids of {path}")
    except pa.ArrowInvalid as error:
        raise CortexUsageError(f"{path} cannot be read: {error}") from error


def _of_values(source: Any) -> Iterator[IdArray]:
    if isinstance(source, Iterator):
        while block := list(itertools.islice(source, BLOCK)):
            yield as_ids(block)
        return
    ids = as_ids(source)
    for start in range(0, len(ids), BLOCK):
        yield ids[start : start + BLOCK]


def _of_lines(path: Path) -> Iterator[list[str]]:
    with path.open() as file:
        words = (word for line in file for word in line.split())
        while block := list(itertools.islice(words, BLOCK)):
            yield block


def _of_parquet(path: Path, column: str | None, usual: str) -> Iterator[Any]:
    with parquet.ParquetFile(path) as file:
        name = _chosen(file.schema_arrow.names, column, usual, path)
        for batch in file.iter_batches(BLOCK, columns=[name]):
            yield batch.column(0)


def _of_csv(path: Path, column: str | None, usual: str) -> Iterator[Any]:
    with csv.open_csv(path) as reader:
        name = _chosen(reader.schema.names, column, usual, path)
    # typed before it is parsed: a column that is guessed may become floats
    typed = csv.ConvertOptions(include_columns=[name], column_types={name: pa.int64()})
    with csv.open_csv(path, convert_options=typed) as reader:
        for batch in reader:
            yield batch.column(0)


def _chosen(names: list[str], wanted: str | None, usual: str, path: Path) -> str:
    if wanted is None:
        wanted = names[0] if len(names) == 1 else usual
    if wanted not in names:
        raise CortexUsageError(f"{path} has no column {wanted!r}: give --column one of {', '.join(names)}")
    return wanted


def distinct(parts: Iterable[IdArray]) -> IdArray:
    """Every id once, in ascending order.

    An id that comes often is asked once. Ascending roots of one part are of like age, which saves look-ups between
    versions, and ascending supervoxels are neighbours. Memory: eight bytes for each distinct id, four times while
    sorting.
    """
    found, waiting, count = np.empty(0, np.int64), [], 0
    for part in parts:
        waiting.append(part)
        count += len(part)
        if count >= max(len(found), PILE):
            found, waiting, count = _merged([found, *waiting]), [], 0
    return _merged([found, *waiting])


def _merged(parts: list[IdArray]) -> IdArray:
    ids: IdArray = np.sort(np.concatenate(parts))  # np.unique hashes: 20 times as long on mostly distinct ids
    is_first = np.ones(len(ids), np.bool_)
    np.not_equal(ids[1:], ids[:-1], out=is_first[1:])
    return ids[is_first]


def digest_of(ids: IdArray) -> str:
    """SHA-256 of ids."""
    return hashlib.sha256(ids.astype("<i8").tobytes()).hexdigest()
