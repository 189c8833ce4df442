"""How the services of a dataset are: reachable, which version, how fast, and whether they take the token."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import TYPE_CHECKING

from ._fanout import deadline, fan_out
from ._html import table
from ._transport import Reply
from ._wire import endpoints, json
from ._wire.endpoints import Endpoint
from .errors import AuthError, ConnectError, CortexError, DeadlineExceeded, MissingToken, ServerError
from .services._base import Session

if TYPE_CHECKING:
    import pandas as pd

CHECKS: Mapping[str, tuple[Endpoint, Endpoint | None]] = {
    "info": (endpoints.INFO_VERSION, endpoints.DATASTACK),
    "chunkedgraph": (endpoints.GRAPH_VERSION, endpoints.SEGMENTATION_INFO),
    "materialize": (endpoints.MATERIALIZE_VERSION, endpoints.VERSIONS_METADATA),
    "l2cache": (endpoints.L2_TABLES, None),
    "skeleton": (endpoints.SKELETON_VERSION, None),
}
"""What each service is asked: its version, and something that it shows only to whom it knows."""


@dataclass(frozen=True, slots=True)
class ServiceStatus:
    """How one service is.

    Examples
    --------
    >>> status = (await client.diagnose())["skeleton"]
    >>> status.reachable, status.version
    (True, '0.23.11')
    """

    service: str
    url: str
    """Where it was asked; empty where the info service could not say."""
    reachable: bool
    """Whether it answered at all, be it with a refusal."""
    version: str | None
    latency_ms: float | None
    """Milliseconds of a small request over an open connection."""
    token: str
    """``accepted``, ``refused``, ``missing``, or ``not asked`` (by a service that is open, or that failed)."""
    problem: str | None
    """What went wrong, and what to do about it."""

    @property
    def ok(self) -> bool:
        """Whether nothing is wrong.

        Examples
        --------
        >>> diagnosis = await client.diagnose()
        >>> diagnosis["materialize"].ok, diagnosis["materialize"].problem
        (True, None)
        """
        return self.problem is None


@dataclass(frozen=True, slots=True, repr=False)
class Diagnosis:
    """How the services of a dataset are. Shows itself as a table.

    Examples
    --------
    >>> diagnosis = await client.diagnose()
    >>> diagnosis.ok, diagnosis["info"].token
    (True, 'accepted')
    """

    datastack: str
    token_source: str
    """Where the token was found (never the token)."""
    services: tuple[ServiceStatus, ...]

    @property
    def ok(self) -> bool:
        """Whether nothing is wrong anywhere.

        Examples
        --------
        >>> (await client.diagnose()).ok
        True
        """
        return all(service.ok for service in self.services)

    def __getitem__(self, service: str) -> ServiceStatus:
        return next(status for status in self.services if status.service == service)

    def to_frame(self) -> pd.DataFrame:
        """One row for each service, indexed by its name; the columns are the fields of :class:`ServiceStatus`.

        Examples
        --------
        >>> (await client.diagnose()).to_frame()["token"].to_dict()
        {'info': 'accepted', 'chunkedgraph': 'accepted', ...}
        """
        import pandas as pd

        return pd.DataFrame([asdict(status) for status in self.services]).set_index("service")

    def __repr__(self) -> str:
        widths = [max(map(len, column)) for column in zip(*self._rows(), strict=True)]
        lines = ("  ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)).rstrip() for row in self._rows())
        return "\n".join([self._title(), *lines])

    def _repr_html_(self) -> str:
        header, *rows = self._rows()
        return table(self._title(), rows, header)

    def _title(self) -> str:
        return f"{self.datastack}: {'all is well' if self.ok else 'there is trouble'} (token from {self.token_source})"

    def _rows(self) -> list[tuple[str, ...]]:
        rows = [tuple(field.name for field in fields(ServiceStatus))]
        for status in self.services:
            latency = "" if status.latency_ms is None else f"{status.latency_ms:.1f}"
            reachable, version = ("yes" if status.reachable else "no"), status.version or ""
            rows.append((status.service, status.url, reachable, version, latency, status.token, status.problem or ""))
        return rows


async def diagnose(session: Session, timeout: float) -> Diagnosis:
    """See `AsyncCortexClient.diagnose`."""
    services = await fan_out(CHECKS, lambda name: _check(session, name, timeout), workers=len(CHECKS))
    source = session.transport.token.describe(session.server)
    return Diagnosis(session.spec.datastack, source, tuple(services))


async def _check(session: Session, name: str, timeout: float) -> ServiceStatus:
    asked, guarded = CHECKS[name]
    url, version, latency, login, problem = "", None, None, "not asked", None
    reachable = False
    try:
        with deadline(timeout):
            url = await session.origin(asked)
            version = _version(await session.send(asked))  # the first request opens the connection
            started = time.perf_counter()
            await session.send(asked)
            latency, reachable = (time.perf_counter() - started) * 1000, True
            if guarded:
                await session.send(guarded)
                login = "accepted"
    except CortexError as error:
        problem = str(error)
        reachable = reachable or (url != "" and _answered(error))
        if isinstance(error, AuthError):
            login = "missing" if isinstance(error, MissingToken) else "refused"
    return ServiceStatus(name, url, reachable, version, latency, login, problem)


def _answered(error: CortexError) -> bool:
    """Whether it is the service itself that failed or refused, not the way to it or a proxy in front."""
    if isinstance(error, ServerError):
        return error.status == 500
    return not isinstance(error, ConnectError | DeadlineExceeded)


def _version(reply: Reply) -> str | None:
    """A version is a JSON string; a service that tells other things tells none."""
    told = json.decode(reply.body) if reply.body.startswith(b'"') else None
    return told if isinstance(told, str) else None
