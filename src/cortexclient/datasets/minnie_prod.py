"""A client of minnie65 in production: ``from cortexclient.datasets.minnie_prod import client``."""

from __future__ import annotations

from .._load import load_client

__all__ = ["client"]

client = load_client("minnie_prod")
"""The same object as ``cortexclient.load_client("minnie_prod")``. Nothing is sent before its first call."""
