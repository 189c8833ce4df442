"""The one retry loop of the package."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from typing import ParamSpec, TypeVar

import tenacity

from ..config import RetryPolicy
from ..errors import CortexError, CortexUsageError, DeadlineExceeded, RateLimited
from .failures import Asked, Failure

P = ParamSpec("P")
T = TypeVar("T")


class Retrier:
    """Tries until an answer comes or the policy is spent: exponential back-off with full jitter.

    ``waiting`` is told of every wait, before it begins. Once closed, it fails whatever runs or comes.
    """

    def __init__(self, policy: RetryPolicy, waiting: Callable[[float], None]) -> None:
        self._policy = policy
        self._waiting = waiting
        self._running: set[asyncio.Timeout] = set()
        self._closed = False
        self._jitter = tenacity.wait_random_exponential(multiplier=policy.base, max=policy.cap)
        self._retrying = tenacity.AsyncRetrying(
            retry=tenacity.retry_if_exception_type(Failure),
            wait=self._wait,
            stop=self._is_spent,
            before_sleep=self._tell,
            reraise=True,
        )

    async def __call__(self, asked: Asked, attempt: Callable[P, Awaitable[T]], *args: P.args, **kwargs: P.kwargs) -> T:
        """The first good answer of ``attempt(*args, **kwargs)``.

        Raises
        ------
        CortexError
            That of the last try; `DeadlineExceeded` if the time ran out within one.
        """
        retrying = self._retrying.copy()
        scope = asyncio.timeout(0 if self._closed else self._policy.deadline)
        self._running.add(scope)
        try:
            async with scope:
                answer: T = await retrying(attempt, *args, **kwargs)
                return answer
        except Failure as failure:
            error: CortexError = failure.error
            error.__cause__ = failure.__cause__
        except TimeoutError:
            text = f"no complete answer from {asked.origin} within {self._policy.deadline:g} s"
            error = DeadlineExceeded(text, **asked.where)
        finally:
            self._running.discard(scope)
        if self._closed:
            raise CortexUsageError("the client was closed while this request was under way") from error
        if (tries := retrying.statistics["attempt_number"]) > 1:
            error.add_note(f"gave up after {tries} tries")
        raise error

    def close(self) -> None:
        """End everything that runs."""
        self._closed = True
        for scope in self._running:
            scope.reschedule(0)

    def _wait(self, state: tenacity.RetryCallState) -> float:
        failure = _failure(state)
        if failure.after is not None:
            return failure.after + min(self._jitter(state), 1.0)
        if isinstance(failure.error, RateLimited):  # these budgets are per minute: spread the tries over more than one
            return random.uniform(0.5, 1.0) * self._policy.cap
        return self._jitter(state)

    def _is_spent(self, state: tenacity.RetryCallState) -> bool:
        failure = _failure(state)
        if failure.after is not None and failure.after > self._policy.max_retry_after:
            return True
        if (state.seconds_since_start or 0.0) + state.upcoming_sleep > self._policy.deadline:
            return True
        return state.attempt_number >= min(self._policy.attempts, failure.tries or self._policy.attempts)

    def _tell(self, state: tenacity.RetryCallState) -> None:
        self._waiting(state.upcoming_sleep)


def _failure(state: tenacity.RetryCallState) -> Failure:
    error = state.outcome.exception() if state.outcome else None
    if not isinstance(error, Failure):
        raise TypeError(f"only a Failure is tried again, not {error!r}")
    return error
