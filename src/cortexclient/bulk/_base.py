"""What both faces of a job have: the question, and what can be told of it without asking a server."""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, Self, TypeVar

import pyarrow as pa

from .._html import preformatted
from .._types import IdArray
from ..datasets.spec import DatasetSpec
from ..errors import CortexUsageError
from ..frames import to_pandas
from ..services._base import internal
from .ledger import FAILED, Ledger
from .report import JobStatus, Verification, status_of, verify
from .sources import IdSource, blocks, distinct
from .spec import JobSpec
from .tasks import Task, find_task

if TYPE_CHECKING:
    import pandas as pd
    import polars as pl

C = TypeVar("C")

PATIENCE = 300.0


class JobBase(Generic[C]):
    """See :class:`~cortexclient.AsyncBulkJob`."""

    def __init__(
        self,
        task: str,
        ids: IdSource | None,
        out: str | Path,
        *,
        client: C | str | DatasetSpec | None = None,
        column: str | None = None,
        options: Mapping[str, Any] | None = None,
        sink: str | None = None,
        part_size: int | None = None,
        patience: float = PATIENCE,
    ) -> None:
        self._options = _plain(options or {})
        self._task: Task = find_task(task, self._options, sink)
        if part_size is not None and part_size <= 0:
            raise CortexUsageError(f"part_size={part_size}: must be above zero")
        if client is None and ids is not None:
            raise CortexUsageError("a new job needs client=: a client, or the name of a dataset")
        self._ids = ids
        self._column = column
        self._sink = sink or self._task.sinks[0]
        self._part_size = part_size
        self.patience = patience
        self._client = client
        self.ledger = Ledger(Path(out))

    @classmethod
    def open(cls, out: str | Path, *, client: C | str | DatasetSpec | None = None, patience: float = PATIENCE) -> Self:
        """Open the job that is in a folder.

        Parameters
        ----------
        out
            The folder.
        client
            Default: one for the job's dataset and server.
        patience
            As for a new job.

        Raises
        ------
        CortexUsageError
            If there is none.

        Examples
        --------
        >>> created = BulkJob("get_roots", [1], folder, client="minnie_public").create()
        >>> BulkJob.open(folder).spec.task
        'get_roots'
        """
        spec = Ledger(Path(out)).spec()
        return cls(
            spec.task,
            None,
            out,
            client=client,
            options=spec.options,
            sink=spec.sink,
            part_size=spec.part_size,
            patience=patience,
        )

    @property
    def folder(self) -> Path:
        """Where everything is.

        Examples
        --------
        >>> BulkJob("get_roots", [1], folder, client="minnie_public").folder == folder
        True
        """
        return self.ledger.path

    @property
    def spec(self) -> JobSpec:
        """The question as it was frozen.

        Examples
        --------
        >>> created = BulkJob("root_id_to_cell_id", roots, folder, client="minnie_public").create()
        >>> BulkJob.open(folder).spec.version
        1484
        """
        return self.ledger.spec()

    def status(self) -> JobStatus:
        """Tell how far the job is, by the counts that its parts were written with.

        Examples
        --------
        >>> job = BulkJob("root_id_to_cell_id", roots, folder, client="minnie_public", part_size=2)
        >>> ran = job.run()
        >>> job.status().done, job.status().complete
        (2, True)
        """
        return status_of(self.ledger, self.spec)

    def verify(self) -> Verification:
        """Check that every id has exactly one outcome, and that every file is as it was written; all are read.

        Examples
        --------
        >>> job = BulkJob("root_id_to_cell_id", roots, folder, client="minnie_public")
        >>> ran = job.run()
        >>> job.verify().ok
        True
        """
        return verify(self.ledger, self.spec, self._task)

    def failures(self) -> pd.DataFrame:
        """List the ids that failed: ``id, error, status, message, attempts``.

        Examples
        --------
        >>> job = BulkJob("get_skeletons", [*roots, 7], folder, client="minnie_public")
        >>> ran = job.run()
        >>> job.failures()[["id", "error"]]
           id          error
        0   7  NotFoundError
        """
        tables = [self.ledger.failures(k) for k in self.parts_with_failures()]
        return to_pandas(pa.concat_tables([FAILED.empty_table(), *tables])).astype({"status": "Int32"})

    def scan(self) -> pl.LazyFrame:
        """Read the rows of all parts that are done, lazily. Those of look-ups stand in ascending order of the ids.

        Examples
        --------
        >>> job = BulkJob("root_id_to_cell_id", roots, folder, client="minnie_public")
        >>> ran = job.run()
        >>> job.scan().filter(pl.col("cell_id") > 0).collect().height
        3
        """
        import polars as pl

        done = [k for k in range(self.spec.parts) if self.ledger.is_done(k)]
        files = [self.ledger.part(k) for k in done if (m := self.ledger.manifest(k)) and m.rows]
        return pl.scan_parquet(files) if files else pl.LazyFrame(schema={self._task.given: pl.Int64})

    def parts_to_do(self) -> list[int]:
        """List the parts that are not done.

        Examples
        --------
        >>> job = BulkJob("root_id_to_cell_id", roots, folder, client="minnie_public", part_size=2)
        >>> created = job.create()
        >>> job.parts_to_do()
        [0, 1]
        """
        return [k for k in range(self.spec.parts) if not self.ledger.is_done(k)]

    @internal
    def parts_with_failures(self) -> list[int]:
        """List the parts that are done, but for some ids."""
        done = (k for k in range(self.spec.parts) if self.ledger.is_done(k))
        return [k for k in done if (m := self.ledger.manifest(k)) and m.failed]

    def damaged_parts(self) -> list[int]:
        """List the parts whose files are not as they were written; all are read.

        Examples
        --------
        >>> job = BulkJob("root_id_to_cell_id", roots, folder, client="minnie_public")
        >>> ran = job.run()
        >>> (folder / "part-000000.parquet").write_bytes(b"lost")
        4
        >>> job.damaged_parts()
        [0]
        """
        return [k for k in range(self.spec.parts) if self.ledger.is_done(k) and self.ledger.damage(k)]

    @internal
    def led(self) -> AbstractContextManager[None]:
        """Keep out whoever else would hand out the parts; workers on single parts may come in."""
        return self.ledger.led()

    def _repr_html_(self) -> str:
        return self.status()._repr_html_() if self.ledger.exists else preformatted(repr(self))

    def __repr__(self) -> str:
        state = self.status() if self.ledger.exists else f"{self._task.call}: not begun"
        return f"{type(self).__name__}({str(self.folder)!r}: {state})"

    @property
    def part_size(self) -> int:
        """Ids in a part of a new job.

        Examples
        --------
        >>> BulkJob("get_skeletons", roots, folder, client="minnie_public").part_size
        500
        """
        return self._part_size or self._task.part_size

    @internal
    def distinct_ids(self) -> IdArray:
        """Read the ids of a new job: each once, ascending."""
        if self._ids is None:
            raise CortexUsageError(f"{self.folder} holds no job, and no ids are given")
        return distinct(blocks(self._ids, self._column, self._task.given))

    @internal
    def count_ids(self, parts: list[int], *, failed: bool = False) -> int:
        """Count the ids of parts, or those of them that failed."""
        if failed:
            return sum(self.ledger.failures(k).num_rows for k in parts)
        spec = self.spec
        last = spec.count - (spec.parts - 1) * spec.part_size
        return sum(spec.part_size if k < spec.parts - 1 else last for k in parts)


def _plain(options: Mapping[str, Any]) -> dict[str, Any]:
    """Options as ``job.json`` gives them back."""
    try:
        plain: dict[str, Any] = json.loads(json.dumps(dict(options)))
    except (TypeError, ValueError) as error:
        raise CortexUsageError(f"options must be plain values, which JSON can hold: {error}") from error
    return plain
