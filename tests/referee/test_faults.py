"""Whatever goes wrong on the way, the answers are those of a calm day, none is lost, and it does not take for ever."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from cortexclient import AsyncCortexClient
from cortexclient.config import Limits, RetryPolicy
from cortexclient.errors import CortexError, DecodeError, InvalidToken
from cortexclient.sandbox import Faults, Sandbox, World

from .comparisons import _rows
from .facts import Facts
from .rows import Ask, Row, ask
from .table import TABLE

PATIENT = RetryPolicy(attempts=30, server_error_attempts=2, deadline=30, base=0.002, cap=0.01, max_retry_after=1)
"""Many tries, short waits."""
SMALL = Limits(batch={"roots_binary": 60, "root_timestamps": 60, "valid_nodes": 60, "is_latest_roots": 60})
"""Batches so small that calls take several requests."""
KINDS = {
    "503": "503:20%",
    "429": "429:20%",
    "429 with Retry-After": "429-retry-after:20%",
    "502 and 504": "502:10%,504:10%",
    "reset before the answer": "reset:20%",
    "reset inside the body": "reset-body:20%",
    "body cut short": "truncated:20%",
    "slow": "slow:20%",
    "everything": "503:4%,429-retry-after:4%,502:4%,reset:4%,reset-body:4%,truncated:4%,slow:2%",
}
WRITES = {f"{service}{name}_state_json" for service in ("", "state.") for name in ("get", "upload")}
"""These rows write first, and what writes is never tried again."""
BARE_NUMBERS = {"materialize.get_annotation_count"}
"""Answers that, cut short, are still whole answers of their kind."""
EACH = 2
"""Variations of each row."""


class Calm:
    """A sandbox in calm weather, what is asked of it, and what it answers."""

    def __init__(self, sandbox: Sandbox, runner: asyncio.Runner) -> None:
        self.sandbox, self.runner = sandbox, runner
        facts = Facts(sandbox.world, strict=False)
        asked = [(row, one) for row in TABLE.values() if row.name not in WRITES for one in chosen(row, facts)]
        first, second = (self.answers(asked) for _ in range(2))
        steady = [identical(one, two) for one, two in zip(first, second, strict=True)]
        self.asked = [question for question, same in zip(asked, steady, strict=True) if same]
        self.calm = [answer for answer, same in zip(first, steady, strict=True) if same]
        # what is about "now" never repeats itself
        assert len(self.asked) > 0.95 * len(asked)

    def answers(self, asked: list[tuple[Row, Ask]], **settings: Any) -> list[Any]:
        return self.runner.run(self._answers(asked, settings))

    async def _answers(self, asked: list[tuple[Row, Ask]], settings: Mapping[str, Any]) -> list[Any]:
        """One after the other, on one client without anything in its cache."""
        async with self.client(**settings) as client:
            return [await answer(row, client, one) for row, one in asked]

    def client(self, **settings: Any) -> AsyncCortexClient:
        return AsyncCortexClient(self.sandbox.spec, token=self.sandbox.token, limits=SMALL, **settings)


def chosen(row: Row, facts: Facts) -> list[Ask]:
    variations = list(row.variations(facts))
    return variations[:: max(len(variations) // EACH, 1)][:EACH]


async def answer(row: Row, client: AsyncCortexClient, asked: Ask) -> Any:
    try:
        return await row.ask_ours(client, asked)
    except CortexError as error:
        return error


def identical(one: Any, two: Any) -> bool:
    """The same answer, or the same kind of error."""
    if type(one) is not type(two):
        return False
    if isinstance(one, pd.DataFrame):
        return list(one.columns) == list(two.columns) and one.index.equals(two.index) and _rows(one) == _rows(two)
    if isinstance(one, np.ndarray):
        return one.dtype == two.dtype and np.array_equal(one, two)
    if isinstance(one, pd.Index | pa.Table):
        return bool(one.equals(two))
    if isinstance(one, Mapping):
        return list(one) == list(two) and all(identical(one[key], two[key]) for key in one)
    if isinstance(one, list | tuple):
        return len(one) == len(two) and all(map(identical, one, two))
    return isinstance(one, CortexError) or bool(one == two)


@pytest.fixture(scope="module")
def calm(runner: asyncio.Runner) -> Iterator[Calm]:
    world = World.synthesize(1, nuclei=40, edits=300, backups=16, versions=4, expired=2)
    with Sandbox(world) as sandbox:
        yield Calm(sandbox, runner)


@pytest.mark.parametrize("kind", KINDS)
def test_answers_are_those_of_a_calm_day(calm: Calm, kind: str) -> None:
    faults = calm.sandbox.faults = Faults(KINDS[kind], retry_after=0.01, slow_seconds=0.05, seed=7)
    try:
        answers = calm.answers(calm.asked, retry=PATIENT)
    finally:
        calm.sandbox.faults = ""
    wrong = [
        f"{row.name}({asked}): {now!r:.200}"
        for (row, asked), then, now in zip(calm.asked, calm.calm, answers, strict=True)
        if not identical(then, now)
    ]
    assert not wrong, f"{len(wrong)} of {len(answers)} answers: " + "\n".join(wrong[:5])
    assert faults.dealt > 50


@pytest.mark.parametrize("kind", ["short:20%", "truncated-gzip:20%"])
def test_what_nothing_on_the_wire_shows_is_never_a_wrong_answer(calm: Calm, kind: str) -> None:
    """A body that ends early while its length agrees: noticed, and asked again or refused."""
    faults = calm.sandbox.faults = Faults(kind, seed=7)
    try:
        answers = calm.answers(calm.asked, retry=PATIENT)
    finally:
        calm.sandbox.faults = ""
    wrong = [
        f"{row.name}({asked}): {now!r:.200}"
        for (row, asked), then, now in zip(calm.asked, calm.calm, answers, strict=True)
        if not (identical(then, now) or isinstance(now, DecodeError) or row.name in BARE_NUMBERS)
    ]
    assert not wrong, "\n".join(wrong[:5])
    assert faults.dealt > 10


def test_a_token_that_expires_on_the_way_is_an_error_at_once(calm: Calm) -> None:
    facts = Facts(calm.sandbox.world, strict=False)
    supervoxels, roots = facts.supervoxels, facts.roots

    def expire(*_: Any) -> None:
        calm.sandbox.expire_token()

    async def run() -> None:
        async with calm.client(retry=PATIENT) as client:
            assert len(await client.get_roots(supervoxels)) == len(supervoxels)
            with pytest.raises(InvalidToken):
                await client.chunkedgraph.get_leaves_many(roots, progress=expire)
            assert client.stats.retries == 0

    try:
        calm.runner.run(run())
    finally:
        calm.sandbox.issue_token()
    question = [(TABLE["get_roots"], ask(supervoxel_ids=supervoxels))]
    assert len(calm.answers(question)[0]) == len(supervoxels)
