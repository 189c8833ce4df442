"""What a job tells about itself."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
from pyarrow import parquet

from .._html import preformatted, table
from .._types import IdArray
from ..errors import CortexError
from .ledger import Ledger
from .spec import JobSpec
from .tasks import Task

if TYPE_CHECKING:
    from .._costs import CostEstimate


@dataclass(frozen=True, slots=True)
class JobStatus:
    """How far a job is.

    Examples
    --------
    >>> job = BulkJob("root_id_to_cell_id", roots, folder, client="minnie_public")
    >>> print(job.create())
    root_id_to_cell_id: 0 of 1 parts, 0 of 3 ids (0 failed), 0 rows
    """

    task: str
    parts: int
    done: int
    """Parts that are there."""
    ids: int
    ok: int
    failed: int
    """Ids with an answer, and without; the others are still to be asked."""
    rows: int
    mended: tuple[int, ...] = ()
    """Damaged parts that were made again."""

    @property
    def complete(self) -> bool:
        """Whether every id has its outcome.

        Examples
        --------
        >>> BulkJob("root_id_to_cell_id", roots, folder, client="minnie_public").run().complete
        True
        """
        return self.done == self.parts

    def _repr_html_(self) -> str:
        rows = (
            ("parts done", f"{self.done:,} of {self.parts:,}"),
            ("ids answered", f"{self.ok:,} of {self.ids:,}"),
            ("ids failed", f"{self.failed:,}"),
            ("ids still to be asked", f"{self.ids - self.ok - self.failed:,}"),
            ("rows", f"{self.rows:,}"),
        )
        return table(self.task, rows)

    def __str__(self) -> str:
        mended = f"; parts {', '.join(map(str, self.mended))} were damaged and made again" if self.mended else ""
        return (
            f"{self.task}: {self.done:,} of {self.parts:,} parts, {self.ok + self.failed:,} of {self.ids:,} ids "
            f"({self.failed:,} failed), {self.rows:,} rows{mended}"
        )


def status_of(ledger: Ledger, spec: JobSpec, mended: Iterable[int] = ()) -> JobStatus:
    """Read how far a job is."""
    manifests = [m for k in range(spec.parts) if ledger.is_done(k) and (m := ledger.manifest(k))]
    return JobStatus(
        spec.task,
        spec.parts,
        len(manifests),
        spec.count,
        sum(m.ok for m in manifests),
        sum(m.failed for m in manifests),
        sum(m.rows for m in manifests),
        tuple(mended),
    )


@dataclass(frozen=True, slots=True)
class JobPlan:
    """What is still to be done, before it is.

    Examples
    --------
    >>> plan = BulkJob("root_id_to_cell_id", roots, folder, client="minnie_public").plan()
    >>> plan.parts, plan.ids, plan.estimate.distinct
    (1, 3, 3)
    """

    task: str
    parts: int
    done: int
    part_size: int
    ids: int
    """Ids of the parts that are not done."""
    estimate: CostEstimate | None
    """What asking about all of them at once costs; None for calls that the planner does not know."""

    def _repr_html_(self) -> str:
        return preformatted(str(self))

    def __str__(self) -> str:
        head = (
            f"{self.task}: {self.ids:,} ids to ask in {self.parts - self.done:,} parts of {self.part_size:,} "
            f"({self.done:,} of {self.parts:,} are done)"
        )
        return f"{head}\n{self.estimate!r}" if self.estimate else head


@dataclass(frozen=True, slots=True)
class Verification:
    """Whether every id of a job has exactly one outcome, in files that are whole.

    Examples
    --------
    >>> job = BulkJob("root_id_to_cell_id", roots, folder, client="minnie_public", part_size=2)
    >>> created = job.create()
    >>> job.verify().missing
    (0, 1)
    """

    status: JobStatus
    missing: tuple[int, ...]
    """Parts that are not done."""
    damaged: Mapping[int, str]
    """Parts that are not as they were written, and what is wrong with them."""

    @property
    def ok(self) -> bool:
        """Whether all is there and well.

        Examples
        --------
        >>> job = BulkJob("root_id_to_cell_id", roots, folder, client="minnie_public")
        >>> ran = job.run()
        >>> job.verify().ok
        True
        """
        return not self.missing and not self.damaged

    def _repr_html_(self) -> str:
        return preformatted(str(self))

    def __str__(self) -> str:
        if self.ok:
            return f"{self.status}\nevery id has exactly one outcome"
        lines = [f"part {k}: {why}" for k, why in self.damaged.items()]
        if self.missing:
            lines.append(f"{len(self.missing):,} parts are not done, part {self.missing[0]} first")
        return "\n".join([str(self.status), *lines, "resume the job to mend this"])


def verify(ledger: Ledger, spec: JobSpec, task: Task) -> Verification:
    """Check all files and all outcomes."""
    missing, damaged = [], {}
    try:
        ledger.check_ids()
    except CortexError as error:
        damaged = dict.fromkeys(range(spec.parts), str(error))
    for k in range(0 if damaged else spec.parts):
        if not ledger.is_done(k):
            missing.append(k)
        elif why := ledger.damage(k) or wrong_outcomes(ledger, k, task):
            damaged[k] = why
    return Verification(status_of(ledger, spec), tuple(missing), damaged)


def wrong_outcomes(ledger: Ledger, k: int, task: Task) -> str | None:
    """Which rule the outcomes of a whole part break; None if each of its ids has exactly one."""
    ids, manifest = ledger.ids(k), ledger.manifest(k)
    failed = ledger.failures(k).column("id").to_numpy()
    if len(set(failed.tolist())) != len(failed) or not np.isin(failed, ids).all():
        return "its failures are not of its ids, or not one for each"
    answered = ids[~np.isin(ids, failed)]
    if manifest is None or (manifest.ok, manifest.failed) != (len(answered), len(ids) - len(answered)):
        return "its counts are not those of its ids"
    there = parquet.read_schema(ledger.part(k)).names
    rows = parquet.read_table(ledger.part(k), columns=[name for name in task.found_in if name in there])
    return _wrong_rows(answered, rows, task)


def _wrong_rows(answered: IdArray, rows: pa.Table, task: Task) -> str | None:
    """Which rule the rows break."""
    columns = [rows.column(name).to_numpy() for name in rows.column_names]
    if task.one_row_each:
        return None if np.array_equal(columns[0], answered) else "its rows are not those of its ids, in their order"
    if task.stream is not None:
        right = np.array_equal(np.sort(columns[0]), np.sort(answered))
        return None if right else "it has not one object for each id"
    of_ours = np.zeros(rows.num_rows, np.bool_)
    for column in columns:
        of_ours |= np.isin(column, answered)
    return None if of_ours.all() else "it has rows about ids that are not its own"
