"""Progress of a call: how many ids are done, failed and still to come."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self, TypeAlias

REPORTS_PER_SECOND = 10


@dataclass(frozen=True, slots=True)
class Progress:
    """A moment of a running call, counted in ids, not in requests. ``total`` is None where it is not known.

    Examples
    --------
    >>> seen = []
    >>> found = await client.chunkedgraph.is_latest_roots([864691134885645050], progress=seen.append)
    >>> seen[-1].done, seen[-1].total
    (1, 1)
    """

    done: int
    failed: int
    total: int | None
    seconds: float


ProgressLike: TypeAlias = bool | Callable[[Progress], object] | None
"""None: silent. True: a tqdm bar. A callable gets :class:`Progress`, at most ten times a second."""


class Reporter(AbstractContextManager["Reporter"]):
    """Counts, and tells the caller at most ten times a second and once at the end."""

    def __init__(self, progress: ProgressLike, total: int | None, what: str = "ids") -> None:
        self._total = total
        self.done = 0
        self._failed = 0
        self._started = time.monotonic()
        self._last = 0.0
        self._report, self._close = _sink(progress, total, what)

    def add(self, done: int = 0, failed: int = 0) -> None:
        """Count ids that are finished."""
        self.done += done
        self._failed += failed
        now = time.monotonic()
        if now - self._last >= 1 / REPORTS_PER_SECOND:
            self._last = now
            self._tell()

    def _tell(self) -> None:
        self._report(Progress(self.done, self._failed, self._total, time.monotonic() - self._started))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            self._tell()
        finally:
            self._close()


def _nothing(*_: object) -> None:
    """What a silent call tells, and all that there is to close."""


def _sink(
    progress: ProgressLike, total: int | None, what: str
) -> tuple[Callable[[Progress], object], Callable[[], object]]:
    if callable(progress):
        return progress, _nothing
    if not progress:
        return _nothing, _nothing
    from tqdm.auto import tqdm

    bar: tqdm[Any] = tqdm(total=total, unit=f" {what}", unit_scale=True)

    def show(now: Progress) -> None:
        bar.update(now.done + now.failed - bar.n)
        if now.failed:
            bar.set_postfix(failed=now.failed, refresh=False)

    return show, bar.close
