"""What tables or views there are, and what is known of each: fetched once, checked against without a request."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

from .._wire import endpoints, json
from ..errors import AuthError, CortexError
from ..services._base import MINUTES, Session
from ..services.materialize import AsyncMaterialize
from ..services.materialize._rows import Rows
from ._fields import Info, table_columns, view_columns

DAY = 24 * 60 * MINUTES


class Register:
    """The tables (or views) of a client's version.

    Parameters
    ----------
    views
        Whether it is about views.
    """

    def __init__(self, session: Session, materialize: AsyncMaterialize, *, views: bool) -> None:
        self.session = session
        self.materialize = materialize
        self.views = views
        self.looked = False
        """Whether somebody has tried to load it."""
        self.known: Mapping[str, Info] | None = None
        """As loaded last for the client's own version."""

    @property
    def rows(self) -> Rows:
        """Who fetches."""
        return Rows(self.session, self.materialize)

    @property
    def what(self) -> str:
        """What it lists."""
        return "views" if self.views else "tables"

    async def load(self, version: int | None = None) -> Mapping[str, Info]:
        """The tables of a version (default: the client's) by name."""
        self.looked = True
        own = version is None
        number = version if version is not None else await self._version()
        key = ("register", self.session.server, self.session.spec.datastack, self.views, number)
        load = self._views if self.views else self._tables
        known: Mapping[str, Info] = await self.session.cache.get(key, lambda: load(number), ttl=5 * MINUTES)
        if own or number == self.session.version or self.known is None:
            self.known = known
        return known

    async def _version(self) -> int:
        pinned = self.session.version
        return pinned if pinned is not None else await self.materialize.most_recent_version()

    async def _tables(self, version: int) -> dict[str, Info]:
        metadata, schemas = await asyncio.gather(self.materialize.get_tables_metadata(version), self._schemas())
        return {item["table_name"]: _info(item, schemas) for item in metadata}

    async def _views(self, version: int) -> dict[str, Info]:
        names, schemas = await asyncio.gather(
            self.materialize.get_views(version), self.materialize.get_view_schemas(version)
        )
        columns = {name: view_columns(schema) for name, schema in schemas.items()}
        return {name: Info(name, columns=columns.get(name)) for name in names}

    async def _schemas(self) -> dict[str, Any]:
        """All schemas by name; none where the service is down: then nothing is checked before it is sent."""

        async def load() -> dict[str, Any]:
            return json.decode_as((await self.session.send(endpoints.SCHEMAS)).body, dict)

        try:
            found: dict[str, Any] = await self.session.cache.get(("schemas", self.session.server), load, ttl=DAY)
        except AuthError:
            raise
        except CortexError:
            return {}
        return found


def _info(item: Mapping[str, Any], schemas: Mapping[str, Any]) -> Info:
    schema = schemas.get(str(item.get("schema_type")))
    return Info(
        item["table_name"],
        item.get("description") or "",
        tuple(item["voxel_resolution"]) if item.get("voxel_resolution") else None,
        item.get("reference_table") or None,
        None if schema is None else table_columns(schema),
    )
