"""How many, how stubborn, how patient: frozen settings of a client."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from types import MappingProxyType
from typing import Any

from .errors import CortexUsageError

STORAGE = "storage"
"""The pseudo-service of object stores (meshes, skeleton buckets, exports)."""


def _check_positive(settings: Any) -> None:
    for item in fields(settings):
        value = getattr(settings, item.name)
        if isinstance(value, int | float) and value <= 0:
            raise CortexUsageError(f"{type(settings).__name__}({item.name}={value}): must be above zero")


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """How many requests may be under way at once, how many may leave in a minute, and how many ids one may carry.

    The servers run about 16 workers a service, each of which serves one request at a time: more than 16 in flight only
    queue there, in front of everybody else. Some services count each user's requests a minute besides.

    Examples
    --------
    >>> gentle = AsyncCortexClient("minnie_public", limits=Limits(in_flight=4, batch={"roots_binary": 500}))
    """

    in_flight: int = 16
    """Requests at once to each CAVE service."""
    storage_in_flight: int = 128
    """Requests at once to object stores, which scale further."""
    per_service: Mapping[str, int] = field(default_factory=dict)
    """Exceptions by service name, for example ``{"skeleton": 8}``."""
    per_minute: Mapping[str, float] | None = None
    """Requests a minute by category, for example ``{"query": 150}``; those of the dataset, if there are none. What is
    not named is limited by the service's own refusals alone; ``{}`` names nothing."""
    batch: Mapping[str, int] = field(default_factory=dict)
    """Ids per request by endpoint name, for example ``{"roots_binary": 1000}``; never above the endpoint's own cap."""
    memory_bytes: int = 256 << 20
    """What is remembered in memory."""
    disk_bytes: int = 10 << 30
    """What is remembered on disk, if there is a folder for it: by all processes that use it together."""

    def __post_init__(self) -> None:
        _check_positive(self)
        for name in ("per_service", "per_minute", "batch"):
            given = getattr(self, name)
            if given is None:
                continue
            values = dict(given)
            if any(value <= 0 for value in values.values()):
                raise CortexUsageError(f"Limits({name}={values}): must be above zero")
            object.__setattr__(self, name, MappingProxyType(values))

    def __reduce__(self) -> tuple[Any, ...]:  # a MappingProxyType cannot be pickled
        values = (getattr(self, item.name) for item in fields(self))
        return _make_limits, tuple(dict(value) if isinstance(value, MappingProxyType) else value for value in values)

    def of(self, service: str) -> int:
        """Requests at once to ``service``.

        Examples
        --------
        >>> Limits(in_flight=8).of("chunkedgraph")
        8
        """
        default = self.storage_in_flight if service == STORAGE else self.in_flight
        return self.per_service.get(service, default)

    def over(self, dataset: Limits) -> Limits:
        """Take the rates of a dataset's own limits, where these name none.

        Examples
        --------
        >>> dataset = Limits(per_minute={"query": 150})
        >>> Limits(in_flight=4).over(dataset).per_minute["query"]
        150
        """
        return self if self.per_minute is not None else replace(self, per_minute=dataset.per_minute)

    def shared_by(self, workers: int) -> Limits:
        """One worker's part, where ``workers`` of them work for the same user: all of them together keep these limits.

        Each may have one request under way at least, whatever they are.

        Examples
        --------
        >>> Limits(in_flight=16).shared_by(4).of("materialize")
        4
        """
        if workers < 1:
            raise CortexUsageError(f"shared_by({workers}): must be one worker at least")
        services = {name: _part(count, workers) for name, count in self.per_service.items()}
        rates = self.per_minute if self.per_minute is None else {k: v / workers for k, v in self.per_minute.items()}
        return replace(
            self,
            in_flight=_part(self.in_flight, workers),
            storage_in_flight=_part(self.storage_in_flight, workers),
            per_service=services,
            per_minute=rates,
        )


def _part(count: int, workers: int) -> int:
    return max(1, count // workers)


def _make_limits(*values: Any) -> Limits:
    return Limits(**dict(zip((item.name for item in fields(Limits)), values, strict=True)))


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryPolicy:
    """How often and how long a request is tried again (exponential back-off with full jitter).

    Refused connections, 429, 502, 503 and 504 are tried again; a broken connection only where the endpoint is
    idempotent; a 500 at most ``server_error_attempts`` times, since on these servers it often means a bad id; writes
    never.

    Examples
    --------
    >>> patient = AsyncCortexClient("minnie_public", retry=RetryPolicy(attempts=10, deadline=600))
    """

    attempts: int = 6
    """Tries in all, the first included."""
    server_error_attempts: int = 2
    """Tries in all for an unexplained 500."""
    deadline: float = 180.0
    """Seconds for all tries of one request, waits included."""
    call_share: float = 0.2
    """Retries of one call in all, as a share of its requests (doubtful 500s apart) ..."""
    call_retries: int = 80
    """... but so many at least, which 16 requests in flight need to live through a restart. Beyond, a call fails."""
    base: float = 0.2
    """Seconds: the first wait is drawn between 0 and this, the next between 0 and twice this, and so on."""
    cap: float = 20.0
    """Seconds: no single wait is longer, except where the server names one."""
    max_retry_after: float = 120.0
    """Seconds: a longer wish of the server is an error, not a nap."""

    def __post_init__(self) -> None:
        _check_positive(self)


@dataclass(frozen=True, slots=True, kw_only=True)
class Timeouts:
    """Seconds of silence that end one try of one request. The deadline of a whole call is its ``timeout=`` argument.

    Examples
    --------
    >>> slow_network = AsyncCortexClient("minnie_public", timeouts=Timeouts(connect=30, read=300))
    """

    connect: float = 10.0
    read: float = 120.0
    write: float = 60.0

    def __post_init__(self) -> None:
        _check_positive(self)
