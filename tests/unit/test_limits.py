"""The gate in front of each service, and the buckets of its categories."""

from __future__ import annotations

import asyncio
import heapq
import itertools
import math
import random
from collections.abc import Callable

import pytest

from cortexclient._transport.limits import SLOW_START, Bucket, Gate, Place, told_rate
from cortexclient._transport.reply import TransportStats


def unlimited() -> Bucket:
    return Bucket("any", None, TransportStats())


def gate_of(limit: int) -> Gate:
    return Gate("service", limit, TransportStats())


async def settle() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def pass_through(
    gate: Gate, served: list[int], number: int, *, good: bool = True, bucket: Bucket | None = None
) -> None:
    async with Place(gate, bucket or unlimited(), "any") as place:
        await place.ready()
        await asyncio.sleep(0.001)
        served.append(number)
        if good:
            place.answered(1000)


def answer(gate: Gate, times: int = 1, seconds: float = 0.1) -> None:
    for _ in range(times):
        gate.answered("any", 1000, seconds)


def wide(limit: int) -> Gate:
    gate = gate_of(limit)
    answer(gate, limit)
    return gate


async def test_it_starts_narrow_and_widens_to_its_limit() -> None:
    gate = gate_of(16)
    assert gate.width == SLOW_START
    answer(gate, 100)
    assert gate.width == 16
    assert gate_of(1).width == 1


async def test_nobody_passes_beyond_the_width_and_all_pass_in_order() -> None:
    gate, served = wide(8), list[int]()
    await asyncio.gather(*(pass_through(gate, served, number) for number in range(100)))
    assert served == list(range(100))
    assert (gate.peak, gate.in_flight) == (8, 0)


async def test_trouble_halves_it_once_whoever_tells_and_it_recovers_one_a_round() -> None:
    gate = wide(16)
    for _ in range(16):
        gate.narrow(0.0)
    assert gate.width == 8
    answer(gate, 7)
    assert gate.width == 8
    answer(gate)
    assert gate.width == 9
    answer(gate, 200)
    assert gate.width == 16


async def test_it_never_narrows_to_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cortexclient._transport.limits.SAME_TROUBLE", 0.0)
    gate = wide(16)
    widths = []
    for _ in range(6):
        gate.narrow(0.0)
        widths.append(gate.width)
    assert widths == [8, 4, 2, 1, 1, 1]


async def test_narrowing_holds_for_those_who_come_next() -> None:
    gate, served = wide(8), list[int]()
    gate.narrow(0.0)
    gate.peak = 0
    await asyncio.gather(*(pass_through(gate, served, number, good=False) for number in range(40)))
    assert gate.peak == 4


async def test_shut_it_lets_nobody_in_until_the_time() -> None:
    gate, served = wide(4), list[int]()
    gate.narrow(0.05)
    started = asyncio.get_running_loop().time()
    gate.narrow(0.01)  # a shorter wish does not open it earlier
    await asyncio.gather(*(pass_through(gate, served, number) for number in range(4)))
    assert asyncio.get_running_loop().time() - started >= 0.05


async def test_cancelled_while_waiting_takes_no_place() -> None:
    gate, served = gate_of(1), list[int]()
    tasks = [asyncio.create_task(pass_through(gate, served, number)) for number in range(10)]
    await settle()
    for task in tasks[1:9]:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    assert served == [0, 9]
    assert gate.in_flight == 0


async def test_cancelled_in_the_moment_of_admission_gives_the_place_back() -> None:
    gate, served = gate_of(1), list[int]()
    await gate.enter(unlimited())
    waiting = [asyncio.create_task(pass_through(gate, served, number)) for number in range(2)]
    await settle()
    gate.leave()  # admits the first, whose task has not run yet
    waiting[0].cancel()
    await asyncio.gather(*waiting, return_exceptions=True)
    assert served == [1]
    assert gate.in_flight == 0


async def test_cancelled_while_shut_gives_the_place_back() -> None:
    gate = gate_of(2)
    gate.narrow(10.0)
    task = asyncio.create_task(pass_through(gate, [], 0))
    await settle()
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert gate.in_flight == 0


