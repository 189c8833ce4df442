"""The skeleton service: from its bucket, or made and waited for."""

from ._service import AsyncSkeletons

__all__ = ["AsyncSkeletons"]
