"""Meshes: of one object, of many, and which level-2 node each vertex belongs to."""

from __future__ import annotations

from ._labelling import AsyncMesh

__all__ = ["AsyncMesh"]
