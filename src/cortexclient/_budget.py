"""How often one public call may try again in all: an outage is told, not besieged.

A request knows its own tries, not that a thousand others of the same call fail as well. So the edge of each public call
(`_fanout.running`) opens a budget, and the retry loop draws on it.
"""

from __future__ import annotations

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


class BudgetScope:
    """Opens a budget for a ``with`` block. A call within a call shares the outer one's, unless it wants its ``own``."""

    __slots__ = ("_outer", "_own")

    def __init__(self, *, own: bool = False) -> None:
        self._own = own

    def __enter__(self) -> None:
        self._outer = _current.get()
        if self._own or self._outer is None:
            _current.set(RetryBudget())

    def __exit__(self, *error: object) -> None:
        _current.set(self._outer)  # not reset(token): a stream may be left in another context than it was entered in
