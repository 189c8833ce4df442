"""Buckets and folders as object stores, and what their libraries raise as errors of this package."""

from __future__ import annotations

import asyncio
import os
import re
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from .._transport.failures import Failure
from ..errors import (
    ConnectError,
    CortexError,
    CortexUsageError,
    DecodeError,
    MissingDependency,
    MissingPermission,
    NotFoundError,
    RateLimited,
    ServerError,
    ServerRefusedError,
    UnavailableError,
)
from ..services._base import ExportPlace, Session

if TYPE_CHECKING:
    from obstore.store import ObjectStore

GOOGLE: Final = "https://storage.googleapis.com/"
STATUS: Final = re.compile(r"status code: (\d{3})")
AT_ONCE: Final = 16
"""Lists and small objects under way."""
ACCESS: Final = (
    "ask the administrator of the dataset for access, then pass set_export_cloudpath(path, credentials=...) a function "
    "that gives a bearer token and when it expires, or point the environment (GOOGLE_APPLICATION_CREDENTIALS, "
    "AWS_ACCESS_KEY_ID) at your account"
)


@dataclass(frozen=True, slots=True)
class Root:
    """A folder of a bucket or of this machine that holds exports."""

    url: str
    """``scheme://bucket/prefix``, without a slash at the end."""
    endpoint: str | None = None
    """The server that stands for the scheme's own."""

    @property
    def scheme(self) -> str:
        """``gs``, ``s3``, ``http``, ``https`` or ``file``."""
        return self.url.partition("://")[0]

    @property
    def bucket(self) -> str:
        """Name of the bucket."""
        return self.url.partition("://")[2].partition("/")[0]

    @property
    def prefix(self) -> str:
        """Where in the bucket; of a folder its path."""
        rest = self.url.partition("://")[2]
        return rest if self.scheme == "file" else rest.partition("/")[2]

    def child(self, path: str) -> str:
        """Address of something below."""
        return f"{self.url}/{path}"


def root_of(session: Session, cloudpath: str | os.PathLike[str]) -> Root:
    """Find out what a cloudpath means: ``gs://``, ``s3://``, ``https://``, ``file://`` or a folder."""
    text, mirror = os.fspath(cloudpath).rstrip("/"), session.storage_mirror
    if mirror and text.startswith(f"{mirror}/"):
        return Root(f"gs://{text.removeprefix(f'{mirror}/')}", mirror)
    if text.startswith(GOOGLE):
        text = f"gs://{text.removeprefix(GOOGLE)}"
    scheme, found, rest = text.partition("://")
    if not found or scheme == "file":
        folder = Path(rest if found else text).expanduser().absolute()
        return Root(f"file://{folder}")
    if scheme not in ("gs", "s3", "http", "https") or not rest:
        raise CortexUsageError(
            f"{cloudpath!r} is no place for exports: use gs://, s3://, https://, file:// or a folder"
        )
    return Root(text, mirror if scheme in ("gs", "s3") else None)


def options(root: Root) -> dict[str, str]:
    """Settings of a bucket in the spelling that obstore, polars and deltalake share.

    Anonymous access must say so: otherwise these libraries look for an account at the cloud's metadata address.
    """
    local = {"allow_http": "true"} if root.endpoint and root.endpoint.startswith("http://") else {}
    if root.scheme == "gs":
        place = {"google_base_url": root.endpoint} if root.endpoint else {}
        known = "GOOGLE_APPLICATION_CREDENTIALS" in os.environ
        return place | local | ({} if known else {"google_skip_signature": "true"})
    if root.scheme == "s3":
        place = {"aws_endpoint": root.endpoint} if root.endpoint else {}
        place |= {"aws_region": os.environ.get("AWS_REGION", "us-east-1"), "aws_virtual_hosted_style_request": "false"}
        return place | local | ({} if "AWS_ACCESS_KEY_ID" in os.environ else {"aws_skip_signature": "true"})
    return local


