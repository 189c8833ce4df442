"""The skeleton service: what is there, from its replies or its bucket; the rest made and waited for."""

from ._fetch import Method, Presence
from ._service import AsyncSkeletons

__all__ = ["AsyncSkeletons", "Method", "Presence"]
