"""The settings of a client: validated, frozen, picklable."""

from __future__ import annotations

import dataclasses
import pickle

import pytest

from cortexclient import Limits, RetryPolicy, Timeouts
from cortexclient.config import STORAGE
from cortexclient.errors import CortexUsageError

SETTINGS = [
    Limits(in_flight=3, per_service={"skeleton": 8}, per_minute={"query": 150}, batch={"roots_binary": 100}),
    RetryPolicy(),
    Timeouts(),
]


@pytest.mark.parametrize("kind", [Limits, RetryPolicy, Timeouts])
@pytest.mark.parametrize("bad", [0, -1])
def test_every_number_is_above_zero(kind: type, bad: int) -> None:
    numbers = [field.name for field in dataclasses.fields(kind) if isinstance(field.default, int | float)]
    assert numbers
    for name in numbers:
        with pytest.raises(CortexUsageError, match=rf"{kind.__name__}\({name}={bad}\)"):
            kind(**{name: bad})


@pytest.mark.parametrize("name", ["per_service", "per_minute", "batch"])
def test_numbers_by_name_are_above_zero_too(name: str) -> None:
    with pytest.raises(CortexUsageError, match=name):
        Limits(**{name: {"roots_binary": 0}})


@pytest.mark.parametrize("settings", SETTINGS, ids=lambda s: type(s).__name__)
def test_settings_are_frozen_and_travel(settings: object) -> None:
    assert pickle.loads(pickle.dumps(settings)) == settings
    with pytest.raises(dataclasses.FrozenInstanceError):
        setattr(settings, dataclasses.fields(settings)[0].name, 1)  # type: ignore[arg-type]


def test_limits_keep_a_copy_that_cannot_be_changed() -> None:
    mine = {"skeleton": 8}
    limits = Limits(per_service=mine)
    mine["skeleton"] = 100
    assert limits.of("skeleton") == 8
    with pytest.raises(TypeError):
        limits.per_service["skeleton"] = 100  # type: ignore[index]


def test_who_may_have_how_many_requests_in_flight() -> None:
    limits = Limits(in_flight=5, storage_in_flight=50, per_service={"skeleton": 2})
    assert [limits.of(name) for name in ("materialize", "skeleton", STORAGE)] == [5, 2, 50]
    assert Limits(per_service={STORAGE: 7}).of(STORAGE) == 7


def test_rates_are_those_of_the_dataset_unless_named() -> None:
    dataset = Limits(per_minute={"query": 150})
    mine = Limits(in_flight=8).over(dataset)
    assert (mine.in_flight, mine.per_minute) == (8, {"query": 150})
    assert Limits(per_minute={}).over(dataset).per_minute == {}
    assert Limits(per_minute={"query": 10}).over(dataset).per_minute == {"query": 10}
    assert Limits().over(Limits()).per_minute is None


def test_workers_share_what_one_user_may() -> None:
    limits = Limits(per_service={"skeleton": 8}, per_minute={"query": 150}, batch={"roots_binary": 100})
    part = limits.shared_by(4)
    assert (part.in_flight, part.storage_in_flight, part.per_service["skeleton"]) == (4, 32, 2)
    assert part.per_minute == {"query": 37.5}
    assert part.batch == limits.batch
    assert limits.shared_by(100).in_flight == 1
    assert limits.shared_by(1) == limits
    with pytest.raises(CortexUsageError, match="one worker"):
        limits.shared_by(0)
