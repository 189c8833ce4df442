"""The gate in front of each service."""

from __future__ import annotations

import asyncio
import random

import pytest

from cortexclient._transport.limits import SLOW_START, Gate


async def settle() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def pass_through(gate: Gate, served: list[int], number: int, *, good: bool = True) -> None:
    async with gate:
        await asyncio.sleep(0.001)
        served.append(number)
        if good:
            gate.widen()


def wide(limit: int) -> Gate:
    gate = Gate(limit)
    for _ in range(limit):
        gate.widen()
    return gate


async def test_it_starts_narrow_and_widens_to_its_limit() -> None:
    gate = Gate(16)
    assert gate.width == SLOW_START
    for _ in range(100):
        gate.widen()
    assert gate.width == 16
    assert Gate(1).width == 1


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
    for _ in range(7):
        gate.widen()
    assert gate.width == 8
    gate.widen()
    assert gate.width == 9
    for _ in range(200):
        gate.widen()
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
    gate, served = Gate(1), list[int]()
    tasks = [asyncio.create_task(pass_through(gate, served, number)) for number in range(10)]
    await settle()
    for task in tasks[1:9]:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    assert served == [0, 9]
    assert gate.in_flight == 0


async def test_cancelled_in_the_moment_of_admission_gives_the_place_back() -> None:
    gate, served = Gate(1), list[int]()
    await gate.__aenter__()
    waiting = [asyncio.create_task(pass_through(gate, served, number)) for number in range(2)]
    await settle()
    await gate.__aexit__(None, None, None)  # admits the first, whose task has not run yet
    waiting[0].cancel()
    await asyncio.gather(*waiting, return_exceptions=True)
    assert served == [1]
    assert gate.in_flight == 0


async def test_cancelled_while_shut_gives_the_place_back() -> None:
    gate = Gate(2)
    gate.narrow(10.0)
    task = asyncio.create_task(pass_through(gate, [], 0))
    await settle()
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert gate.in_flight == 0


async def test_places_are_neither_lost_nor_made_up_under_random_cancellation() -> None:
    gate, served, random_ = Gate(5), list[int](), random.Random(0)
    tasks = [asyncio.create_task(pass_through(gate, served, number)) for number in range(300)]
    while not all(task.done() for task in tasks):
        random_.choice(tasks).cancel()
        await asyncio.sleep(0)
    await asyncio.gather(*tasks, return_exceptions=True)
    assert gate.in_flight == 0
    assert gate.peak <= 5
    await asyncio.gather(*(pass_through(gate, served, number) for number in range(10)))
    assert served[-10:] == list(range(10))
