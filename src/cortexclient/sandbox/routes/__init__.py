"""The routes of every CAVE service, one module each."""

from __future__ import annotations

from ..calls import RouteTable
from . import auth, chunkedgraph, info, l2cache, materialize, meshing, schema, skeletoncache, state, storage

ALL: tuple[RouteTable, ...] = (
    info.TABLE,
    chunkedgraph.ROUTES,
    materialize.TABLE,
    schema.TABLE,
    l2cache.TABLE,
    skeletoncache.TABLE,
    state.TABLE,
    meshing.TABLE,
    skeletoncache.BUCKET_TABLE,
    storage.TABLE,
)
"""All tables but those that need more than a world: ``auth.table`` and ``storage.gated`` need the accounts."""

__all__ = [
    "ALL",
    "auth",
    "chunkedgraph",
    "info",
    "l2cache",
    "materialize",
    "meshing",
    "schema",
    "skeletoncache",
    "state",
    "storage",
]
