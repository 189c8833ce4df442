"""Asking about ids until each has an outcome: what spoils a call is set aside, what may pass is waited for."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, Final

import anyio
import numpy as np
import pyarrow as pa

from .._types import IdArray
from ..errors import (
    AuthError,
    CortexError,
    CortexUsageError,
    DecodeError,
    IncompatibleServerError,
    MissingDependency,
    NotFoundError,
    ServerError,
    UnavailableError,
)
from ..results import Stream
from .ledger import FAILED

Errors = dict[int, CortexError]
Attempt = Callable[[IdArray], Awaitable[Errors]]

FATAL = (AuthError, CortexUsageError, IncompatibleServerError, MissingDependency)
"""They would hit every id alike, now and later: they end the job."""
SPLITS: Final = 64
"""Calls that are halved in one attempt; beyond, the ids of a failing call share its error."""
SUSPECTS: Final = 8
"""So many ids to blame one by one and none answered: the call itself is wrong, and no id more than another."""
MAY_PASS = (UnavailableError, DecodeError)
"""Errors that another attempt may not meet: a 500 without reason, a body that was cut short."""
TRIES: Final = 3
"""Attempts at ids that fail for such a reason, while others are answered."""
FIRST_PAUSE, LONGEST_PAUSE = 1.0, 30.0
"""Seconds between attempts: doubled each time."""


def is_away(error: CortexError) -> bool:
    """Whether an error is about a service, not about ids; a 500 is about ids as often as not."""
    return isinstance(error, UnavailableError) and not (isinstance(error, ServerError) and error.status == 500)


async def spared(
    ask: Callable[[IdArray], Awaitable[pa.Table]], ids: IdArray, add: Callable[[pa.Table], object]
) -> Errors:
    """Ask about all ids at once, and again without those that spoil the call.

    Parameters
    ----------
    ask
        Gives rows about ids, or raises; the error may name the guilty ones.
    ids
        Distinct.
    add
        Is given the rows.

    Returns
    -------
    dict
        Why each other id has none. A service that does not answer is the error of all ids.
    """
    errors: Errors = {}
    splits, answered = SPLITS, False
    waiting = [ids] if len(ids) else []
    while waiting:
        batch = waiting.pop()
        try:
            add(await ask(batch))
            answered = True
        except FATAL:
            raise
        except CortexError as error:
            named = np.isin(batch, error.ids)
            if is_away(error):
                errors.update(dict.fromkeys(batch.tolist(), error))
            elif 0 < named.sum() < len(batch):
                waiting += [batch[~named], batch[named]]
            elif len(batch) == 1 or not splits or (isinstance(error, NotFoundError) and named.all()):
                errors.update(dict.fromkeys(batch.tolist(), error))
            else:
                splits -= 1
                waiting += np.array_split(batch, 2)
            if not answered and len(errors) >= SUSPECTS and not (named.any() or is_away(error)):
                raise
    return errors


async def arriving(outcomes: Stream[Any], ids: IdArray, put: Callable[[int, Any], Awaitable[None]]) -> Errors:
    """Hand on the values of a stream as they arrive; why each other id has none."""
    errors: Errors = {}
    left = set(ids.tolist())
    try:
        async with outcomes as arrived:
            async for outcome in arrived:
                if outcome.error is None:
                    await put(outcome.id, outcome.value)
                else:
                    errors[outcome.id] = outcome.error
                left.discard(outcome.id)
    except UnavailableError as error:
        errors.update(dict.fromkeys(left, error))
    return errors


@dataclass(slots=True)
class Outcomes:
    """Which ids failed, why, and after how many attempts."""

    errors: Errors = field(default_factory=dict)
    attempts: dict[int, int] = field(default_factory=dict)

    def table(self, before: dict[int, int]) -> pa.Table:
        """The failures as rows of `ledger.FAILED`; ``before`` are attempts of earlier runs."""
        return pa.Table.from_pylist(
            [
                {
                    "id": i,
                    "error": type(error).__name__,
                    "status": getattr(error, "status", None),
                    "message": " ".join(str(error).split()),
                    "attempts": self.attempts[i] + before.get(i, 0),
                }
                for i, error in sorted(self.errors.items())
            ],
            FAILED,
        )


async def persist(attempt: Attempt, ids: IdArray, patience: float) -> Outcomes:
    """Attempt until every id is answered or has failed for good.

    Parameters
    ----------
    patience
        Seconds that services may be away, before the job stops.

    Raises
    ------
    UnavailableError
        Most ids cannot be asked, and patience is spent: there is no use in trying others.
    """
    outcomes = Outcomes()
    left, pause, waited, tries = ids, FIRST_PAUSE, 0.0, 0
    while len(left):
        tries += 1
        errors = await attempt(left)
        outcomes.errors |= errors
        outcomes.attempts |= dict.fromkeys(errors, tries)
        away = [error for error in errors.values() if is_away(error)]
        is_in_trouble = 2 * len(away) > len(ids)
        if is_in_trouble and waited >= patience:
            away[0].add_note("no part was lost: resume the job when the service is back")
            raise away[0]
        if tries >= TRIES and not is_in_trouble:
            break
        left = np.array([i for i, error in errors.items() if isinstance(error, MAY_PASS)], np.int64)
        if not len(left):
            break
        for i in left.tolist():
            del outcomes.errors[i]
        await anyio.sleep(pause)
        waited, pause = waited + pause, min(2 * pause, LONGEST_PAUSE)
    return outcomes
