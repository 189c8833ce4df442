"""What every service of a client shares: where its requests go, and which instant they are about."""

from __future__ import annotations

import copy
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any, TypeVar
from urllib.parse import quote

from .._coalesce import Coalescer
from .._transport import Reply, Transport
from .._transport.cache import Cache
from .._transport.disk import Codec
from .._types import IdArray, Snapshot, When
from .._wire import endpoints, json
from .._wire.endpoints import Endpoint
from ..config import Limits
from ..datasets.spec import PRESET_SERVERS, DatasetSpec
from ..errors import CortexUsageError, NotFoundError, ServerRefusedError

INSTANTS = Codec[datetime](lambda when: when.isoformat().encode(), lambda text: datetime.fromisoformat(text.decode()))

F = TypeVar("F", bound=Callable[..., Any])

SERVER_VARIABLE = "CORTEXCLIENT_SERVER"
STORES = {"gs": "https://storage.googleapis.com", "s3": "https://s3.amazonaws.com"}
"""Where the buckets of each scheme are, unless a mirror has them."""
MINUTES = 60.0
"""Answers that may change (datastack records, the list of versions) are asked again after a few of these."""


def internal(method: F) -> F:
    """Mark a public method as this package's own business: it has no blocking twin and no place in the reference."""
    method.__dict__["internal"] = True
    return method


def check_aware(when: When, name: str = "timestamp") -> datetime:
    """Refuse a datetime without time zone, else the same instant in UTC."""
    if not isinstance(when, datetime):
        raise CortexUsageError(f"{name} must be a datetime with a time zone, not {type(when).__name__}")
    if when.tzinfo is None:
        raise CortexUsageError(
            f"{name}={when.isoformat()} has no time zone, so that it could mean any hour of the day: "
            f"write datetime(..., tzinfo=timezone.utc), or {name}.astimezone(timezone.utc) if it is your local time"
        )
    return when.astimezone(UTC)


def server_time(text: str) -> datetime:
    """Read a time as the materialization service writes it: naive UTC, with or without a fraction."""
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def epoch(when: datetime) -> str:
    """UNIX seconds as decimal text, exact to the microsecond."""
    return f"{when.timestamp():.6f}"


def epoch_ms(milliseconds: int) -> str:
    """UNIX seconds as decimal text, from milliseconds."""
    return f"{milliseconds / 1000:.3f}"


Credentials = Callable[[], tuple[str, datetime | None]]
"""Gives a bearer token and when it expires (aware; None: never)."""


