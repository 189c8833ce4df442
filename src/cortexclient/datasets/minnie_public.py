"""A client of the public minnie65: ``from cortexclient.datasets.minnie_public import client``."""

from __future__ import annotations

from .._load import load_client

__all__ = ["client"]

client = load_client("minnie_public")
"""The same object as ``cortexclient.load_client("minnie_public")``. Nothing is sent before its first call."""
