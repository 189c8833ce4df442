"""Rate limits of the services, as token buckets: per user, per endpoint.

The rates are the defaults of the services' deployment charts; the services count per user and per endpoint and send no
Retry-After header. The chunkedgraph has no limiter.
"""

from __future__ import annotations

import math
import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Final

from .calls import Reply

CHARTS: Final = (
    (r"^/materialize/.*/query$", "query", 300),
    (r"^/materialize/api/v", "fast_query", 2000),
    (r"^/skeletoncache/.*/bulk/(get_cached_skeletons|get_skeleton_token)", "unlimited", None),
    (r"^/skeletoncache/.*/bulk/get_skeletons", "get_skeletons_bulk", 10),
    (r"^/skeletoncache/.*/bulk/gen_skeletons", "get_skeletons_bulk_async", 10),
    (r"^/skeletoncache/.*/exists", "skeleton_exists", 100),
    (r"^/skeletoncache/.*/query_cache", "query_cache", 100),
    (r"^/skeletoncache/.*/get_refusal_list", "get_refusal_list", 100),
    (r"^/skeletoncache/.*/info$", "unlimited", None),
    (r"^/skeletoncache/.*#missing$", "get_skeleton_that_doesnt_exist", 10),
    (r"^/skeletoncache/.*/(precomputed/skeleton|async/get_skeleton)/", "get_skeleton_that_exists", 1000),
)
"""Pattern of the route, category, requests a minute (None: not limited). The first pattern that fits counts."""


@dataclass(slots=True)
class _Bucket:
    tokens: float
    filled_at: float


class RateLimits:
    """Refuses what comes faster than the charts allow.

    A bucket holds the requests of one minute, and is full at first.

    Parameters
    ----------
    retry_after
        Whether the 429 says how long to wait. The real services do not.
    scale
        Factor on all rates, so that a test need not send hundreds of requests.
    clock
        Seconds, rising.

    Examples
    --------
    >>> limits = RateLimits(retry_after=True)
    >>> with Sandbox(world, limits=limits) as sandbox:
    ...     pass
    """

    def __init__(
        self, *, retry_after: bool = False, scale: float = 1.0, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._retry_after = retry_after
        self.scale = scale
        self._clock = clock
        self._buckets: dict[tuple[int, str], _Bucket] = {}

    @classmethod
    def parse(cls, text: str) -> RateLimits | None:
        """``none``, ``charts`` (429 without Retry-After, as the services) or ``charts-retry-after``.

        Examples
        --------
        >>> RateLimits.parse("charts").scale
        1.0
        """
        if text not in ("none", "charts", "charts-retry-after"):
            raise ValueError(f"limits are none, charts or charts-retry-after, not {text!r}")
        return None if text == "none" else cls(retry_after=text == "charts-retry-after")

    def refuse(self, user_id: int, route: str) -> Reply | None:
        """Take one request of ``user_id`` on ``route`` from its bucket; the 429 if the bucket is empty.

        Examples
        --------
        >>> limits = RateLimits(scale=1 / 300, clock=lambda: 0.0)
        >>> [limits.refuse(1, "/materialize/api/v3/query") is None for _ in range(2)]
        [True, False]
        """
        category, per_minute = _category(route)
        if per_minute is None:
            return None
        size = per_minute * self.scale
        now = self._clock()
        bucket = self._buckets.setdefault((user_id, route), _Bucket(size, now))
        bucket.tokens = min(size, bucket.tokens + (now - bucket.filled_at) * size / 60)
        bucket.filled_at = now
        if bucket.tokens >= 1:
            bucket.tokens -= 1
            return None
        wait = (1 - bucket.tokens) * 60 / size
        text = f'{{"error": "ratelimit exceeded {size:g} per 1 minute ({category})"}}\n'
        return Reply(text.encode(), 429, headers=(("Retry-After", str(math.ceil(wait))),) if self._retry_after else ())


@cache
def _category(route: str) -> tuple[str, int | None]:
    for pattern, category, per_minute in CHARTS:
        if re.search(pattern, route):
            return category, per_minute
    return "unlimited", None
