"""Doing one part of a job."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import parquet

from .._types import IdArray
from ..errors import ServerError
from ..progress import Reporter
from .attempts import Errors, arriving, persist, spared
from .ledger import Ledger, Manifest
from .sinks import Sink, in_order
from .tasks import Context, Task


@dataclass(frozen=True, slots=True)
class Parts:
    """What it takes to do the parts of one job."""

    ledger: Ledger
    task: Task
    context: Context
    sink: str
    patience: float
    reporter: Reporter

    async def do(self, k: int) -> None:
        """Ask about all ids of a part, and write it."""
        sink = Sink(self.ledger.path, self.sink)
        await self._fill(k, sink, self.ledger.ids(k), {})

    async def again(self, k: int) -> None:
        """Ask once more about the ids that failed, and write the part with what they gave."""
        failures = self.ledger.failures(k)
        sink = Sink(self.ledger.path, self.sink)
        sink.add(parquet.read_table(self.ledger.part(k)))
        if manifest := self.ledger.manifest(k):
            own = {self.ledger.part(k).name, self.ledger.failed(k).name}
            sink.files |= {name: stamp for name, stamp in manifest.files.items() if name not in own}
        ids = failures["id"].to_numpy()
        await self._fill(k, sink, ids, dict(zip(ids.tolist(), failures["attempts"].to_numpy().tolist(), strict=True)))

    async def _fill(self, k: int, sink: Sink, asked: IdArray, attempts: dict[int, int]) -> None:
        """Ask about some ids of a part, and write it; ``attempts`` were made at them before."""
        outcomes = await persist(lambda ids: self._attempt(ids, sink), asked, self.patience)
        ids, rows = self.ledger.ids(k), sink.rows(self.task.given)
        if self.task.one_row_each:
            rows = in_order(rows, self.task.given)
        failures = outcomes.table(attempts)
        lost = failures.num_rows
        self.ledger.commit(k, rows, failures, Manifest(len(ids) - lost, lost, rows.num_rows, sink.files))
        self.reporter.add(done=0 if self.task.stream else len(asked) - lost, failed=lost)

    async def _attempt(self, ids: IdArray, sink: Sink) -> Errors:
        """Ask once about distinct ids; why each of those without an answer has none."""
        task, context = self.task, self.context
        if task.stream is not None:

            async def put(root: int, value: Any) -> None:
                await sink.put(root, value)
                self.reporter.add(done=1)

            return await arriving(task.stream(context, ids), ids, put)
        unresolved: Errors = {}

        def add(rows: pa.Table) -> None:
            rows, lost = _resolved(rows, task)
            unresolved.update(lost)
            sink.add(rows)

        ask = task.ask
        errors = await spared(lambda some: ask(context, some), ids, add) if ask else {}
        return errors | unresolved


def _resolved(rows: pa.Table, task: Task) -> tuple[pa.Table, Errors]:
    """The rows with an answer, and what is said about ids that the server fails for."""
    if "status" not in rows.column_names or not task.one_row_each:
        return rows, {}
    is_lost = pc.equal(rows["status"], pa.scalar("unresolved"))
    lost = rows.filter(is_lost).column(task.given).to_numpy().tolist()
    why = "the server fails for this id"
    return rows.filter(pc.invert(is_lost)), {i: ServerError(why, status=500, ids=[i]) for i in lost}
