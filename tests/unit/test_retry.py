"""The retry loop: how often, how long, and what it gives up with."""

from __future__ import annotations

import asyncio
import statistics
from collections.abc import Iterator

import pytest

from cortexclient._transport.failures import Failure
from cortexclient._transport.retry import Retrier
from cortexclient.config import RetryPolicy
from cortexclient.errors import ConnectError, CortexError, RateLimited, ServerError

QUICK = RetryPolicy(attempts=4, base=0.001, cap=0.002, deadline=5.0)


class Script:
    """Fails as told, then succeeds."""

    def __init__(self, *failures: Failure | BaseException) -> None:
        self.left = list(failures)
        self.calls = 0

    async def __call__(self) -> str:
        self.calls += 1
        if self.left:
            raise self.left.pop(0)
        return "answer"


def broken(tries: int | None = None, after: float | None = None, error: CortexError | None = None) -> Failure:
    return Failure(error or ConnectError("broke"), tries=tries, after=after)


def retrier(policy: RetryPolicy = QUICK) -> tuple[Retrier, list[float]]:
    waits: list[float] = []
    return Retrier(policy, waits.append), waits


async def test_the_first_good_answer_ends_it() -> None:
    run, waits = retrier()
    script = Script(broken(), broken())
    assert await run(script) == "answer"
    assert script.calls == 3
    assert len(waits) == 2


async def test_it_gives_up_with_the_last_error_and_says_after_how_many_tries() -> None:
    run, _ = retrier()
    errors: Iterator[CortexError] = iter([ConnectError("1"), ServerError("2", status=503), ConnectError("3")])
    script = Script(*(broken(error=error) for error in errors), broken(error=ConnectError("4")))
    with pytest.raises(ConnectError, match="4") as caught:
        await run(script)
    assert script.calls == 4
    assert caught.value.__notes__ == ["gave up after 4 tries"]


@pytest.mark.parametrize(("tries", "calls"), [(1, 1), (2, 2), (3, 3), (100, 4)])
async def test_a_failure_bounds_its_own_tries(tries: int, calls: int) -> None:
    run, _ = retrier()
    script = Script(*(broken(tries) for _ in range(200)))
    with pytest.raises(ConnectError):
        await run(script)
    assert script.calls == calls


async def test_the_librarys_exception_is_the_cause() -> None:
    run, _ = retrier()
    failure = broken(1)
    failure.__cause__ = OSError("below")
    with pytest.raises(ConnectError) as caught:
        await run(Script(failure))
    assert isinstance(caught.value.__cause__, OSError)


async def test_a_rate_limit_that_lasts_is_waited_for_near_the_cap() -> None:
    """One quick try for a burst; then six tries at the default cap outlast the minute that these budgets are for."""
    run, waits = retrier(RetryPolicy(attempts=6, base=0.001, cap=0.02))
    with pytest.raises(RateLimited):
        await run(Script(*(broken(error=RateLimited("slow down")) for _ in range(6))))
    assert len(waits) == 5
    assert waits[0] <= 0.001
    assert all(0.015 <= wait <= 0.02 for wait in waits[1:])
    assert sum(waits) / 0.02 * RetryPolicy().cap >= 60


async def test_a_write_that_is_limited_is_not_tried_again() -> None:
    run, _ = retrier()
    script = Script(broken(1, error=RateLimited("slow down")))
    with pytest.raises(RateLimited):
        await run(script)
    assert script.calls == 1


async def test_retry_after_is_honoured() -> None:
    run, waits = retrier()
    assert await run(Script(broken(after=0.05))) == "answer"
    assert waits[0] >= 0.05


async def test_a_longer_retry_after_than_allowed_is_an_error_at_once() -> None:
    run, waits = retrier(RetryPolicy(max_retry_after=1.0))
    with pytest.raises(RateLimited):
        await run(Script(broken(after=1.5, error=RateLimited("later", retry_after=1.5))))
    assert waits == []


async def test_no_wait_begins_that_would_pass_the_deadline() -> None:
    run, waits = retrier(RetryPolicy(deadline=0.2))
    with pytest.raises(ConnectError):
        await run(Script(broken(after=10.0)))
    assert waits == []


async def test_cancellation_goes_through_and_is_not_tried_again() -> None:
    run, waits = retrier()
    script = Script(asyncio.CancelledError())
    with pytest.raises(asyncio.CancelledError):
        await run(script)
    assert script.calls == 1
    assert waits == []


async def test_an_error_that_is_no_failure_goes_through() -> None:
    run, _ = retrier()
    script = Script(ZeroDivisionError())
    with pytest.raises(ZeroDivisionError):
        await run(script)
    assert script.calls == 1


async def test_waits_double_up_to_the_cap_and_are_drawn_from_zero() -> None:
    run, waits = retrier(RetryPolicy(attempts=5, base=0.004, cap=0.016))
    for _ in range(40):
        with pytest.raises(ConnectError):
            await run(Script(*(broken() for _ in range(5))))
    by_turn = [waits[turn::4] for turn in range(4)]
    for drawn, most in zip(by_turn, (0.004, 0.008, 0.016, 0.016), strict=True):
        assert max(drawn) <= most
        assert min(drawn) < most / 4
        assert statistics.mean(drawn) == pytest.approx(most / 2, rel=0.35)


async def test_many_at_once_keep_their_own_counts() -> None:
    run, _ = retrier()
    scripts = [Script(*(broken() for _ in range(number % 4))) for number in range(40)]
    assert await asyncio.gather(*(run(script) for script in scripts)) == ["answer"] * 40
    assert [script.calls for script in scripts] == [number % 4 + 1 for number in range(40)]
