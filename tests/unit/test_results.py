"""Results: one outcome for each id, complete, in order."""

from __future__ import annotations

import pickle

import numpy as np
import pytest

from cortexclient import CortexUsageError, DecodeError, NotFoundError, Outcome, PartialFailure, Results
from cortexclient.results import Stream

A, B, C = (864691135858491438 + i for i in range(3))


@pytest.fixture
def results() -> Results[str]:
    return Results([Outcome(C, "c"), Outcome(A, error=NotFoundError("gone", ids=[A])), Outcome(B, "b")])


class Loud:
    """Something whose repr costs as much as it is large."""

    def __repr__(self) -> str:
        raise AssertionError("the repr of a value was asked for")


def test_results_map_the_ids_that_succeeded_in_input_order(results: Results[str]) -> None:
    assert list(results) == [C, B]
    assert dict(results) == {C: "c", B: "b"}
    assert len(results) + len(results.errors) == 3
    assert results[np.int64(B)] == "b"
    assert A not in results
    assert results.get(A) is None


def test_asking_for_a_failed_id_raises_its_own_error(results: Results[str]) -> None:
    with pytest.raises(NotFoundError, match="gone"):
        results[A]
    with pytest.raises(KeyError):
        results[7]
    with pytest.raises(KeyError):
        results[B + 0.0]  # type: ignore[index]  # a float is another id already


def test_failed_ids_are_ready_to_be_asked_again(results: Results[str]) -> None:
    assert results.failed_ids.dtype == np.int64
    assert results.failed_ids.tolist() == [A]
    assert results.status() == {"ok": 2, "NotFoundError": 1}


def test_raise_if_failed_keeps_what_succeeded(results: Results[str]) -> None:
    with pytest.raises(PartialFailure, match=r"1 of 3 ids failed \(NotFoundError 1\)") as caught:
        results.raise_if_failed()
    assert caught.value.results is results
    assert caught.value.errors == results.errors
    good: Results[int] = Results([Outcome(A, 1)])
    assert good.raise_if_failed() is good


def test_the_repr_never_shows_values() -> None:
    many = Results([Outcome(i, Loud()) for i in range(10_000)] + [Outcome(10_000, error=DecodeError("cut"))])
    assert repr(many) == "Results: 10,000 ok, 1 DecodeError"


def test_results_and_outcomes_travel(results: Results[str]) -> None:
    twin = pickle.loads(pickle.dumps(results))
    assert dict(twin) == dict(results)
    assert str(twin.errors[A]) == str(results.errors[A])
    assert pickle.loads(pickle.dumps(Outcome(A, "a"))) == Outcome(A, "a")


def test_an_outcome_is_a_value_or_an_error() -> None:
    assert Outcome(A, None).ok
    assert Outcome(A, None).unwrap() is None
    failed: Outcome[int] = Outcome(A, error=NotFoundError("gone"))
    assert not failed.ok
    with pytest.raises(NotFoundError):
        failed.unwrap()


async def test_a_stream_that_was_not_opened_says_how() -> None:
    stream: Stream[int] = Stream(lambda: None)  # type: ignore[arg-type,return-value]
    with pytest.raises(CortexUsageError, match="async with"):
        async for _ in stream:
            pass
