"""What went wrong, from a status or an exception: which error to raise, and whether to try again."""

from __future__ import annotations

import email.utils
import json
import re
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from .._wire.endpoints import Endpoint
from ..errors import (
    ConnectError,
    CortexError,
    CortexUsageError,
    DeadlineExceeded,
    DecodeError,
    InvalidToken,
    MissingPermission,
    MissingToken,
    NotFoundError,
    RateLimited,
    ServerError,
    ServerRefusedError,
    TermsNotAccepted,
)
from .auth import Token, token_page

DETAIL = 500
"""Characters of a server's own words that an error keeps."""

BENIGN_500 = re.compile(
    r"\d+$"  # PyChunkedGraph: an unknown id among known ones is a KeyError, whose text is just the id
    r"|.*Cannot find root id"
    r"|pop from an empty deque"  # PyChunkedGraph: root_timestamps(latest=True) of an id that does not exist yet
    r"|Execution failed on sql"  # materialization: the query was wrong
    r"|Input payload validation failed"
    r"|'\w+'$"  # materialization: an unknown filter column is a KeyError, whose text is just the name
    r"|.* not in model or models for "
    r"|min bounds: "
    r"|Duplicate suffixes"
    r"|Regex filter is only supported"
    r"|No row was found for one\(\)"
    r"|Could not reflect: "
    r"|No table named ",
    re.DOTALL,
)
"""Messages of 500s that come of what was asked, not of trouble: asking again gives the same."""

WRAPPED_STATUS = re.compile(r"([45]\d\d) ")
"""Materialization wraps every ``abort(404, ...)`` into a 500 whose message starts with the true status."""


@dataclass(frozen=True, slots=True)
class Asked:
    """What a failed request was about: enough for the message."""

    endpoint: Endpoint
    origin: str
    source: str
    """Where the token came from, in words."""
    token: Token | None = None
    ids: Iterable[int] = ()

    @property
    def tries(self) -> int | None:
        """How often this may be tried if the server has perhaps seen it: a write once, a read as the policy says."""
        return None if self.endpoint.idempotent else 1

    @property
    def where(self) -> dict[str, Any]:
        """The keyword arguments that every error takes."""
        return {"ids": self.ids, "endpoint": str(self.endpoint)}

    def quote(self, text: str) -> str:
        """What the server said, on one line, bounded, and without our token if it quotes that."""
        if self.token is not None:
            text = text.replace(self.token.value, "<token>")
        return " ".join(text.split())[:DETAIL]


class Failure(Exception):
    """One try failed. ``error`` is what the user gets if it was the last one.

    ``tries`` bounds the tries in all (1: this was the only one; None: as many as the policy grants), ``after`` is the
    server's own Retry-After.
    """

    def __init__(self, error: CortexError, *, tries: int | None = 1, after: float | None = None) -> None:
        super().__init__(error)
        self.error = error
        self.tries = tries
        self.after = after


# ── statuses ────────────────────────────────────────────────────────────────────────────────────────────────────────


def from_status(asked: Asked, status: int, headers: Mapping[str, str], body: bytes, doubtful_500: int) -> Failure:
    """The failure that an answer other than 2xx is; an unexplained 500 is granted ``doubtful_500`` tries."""
    content = _parse(body)
    detail = asked.quote(_words(content, body))
    if status == 500:
        status = _true_status(content, detail)
    if status in (429, 502, 503, 504):
        after = retry_after(headers)
        if status == 429:
            text = f"{asked.origin} limits the rate of requests: ask for less at once (Limits), or later"
            return Failure(RateLimited(text, retry_after=after, **asked.where), tries=asked.tries, after=after)
        text = f"{asked.origin} is overloaded or down (HTTP {status}): {detail}"
        return Failure(ServerError(text, status=status, detail=detail, **asked.where), tries=asked.tries, after=after)
    if status >= 500:
        text = f"{asked.origin} failed (HTTP {status}): {detail}"
        error = ServerError(text, status=status, detail=detail, **asked.where)
        benign = status != 500 or BENIGN_500.match(detail)
        return Failure(error, tries=1 if benign else asked.tries or doubtful_500)
    return Failure(_refusal(asked, status, headers, content, detail))


def _true_status(content: Any, detail: str) -> int:
    if wrapped := WRAPPED_STATUS.match(detail):
        return int(wrapped[1])
    if isinstance(content, dict) and ("schema_errors" in content or "errors" in content):
        return 400  # materialization: a body or query string against the schema
    return 500


def _refusal(asked: Asked, status: int, headers: Mapping[str, str], content: Any, detail: str) -> CortexError:
    code = content.get("error") if isinstance(content, dict) else None
    location = headers.get("location", "")
    if (status == 401 and code == "no_token") or (300 <= status < 400 and _is_login(location)):
        return MissingToken(_token_text(asked, "wants a token"), **asked.where)
    if status == 401 and code == "invalid_token":
        return InvalidToken(_token_text(asked, "does not know this token, or it has expired"), **asked.where)
    if status == 403 and code == "missing_tos":
        url = str(_data(content).get("tos_form_url", ""))
        text = f"{asked.origin} wants its terms of service accepted first: open {url} in a browser, then try again"
        return TermsNotAccepted(text, url=url, endpoint=str(asked.endpoint))
    if status == 403 and code in ("missing_permission", "missing_role"):
        text = (
            f"the token from {asked.source} does not open this at {asked.origin}: {detail}. Ask its owners for access"
        )
        return MissingPermission(text, **asked.where)
    if status == 404:
        return NotFoundError(f"{asked.origin} has no such thing: {detail or 'HTTP 404'}", **asked.where)
    if 300 <= status < 400:
        detail = f"it points to {location.partition('?')[0]}, and redirects are not followed; is the address right?"
    text = f"{asked.origin} refused (HTTP {status}): {detail}"
    return ServerRefusedError(text, status=status, detail=detail, **asked.where)


