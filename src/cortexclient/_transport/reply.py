"""What comes back, and what has been counted."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace


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
    """What has been sent and received so far."""

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

    def snapshot(self) -> TransportStats:
        """A copy that stands still."""
        return replace(self, peak=dict(self.peak))
