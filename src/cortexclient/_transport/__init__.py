"""Moving bytes: bounded, retried, whole."""

from .auth import TokenSource
from .reply import Reply, TransportStats
from .transport import Transport

__all__ = ["Reply", "TokenSource", "Transport", "TransportStats"]
