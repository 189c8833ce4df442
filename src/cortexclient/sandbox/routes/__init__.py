"""The routes of every CAVE service, one module each."""

from __future__ import annotations

from ..calls import RouteTable
from . import auth, chunkedgraph, info, materialize, schema

ALL: tuple[RouteTable, ...] = (info.TABLE, chunkedgraph.ROUTES, materialize.TABLE, schema.TABLE)
"""All tables but those that need more than a world: ``auth.table`` needs the accounts."""

__all__ = ["ALL", "auth", "chunkedgraph", "info", "materialize", "schema"]
