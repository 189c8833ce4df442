"""Which versions there are, and when they were frozen."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from ..._fanout import running
from ..._wire import endpoints, json
from ...errors import NotFoundError
from .._base import MINUTES, Service, internal, server_time


class Versions(Service):
    """Materialization versions and their instants."""

    async def get_versions(self, expired: bool = False, *, timeout: float | None = None) -> list[int]:
        """List the version numbers, ascending.

        Parameters
        ----------
        expired
            Also those whose rows are gone. Their instants still resolve.

        Examples
        --------
        >>> await client.materialize.get_versions()
        [117, 661, 1412, 1484]
        >>> await client.materialize.get_versions(expired=True)
        [117, 343, 661, 943, 1300, 1412, 1440, 1462, 1484]
        """
        with running(timeout, None, None):
            return [item["version"] for item in await self.get_versions_metadata(expired)]

    async def get_versions_metadata(
        self, expired: bool = False, *, timeout: float | None = None
    ) -> list[dict[str, Any]]:
        """Describe the versions that can be queried (``expired``: all), ascending by number; cached for a minute.

        Returns
        -------
        list of dict
            ``version``, ``time_stamp`` (aware UTC), ``expires_on`` (aware UTC, or None for never), ``valid``,
            ``status``, ``is_merged``.

        Examples
        --------
        >>> [told["version"] for told in await client.materialize.get_versions_metadata()]
        [117, 661, 1412, 1484]
        """

        async def load() -> list[dict[str, Any]]:
            reply = await self._session.send(endpoints.VERSIONS_METADATA, query={"expired": "True"})
            found = [_parsed(item) for item in json.decode(reply.body)]
            return sorted(found, key=lambda item: int(item["version"]))

        session = self._session
        with running(timeout, None, None):
            known = await session.cache.get(("versions", session.server, session.spec.datastack), load, ttl=MINUTES)
        return [dict(item) for item in known if expired or item["valid"]]

    async def get_version_metadata(self, version: int | None = None, *, timeout: float | None = None) -> dict[str, Any]:
        """Describe one version, expired or not; see :meth:`get_versions_metadata`.

        Raises
        ------
        NotFoundError
            With the nearest version numbers.

        Examples
        --------
        >>> told = await client.materialize.get_version_metadata(1412)
        >>> told["valid"], told["status"]
        (True, 'AVAILABLE')
        """
        with running(timeout, None, None):
            number = await self._version(version)
            known = await self.get_versions_metadata(expired=True)
        for item in known:
            if item["version"] == number:
                return item
        distances = sorted((abs(item["version"] - number), item["version"]) for item in known)[:3]
        nearest = [str(other) for _, other in distances]
        raise NotFoundError(
            f"{self._session.spec.datastack} has no version {number}; did you mean {' or '.join(nearest)}?",
            nearest=nearest,
        )

    async def get_timestamp(self, version: int | None = None, *, timeout: float | None = None) -> datetime:
        """Tell the instant (aware UTC) at which a version was frozen.

        Examples
        --------
        >>> str(await client.materialize.get_timestamp(1412))
        '2025-02-28 08:10:00.375000+00:00'
        """
        with running(timeout, None, None):
            return (await self._session.version_snapshot(await self._version(version))).timestamp

    async def most_recent_version(self, *, timeout: float | None = None) -> int:
        """Give the newest version that can be queried.

        Raises
        ------
        NotFoundError
            If the datastack has none.

        Examples
        --------
        >>> await client.materialize.most_recent_version()
        1484
        """
        versions = await self.get_versions(timeout=timeout)
        if not versions:
            raise NotFoundError(f"{self._session.spec.datastack} has no materialization version that can be queried")
        return versions[-1]

    @internal
    async def queryable(self, version: int | None = None) -> dict[str, Any]:
        """Describe a version, if it has not expired: a query on one that has makes the server create an empty database.

        Raises
        ------
        NotFoundError
            If there is no such version, or its rows are gone.
        """
        item = await self.get_version_metadata(version)
        if not item["valid"]:
            raise NotFoundError(
                f"{self._session.spec.datastack} version {item['version']} is expired: its rows are gone; "
                "client.materialize.get_versions() lists those that can be queried"
            )
        return item

    async def _version(self, version: int | None) -> int:
        if version is not None:
            return int(version)
        if self._session.version is not None:
            return self._session.version
        return await self.most_recent_version()


def _parsed(item: dict[str, Any]) -> dict[str, Any]:
    expires = item.get("expires_on")
    return item | {
        "time_stamp": server_time(item["time_stamp"]),
        "expires_on": server_time(expires) if expires else None,
    }


SAFE_SECONDS = 600.0
"""A version that expires sooner is not asked: a query on an expired one makes the server create an empty database."""


def safe_to_ask(item: dict[str, Any]) -> bool:
    """Whether a version will last for the time of a call."""
    expires: datetime | None = item["expires_on"]
    return expires is None or (expires - datetime.now(UTC)).total_seconds() > SAFE_SECONDS
