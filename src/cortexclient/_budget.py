"""How often one public call may try again in all: an outage is told, not besieged.

A request knows its own tries, not that a thousand others of the same call fail as well. So the edge of each public call
(`_fanout.running`) opens a budget, and the retry loop draws on it.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from .config import RetryPolicy


class RetryBudget:
    """The requests and retries of one call so far."""

    __slots__ = ("requests", "retries")

    def __init__(self) -> None:
        self.requests = 0
        self.retries = 0

    def take(self, policy: RetryPolicy) -> bool:
        """Count one more retry, if the policy has room for it."""
        if self.retries >= max(policy.call_retries, policy.call_share * self.requests):
            return False
        self.retries += 1
        return True


_current: ContextVar[RetryBudget | None] = ContextVar("retry_budget", default=None)


def current_budget() -> RetryBudget | None:
    """The budget of the call that this code runs for, if it is known."""
    return _current.get()


@contextmanager
def retry_budget(*, own: bool = False) -> Iterator[None]:
    """Open a budget for the block. A call within a call shares the outer one's, unless it wants its ``own``."""
    outer = _current.get()
    _current.set(RetryBudget() if own or outer is None else outer)
    try:
        yield
    finally:
        _current.set(outer)  # not reset(token): a stream may be left in another context than it was entered in