async def test_places_are_neither_lost_nor_made_up_under_random_cancellation() -> None:
    gate, served, random_ = gate_of(5), list[int](), random.Random(0)
    tasks = [asyncio.create_task(pass_through(gate, served, number)) for number in range(300)]
    while not all(task.done() for task in tasks):
        random_.choice(tasks).cancel()
        await asyncio.sleep(0)
    await asyncio.gather(*tasks, return_exceptions=True)
    assert gate.in_flight == 0
    assert gate.peak <= 5
    await asyncio.gather(*(pass_through(gate, served, number) for number in range(10)))
    assert served[-10:] == list(range(10))


# -- latency ---------------------------------------------------------------------------------------------------------


async def test_a_service_that_gets_slow_is_sent_less_until_it_is_quick_again() -> None:
    gate = wide(16)
    answer(gate, 300, seconds=0.1)
    assert gate.width == 16
    answer(gate, 200, seconds=1.0)
    slow = gate.width
    assert SLOW_START <= slow < 16
    answer(gate, 400, seconds=0.1)
    assert gate.width == 16


async def test_slowness_alone_never_narrows_it_below_its_start() -> None:
    gate = wide(16)
    answer(gate, 300, seconds=0.02)
    for number in range(300):
        answer(gate, seconds=0.2 * 1.03**number)
    assert gate.width == SLOW_START


async def test_a_service_that_only_queues_what_is_sent_gets_little_more_than_it_works_on() -> None:
    """Four workers, 0.2 s each: from five requests on, all of them only wait longer."""
    gate = gate_of(16)
    widths = []
    for _ in range(4000):
        answer(gate, seconds=0.2 * max(1.0, gate.width / 4))
        widths.append(gate.width)
    assert 4 <= sum(widths[-1000:]) / 1000 <= 10


async def test_kinds_of_requests_that_take_longer_by_nature_are_no_slowness() -> None:
    gate = wide(16)
    for number in range(600):
        kind, size, seconds = (("quick", 500, 0.02), ("slow", 500, 3.0), ("quick", 300_000, 2.0))[number % 3]
        gate.answered(kind, size, seconds)
        if number > 32:
            assert gate.width == 16


async def test_a_few_milliseconds_are_noise() -> None:
    gate = wide(16)
    answer(gate, 100, seconds=0.001)
    answer(gate, 300, seconds=0.04)
    assert gate.width == 16


# -- rates -------------------------------------------------------------------------------------------------------------


def per_minute(rate: float | None, pause: float = 15.0) -> Bucket:
    return Bucket("query", rate, TransportStats(), pause)


def leave(bucket: Bucket, now: float) -> bool:
    """Whether one may leave; then it has left."""
    if bucket.wait(now) > 0:
        return False
    bucket.take(now)
    return True


def test_a_minutes_worth_leaves_at_once_and_then_one_after_the_other() -> None:
    bucket = per_minute(120)
    assert sum(leave(bucket, 100.0) for _ in range(200)) == 120
    assert bucket.wait(100.0) == pytest.approx(0.5)
    assert not leave(bucket, 100.49)
    assert leave(bucket, 100.51)
    assert sum(leave(bucket, 10_000.0) for _ in range(200)) == 120, "it holds no more than a minute's worth"


def test_at_half_the_limit_no_minute_sees_more_than_the_limit() -> None:
    bucket, left = per_minute(150), []
    for tick in range(60_000):
        now = tick / 100
        if leave(bucket, now):
            left.append(now)
    for start in left:
        assert sum(start <= time < start + 60 for time in left) <= 300


def test_a_category_without_a_rate_never_waits() -> None:
    bucket = per_minute(None)
    assert all(leave(bucket, 0.0) for _ in range(100_000))


def test_one_that_cannot_wait_leaves_a_debt() -> None:
    bucket = per_minute(60)
    assert sum(leave(bucket, 0.0) for _ in range(100)) == 60
    bucket.take(0.0)
    assert bucket.wait(0.0) == pytest.approx(2.0)


