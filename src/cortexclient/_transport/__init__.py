"""Moving bytes: bounded, retried, whole."""

from .auth import AuthStatus, TokenSource, auth_status, save_token
from .cache import Cache, CacheInfo
from .reply import Reply, TransportStats
from .transport import Transport

__all__ = [
    "AuthStatus",
    "Cache",
    "CacheInfo",
    "Reply",
    "TokenSource",
    "Transport",
    "TransportStats",
    "auth_status",
    "save_token",
]
