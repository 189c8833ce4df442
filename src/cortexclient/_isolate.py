"""Which id spoils its batch: a request that fails for no named id is halved until single ids are to blame.

These servers answer a batch with one bad id by a bare 500 (or a 4xx that names nobody). Knows no HTTP and no service.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from typing import Generic, NoReturn, TypeVar

import numpy as np

from ._types import IdArray
from .errors import CortexError, NotFoundError, ServerError, ServerRefusedError

R = TypeVar("R")

SPLITS = 64
"""Batches of one call that are halved. Beyond, the ids of a failing batch share its error."""
SUSPECTS = 8
"""So many ids to blame and none answered: the request itself is wrong, and no id more than another."""


class Isolation(Generic[R]):
    """The batches of one call: what was answered, and which ids could not be.

    A bad id among n costs about ``2 * log2(n)`` more requests.

    Parameters
    ----------
    call
        Asks about some ids.
    explain
        Is given the ids of a batch that failed, and may know an error that names the guilty ones.

    Attributes
    ----------
    found
        The ids and the answer of each request that was answered.
    errors
        Why each other id was not.
    """

    def __init__(
        self,
        call: Callable[[IdArray], Awaitable[R]],
        explain: Callable[[IdArray], Awaitable[CortexError | None]] | None = None,
    ) -> None:
        self._call = call
        self._explain = explain
        self._splits = SPLITS
        self._first: CortexError | None = None
        self.found: list[tuple[IdArray, R]] = []
        self.errors: dict[int, CortexError] = {}

    async def ask(self, ids: IdArray) -> None:
        """Ask about a batch, and about parts of it if it fails.

        Raises
        ------
        CortexError
            Any failure that is not about ids, or would hit all of them alike.
        """
        error = await self._try(ids)
        if error is None:
            return
        self._first = self._first or error
        known = await self._explain(ids) if self._explain else None
        if known is None:
            await self._narrow(ids, error)
            return
        known.__cause__ = error
        named = np.isin(ids, known.ids)
        self._blame(ids[named], known)
        rest = ids[~named]
        if len(rest) and (error := await self._try(rest)):
            await self._narrow(rest, error)

    async def _try(self, ids: IdArray) -> CortexError | None:
        try:
            self.found.append((ids, await self._call(ids)))
        except (NotFoundError, ServerError, ServerRefusedError) as error:
            if isinstance(error, ServerError) and error.status != 500:
                raise
            return error
        return None

    async def _narrow(self, ids: IdArray, error: CortexError) -> None:
        if len(ids) == 1 or not self._splits:
            self._blame(ids, error)
        else:
            self._splits -= 1
            for half in np.array_split(ids, 2):
                if failed := await self._try(half):
                    await self._narrow(half, failed)
        if not self.found and len(self.errors) >= SUSPECTS:
            raise self._first or error

    def _blame(self, ids: IdArray, error: CortexError) -> None:
        self.errors.update(dict.fromkeys(ids.tolist(), error))


def raise_spoiled(errors: Mapping[int, CortexError], partial: object) -> NoReturn:
    """Raise what spoiled a call; the error names all guilty ids.

    Parameters
    ----------
    errors
        Why each guilty id was not answered.
    partial
        What was found about the others; the error keeps it.
    """
    error = next(iter(errors.values()))
    error.ids, error.partial = tuple(errors), partial
    kinds = Counter(type(other).__name__ for other in errors.values())
    listed = ", ".join(f"{n:,} {kind}" for kind, n in kinds.items())
    error.add_note(f"these ids spoiled their requests ({listed}); .partial holds what was found about the others")
    raise error
