"""A client of the public V1DD: ``from cortexclient.datasets.v1dd_public import client``."""

from __future__ import annotations

from .._load import load_client

__all__ = ["client"]

client = load_client("v1dd_public")
"""The same object as ``cortexclient.load_client("v1dd_public")``. Nothing is sent before its first call."""