@dataclass(slots=True)
class ExportPlace:
    """Where exports are looked for, in place of the spec's; the one thing about a client that can be set."""

    paths: tuple[str, ...] | None = None
    credentials: Credentials | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class Session:
    """The connection of one client to one dataset, and the instant it is pinned to."""

    transport: Transport
    spec: DatasetSpec
    limits: Limits
    cache: Cache
    coalescer: Coalescer = field(default_factory=Coalescer)
    export_place: ExportPlace = field(default_factory=ExportPlace)
    override: str | None = None
    """The server that the caller named: it plays all services."""
    version: int | None = None
    timestamp: datetime | None = None

    def at(self, version: int | None, timestamp: datetime | None) -> Session:
        """Pin another instant over the same connections and caches."""
        return replace(self, version=version, timestamp=timestamp)

    def unopened(self, limits: Limits | None = None) -> Session:
        """The same settings, perhaps with other limits, with connections and a cache of their own.

        The environment's server is one of them: that of another process may be another one, or none.
        """
        limits = limits or self.limits
        return replace(
            self,
            transport=self.transport.unopened(limits),
            limits=limits,
            cache=copy.copy(self.cache),
            coalescer=Coalescer(),
            export_place=ExportPlace(self.export_place.paths),  # credentials stay where they are
            override=self._only_server,
        )

    @property
    def server(self) -> str:
        """The global server."""
        return (self._only_server or self.spec.server).rstrip("/")

    @property
    def _only_server(self) -> str | None:
        """The one that plays all services, if somebody named one."""
        if self.override or self.spec.server.rstrip("/") not in PRESET_SERVERS:
            return self.override
        return os.environ.get(SERVER_VARIABLE)

    @property
    def storage_mirror(self) -> str | None:
        """The server that stands for the clouds' own, without a slash at the end."""
        mirror = f"{self.server}/storage" if self._only_server else self.spec.storage_url
        return mirror.rstrip("/") if mirror else None

    async def record(self) -> Mapping[str, Any]:
        """Fetch the datastack's record from the info service, once in a while."""
        server, datastack = self.server, self.spec.datastack

        async def load() -> Mapping[str, Any]:
            self.transport.trust(server)
            try:
                reply = await self.transport.send(endpoints.DATASTACK, server, path={"datastack": datastack})
            except ServerRefusedError as error:
                if "table_id" not in error.detail:  # how the login layer says that it knows no such datastack
                    raise
                text = f"{server} has no datastack {datastack!r}; client.info.get_datastacks() lists what there is"
                raise NotFoundError(text, endpoint=error.endpoint) from error
            return json.decode_as(reply.body, dict)

        record: Mapping[str, Any] = await self.cache.get(("record", server, datastack), load, ttl=5 * MINUTES)
        return record

    def known_record(self) -> Mapping[str, Any] | None:
        """The datastack's record if it was fetched before; nothing is sent."""
        record: Mapping[str, Any] | None = self.cache.peek(("record", self.server, self.spec.datastack))
        return record

    async def origin(self, endpoint: Endpoint) -> str:
        """Where this datastack's ``endpoint`` lives; of the local ones only the datastack's record knows."""
        if endpoint.scope == "global" or self._only_server:
            return self.server
        return str((await self.record())["local_server"]).rstrip("/")

    async def send(
        self,
        endpoint: Endpoint,
        path: Mapping[str, str | int] = {},
        *,
        query: Mapping[str, str] | None = None,
        body: bytes | None = None,
        ids: IdArray | tuple[int, ...] = (),
    ) -> Reply:
        """Send one request to where this datastack's ``endpoint`` lives."""
        path = {"datastack": self.spec.datastack, **path}
        origin = await self.origin(endpoint)
        if "{table}" in endpoint.path:
            path = {"table": segmentation_table(await self.record()), **path}
        self.transport.trust(origin, self.server)
        return await self.transport.send(endpoint, origin, path=path, query=query, body=body, ids=ids)

    def object_url(self, cloudpath: str) -> str:
        """Where an object of a bucket is asked for: ``gs://BUCKET/PATH`` as an ordinary URL, URLs as they are."""
        scheme, _, place = cloudpath.partition("://")
        return f"{self._store(scheme)}/{place}" if scheme in STORES else cloudpath

    def private_object_url(self, bucket: str, name: str) -> str:
        """Where an object of a Google bucket is asked for with a token (``?alt=media`` gives its contents)."""
        return f"{self._store('gs')}/download/storage/v1/b/{bucket}/o/{quote(name, safe='')}"

    def _store(self, scheme: str) -> str:
        return self.storage_mirror or STORES[scheme]

    async def snapshot(self, timestamp: When | None = None) -> Snapshot:
        """Resolve the instant of a call: its own, else the client's pin, else now."""
        if timestamp is not None:
            return Snapshot(check_aware(timestamp))
        if self.version is not None:
            return await self.version_snapshot(self.version)
        return Snapshot(self.timestamp or self.coalescer.now())

    async def version_snapshot(self, version: int) -> Snapshot:
        """Look up the instant of a materialization version; it never changes, expired or not."""

        async def load() -> datetime:
            try:
                reply = await self.send(endpoints.VERSION_METADATA, {"version": version})
            except NotFoundError as error:
                raise NotFoundError(
                    f"{self.spec.datastack} has no version {version}; client.materialize.get_versions() lists them",
                    endpoint=error.endpoint,
                ) from error
            return server_time(json.decode(reply.body)["time_stamp"])

        key = ("version", self.server, self.spec.datastack, version)
        return Snapshot(await self.cache.get(key, load, codec=INSTANTS), version)

    def batch(self, endpoint: Endpoint) -> int:
        """How many ids one request to ``endpoint`` carries."""
        cap = endpoint.batch or 1
        return min(cap, self.limits.batch.get(endpoint.name, cap))


def segmentation_table(record: Mapping[str, Any]) -> str:
    """Name of the chunkedgraph: the last part of ``graphene://https://server/segmentation/table/NAME``."""
    return str(record["segmentation_source"]).rstrip("/").rpartition("/")[2]


class Service:
    """Base of the services: holds the session, nothing else."""

    def __init__(self, session: Session) -> None:
        self._session = session

    def __repr__(self) -> str:
        return f"<{type(self).__name__} of {self._session.spec.datastack}>"
