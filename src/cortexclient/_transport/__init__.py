"""Moving bytes: bounded, retried, whole."""

from .auth import TokenSource
from .cache import Cache, CacheInfo
from .reply import Reply, TransportStats
from .transport import Transport

__all__ = ["Cache", "CacheInfo", "Reply", "TokenSource", "Transport", "TransportStats"]
