"""Calls that are made at the same time: joined, answered each its own, and independent of each other."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from tests.patience import HANG

from cortexclient._budget import current_budget
from cortexclient._coalesce import TICK, Coalescer, Found
from cortexclient.errors import CortexError, NotFoundError, UnavailableError


class Server:
    """Ten times each id, after a while."""

    def __init__(self, seconds: float = 0.0, fail: Callable[[], Exception] | None = None, bad: set[int] = frozenset()):  # type: ignore[assignment]
        self.batches: list[list[int]] = []
        self.seconds, self.fail, self.bad = seconds, fail, bad
        self.cancelled = 0

    async def __call__(self, ids: np.ndarray) -> Found:
        self.batches.append(ids.tolist())
        try:
            await asyncio.sleep(self.seconds)
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        if self.fail:
            raise self.fail()
        return Found(ids * 10, {i: NotFoundError("unknown", ids=[i]) for i in ids.tolist() if i in self.bad})


async def ask(coalescer: Coalescer, server: Server, *ids: int, key: Any = "key") -> list[int]:
    return (await coalescer.ask(key, np.array(sorted(ids)), server)).values.tolist()


async def test_calls_made_at_once_are_one() -> None:
    server, coalescer = Server(), Coalescer()
    answers = await asyncio.gather(*(ask(coalescer, server, i % 500 + 1) for i in range(10_000)))
    assert answers == [[(i % 500 + 1) * 10] for i in range(10_000)]
    assert server.batches == [list(range(1, 501))]


async def test_each_gets_its_own_part() -> None:
    server, coalescer = Server(), Coalescer()
    answers = await asyncio.gather(
        ask(coalescer, server, 3, 9), ask(coalescer, server, 9, 1), ask(coalescer, server, 5)
    )
    assert answers == [[30, 90], [10, 90], [50]]


async def test_a_lone_call_does_not_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cortexclient._coalesce.TICK", 2 * HANG)
    server, coalescer = Server(), Coalescer()
    async with asyncio.timeout(HANG):
        for i in range(1, 51):
            await ask(coalescer, server, i)
    assert len(server.batches) == 50


async def test_while_one_is_under_way_others_gather() -> None:
    server, coalescer = Server(seconds=0.05), Coalescer()
    calls = [asyncio.create_task(ask(coalescer, server, 1))]
    for i in range(2, 6):
        await asyncio.sleep(0)
        calls.append(asyncio.create_task(ask(coalescer, server, i)))
        await asyncio.sleep(0)
    await asyncio.gather(*calls)
    assert len(server.batches) <= 2


async def test_different_keys_stay_apart() -> None:
    server, coalescer = Server(), Coalescer()
    await asyncio.gather(*(ask(coalescer, server, i, key=i % 2) for i in range(1, 9)))
    assert sorted(server.batches) == [[1, 3, 5, 7], [2, 4, 6, 8]]


async def test_now_is_one_instant_for_calls_made_at_once_and_moves_on() -> None:
    coalescer = Coalescer()

    async def now() -> Any:
        return coalescer.now()

    assert len(set(await asyncio.gather(*(now() for _ in range(1_000))))) == 1
    first = coalescer.now()
    await asyncio.sleep(5 * TICK)
    assert coalescer.now() > first
    assert coalescer.now().tzinfo is not None


async def test_errors_reach_those_whose_ids_they_are_about() -> None:
    server, coalescer = Server(bad={2, 3}), Coalescer()
    one, two, three = await asyncio.gather(
        *(coalescer.ask("key", np.array(ids), server) for ids in ([1, 4], [2, 4], [2, 3]))
    )
    assert one.errors == {}
    assert list(two.errors) == [2]
    assert sorted(three.errors) == [2, 3]
    assert two.errors[2] is not three.errors[2]
    assert two.values.tolist() == [20, 40]


@pytest.mark.parametrize("fail", [lambda: UnavailableError("down"), lambda: ZeroDivisionError("bug")])
async def test_a_failure_of_the_whole_reaches_all(fail: Callable[[], Exception]) -> None:
    server, coalescer = Server(fail=fail), Coalescer()
    errors = await asyncio.gather(*(ask(coalescer, server, i) for i in (1, 2, 3)), return_exceptions=True)
    assert {type(error) for error in errors} == {type(fail())}
    if isinstance(fail(), CortexError):
        assert len({id(error) for error in errors}) == 3
    server.fail = None
    assert await ask(coalescer, server, 1) == [10]


async def test_one_who_gives_up_harms_nobody() -> None:
    server, coalescer = Server(seconds=0.02), Coalescer()
    tasks = [asyncio.create_task(ask(coalescer, server, i)) for i in (1, 2, 3)]
    await asyncio.sleep(0.005)
    tasks[0].cancel()
    answers = await asyncio.gather(*tasks, return_exceptions=True)
    assert isinstance(answers[0], asyncio.CancelledError)
    assert answers[1:] == [[20], [30]]
    assert server.cancelled == 0


async def test_the_last_one_to_give_up_calls_it_off() -> None:
    server, coalescer = Server(seconds=60), Coalescer()
    before = asyncio.all_tasks()
    tasks = [asyncio.create_task(ask(coalescer, server, i)) for i in (1, 2)]
    await asyncio.sleep(0.005)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    assert server.cancelled == 1
    assert asyncio.all_tasks() == before


async def test_all_give_up_before_anything_is_sent() -> None:
    server, coalescer = Server(), Coalescer()
    task = asyncio.create_task(ask(coalescer, server, 1))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await asyncio.sleep(0.005)
    assert server.batches == []


async def test_a_failure_that_nobody_waits_for_is_not_reported() -> None:
    told: list[Any] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: told.append(context))
    server, coalescer = Server(seconds=0.01, fail=lambda: UnavailableError("down")), Coalescer()
    tasks = [asyncio.create_task(ask(coalescer, server, i)) for i in (1, 2)]
    await asyncio.sleep(0.005)
    tasks[0].cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    gc.collect()
    await asyncio.sleep(0)
    assert told == []


async def test_a_joined_call_has_a_budget_of_its_own() -> None:
    seen: list[object] = []

    async def load(ids: np.ndarray) -> Found:
        seen.append(current_budget())
        return Found(ids)

    await Coalescer().ask("key", np.array([1]), load)
    assert seen != [None]


def test_another_loop_finds_nothing_left_behind() -> None:
    server, coalescer = Server(seconds=60), Coalescer()

    async def abandoned() -> None:
        coalescer.now()
        task = asyncio.ensure_future(ask(coalescer, server, 1))
        await asyncio.sleep(0)
        del task

    async def fresh() -> list[int]:
        server.seconds = 0
        first = coalescer.now()
        answer = await ask(coalescer, server, 1)
        await asyncio.sleep(5 * TICK)
        assert coalescer.now() > first
        return answer

    asyncio.run(abandoned())
    assert asyncio.run(fresh()) == [10]