@pytest.mark.parametrize(
    ("body", "rate"),
    [
        (b'{"error": "ratelimit exceeded 300 per 1 minute (query)"}', 5.0),
        (b"10 per minute", 10 / 60),
        (b"7200 per 2 hour", 1.0),
        (b"0 per 1 minute", None),
        (b"slow down", None),
        (b"", None),
    ],
)
def test_what_a_refusal_says(body: bytes, rate: float | None) -> None:
    assert told_rate(body) == rate


def test_a_refusal_that_names_its_limit_teaches_it() -> None:
    bucket = per_minute(None)
    assert all(leave(bucket, 1.0) for _ in range(500))
    bucket.refuse(2.0, sent_at=1.0, after=None, told=5.0)
    assert 4.5 < bucket.rate < 5.0
    assert bucket.ceiling == bucket.rate
    assert 0 < bucket.wait(2.0) < 0.3


def test_a_refusal_cuts_the_rate_once_whoever_tells_and_it_grows_back_in_a_minute() -> None:
    bucket = per_minute(300)
    for _ in range(16):
        bucket.refuse(10.0, sent_at=9.9, after=None, told=None)
    assert bucket.rate == pytest.approx(4.0)
    assert bucket._stats.refused == {"query": 16}
    assert bucket._stats.per_minute == {"query": pytest.approx(240)}
    for second in range(11, 72):
        leave(bucket, float(second))
    assert bucket.rate == pytest.approx(5.0)


def test_after_a_refusal_no_burst_leaves() -> None:
    bucket = per_minute(300)
    bucket.refuse(0.0, sent_at=-0.1, after=None, told=None)
    assert sum(leave(bucket, 1000.0) for _ in range(100)) <= 5


def test_the_servers_own_time_is_kept() -> None:
    bucket = per_minute(300)
    bucket.refuse(0.0, sent_at=-0.1, after=7.0, told=None)
    bucket.refuse(0.5, sent_at=-0.1, after=3.0, told=None)  # a shorter wish does not open it earlier
    assert bucket.wait(1.0) == pytest.approx(6.0)
    assert leave(bucket, 7.5)


def test_a_second_refusal_in_a_row_shuts_it_and_leaves_the_rate_alone() -> None:
    bucket = per_minute(300)
    bucket.refuse(0.0, sent_at=-0.1, after=None, told=None)
    assert leave(bucket, 1.0)
    bucket.refuse(1.1, sent_at=1.0, after=None, told=None)
    assert bucket.wait(1.1) == pytest.approx(15.0)
    assert bucket.rate == pytest.approx(4.0, rel=0.01)
    bucket.answered(0.5)  # of one that left before: tells nothing
    assert leave(bucket, 17.0)
    bucket.answered(17.0)
    bucket.refuse(18.0, sent_at=17.5, after=None, told=None)
    assert bucket.wait(18.0) < 1.0


# -- a service with a limit, on a clock of its own ---------------------------------------------------------------------


Service = Callable[[int], Callable[[float], bool]]


def token_bucket(size: int) -> Callable[[float], bool]:
    tokens, filled = float(size), 0.0

    def takes(now: float) -> bool:
        nonlocal tokens, filled
        tokens, filled = min(size, tokens + (now - filled) * size / 60), now
        if tokens < 1:
            return False
        tokens -= 1
        return True

    return takes


