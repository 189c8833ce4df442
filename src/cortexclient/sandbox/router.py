"""Which route a path means: the route tables of all services, compiled once.

A path is looked up by its first segment and its number of segments, then tried against the few patterns that are left,
so the cost does not grow with the number of services. Nothing is ever redirected: a trailing slash is another path.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

from starlette.routing import compile_path

from .calls import Route, RouteTable

ANY_LENGTH = 0
"""Bucket of the patterns with a ``{name:path}`` parameter, which matches any number of segments."""


@dataclass(frozen=True, slots=True)
class Match:
    """A route, the table it stands in, and the values of its path parameters (text, as in the path)."""

    table: RouteTable
    route: Route
    params: dict[str, str]


@dataclass(frozen=True, slots=True)
class WrongMethod:
    """The path is known, but not under this method."""

    table: RouteTable
    allowed: tuple[str, ...]


class Router:
    """Finds routes. The first one that fits wins, in the order of the tables."""

    def __init__(self, tables: Iterable[RouteTable]) -> None:
        self._buckets: dict[tuple[str, int], list[tuple[re.Pattern[str], RouteTable, Route]]] = defaultdict(list)
        for table in tables:
            for route in table.routes:
                pattern, _, _ = compile_path(route.path)
                length = ANY_LENGTH if ":path}" in route.path else route.path.count("/")
                self._buckets[_first_segment(route.path), length].append((pattern, table, route))

    def find(self, method: str, path: str) -> Match | WrongMethod | None:
        """The route of ``path``; None if no route has this path under any method."""
        allowed: list[str] = []
        refused: RouteTable | None = None
        first = _first_segment(path)
        wanted = "GET" if method == "HEAD" else method
        for length in (path.count("/"), ANY_LENGTH):
            for pattern, table, route in self._buckets.get((first, length), ()):
                found = pattern.match(path)
                if found is None:
                    continue
                if wanted in route.methods:
                    return Match(table, route, found.groupdict())
                refused = table
                allowed += route.methods
        return WrongMethod(refused, tuple(sorted(set(allowed)))) if refused else None


def _first_segment(path: str) -> str:
    return path.split("/", 2)[1] if path.startswith("/") else path
