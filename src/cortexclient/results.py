"""What comes back when every id has its own outcome."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from itertools import islice
from types import TracebackType
from typing import Any, Generic, Self, TypeVar

import numpy as np

from ._html import table
from ._types import IdArray
from .errors import CortexError, CortexUsageError, PartialFailure

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Outcome(Generic[T]):
    """What became of one id: a value or an error, never both.

    Examples
    --------
    >>> Outcome(864691134885645050, value="a skeleton").unwrap()
    'a skeleton'
    """

    id: int
    value: T | None = None
    error: CortexError | None = None

    @property
    def ok(self) -> bool:
        """Whether there is a value.

        Examples
        --------
        >>> Outcome(7, value="a skeleton").ok
        True
        >>> Outcome(7, error=NotFoundError("no such root")).ok
        False
        """
        return self.error is None

    def unwrap(self) -> T:
        """The value, or raise the error.

        Examples
        --------
        >>> try:
        ...     Outcome(7, error=NotFoundError("no such root", ids=[7])).unwrap()
        ... except NotFoundError as error:
        ...     print(error.ids)
        (7,)
        """
        if self.error is not None:
            raise self.error
        return self.value  # type: ignore[return-value]  # None is a value where T allows it


class Results(Mapping[int, T]):
    """The outcomes of a many-call: a mapping of the ids that succeeded, in input order, plus ``errors``.

    One bad id spoils only itself. ``len(results) + len(results.errors)`` is the number of distinct ids asked.

    Parameters
    ----------
    outcomes
        One for each distinct id, in the order of the input.

    Examples
    --------
    >>> found = await client.skeleton.get_skeletons([864691134885645050, 5])
    >>> found
    Results: 1 ok, 1 NotFoundError
    >>> found.failed_ids
    array([5])
    """

    __slots__ = ("_errors", "_values")

    def __init__(self, outcomes: list[Outcome[T]]) -> None:
        self._values: dict[int, T] = {o.id: o.unwrap() for o in outcomes if o.ok}
        self._errors: dict[int, CortexError] = {o.id: o.error for o in outcomes if o.error is not None}

    def __getitem__(self, key: int) -> T:
        if key in self._errors:
            raise self._errors[key]
        return self._values[key]

    def get(self, key: int, default: Any = None) -> Any:
        """The value of an id that succeeded, else ``default``.

        Examples
        --------
        >>> found = await client.skeleton.get_skeletons([864691134885645050, 7])
        >>> found.get(7) is None
        True
        """
        return self._values.get(key, default)

    def __contains__(self, key: object) -> bool:
        return key in self._values

    def __iter__(self) -> Iterator[int]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    @property
    def errors(self) -> Mapping[int, CortexError]:
        """Why each other id failed.

        Examples
        --------
        >>> found = await client.skeleton.get_skeletons([864691134885645050, 7])
        >>> type(found.errors[7]).__name__
        'NotFoundError'
        """
        return self._errors

    @property
    def failed_ids(self) -> IdArray:
        """(n,) int64: the ids to ask again.

        Examples
        --------
        >>> found = await client.skeleton.get_skeletons([864691134885645050, 7])
        >>> found.failed_ids
        array([7])
        """
        return np.fromiter(self._errors, np.int64, len(self._errors))

    def status(self) -> dict[str, int]:
        """How many outcomes there are of each kind: ``{"ok": 9_997, "NotFoundError": 3}``.

        Examples
        --------
        >>> found = await client.skeleton.get_skeletons([864691134885645050, 7])
        >>> found.status()
        {'ok': 1, 'NotFoundError': 1}
        """
        return {"ok": len(self._values)} | dict(Counter(type(error).__name__ for error in self._errors.values()))

    def raise_if_failed(self) -> Self:
        """Raise :class:`PartialFailure` if any id failed (``.results`` keeps what succeeded), else return self.

        Examples
        --------
        >>> found = await client.skeleton.get_skeletons([864691134885645050, 7])
        >>> try:
        ...     found.raise_if_failed()
        ... except PartialFailure as failure:
        ...     print(failure)
        1 of 2 ids failed (NotFoundError 1); .results holds the others (ids: 7)
        """
        if self._errors:
            kinds = ", ".join(f"{kind} {n}" for kind, n in self.status().items() if kind != "ok")
            total = len(self._values) + len(self._errors)
            message = f"{len(self._errors):,} of {total:,} ids failed ({kinds}); .results holds the others"
            raise PartialFailure(message, results=self, errors=self._errors)
        return self

    def _repr_html_(self) -> str:
        kinds: dict[str, list[int]] = {}
        for key, error in self._errors.items():
            kinds.setdefault(type(error).__name__, []).append(key)
        failed = (
            (kind, f"{len(ids):,}", ", ".join(map(str, ids[:3])), self._errors[ids[0]]) for kind, ids in kinds.items()
        )
        first = ", ".join(map(str, islice(self._values, 3)))
        return table(repr(self), [("ok", f"{len(self):,}", first, ""), *failed], ("outcome", "ids", "the first", "why"))

    def __repr__(self) -> str:  # O(1) in the values: asyncio.run formats what it returns
        return "Results: " + ", ".join(f"{n:,} {kind}" for kind, n in self.status().items())


class Flow(Generic[T]):
    """Things as they arrive, in bounded memory. Open it with ``async with``, then loop with ``async for``.

    The context is required: it owns the workers, so that leaving it early (``break``, an exception) ends them all.
    """

    def __init__(
        self, open_: Callable[[], AbstractAsyncContextManager[AsyncIterator[T]]], *, ahead: int | None = None
    ) -> None:
        self._context = open_()
        self._ahead = ahead  # how many a pump may take before they are asked for, if they are large

    async def __aenter__(self) -> AsyncIterator[T]:
        return await self._context.__aenter__()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> bool | None:
        return await self._context.__aexit__(kind, error, traceback)

    def __aiter__(self) -> Any:
        raise CortexUsageError(
            "open the stream first: `async with client.stream_...(ids) as outcomes:`, then "
            "`async for outcome in outcomes:`"
        )


class Stream(Flow[Outcome[T]]):
    """Outcomes as they arrive; see :class:`Flow`.

    Examples
    --------
    >>> async with client.skeleton.stream_skeletons([864691134885645050, 5]) as outcomes:
    ...     sorted([outcome.ok async for outcome in outcomes])
    [False, True]
    """


class BatchStream(Flow[Any]):
    """Rows of a query as they arrive, as Arrow record batches; see :class:`Flow`."""
