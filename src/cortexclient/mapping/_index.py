"""From roots to cells without a server: all roots that ever held a nucleus, as a table on disk."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pandas as pd
import polars as pl
import pyarrow as pa
from pyarrow import parquet

from .._types import IdArray, Ids
from ..errors import CortexUsageError, NotFoundError
from ..ids import as_ids, layer_of

FILE: Final = "cell_index.parquet"
FORMAT: Final = 1
FACTS: Final = b"cortexclient.cell_index"
"""Where the file's metadata has what the table does not."""
ROWS: Final = {
    "root": pl.Int64,
    "cell": pl.Int64,
    "start": pl.Int64,
    "end": pl.Int64,
    "status": pl.String,
    "source": pl.String,
    "n_matches": pl.Int64,
}
"""Start and end in ms, half-open; the end of a root that was current is null."""
STATUSES: Final = ("ok", "multiple", "unresolved", "none", "invalid")
BLOCK: Final = 250_000
"""Ids that are translated at once between two files."""


@dataclass(frozen=True, slots=True)
class Facts:
    """What an index is an index of."""

    server: str
    datastack: str
    version: int
    """Whose rows of the nucleus tables say where cells are."""
    until: datetime
    """Up to when roots are known (aware UTC)."""
    root_layer: int


class CellIndex:
    """All roots that ever held a nucleus, and their cells; `AsyncCortexClient.build_cell_index` makes it.

    Parameters
    ----------
    folder
        Where it was built.

    Attributes
    ----------
    datastack, version, until
        The rows of which version say where cells are, and up to when roots are known (aware UTC).

    Raises
    ------
    NotFoundError
        There is no index.

    Examples
    --------
    >>> import tempfile
    >>> folder = tempfile.mkdtemp()
    >>> built = await client.build_cell_index(folder)
    >>> CellIndex(folder).root_to_cell([864691134885645050, 7], detail=True)[["cell_id", "status"]]
                        cell_id   status
    root_id
    864691134885645050   264898       ok
    7                        -1  invalid
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        self.facts = read_facts(self.folder)
        self.datastack, self.version, self.until = self.facts.datastack, self.facts.version, self.facts.until
        rows = parquet.read_table(self.folder / FILE, columns=["root", "cell", "status"], read_dictionary=["status"])
        self._roots = pd.Index(rows["root"].to_numpy())
        # a last row answers for those that are not here: position -1
        self._cells = np.append(rows["cell"].to_numpy(), -1)
        self._codes = np.append(_codes(rows["status"]), np.int8(STATUSES.index("none")))
        self._more: pl.DataFrame | None = None

    def __len__(self) -> int:
        return len(self._roots)

    def __repr__(self) -> str:
        until = f"{self.until:%Y-%m-%d %H:%M:%S} UTC"
        return f"CellIndex({self.datastack}, version {self.version}: {len(self):,} roots until {until})"

    def root_to_cell(self, root_ids: Ids, *, detail: bool = False) -> pd.DataFrame:
        """Find the cell that each root is, as `AsyncCortexClient.root_id_to_cell_id` of the index's version does.

        Parameters
        ----------
        root_ids
            Roots of any age.
        detail
            Add columns that explain each answer.

        Returns
        -------
        DataFrame
            Index ``root_id`` in input order, column ``cell_id`` (int64; -1: no cell, or several). With ``detail`` also
            ``status``, ``source`` and ``n_matches`` as there, and ``start`` and ``end`` of the root's life (UTC; NaT
            where it held no nucleus or, for the end, was current when the index was made).

        Notes
        -----
        Nothing is asked, so that an id of the roots' layer that never existed is ``none`` here (``invalid`` there), and
        so is a root that is younger than the index: :meth:`AsyncCortexClient.refresh_cell_index` adds those.

        Examples
        --------
        >>> index = await client.build_cell_index(folder)
        >>> index.root_to_cell(roots)["cell_id"].to_list()
        [264898, 256505, 304873]
        """
        asked = as_ids(root_ids, "root_ids")
        places, codes = self._find(asked)
        columns: dict[str, Any] = {"cell_id": self._cells[places]}
        if detail:
            if self._more is None:
                self._more = read(self.folder)[1].select("start", "end", "source", "n_matches")
            found = self._more[np.where(places < 0, 0, places)] if len(self) else self._more.clear(len(asked))
            here = pl.Series(places >= 0)
            held = found.select(pl.when(here).then(pl.all()))
            columns["status"] = np.array(STATUSES, object)[codes]
            columns["source"] = held["source"].to_pandas().array
            columns["n_matches"] = held["n_matches"].fill_null(0).to_numpy()
            for name in ("start", "end"):
                columns[name] = pd.DatetimeIndex(held[name].cast(pl.Datetime("ms")).to_numpy(), tz="UTC")
        frame = pd.DataFrame(columns, index=pd.Index(asked, name="root_id"))
        frame.attrs["version"] = self.version
        return frame

    def map_file(self, source: str | Path, target: str | Path, *, column: str | None = None) -> int:
        """Translate a Parquet file of roots into another one, block by block.

        Parameters
        ----------
        source
            The file with the roots.
        target
            The file that is written: ``root_id``, ``cell_id``, ``status``, in the order of the source. It is there when
            it is whole.
        column
            The column with the roots. Default: the only one, or ``root_id``.

        Returns
        -------
        int
            How many rows were written.

        Examples
        --------
        >>> index = await client.build_cell_index(folder)
        >>> pd.DataFrame({"root_id": roots}).to_parquet(folder / "roots.parquet")
        >>> index.map_file(folder / "roots.parquet", folder / "cells.parquet")
        3
        """
        with parquet.ParquetFile(source) as file:
            name = _column(file, column)
            schema = pa.schema({"root_id": "int64", "cell_id": "int64", "status": pa.dictionary("int8", "string")})
            rows, names = 0, pa.array(STATUSES)
            # ids in any order have no repeats that a dictionary of them, or packing, would save much of
            how: dict[str, Any] = {"compression": "snappy", "use_dictionary": ["status"]}
            with _replaced(Path(target)) as draft, parquet.ParquetWriter(draft, schema, **how) as out:
                for batch in file.iter_batches(BLOCK, columns=[name]):
                    ids = as_ids(batch.column(0), f"column {name} of {source}")
                    places, codes = self._find(ids)
                    status = pa.DictionaryArray.from_arrays(pa.array(codes), names)
                    columns = [pa.array(ids), pa.array(self._cells[places]), status]
                    out.write_batch(pa.RecordBatch.from_arrays(columns, schema=schema))
                    rows += len(ids)
        return rows

    def _find(self, ids: IdArray) -> tuple[IdArray, Any]:
        """Where each root is, -1 where it is not; and the code of its status."""
        places = self._roots.get_indexer(ids)
        codes = self._codes[places]
        wrong = layer_of(ids) != self.facts.root_layer
        if wrong.any():
            codes[wrong] = STATUSES.index("invalid")
        return places, codes


def read_facts(folder: Path) -> Facts:
    """What an index is an index of."""
    path = folder / FILE
    if not path.is_file():
        raise NotFoundError(f"there is no index in {folder}: build_cell_index makes one")
    told = json.loads((parquet.read_schema(path).metadata or {}).get(FACTS, b"{}"))
    if told.pop("format", None) != FORMAT:
        raise CortexUsageError(f"{path} is no index of this package's format: build_cell_index makes one")
    return Facts(**told | {"until": datetime.fromisoformat(told["until"])})


def read(folder: Path) -> tuple[Facts, pl.DataFrame]:
    """The facts and the rows (sorted by root) of an index."""
    return read_facts(folder), pl.read_parquet(folder / FILE).select(*ROWS)


def write(folder: Path, facts: Facts, rows: pl.DataFrame) -> None:
    """Put an index where the old one was, whole."""
    folder.mkdir(parents=True, exist_ok=True)
    told = {name: getattr(facts, name) for name in facts.__slots__} | {
        "until": facts.until.isoformat(),
        "format": FORMAT,
    }
    table = rows.select(*ROWS).sort("root").to_arrow()
    table = table.replace_schema_metadata({FACTS: json.dumps(told)})
    with _replaced(folder / FILE) as draft:
        parquet.write_table(table, draft, compression="zstd")


@contextmanager
def _replaced(path: Path) -> Iterator[Path]:
    """A draft that takes a file's place if all goes well."""
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        yield draft
        with draft.open("rb") as file:
            os.fsync(file.fileno())
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)


def _codes(status: Any) -> npt.NDArray[np.int8]:
    """The place of each status in `STATUSES`, from a column of dictionaries."""
    parts = [
        np.array([STATUSES.index(name) for name in chunk.dictionary.to_pylist()], np.int8)[chunk.indices.to_numpy()]
        for chunk in status.chunks
    ]
    return np.concatenate([np.empty(0, np.int8), *parts])


def _column(file: parquet.ParquetFile, column: str | None) -> str:
    names = file.schema_arrow.names
    if column is None:
        column = names[0] if len(names) == 1 else "root_id"
    if column not in names:
        raise CortexUsageError(f"there is no column {column!r}, only {', '.join(names)}: name one with column=")
    return column
