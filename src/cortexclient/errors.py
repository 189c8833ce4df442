"""Everything that cortexclient raises.

::

    CortexError(.ids, .endpoint, .partial)
    ├── CortexUsageError(ValueError)   the call itself is wrong: float ids, a naive datetime, a closed client ...
    ├── AuthError                      MissingToken, InvalidToken, MissingPermission, TermsNotAccepted(.url)
    ├── NotFoundError(.nearest)        table, view, version, root
    ├── ServerRefusedError             any other 4xx (.status, .detail)
    ├── UnavailableError               retries are spent
    │   ├── RateLimited(.retry_after)
    │   ├── ServerError(.status, .detail)
    │   ├── ConnectError
    │   └── DeadlineExceeded
    ├── DecodeError                    the reply is not what the endpoint promises
    ├── IncompatibleServerError        the server is too old for this call
    ├── TruncatedResult                a row limit was hit where splitting was switched off
    ├── TooLarge                       an object is larger than the call allows
    ├── MissingDependency              an optional package is needed; names the pip line
    └── PartialFailure(.results)       some ids failed; what succeeded is kept

Every error can be pickled (bulk jobs carry them between processes) and names what failed, the ids (the first five and
a count), where, and what to do about it. Errors of the HTTP library never leak; they are the ``__cause__``.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

__all__ = [
    "AuthError",
    "ConnectError",
    "CortexError",
    "CortexUsageError",
    "DeadlineExceeded",
    "DecodeError",
    "IncompatibleServerError",
    "InvalidToken",
    "MissingDependency",
    "MissingPermission",
    "MissingToken",
    "NotFoundError",
    "PartialFailure",
    "RateLimited",
    "ServerError",
    "ServerRefusedError",
    "TermsNotAccepted",
    "TooLarge",
    "TruncatedResult",
    "UnavailableError",
]


class CortexError(Exception):
    """Base of all errors of this package.

    Parameters
    ----------
    message
        What failed, and what to do about it.
    ids
        The ids concerned, if the error is about ids. All are kept; the message shows the first five.
    endpoint
        ``service/name`` of the endpoint that was asked, if one was.

    Attributes
    ----------
    partial
        What had been fetched when the call failed (a frame or an array), else None.

    Examples
    --------
    >>> try:
    ...     await client.materialize.query_table("nucleus_detection")
    ... except CortexError as error:
    ...     print(type(error).__name__, error.endpoint)
    NotFoundError materialize/...
    """

    partial: Any = None

    def __init__(self, message: str, *, ids: Iterable[int] = (), endpoint: str | None = None) -> None:
        super().__init__(message)
        self.ids: tuple[int, ...] = tuple(map(int, ids))
        self.endpoint = endpoint

    def __str__(self) -> str:
        text = str(self.args[0]) if self.args else type(self).__name__
        if self.endpoint:
            text += f" [{self.endpoint}]"
        if self.ids:
            text += f" (ids: {shorten_ids(self.ids)})"
        return text

    def __reduce__(self) -> tuple[Any, ...]:
        return _restore, (type(self), self.args, self.__dict__.copy())


def _restore(cls: type[CortexError], args: tuple[Any, ...], state: dict[str, Any]) -> CortexError:
    error = cls.__new__(cls, *args)
    error.args = args
    error.__dict__.update(state)
    return error


def shorten_ids(ids: Iterable[int], show: int = 5) -> str:
    """``1, 2, 3, 4, 5 and 12 more``."""
    known = [int(i) for i in ids]
    text = ", ".join(map(str, known[:show]))
    return f"{text} and {len(known) - show:,} more" if len(known) > show else text


class CortexUsageError(CortexError, ValueError):
    """The call itself is wrong; nothing was sent."""


class AuthError(CortexError):
    """The server does not let us in. The message names the token's source and the server, never the token."""


class MissingToken(AuthError):
    """No token was given or found, and the server wants one."""


class InvalidToken(AuthError):
    """The server does not know the token, or it has expired."""


class MissingPermission(AuthError):
    """The token is good, but its user may not see this dataset."""


class TermsNotAccepted(AuthError):
    """The user must accept terms of service first, at ``url`` (shown, never opened)."""

    def __init__(self, message: str, *, url: str, endpoint: str | None = None) -> None:
        super().__init__(message, endpoint=endpoint)
        self.url = url


class NotFoundError(CortexError):
    """The server has no such table, view, version or root. ``nearest`` lists names that look alike."""

    def __init__(
        self, message: str, *, nearest: Iterable[str] = (), ids: Iterable[int] = (), endpoint: str | None = None
    ) -> None:
        super().__init__(message, ids=ids, endpoint=endpoint)
        self.nearest = tuple(nearest)


class _StatusError(CortexError):
    """An HTTP answer that says no: ``status``, and ``detail`` as the server worded it (bounded)."""

    def __init__(
        self, message: str, *, status: int, detail: str = "", ids: Iterable[int] = (), endpoint: str | None = None
    ) -> None:
        super().__init__(message, ids=ids, endpoint=endpoint)
        self.status = status
        self.detail = detail


class ServerRefusedError(_StatusError):
    """The server understood the request and refused it (a 4xx that is no other error of this tree)."""


class UnavailableError(CortexError):
    """The server could not be brought to answer within the retry policy."""


class RateLimited(UnavailableError):
    """The server asks for patience (429). ``retry_after`` is its own figure in seconds, or None."""

    def __init__(
        self,
        message: str,
        *,
        retry_after: float | None = None,
        ids: Iterable[int] = (),
        endpoint: str | None = None,
    ) -> None:
        super().__init__(message, ids=ids, endpoint=endpoint)
        self.retry_after = retry_after


class ServerError(_StatusError, UnavailableError):
    """A 5xx answer."""


class ConnectError(UnavailableError):
    """No connection, or it broke. ``sent`` says whether the server may have seen the request."""

    def __init__(
        self, message: str, *, sent: bool = False, ids: Iterable[int] = (), endpoint: str | None = None
    ) -> None:
        super().__init__(message, ids=ids, endpoint=endpoint)
        self.sent = sent


class DeadlineExceeded(UnavailableError, TimeoutError):
    """The time given to the call, or to one request, ran out."""


class DecodeError(CortexError):
    """The reply is not what the endpoint promises (wrong length, wrong type, cut short)."""


class IncompatibleServerError(CortexError):
    """The call needs a newer server. The message names both versions."""


class TruncatedResult(CortexError):
    """The server stopped at its row limit and splitting the query was switched off."""


class TooLarge(CortexError):
    """An object is larger than the call allows; nothing of it was fetched, or not all."""


class MissingDependency(CortexError, ImportError):
    """An optional package is not installed. The message names the pip line."""

    def __init__(self, package: str, extra: str, purpose: str) -> None:
        super().__init__(f'{purpose} needs {package}: pip install "cortexclient[{extra}]"')
        self.package = package
        self.extra = extra


class PartialFailure(CortexError):
    """Some ids failed. ``results`` holds what succeeded, ``errors`` the reason for each that did not."""

    def __init__(self, message: str, *, results: Any, errors: Mapping[int, CortexError]) -> None:
        super().__init__(message, ids=errors)
        self.results = results
        self.errors = dict(errors)