def open_store(session: Session, root: Root, place: ExportPlace) -> ObjectStore:
    """The store of a root; its paths are relative to that."""
    try:
        from obstore import store
    except ImportError as error:
        raise MissingDependency("obstore", "exports", "client.exports") from error
    if root.scheme == "file":
        if not Path(root.prefix).is_dir():
            raise NotFoundError(f"there is no folder {root.prefix}")
        return store.LocalStore(root.prefix)
    policy, timeouts = session.transport.retry, session.transport.timeouts
    client: Any = {
        "allow_http": root.scheme == "http" or "allow_http" in options(root),
        "connect_timeout": timedelta(seconds=timeouts.connect),
        "timeout": timedelta(days=1),  # of a whole object; silence is what ends a try
        "read_timeout": timedelta(seconds=timeouts.read),
    }
    retry: Any = {
        "max_retries": policy.attempts - 1,
        "retry_timeout": timedelta(seconds=policy.deadline),
        "backoff": {
            "init_backoff": timedelta(seconds=policy.base),
            "max_backoff": timedelta(seconds=policy.cap),
            "base": 2,
        },
    }
    settings: Any = {key: value for key, value in options(root).items() if key != "allow_http"}
    if root.scheme == "gs":
        told = dict.fromkeys(["credential_provider"], bearer(place)) if place.credentials else {}
        if told:
            settings.pop("google_skip_signature", None)
        return store.GCSStore(
            root.bucket, prefix=root.prefix, config=settings, client_options=client, retry_config=retry, **told
        )
    if root.scheme == "s3":
        return store.S3Store(
            root.bucket, prefix=root.prefix, config=settings, client_options=client, retry_config=retry
        )
    return store.HTTPStore.from_url(root.url, client_options=client, retry_config=retry)


def bearer(place: ExportPlace) -> Any:
    """The user's function, as obstore wants it."""
    credentials = place.credentials

    def ask() -> Mapping[str, Any]:
        token, expires = credentials()  # type: ignore[misc]
        return {"token": token, "expires_at": expires}

    return ask


class Bucket:
    """A root and its store: where lists and small objects come from."""

    def __init__(self, session: Session, root: Root) -> None:
        from .._transport.retry import Retrier

        self.root = root
        self.place = session.export_place
        self.store = open_store(session, root, self.place)
        self._gate = asyncio.Semaphore(AT_ONCE)
        self._again = Retrier(session.transport.retry, lambda _: None)

    async def level(self, path: str | None = None) -> Any:
        """List the objects and the folders right below a path."""
        import obstore

        return await self._ask(path, lambda: obstore.list_with_delimiter_async(self.store, path))

    async def objects(self, path: str) -> list[Any]:
        """List all objects below a path."""
        import obstore

        return list(await self._ask(path, lambda: obstore.list(self.store, path).collect_async()))

    async def read(self, path: str, size: int) -> bytes:
        """Read an object of a known size."""
        import obstore

        async def whole() -> bytes:
            reply = await obstore.get_async(self.store, path)
            data = bytes(await reply.bytes_async())
            if len(data) != size:
                raise DecodeError(f"{self.root.child(path)} came with {len(data):,} of its {size:,} bytes")
            return data

        data: bytes = await self._ask(path, whole)
        return data

    async def _ask(self, path: str | None, call: Callable[[], Awaitable[Any]]) -> Any:
        """Ask until an answer is whole: obstore asks again for bad statuses, but not for the rest of a broken list."""

        async def attempt() -> Any:
            try:
                with telling(self.root.url if path is None else self.root.child(path)):
                    return await call()
            except (ConnectError, DecodeError) as error:
                raise Failure(error, tries=None if isinstance(error, ConnectError) else 2) from error

        async with self._gate:
            return await self._again(attempt)


@contextmanager
def telling(url: str) -> Iterator[None]:
    """Raise what went wrong with an object or a list as an error of this package that names it."""
    try:
        yield
    except (CortexError, MemoryError):
        raise
    except Exception as error:
        found = failure(error, url)
        if found is None:
            raise
        raise found from error


def failure(error: Exception, url: str) -> CortexError | None:
    """What an error of obstore, deltalake or polars means; None if it is not about an object."""
    kind, text = type(error).__name__, str(error).partition("\n\nDebug source")[0]
    status = int(found[1]) if (found := STATUS.search(text)) else None
    short = " ".join(text.split())[:300]
    if kind in ("PermissionDeniedError", "UnauthenticatedError") or status in (401, 403) or "os error 13" in text:
        return MissingPermission(f"no permission to read {url} ({status or 'refused'}): {ACCESS}")
    if isinstance(error, FileNotFoundError) or kind in ("NotFoundError", "TableNotFoundError") or status == 404:
        return NotFoundError(f"there is no {url}; client.exports.available_data_df() lists what there is")
    if kind == "PreconditionError" or status == 412:
        return UnavailableError(f"{url} was replaced by another one while it was read: ask again")
    if status == 429:
        return RateLimited(f"{url} is asked for too often (429)")
    if status is not None and status >= 500:
        return ServerError(f"{url} could not be had, however often it was asked for", status=status, detail=short)
    if status is not None:
        return ServerRefusedError(f"{url} was refused", status=status, detail=short)
    if "HTTP error" in text or "error sending request" in text or "response body" in text:
        return ConnectError(f"the connection to {url} failed or broke: {short}", sent=True)
    if type(error).__module__.startswith(("obstore", "deltalake", "_internal")) or kind in (
        "ComputeError",
        "BaseError",
    ):
        return DecodeError(f"what came of {url} cannot be read: {short}")
    return None
