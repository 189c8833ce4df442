"""The one retry loop of the package."""

from __future__ import annotations

import functools
import random
import time
from collections.abc import Awaitable, Callable
from typing import ParamSpec, TypeVar

import tenacity

from .._budget import RetryBudget, current_budget
from ..config import RetryPolicy
from ..errors import CortexError, RateLimited, UnavailableError
from .failures import Failure

P = ParamSpec("P")
T = TypeVar("T")


class Retrier:
    """Tries until an answer comes or the policy is spent: exponential back-off with full jitter.

    ``waiting`` is told of every wait, before it begins. No wait begins that would pass the policy's deadline, but who
    calls this must end a try that does.
    """

    def __init__(self, policy: RetryPolicy, waiting: Callable[[float], None]) -> None:
        self._policy = policy
        self._waiting = waiting
        self._jitter = tenacity.wait_random_exponential(multiplier=policy.base, max=policy.cap)
        self._retrying = tenacity.AsyncRetrying(
            retry=tenacity.retry_if_exception_type(Failure),
            wait=self._wait,
            before_sleep=self._tell,
            reraise=True,
        )

    async def __call__(self, attempt: Callable[P, Awaitable[T]], *args: P.args, **kwargs: P.kwargs) -> T:
        """The first good answer of ``attempt(*args, **kwargs)``.

        Raises
        ------
        CortexError
            That of the last try; `UnavailableError` if the whole call has spent its retries.
        """
        if budget := current_budget():
            budget.requests += 1
        begun = time.monotonic()
        try:
            return await attempt(*args, **kwargs)
        except Failure as failure:  # seldom: the library's loop costs as much as a request
            last = failure
        retrying = self._retrying.copy(stop=functools.partial(self._is_spent, begun))
        try:
            async for turn in retrying:
                with turn:
                    if turn.retry_state.attempt_number == 1:  # made above
                        raise last
                    return await attempt(*args, **kwargs)
        except Failure as failure:
            last = failure
        if (tries := retrying.statistics["attempt_number"]) > 1:
            last.error.add_note(f"gave up after {tries} tries")
        # not inside the except block: a context that leads back to the error cannot be pickled where tblib is at work
        raise last.error from last.error.__cause__ or last.__cause__

    def _wait(self, state: tenacity.RetryCallState) -> float:
        failure = _failure(state)
        if failure.after is not None:
            return failure.after + min(self._jitter(state), 1.0)
        if isinstance(failure.error, RateLimited) and state.attempt_number > 1:
            # more than a burst: the services' budgets are per minute, so spread the other tries over more than one
            return random.uniform(0.75, 1.0) * self._policy.cap
        return self._jitter(state)

    def _is_spent(self, begun: float, state: tenacity.RetryCallState) -> bool:
        failure = _failure(state)
        if failure.after is not None and failure.after > self._policy.max_retry_after:
            return True
        if time.monotonic() - begun + state.upcoming_sleep > self._policy.deadline:
            return True
        if state.attempt_number >= min(self._policy.attempts, failure.tries or self._policy.attempts):
            return True
        budget = current_budget()
        # a failure that bounds its own tries is about this request; the others may be about the server
        if budget is None or failure.tries is not None or budget.take(self._policy):
            return False
        failure.error = _spent(failure.error, budget)
        return True

    def _tell(self, state: tenacity.RetryCallState) -> None:
        self._waiting(state.upcoming_sleep)


def _spent(last: CortexError, budget: RetryBudget) -> UnavailableError:
    text = f"this call gives up after {budget.retries} retries of its {budget.requests} requests; now: {last.args[0]}"
    error = UnavailableError(text, ids=last.ids, endpoint=last.endpoint)
    error.__cause__ = last
    return error


def _failure(state: tenacity.RetryCallState) -> Failure:
    error = state.outcome.exception() if state.outcome else None
    if not isinstance(error, Failure):
        raise TypeError(f"only a Failure is tried again, not {error!r}")
    return error
