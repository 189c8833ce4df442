"""What a sandbox has seen: requests, ids, bytes, and how many at once."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from .calls import Call

ID_DIGITS = 15
"""Shortest number that counts as an id in text; the ids of a real layout have 17 digits or more."""
_LONG_IN_TEXT = re.compile(rf"\d{{{ID_DIGITS},}}")
_LONG_IN_BYTES = re.compile(_LONG_IN_TEXT.pattern.encode())
_SMALL = 4096
"""Bytes up to which a regular expression is faster than whole-array arithmetic."""


@dataclass
class Tally:
    """Counts of one route, of one service, or of all.

    Examples
    --------
    >>> tally = Tally()
    >>> tally.enter(ids=2, bytes_in=16)
    >>> tally.requests
    1
    """

    requests: int = 0
    ids: int = 0
    """Ids in paths, queries and bodies, repeated ones counted each time."""
    bytes_in: int = 0
    """Of request bodies as they came, compressed or not."""
    bytes_out: int = 0
    """Of answer bodies as they went."""
    price: float = 0.0
    """Seconds that the real servers would have worked."""
    in_flight: int = 0
    peak: int = 0
    """Most requests in flight at once."""
    statuses: dict[int, int] = field(default_factory=dict)

    def enter(self, ids: int, bytes_in: int) -> None:
        """A request has come.

        Examples
        --------
        >>> tally = Tally()
        >>> tally.enter(ids=2, bytes_in=16)
        >>> tally.ids, tally.in_flight
        (2, 1)
        """
        self.requests += 1
        self.ids += ids
        self.bytes_in += bytes_in
        self.in_flight += 1
        self.peak = max(self.peak, self.in_flight)

    def answer(self, status: int, bytes_out: int, price: float) -> None:
        """Its answer is ready to be sent. Status 0: the connection is broken without an answer.

        Examples
        --------
        >>> tally = Tally()
        >>> tally.answer(200, bytes_out=16, price=0.003)
        >>> tally.statuses
        {200: 1}
        """
        self.bytes_out += bytes_out
        self.price += price
        self.statuses[status] = self.statuses.get(status, 0) + 1


@dataclass
class Counts:
    """A snapshot: ``total``, and the same by service (``segmentation``) and by route (``POST /segmentation/...``).

    Examples
    --------
    >>> sandbox.counters.snapshot().total.requests > 0
    True
    """

    total: Tally = field(default_factory=Tally)
    services: dict[str, Tally] = field(default_factory=dict)
    routes: dict[str, Tally] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """As plain dictionaries; the keys of ``statuses`` become text on the wire.

        Examples
        --------
        >>> sorted(sandbox.counters.snapshot().to_json())
        ['routes', 'services', 'total']
        """
        return asdict(self)

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> Counts:
        """The reverse of :meth:`to_json`, after a journey through JSON.

        Examples
        --------
        >>> counts = sandbox.counters.snapshot()
        >>> Counts.from_json(counts.to_json()) == counts
        True
        """
        services, routes = ({k: _tally(v) for k, v in record[part].items()} for part in ("services", "routes"))
        return cls(_tally(record["total"]), services, routes)


def _tally(record: Mapping[str, Any]) -> Tally:
    return Tally(**{**record, "statuses": {int(status): n for status, n in record["statuses"].items()}})


@dataclass(frozen=True, slots=True)
class Entry:
    """A request that is being counted."""

    _lock: threading.Lock
    _tallies: tuple[Tally, ...]

    def answer(self, status: int, bytes_out: int = 0, price: float = 0.0) -> None:
        """Count the answer; called before it is sent, so that a client that has it finds it counted."""
        with self._lock:
            for tally in self._tallies:
                tally.answer(status, bytes_out, price)


class Counters:
    """Counts requests. Written by the server's thread, read by any: snapshots are consistent."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counts = Counts()

    @contextmanager
    def request(self, service: str, route: str, *, ids: int, bytes_in: int) -> Iterator[Entry]:
        """Count one request, which is in flight from here to the end of the block."""
        with self._lock:
            counts = self._counts
            tallies = (
                counts.total,
                counts.services.setdefault(service, Tally()),
                counts.routes.setdefault(route, Tally()),
            )
            for tally in tallies:
                tally.enter(ids, bytes_in)
        try:
            yield Entry(self._lock, tallies)
        finally:
            with self._lock:
                for tally in tallies:
                    tally.in_flight -= 1

    def snapshot(self) -> Counts:
        """All counts of this moment, as a copy."""
        with self._lock:
            return Counts.from_json(self._counts.to_json())

    def reset(self) -> None:
        """Start again from zero. Requests in flight are counted to the end in what was thrown away."""
        with self._lock:
            self._counts = Counts()


def count_ids(call: Call) -> int:
    """How many ids a request names: 64-bit words of a binary body, else long decimal numbers anywhere."""
    in_line = len(_LONG_IN_TEXT.findall(" ".join((call.path, *call.query.values()))))
    if call.path.endswith("_binary") or "is_binary" in call.query:
        return in_line + len(call.body) // 8
    return in_line + _long_numbers(call.body)


def _long_numbers(body: bytes) -> int:
    if len(body) < _SMALL:
        return len(_LONG_IN_BYTES.findall(body))
    digit = np.zeros(len(body) + 2, np.bool_)
    digit[1:-1] = np.frombuffer(body, np.uint8) - np.uint8(48) < 10
    edges = np.flatnonzero(digit[1:] != digit[:-1])
    return int(np.count_nonzero(edges[1::2] - edges[::2] >= ID_DIGITS))
