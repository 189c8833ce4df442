"""What comes back, and what has been counted."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Reply:
    """A good answer, whole."""

    status: int
    headers: Mapping[str, str]
    """Lower-case names; repeated lines joined by ``", "``."""
    body: bytes
    """Unpacked, if it travelled as gzip."""


@dataclass(slots=True)
class TransportStats:
    """What has been sent and received so far.

    Examples
    --------
    >>> current = await client.is_latest_roots(roots)
    >>> client.stats.requests > 0, client.stats.retries
    (True, 0)
    """

    requests: int = 0
    """Tries included."""
    retries: int = 0
    waited: float = 0.0
    """Seconds asleep between tries."""
    bytes_out: int = 0
    bytes_in: int = 0
    """Bodies as they travelled, packed or not."""
    peak: dict[str, int] = field(default_factory=dict)
    """Most requests at once, by service."""
    width: dict[str, int] = field(default_factory=dict)
    """Requests that may be under way at once now, by service."""
    per_minute: dict[str, float] = field(default_factory=dict)
    """Requests that may leave in a minute now, by category; one that is missing has no limit that is known."""
    refused: dict[str, int] = field(default_factory=dict)
    """Refusals for coming too fast (429), by category."""
    held_back: dict[str, float] = field(default_factory=dict)
    """Seconds in which requests waited for nothing but their rate, by category."""

    def snapshot(self) -> TransportStats:
        """A copy that stands still.

        Examples
        --------
        >>> before = client.stats.snapshot()
        >>> current = await client.is_latest_roots(roots)
        >>> client.stats.requests > before.requests
        True
        """
        return copy.deepcopy(self)