def fixed_window(size: int) -> Callable[[float], bool]:
    counts: dict[int, int] = {}

    def takes(now: float) -> bool:
        counts[int(now // 60)] = counts.get(int(now // 60), 0) + 1
        return counts[int(now // 60)] <= size

    return takes


def drive(
    bucket: Bucket, takes: Callable[[float], bool], until: float, told: float | None, width: int = 16
) -> tuple[list[float], int]:
    """Times of the good answers, and how many were refused, of one that always has more to ask; 0.1 s a request."""
    served, refused, now = [], 0, 0.0
    flying: list[tuple[float, float]] = []
    for turn in itertools.count():
        if now >= until:
            return served, refused
        while len(flying) < width and leave(bucket, now):
            heapq.heappush(flying, (now + 0.1 + 0.02 * (turn % 3), now))
        wait = bucket.wait(now) if len(flying) < width else math.inf
        now = min(now + wait + 1e-6, flying[0][0] if flying else math.inf)
        while flying and flying[0][0] <= now:
            _, sent_at = heapq.heappop(flying)
            if takes(now):
                served.append(now)
                bucket.answered(sent_at)
            else:
                refused += 1
                bucket.refuse(now, sent_at, None, told)
    raise AssertionError


@pytest.mark.parametrize("service", [token_bucket, fixed_window])
@pytest.mark.parametrize("known", [300, None], ids=["known", "learned"])
def test_a_limit_is_used_and_hardly_passed(service: Service, known: int | None) -> None:
    served, refused = drive(per_minute(known), service(300), until=1800.0, told=5.0)
    assert refused <= 0.01 * (refused + len(served))
    steady = sum(time >= 600 for time in served) / (1200 * 5.0)
    assert 0.9 <= steady <= 1.0


@pytest.mark.parametrize("service", [token_bucket, fixed_window])
def test_a_service_that_allows_less_than_was_thought_and_does_not_say(
    service: Service,
) -> None:
    served, refused = drive(per_minute(600), service(300), until=1800.0, told=None)
    assert refused <= 0.05 * (refused + len(served))
    assert len(served) / (1800 * 5.0) >= 0.75


# -- both --------------------------------------------------------------------------------------------------------------


async def test_a_category_that_waits_for_its_rate_holds_no_place() -> None:
    gate, slow, quick = gate_of(1), Bucket("slow", 1, TransportStats()), unlimited()
    await gate.enter(slow)  # the minute's only one
    gate.leave()
    waiting = asyncio.create_task(gate.enter(slow))
    await settle()
    async with asyncio.timeout(5):
        for _ in range(10):
            await gate.enter(quick)
            gate.leave()
    assert not waiting.done()
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    assert gate.in_flight == 0


async def test_categories_take_turns() -> None:
    gate, served = gate_of(1), list[int]()
    first, second = unlimited(), unlimited()
    await gate.enter(first)
    tasks = [asyncio.create_task(pass_through(gate, served, number, bucket=first)) for number in range(4)]
    tasks += [asyncio.create_task(pass_through(gate, served, number, bucket=second)) for number in range(10, 12)]
    await settle()
    gate.leave()
    await asyncio.gather(*tasks)
    assert served == [0, 10, 1, 11, 2, 3]


async def test_those_in_line_leave_as_soon_as_their_rate_allows() -> None:
    stats = TransportStats()
    gate, bucket, served = gate_of(4), Bucket("query", 1200, stats), list[int]()
    bucket.refuse(asyncio.get_running_loop().time(), 0.0, None, None)  # no burst
    started = asyncio.get_running_loop().time()
    await asyncio.gather(*(pass_through(gate, served, number, bucket=bucket) for number in range(5)))
    assert 0.2 <= asyncio.get_running_loop().time() - started < 2
    assert served == list(range(5))
    assert stats.held_back["query"] > 0.1


async def test_one_who_is_refused_gives_the_place_away_and_is_the_next_of_its_category() -> None:
    gate, bucket, order = gate_of(1), Bucket("query", 6000, TransportStats()), list[str]()

    async def refused_once() -> None:
        async with Place(gate, bucket, "any") as place:
            await place.ready()
            place.refused(0.05, b"")
            assert gate.in_flight == 0
            await place.ready()
            order.append("refused")

    async def other(name: str, bucket: Bucket) -> None:
        async with Place(gate, bucket, "any") as place:
            await place.ready()
            order.append(name)

    await asyncio.gather(refused_once(), other("same", bucket), other("else", unlimited()))
    assert order == ["else", "refused", "same"]
    assert gate.in_flight == 0


async def test_every_try_costs_a_token() -> None:
    gate, bucket = gate_of(4), Bucket("query", 60, TransportStats())
    async with Place(gate, bucket, "any") as place:
        for _ in range(3):
            await place.ready()
    now = asyncio.get_running_loop().time()
    assert sum(leave(bucket, now) for _ in range(100)) == 57
