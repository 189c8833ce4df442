"""Bad ids among good ones: found by halving, in few requests, and without doubt where nothing is known."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cortexclient._isolate import SPLITS, Isolation, raise_spoiled
from cortexclient.errors import AuthError, CortexError, NotFoundError, ServerError, ServerRefusedError


def broken(ids: object = ()) -> ServerError:
    return ServerError("failed", status=500, ids=ids)  # type: ignore[arg-type]


class Server:
    """Answers a batch with its ids times ten, or fails if there is a bad one in it."""

    def __init__(self, bad: set[int], error: type[CortexError] = ServerError) -> None:
        self.bad, self.error, self.asked = bad, error, 0

    async def __call__(self, ids: np.ndarray) -> np.ndarray:
        self.asked += 1
        guilty = [i for i in ids.tolist() if i in self.bad]
        if guilty and self.error is ServerRefusedError:
            raise ServerRefusedError("refused", status=400, ids=ids)
        if guilty and self.error is NotFoundError:
            raise NotFoundError("unknown", ids=ids)
        if guilty:
            raise broken(ids)
        return ids * 10


@pytest.mark.parametrize("error", [ServerError, ServerRefusedError, NotFoundError])
@given(n=st.integers(1, 300), bad=st.sets(st.integers(1, 300), max_size=4))
async def test_exactly_the_bad_ids_are_blamed(n: int, bad: set[int], error: type[CortexError]) -> None:
    server = Server(bad, error)
    isolation = Isolation(server)
    await isolation.ask(np.arange(1, n + 1))
    guilty = {i for i in bad if i <= n}
    assert set(isolation.errors) == guilty
    answered = {i: v for ids, values in isolation.found for i, v in zip(ids.tolist(), values.tolist(), strict=True)}
    assert answered == {i: i * 10 for i in range(1, n + 1) if i not in guilty}
    assert server.asked <= 1 + len(guilty) * 2 * math.ceil(math.log2(max(n, 2)))


async def test_whoever_knows_the_guilty_is_asked_once() -> None:
    server, explained = Server({5, 60, 700, 800}), []

    async def explain(ids: np.ndarray) -> NotFoundError:
        explained.append(len(ids))
        return NotFoundError("unknown", ids=[5, 60, 700])

    isolation = Isolation(server, explain)
    await isolation.ask(np.arange(1, 1001))
    assert {i: type(error) for i, error in isolation.errors.items()} == dict.fromkeys((5, 60, 700), NotFoundError) | {
        800: ServerError
    }
    assert isinstance(isolation.errors[5].__cause__, ServerError)
    assert explained == [1000]
    assert server.asked <= 2 + 2 * 10


async def test_a_request_that_is_wrong_for_all_is_not_taken_apart() -> None:
    server = Server(set(range(1, 2001)))
    isolation = Isolation(server)
    with pytest.raises(ServerError) as caught:
        await isolation.ask(np.arange(1, 2001))
    assert len(caught.value.ids) == 2000
    assert server.asked < 40


async def test_splits_are_bounded_and_the_rest_share_the_error() -> None:
    bad = set(range(1, 4001, 40))
    server = Server(bad)
    isolation = Isolation(server)
    for chunk in np.array_split(np.arange(2, 4002), 2):
        await isolation.ask(chunk)
    assert server.asked <= 2 + 2 * SPLITS
    assert set(isolation.errors) >= bad - {1}
    assert sum(len(ids) for ids, _ in isolation.found) + len(isolation.errors) == 4000


@pytest.mark.parametrize("error", [ServerError("down", status=503), AuthError("no")])
async def test_other_errors_end_the_call(error: CortexError) -> None:
    async def fail(ids: np.ndarray) -> None:
        raise error

    with pytest.raises(type(error)):
        await Isolation(fail).ask(np.arange(10))


def test_the_error_names_all_ids_and_keeps_the_rest() -> None:
    with pytest.raises(NotFoundError) as caught:
        raise_spoiled({3: NotFoundError("unknown"), 7: broken()}, {1: 10})
    assert caught.value.ids == (3, 7)
    assert caught.value.partial == {1: 10}
    assert "1 NotFoundError, 1 ServerError" in caught.value.__notes__[0]
