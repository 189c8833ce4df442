"""The same call through the unmodified peers and through this package gives the same data."""

from __future__ import annotations

import math
from collections import Counter
from typing import Any

import pytest

from cortexclient.errors import CortexError

from .conftest import WORLDS_IN_ALL, Bench
from .rows import Ask, Raises, Row
from .table import TABLE, WITHOUT_REFEREE, public_names

FEWEST = 10
"""Variations of a row, on each world, unless its method takes no arguments."""

MOST = 18
"""From so many on, the worlds share them."""

differed: Counter[str] = Counter()
"""How often each known defect of a peer showed."""
judged: set[tuple[str, int]] = set()
"""Rows and worlds so far."""


@pytest.mark.parametrize("row", TABLE.values(), ids=str)
def test_same_call_same_data(bench: Bench, row: Row) -> None:
    judged.add((row.name, bench.number))
    variations = its_share(list(row.variations(bench.facts)), bench)
    wrong = [f"{asked}\n    {problem}" for asked in variations if (problem := problem_with(bench, row, asked))]
    assert not wrong, f"{len(wrong)} of {len(variations)} variations of {row.name}:\n  " + "\n  ".join(wrong[:5])


def its_share(variations: list[Ask], bench: Bench) -> list[Ask]:
    """About `MOST` of many variations: the made worlds take turns, the recorded one is asked them all."""
    step = 1 if bench.recorded else math.ceil(len(variations) / MOST)
    return variations[bench.number % step :: step]


def problem_with(bench: Bench, row: Row, asked: Ask) -> str | None:
    """Why an answer of this package is not what it should be; None if it is."""
    ours, our_error = attempt(lambda: bench.runner.run(row.ask_ours(bench.client, asked)))
    theirs, their_error = attempt(lambda: row.ask_theirs(bench.peers, asked))
    if our_error and not isinstance(our_error, CortexError):
        return f"raised {our_error!r}, which is no error of this package"
    defect = row.excuse(bench.facts, asked)
    if defect is None:
        problem = compared(row, (ours, our_error), (theirs, their_error))
    else:
        problem = None
        differed[f"{row.name}: {defect.reason}"] += bool(compared(row, (ours, our_error), (theirs, their_error)))
    if problem or row.truth is None or (defect is None and our_error):
        return problem
    truth = row.truth(bench.facts, asked)
    if truth is NotImplemented:
        return None if defect is None else "there is no truth for this, so no excuse either"
    if isinstance(truth, Raises):
        return None if isinstance(our_error, truth.kind) else f"answered, or raised {our_error!r}, not {truth.kind}"
    return f"raised {our_error!r}" if our_error else difference(row, ours, truth, "from the truth")


def compared(row: Row, ours: tuple[Any, Exception | None], theirs: tuple[Any, Exception | None]) -> str | None:
    """Why two outcomes are not the same: two failures are, whatever their words."""
    (our_value, our_error), (their_value, their_error) = ours, theirs
    if our_error or their_error:
        return None if our_error and their_error else f"only one failed: ours {our_error!r}, theirs {their_error!r}"
    return difference(row, our_value, their_value, "from the peer's")


def attempt(call: Any) -> tuple[Any, Exception | None]:
    try:
        return call(), None
    except Exception as error:  # noqa: BLE001 - the peers raise whatever they meet
        return None, error


def difference(row: Row, ours: Any, other: Any, which: str) -> str | None:
    try:
        row.same(ours, other)
    except Exception as error:  # noqa: BLE001 - a comparison that breaks is a difference too
        return f"differs {which}: {type(error).__name__}: {error}"[:1500]
    return None


def test_every_public_name_has_a_row_or_a_reason() -> None:
    names = dict(public_names())
    assert set(names) - set(TABLE) - set(WITHOUT_REFEREE) == set(), "these need a row in the table, or a reason"
    assert (set(TABLE) | set(WITHOUT_REFEREE)) - set(names) == set(), "these are no public names any more"
    assert set(TABLE) & set(WITHOUT_REFEREE) == set()


def test_every_row_has_many_variations(bench: Bench) -> None:
    names = dict(public_names())
    few = {
        row.name: count
        for row in TABLE.values()
        if (count := len(list(row.variations(bench.facts)))) < (FEWEST if arguments(names[row.name]) else 1)
    }
    assert not few


def arguments(signature: Any) -> set[str]:
    return set(signature.parameters if signature else ()) - {"self", "timeout", "progress"}


def test_no_excuse_is_idle() -> None:
    """Every known defect showed at least once: one that never does is mended, and its excuse must go."""
    if len(judged) < len(TABLE) * WORLDS_IN_ALL:
        pytest.skip("only a part of the table was tried")
    declared = {f"{row.name}: {defect.reason}" for row in TABLE.values() for defect in row.known_defects}
    assert declared - set(differed) == set()
