"""The retries of one call in all: enough for a restart and for bad weather, not for an outage."""

from __future__ import annotations

import asyncio

import numpy as np
import pytest

from cortexclient import _fanout as fanout
from cortexclient._budget import BudgetScope, current_budget
from cortexclient._transport.failures import Failure
from cortexclient._transport.retry import Retrier
from cortexclient.config import RetryPolicy
from cortexclient.errors import ConnectError, RateLimited, ServerError, UnavailableError

POLICY = RetryPolicy(attempts=6, base=1e-4, cap=2e-4, call_share=0.2, call_retries=10)


class Server:
    """Fails ``every`` so many tries, or always."""

    def __init__(self, every: int = 1, tries: int | None = None) -> None:
        self.every, self.tries, self.asked = every, tries, 0

    async def __call__(self, item: int) -> int:
        self.asked += 1
        fails = self.asked % self.every == 0
        await asyncio.sleep(0)
        if fails:
            raise Failure(ServerError(f"down at {item}", status=503, endpoint="x/y"), tries=self.tries)
        return item


async def call(server: Server, n: int, policy: RetryPolicy = POLICY) -> list[int]:
    """A public call over many requests."""
    retrier = Retrier(policy, lambda _: None)
    with fanout.running(None, None, n):
        return await fanout.fan_out(range(n), lambda item: retrier(server, item), workers=16)


async def test_an_outage_is_told_after_few_retries() -> None:
    server = Server()
    with pytest.raises(UnavailableError, match="gives up after 10 retries of its 16 requests; now: down") as caught:
        await call(server, 1_000)
    assert server.asked <= 16 + POLICY.call_retries
    assert isinstance(caught.value.__cause__, ServerError)
    assert caught.value.endpoint == "x/y"


async def test_no_id_of_a_collecting_call_is_tried_again_once_the_budget_is_spent() -> None:
    server, retrier = Server(), Retrier(POLICY, lambda _: None)
    results = await fanout.collect(np.arange(1, 501), lambda item: retrier(server, item), workers=16)
    assert results.status()["UnavailableError"] >= 490
    assert server.asked <= 500 + 0.2 * 500


async def test_bad_weather_is_lived_through() -> None:
    server = Server(every=8)
    assert await call(server, 1_000) == list(range(1_000))


async def test_a_call_of_one_request_has_all_its_tries() -> None:
    server = Server()
    with pytest.raises(ServerError, match="down"):
        await call(server, 1)
    assert server.asked == POLICY.attempts


async def test_doubtful_500s_are_bounded_by_themselves_and_not_counted() -> None:
    server = Server(tries=2)
    retrier = Retrier(POLICY, lambda _: None)
    results = await fanout.collect(np.arange(1, 101), lambda item: retrier(server, item), workers=4)
    assert results.status() == {"ok": 0, "ServerError": 100}
    assert server.asked == 200


async def test_each_call_has_a_budget_of_its_own_and_a_call_within_a_call_has_not() -> None:
    assert current_budget() is None
    with BudgetScope():
        outer = current_budget()
        with fanout.running(None, None, None):
            assert current_budget() is outer
        with BudgetScope(own=True):
            assert current_budget() not in (outer, None)
        assert current_budget() is outer
    assert current_budget() is None


async def test_calls_side_by_side_do_not_share() -> None:
    healthy, sick = Server(every=50), Server()
    one, other = await asyncio.gather(call(healthy, 500), call(sick, 500), return_exceptions=True)
    assert one == list(range(500))
    assert isinstance(other, UnavailableError)


async def test_without_a_call_around_it_a_request_follows_the_policy_alone() -> None:
    retrier, server = Retrier(POLICY, lambda _: None), Server()
    for _ in range(5):
        with pytest.raises(ServerError):
            await retrier(server, 1)
    assert server.asked == 5 * POLICY.attempts


@pytest.mark.parametrize("error", [ConnectError("refused"), RateLimited("slow down")])
async def test_all_failures_of_the_server_count(error: UnavailableError) -> None:
    async def fail() -> None:
        raise Failure(error, tries=None)

    retrier = Retrier(RetryPolicy(attempts=6, base=1e-4, cap=2e-4, call_retries=3), lambda _: None)
    with BudgetScope(), pytest.raises(UnavailableError, match="gives up after 3 retries of its 1 requests"):
        await retrier(fail)
