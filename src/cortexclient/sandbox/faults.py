"""What goes wrong on purpose: seeded faults that a client has to survive.

The kinds:

=================== ===========================================================================================
``500`` ``503`` ... the proxy answers with that status (any of 400-599); the handler is never called
``429``             too many requests, without a Retry-After header, as the CAVE services answer
``429-retry-after`` the same with a Retry-After header
``reset``           the connection is reset after the request was read; the handler is never called
``reset-body``      the connection is reset inside the answer's body; the request *has* been carried out
``truncated``       the body ends early under the full Content-Length, then the connection is closed
``short``           the body ends early and Content-Length agrees with what was sent: nothing on the wire shows it
``truncated-gzip``  like ``short``, of a gzipped answer: only the end of the gzip stream is missing
``slow``            the body trickles for ``slow_seconds``
=================== ===========================================================================================
"""

from __future__ import annotations

import random
import re
import sys
from array import array
from collections.abc import Iterable
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any, Final

from .calls import Call, Reply

BREAKS: Final = frozenset({"reset", "reset-body", "truncated", "short", "truncated-gzip", "slow"})
"""Faults of the transport; all others are statuses."""


@dataclass
class Faults:
    """Which requests fail, and how.

    Parameters
    ----------
    kinds
        ``"503:2%,reset:1%,502"``: kinds with the share of requests that they hit (a bare kind hits all). They are
        tried in this order; the first that hits is the one.
    only
        Regular expression; only requests whose path it finds are concerned (``poison`` included).
    poison
        Ids; a request that contains one of them, in path, query or body, is answered with a 500 that names it.
    times
        How many faults are dealt in all, before the weather clears; None: no end. Poison does not count.
    retry_after
        Seconds in the Retry-After header of ``429-retry-after``.
    slow_seconds
        How long a ``slow`` body takes.
    seed
        The same requests in the same order meet the same faults.

    Examples
    --------
    >>> Faults("503:2%,reset:1%", only="/roots_binary", seed=7).rates
    {'503': 0.02, 'reset': 0.01}
    >>> Faults("503", times=2)                                  # the first two requests fail, then all is well
    ... # doctest: +ELLIPSIS
    Faults(kinds='503', ...)
    """

    kinds: str = ""
    only: str | None = None
    poison: Iterable[int] = ()
    times: int | None = None
    retry_after: float = 1.0
    slow_seconds: float = 1.0
    seed: int = 0
    rates: dict[str, float] = field(init=False, repr=False)
    dealt: int = field(init=False, default=0, repr=False)

    def __post_init__(self) -> None:
        self.rates = dict(_rate(item) for item in self.kinds.split(",") if item.strip())
        self.poison = frozenset(int(node) for node in self.poison)
        self._only = re.compile(self.only or "")
        self._poison = _Poison(self.poison) if self.poison else None
        self._random = random.Random(self.seed)

    def settings(self) -> dict[str, Any]:
        """The parameters, fit for JSON: ``Faults(**faults.settings())`` starts the same faults anew.

        Examples
        --------
        >>> Faults(**Faults("503:2%", seed=7).settings()).rates
        {'503': 0.02}
        """
        plain = ("kinds", "only", "times", "retry_after", "slow_seconds", "seed")
        return {**{name: getattr(self, name) for name in plain}, "poison": sorted(self.poison)}

    def draw(self, call: Call) -> str | None:
        """The fault that ``call`` meets, or None. Every concerned call moves the dice on.

        Examples
        --------
        >>> call = Call("GET", "/info/health", {}, {}, {}, b"", now_ms=0, origin="http://here")
        >>> Faults("503", times=1).draw(call)
        '503'
        """
        if not self.rates or not self._only.search(call.path) or self.dealt == self.times:
            return None
        for kind, rate in self.rates.items():
            if self._random.random() < rate:
                self.dealt += 1
                return kind
        return None

    def poisoned(self, call: Call) -> Reply | None:
        """The answer to a call that contains a poisoned id.

        Examples
        --------
        >>> call = Call("GET", "/node/12345", {}, {}, {}, b"", now_ms=0, origin="http://here")
        >>> Faults(poison=[12345]).poisoned(call).status
        500
        """
        if self._poison is None or not self._only.search(call.path):
            return None
        node = self._poison.find(call)
        return None if node is None else Reply(b'{"code":500,"message":"%d"}\n' % node, 500)

    def status(self, kind: str) -> Reply:
        """What the proxy (for 500: the application) answers for a fault that is a status.

        Examples
        --------
        >>> Faults(retry_after=2).status("429-retry-after").headers
        (('Retry-After', '2'),)
        """
        code = int(kind[:3])
        if code == 500:
            return Reply(b'{"message": "Internal Server Error"}\n', 500)
        title = f"{code} {HTTPStatus(code).phrase}"
        page = (
            f"<html>\r\n<head><title>{title}</title></head>\r\n<body>\r\n<center><h1>{title}</h1></center>\r\n"
            "<hr><center>nginx</center>\r\n</body>\r\n</html>\r\n"
        )
        wait = (("Retry-After", f"{self.retry_after:g}"),) if kind.endswith("-retry-after") else ()
        return Reply(page.encode(), code, "text/html", wait)


class _Poison:
    """Finds ids in text, or in a binary body of little-endian 64-bit integers."""

    def __init__(self, nodes: Iterable[int]) -> None:
        self._nodes = frozenset(nodes)
        digits = "|".join(str(node) for node in sorted(self._nodes))
        self._digits = re.compile(rb"(?<!\d)(?:%s)(?!\d)" % digits.encode())

    def find(self, call: Call) -> int | None:
        text = " ".join((call.path, *call.query.values())).encode()
        found = self._digits.search(text) or self._digits.search(call.body)
        if found:
            return int(found[0])
        if call.body and len(call.body) % 8 == 0:
            words = array("Q", call.body)
            if sys.byteorder == "big":
                words.byteswap()
            return next(iter(self._nodes.intersection(words)), None)
        return None


def _rate(item: str) -> tuple[str, float]:
    kind, _, share = item.strip().partition(":")
    if kind not in BREAKS and not re.fullmatch(r"[45]\d\d|429-retry-after", kind):
        raise ValueError(f"unknown fault {kind!r}: use a status (503), 429-retry-after or {', '.join(sorted(BREAKS))}")
    share = share or "100%"
    rate = float(share[:-1]) / 100 if share.endswith("%") else float(share)
    if not 0 <= rate <= 1:
        raise ValueError(f"the share of {kind!r} must lie between 0% and 100%, not {share}")
    return kind, rate
