"""A client of V1DD in production: ``from cortexclient.datasets.v1dd import client``."""

from __future__ import annotations

from .._load import load_client

__all__ = ["client"]

client = load_client("v1dd")
"""The same object as ``cortexclient.load_client("v1dd")``. Nothing is sent before its first call."""