def _is_login(location: str) -> bool:
    return "/authorize" in location or "login" in location.lower() or "accounts.google." in location


def _token_text(asked: Asked, problem: str) -> str:
    return (
        f"{asked.origin} {problem} (ours came from {asked.source}). Make one at {token_page(asked.origin)}, then pass "
        "token=, set CORTEXCLIENT_TOKEN, or save it with `cortexclient auth setup`"
    )


def _parse(body: bytes) -> Any:
    try:
        return json.loads(body)
    except ValueError:
        return None


def _data(content: Any) -> dict[str, Any]:
    data = content.get("data") if isinstance(content, dict) else None
    return data if isinstance(data, dict) else {}


def _words(content: Any, body: bytes) -> str:
    """The server's words: the message of a JSON object, a JSON string, else the start of the body."""
    if isinstance(content, dict):
        words = next((content[key] for key in ("message", "Error", "error") if content.get(key)), None)
        return str(words) if words is not None else json.dumps(content)
    if isinstance(content, str):
        return content
    return body[: 4 * DETAIL].decode("utf-8", "replace")


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds that the server asks us to wait (Retry-After, as a number or as an HTTP date)."""
    value = headers.get("retry-after", "").strip()
    if not value:
        return None
    try:
        return max(0.0, float(value))
    except ValueError:
        pass
    try:
        return max(0.0, email.utils.parsedate_to_datetime(value).timestamp() - time.time())
    except ValueError:
        return None


# ── exceptions ──────────────────────────────────────────────────────────────────────────────────────────────────────


def without_request(error: Exception) -> Exception:
    """The error and its cause, without the request that holds the token: Dask pickles errors with their chain."""
    import aiohttp
    import httpx

    if isinstance(error, httpx.RequestError):
        error._request = None  # noqa: SLF001
    cause = error.__cause__
    kept = cause if isinstance(cause, aiohttp.ClientError) else None
    for one in (error, kept):
        if one is not None:
            one.__cause__ = one.__context__ = None
    error.__cause__ = kept
    return error


def from_exception(asked: Asked, error: Exception) -> Failure | None:
    """The failure that an exception of the HTTP libraries is; None for anything else, which is a bug of ours.

    httpx's class says nothing here: its aiohttp transport reports a refused connection and one reset after sending
    alike. The cause does: only what failed before there was a connection was certainly never sent.
    """
    import aiohttp
    import httpcore
    import httpx

    below = (aiohttp.ClientError, httpcore.TimeoutException, httpcore.NetworkError, httpcore.ProtocolError)
    cause = error.__cause__ if isinstance(error.__cause__, below) else error
    told = f"{asked.origin}: {str(cause) or type(cause).__name__}"
    unusable = httpx.InvalidURL | httpx.UnsupportedProtocol | aiohttp.InvalidURL | aiohttp.NonHttpUrlClientError
    if isinstance(error, unusable):
        return Failure(CortexUsageError(f"not an address to ask: {told}", **asked.where))
    if isinstance(cause, aiohttp.ClientConnectorCertificateError):
        return Failure(ConnectError(f"the certificate is not trusted; {told}", **asked.where))
    if isinstance(
        cause,
        aiohttp.ClientConnectorError
        | aiohttp.ConnectionTimeoutError
        | httpcore.ConnectError
        | httpcore.ConnectTimeout
        | httpcore.PoolTimeout
        | httpx.ConnectError
        | httpx.ConnectTimeout
        | httpx.PoolTimeout,
    ):
        text = f"no connection to {told}. Is the address right, is the network up?"
        return Failure(ConnectError(text, **asked.where), tries=None)
    if isinstance(cause, aiohttp.ServerTimeoutError | httpcore.TimeoutException | httpx.TimeoutException):
        text = f"silence from {told} (Timeouts says for how long to bear it)"
        return Failure(DeadlineExceeded(text, **asked.where), tries=asked.tries)
    if isinstance(cause, (*below, httpx.HTTPError, OSError)):
        return Failure(ConnectError(f"the connection broke; {told}", sent=True, **asked.where), tries=asked.tries)
    return None


def out_of_time(asked: Asked, seconds: float) -> DeadlineExceeded:
    """All tries of a request together took too long."""
    return DeadlineExceeded(f"no complete answer from {asked.origin} within {seconds:g} s", **asked.where)


# ── answers that are not what they should be ────────────────────────────────────────────────────────────────────────


def cut_short(asked: Asked, text: str) -> Failure:
    """An answer that ended before its end."""
    error = DecodeError(f"the answer of {asked.origin} was cut short: {text}", **asked.where)
    return Failure(error, tries=asked.tries)


def wrong_coding(asked: Asked, coding: str) -> Failure:
    """A body packed in a way that nobody asked for."""
    return Failure(DecodeError(f"{asked.origin} packed its answer as {coding}, unasked", **asked.where))


def wrong_type(asked: Asked, found: str, body: bytes) -> DecodeError:
    """A good status, but another Content-Type than the endpoint promises."""
    start = asked.quote(body[:80].decode("utf-8", "replace"))
    text = f"{asked.origin} answered with {found or 'no type'} instead of {asked.endpoint.expects}: {start!r}"
    return DecodeError(text, **asked.where)


def wrong_range(asked: Asked, start: int, stop: int, length: int) -> DecodeError:
    """A part of an object that is not as long as was asked for."""
    return DecodeError(f"{asked.origin} gave {length:,} bytes for the range [{start}, {stop})", **asked.where)
