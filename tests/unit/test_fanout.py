"""Plans and workers: nothing lost, nothing asked twice, never too many at once, and a clean end."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cortexclient import AuthError, CortexUsageError, NotFoundError, Progress
from cortexclient import _fanout as fanout
from cortexclient.errors import DeadlineExceeded
from cortexclient.ids import as_ids, unique_ids

BASE = 864691135858491438
IDS = st.lists(st.integers(BASE, BASE + 30), max_size=80)


@given(ids=IDS, batch=st.integers(1, 40), workers=st.integers(1, 9))
def test_a_plan_asks_each_id_once_in_balanced_chunks(ids: list[int], batch: int, workers: int) -> None:
    unique, _ = unique_ids(as_ids(ids))
    chunks = fanout.plan(unique, batch, workers)
    assert [i for chunk in chunks for i in chunk.tolist()] == sorted(set(ids))
    sizes = [len(chunk) for chunk in chunks]
    assert all(0 < size <= batch for size in sizes)
    assert not sizes or max(sizes) - min(sizes) <= 1


@given(ids=st.integers(0, 500), batch=st.integers(3, 40), workers=st.integers(1, 9))
def test_a_plan_makes_no_more_requests_than_fill_the_last_wave(ids: int, batch: int, workers: int) -> None:
    chunks = len(fanout.plan(as_ids(range(ids)), batch, workers))
    fewest = -(-ids // batch)
    assert chunks == fewest if fewest <= workers else fewest <= chunks < fewest + workers


def test_few_ids_travel_in_one_request() -> None:
    assert len(fanout.plan(as_ids(range(2_000)), batch=2_000, workers=16)) == 1
    assert len(fanout.plan(as_ids(range(2_001)), batch=2_000, workers=16)) == 2


def test_a_plan_of_nothing_is_empty() -> None:
    assert fanout.plan(as_ids([]), 10, 4) == []


class Work:
    """A call that notes who runs, who finished, and who was cancelled."""

    def __init__(self, **fails: BaseException) -> None:
        self.running = self.peak = 0
        self.started: Counter[int] = Counter()
        self.ended: list[int] = []
        self._fails = {int(name.removeprefix("on_")): error for name, error in fails.items()}

    async def __call__(self, item: int) -> int:
        self.started[item] += 1
        self.running += 1
        self.peak = max(self.peak, self.running)
        try:
            await asyncio.sleep(0.001 * (1 + item % 3))
            if item in self._fails:
                raise self._fails[item]
            return item * 10
        finally:
            self.running -= 1
            self.ended.append(item)


async def never(item: int) -> int:
    await asyncio.Event().wait()
    return item


@pytest.mark.parametrize("workers", [1, 3, 50])
async def test_fan_out_keeps_the_order_and_the_limit(workers: int) -> None:
    work = Work()
    assert await fanout.fan_out(range(20), work, workers) == [i * 10 for i in range(20)]
    assert work.peak == min(workers, 20)
    assert set(work.started.values()) == {1}


async def test_fan_out_pulls_its_items_as_it_goes() -> None:
    pulled: list[int] = []
    items = (pulled.append(i) or i for i in range(100))  # type: ignore[func-returns-value]
    with pytest.raises(NotFoundError):
        await fanout.fan_out(items, Work(on_4=NotFoundError("no 4")), workers=2)
    assert len(pulled) < 10


async def test_the_first_error_ends_all_others_and_keeps_what_arrived() -> None:
    work = Work(on_5=NotFoundError("no table", ids=[5]))
    with pytest.raises(NotFoundError) as caught:
        await fanout.fan_out(range(1_000), work, workers=3)
    assert set(caught.value.partial) >= {0, 10, 20, 30, 40}
    assert 50 not in caught.value.partial
    assert sum(work.started.values()) < 12
    assert work.running == 0


async def test_errors_of_other_kinds_come_out_as_they_are() -> None:
    with pytest.raises(ZeroDivisionError):
        await fanout.fan_out(range(3), Work(on_1=ZeroDivisionError()), workers=2)


async def test_cancelling_a_fan_out_cancels_every_call() -> None:
    work = Work()
    task = asyncio.create_task(fanout.fan_out(range(10_000), work, workers=4))
    await asyncio.sleep(0.01)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert work.running == 0


async def test_calls_in_turn_share_their_slots() -> None:
    slots, work = asyncio.Semaphore(5), Work()
    await asyncio.gather(*(fanout.in_turn(range(k, k + 20), work, slots) for k in (0, 20, 40)))
    assert (work.peak, len(work.started), set(work.started.values())) == (5, 60, {1})


@pytest.mark.parametrize("how", ["error", "cancelled"])
async def test_calls_in_turn_that_end_early_give_their_slots_back(how: str) -> None:
    slots, work = asyncio.Semaphore(5), Work(on_7=NotFoundError("no 7"))
    first = 0 if how == "error" else 100
    task = asyncio.create_task(fanout.in_turn(range(first, first + 10_000), work, slots))
    if how == "cancelled":
        await asyncio.sleep(0.01)
        task.cancel()
    with pytest.raises(NotFoundError if how == "error" else asyncio.CancelledError):
        await task
    assert work.running == 0
    assert len(work.started) < 1_000
    for _ in range(5):
        async with asyncio.timeout(1):
            await slots.acquire()
    assert slots.locked()


async def test_together_gives_results_in_the_order_of_the_calls() -> None:
    async def slow() -> str:
        await asyncio.sleep(0.01)
        return "slow"

    async def quick() -> str:
        return "quick"

    assert await fanout.together(slow, quick) == ["slow", "quick"]


async def test_a_deadline_names_itself() -> None:
    async def forever() -> None:
        with fanout.deadline(0.01):
            await asyncio.Event().wait()

    with pytest.raises(DeadlineExceeded, match=r"timeout=0\.01 seconds"):
        await forever()


async def test_a_deadline_that_is_kept_is_silent() -> None:
    with fanout.deadline(5), fanout.deadline(None):
        await asyncio.sleep(0)


@pytest.mark.parametrize("bad", [0, -3.5])
def test_a_deadline_is_above_zero(bad: float) -> None:
    with pytest.raises(CortexUsageError, match=f"timeout={bad}"), fanout.deadline(bad):
        pass


async def test_collect_asks_each_id_once_and_one_bad_id_spoils_only_itself() -> None:
    work = Work(on_3=NotFoundError("no 3", ids=[3]))
    asked = as_ids([9, 3, 1, 9, 7, 1])
    results = await fanout.collect(asked, work, workers=2)
    assert dict(results) == {9: 90, 1: 10, 7: 70}
    assert list(results) == [9, 1, 7]
    assert results.failed_ids.tolist() == [3]
    assert set(work.started.values()) == {1}
    assert work.peak == 2


async def test_collect_counts_ids() -> None:
    seen: list[Progress] = []
    await fanout.collect(as_ids(range(10)), Work(on_3=NotFoundError("no 3")), workers=2, progress=seen.append)
    assert (seen[-1].done, seen[-1].failed, seen[-1].total) == (9, 1, 10)


@pytest.mark.parametrize("fatal", [AuthError("who are you"), CortexUsageError("closed"), ZeroDivisionError()], ids=repr)
async def test_an_error_that_hits_every_id_alike_ends_the_call(fatal: Exception) -> None:
    work = Work(on_2=fatal)
    with pytest.raises(type(fatal)) as caught:
        await fanout.collect(as_ids(range(1_000)), work, workers=2)
    assert caught.value is fatal
    assert work.running == 0
    assert sum(work.started.values()) < 20


async def test_collect_keeps_to_its_deadline() -> None:
    with pytest.raises(DeadlineExceeded):
        await fanout.collect(as_ids([1, 2]), never, workers=2, timeout=0.02)


async def test_a_stream_hands_out_every_outcome() -> None:
    work = Work(on_3=NotFoundError("no 3"))
    async with fanout.stream(as_ids([5, 3, 5, 1]), work, workers=2) as outcomes:
        arrived = [outcome async for outcome in outcomes]
    assert sorted((o.id, o.value, o.ok) for o in arrived) == [(1, 10, True), (3, None, False), (5, 50, True)]


async def test_leaving_a_stream_early_ends_its_workers() -> None:
    work = Work()
    async with fanout.stream(as_ids(range(1_000)), work, workers=4) as outcomes:
        async for _ in outcomes:
            break
    assert work.running == 0
    assert sum(work.started.values()) < 20


async def test_an_error_of_the_reader_ends_the_workers_and_comes_out_as_it_is() -> None:
    work = Work()

    async def read() -> None:
        async with fanout.stream(as_ids(range(1_000)), work, workers=4) as outcomes:
            async for _ in outcomes:
                raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await read()
    assert work.running == 0


async def test_a_slow_reader_slows_the_workers() -> None:
    work, workers, read = Work(), 3, 0
    async with fanout.stream(as_ids(range(100)), work, workers=workers) as outcomes:
        async for _ in outcomes:
            read += 1
            await asyncio.sleep(0.005)
            assert sum(work.started.values()) <= read + 2 * workers
            if read == 10:
                break


@pytest.mark.parametrize("how", ["collect", "stream"])
async def test_cancelling_ends_the_workers(how: str) -> None:
    work = Work()

    async def collect() -> None:
        await fanout.collect(as_ids(range(10_000)), work, workers=4)

    async def stream() -> None:
        async with fanout.stream(as_ids(range(10_000)), work, workers=4) as outcomes:
            await _drain(outcomes)

    calls: dict[str, Callable[[], Awaitable[None]]] = {"collect": collect, "stream": stream}
    task = asyncio.ensure_future(calls[how]())
    await asyncio.sleep(0.02)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert work.running == 0


async def _drain(outcomes: AsyncIterator[object]) -> None:
    async for _ in outcomes:
        pass
