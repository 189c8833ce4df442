"""The types that signatures are spelled with."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol, TypeAlias

import numpy as np
import numpy.typing as npt

IdArray: TypeAlias = npt.NDArray[np.int64]
"""One-dimensional int64: ids out are always this."""

BoolArray: TypeAlias = npt.NDArray[np.bool_]
TimeArray: TypeAlias = npt.NDArray[np.datetime64]
"""``datetime64[ms]`` in UTC (the servers' own resolution)."""


class SupportsArray(Protocol):
    """A numpy array, pandas Series or Index, polars Series, Arrow array."""

    def __array__(self, *args: Any, **kwargs: Any) -> npt.NDArray[Any]: ...


Ids: TypeAlias = int | str | Iterable[int] | Iterable[str] | SupportsArray
"""Ids in: one id or many, as integers or strings of digits, in any container. Floats are refused."""

When: TypeAlias = datetime
"""An instant: a ``datetime`` (or pandas ``Timestamp``) with a time zone."""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The instant that a call is about: aware UTC, and the materialization version if it is one's instant.

    Examples
    --------
    >>> from datetime import UTC, datetime
    >>> Snapshot(datetime(2025, 2, 28, tzinfo=UTC), version=1412).version
    1412
    """

    timestamp: datetime
    version: int | None = None
