"""What estimates of costs are made of."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ._html import table

if TYPE_CHECKING:
    from ._wire.endpoints import Endpoint

HEADER = ("step", "requests", "ids or rows", "size", "seconds")
ENVELOPE = 400
"""Bytes of a small request and its answer."""


@dataclass(frozen=True, slots=True)
class Totals:
    """Sums over the steps of a call.

    Examples
    --------
    >>> client.plan("get_roots", range(1, 10_001)).steps[-1].cost.bytes
    1...
    """

    requests: int = 0
    bytes: int = 0
    """Both ways, before compression."""
    seconds: float = 0.0
    """Waiting for the servers, with as many requests at once as the limits allow, but for the network's latency."""
    server_seconds: float = 0.0
    """The servers' work."""

    def __add__(self, other: Totals) -> Totals:
        return Totals(
            self.requests + other.requests,
            self.bytes + other.bytes,
            self.seconds + other.seconds,
            self.server_seconds + other.server_seconds,
        )


@dataclass(frozen=True, slots=True)
class Step:
    """Requests to one endpoint, side by side.

    Examples
    --------
    >>> [step.what for step in client.plan("get_roots", range(1, 10_001)).steps if step.sure][-1:]
    ['get_roots']
    """

    what: str
    endpoint: str
    ids: int
    """Distinct ids asked, or rows expected."""
    cost: Totals
    sure: bool
    """Whether it is sent in any case, or only if earlier steps leave something to ask."""
    bound_by: str
    """The limit that more speed would have to lift."""


@dataclass(frozen=True, slots=True, repr=False)
class CostEstimate:
    """What a call will cost, as far as can be known before it is sent.

    Requests and bytes follow from the planner itself, seconds from what the real servers were measured to take for each
    id (for table queries from assumptions, see ``_wire/endpoints.py``). A repeated id costs nothing.

    Examples
    --------
    >>> estimate = client.plan("get_roots", range(1, 10_001))
    >>> estimate.distinct, estimate.steps[-1].cost.requests
    (10000, 10)
    """

    call: str
    ids: int
    distinct: int
    steps: tuple[Step, ...]
    rows: int | None = None
    """Of a query: the rows that match, or as many as there can be where the server does not count them."""

    @property
    def least(self) -> Totals:
        """The steps that are sent in any case.

        Examples
        --------
        >>> client.plan("get_roots", range(1, 10_001)).least.requests >= 10
        True
        """
        return sum((step.cost for step in self.steps if step.sure), Totals())

    @property
    def most(self) -> Totals:
        """All steps, as if earlier ones left everything to ask.

        Examples
        --------
        >>> estimate = client.plan("root_id_to_cell_id", roots)
        >>> estimate.most.requests > estimate.least.requests
        True
        """
        return sum((step.cost for step in self.steps), Totals())

    @property
    def bound_by(self) -> str:
        """The limit that binds the longest step that is sent in any case.

        Examples
        --------
        >>> client.plan("get_roots", range(1, 1_000_001)).bound_by
        'requests at once (Limits: 16 to chunkedgraph)'
        """
        sure = [step for step in self.steps if step.sure]
        return max(sure, key=lambda step: step.cost.seconds).bound_by if sure else "nothing is asked"

    def __repr__(self) -> str:
        rows = [HEADER, *self._rows()]
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        lines = (" ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)) for row in rows)
        return "\n".join([self._title(), *lines])

    def _repr_html_(self) -> str:
        return table(self._title(), self._rows(), HEADER)

    def _title(self) -> str:
        least, most = self.least, self.most
        requests = _range(f"{least.requests:,}", f"{most.requests:,}")
        size = _range(_size(least.bytes), _size(most.bytes))
        seconds = _range(f"{least.seconds:,.2g}", f"{most.seconds:,.2g}")
        about = f"{self.ids:,} ids, {self.distinct:,} distinct" if self.rows is None else f"{self.rows:,} rows"
        return (
            f"{self.call}: {about}. {requests} requests, {size}, {seconds} s and the network's latency; bound by "
            f"{self.bound_by}"
        )

    def _rows(self) -> Iterator[tuple[str, ...]]:
        for step in self.steps:
            what = step.what if step.sure else f"{step.what} (if needed)"
            cost = step.cost
            yield what, f"{cost.requests:,}", f"{step.ids:,}", _size(cost.bytes), f"{cost.seconds:,.2f}"


def _range(least: str, most: str) -> str:
    return least if least == most else f"{least} to {most}"


def _size(count: float) -> str:
    units = iter(("B", "kB", "MB"))
    while count >= 1000:
        count /= 1000
        next(units)
    return f"{count:,.3g} {next(units)}"


def step(
    what: str,
    endpoint: Endpoint,
    requests: int,
    ids: int = 0,
    *,
    workers: int,
    payload: float,
    sure: bool = True,
    packed_by: str = "the ids in a request (Limits.batch)",
) -> Step:
    """Price some requests to one endpoint, ``workers`` of them at once.

    ``ids`` and the bytes of the ``payload`` are those of all requests together, ``packed_by`` is why they are several.
    """
    one = endpoint.price + endpoint.price_per_id * ids / max(requests, 1)
    size = requests * ENVELOPE + round(payload)
    cost = Totals(requests, size, math.ceil(requests / workers) * one, requests * one)
    if requests <= 1:
        limit = "the latency of one request"
    elif requests <= workers:
        limit = packed_by
    else:
        limit = f"requests at once (Limits: {workers} to {endpoint.service})"
    return Step(what, str(endpoint), ids, cost, sure, limit)
