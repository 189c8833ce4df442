"""Objects as local files: resumed where they broke off, checked, never half."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import anyio.to_thread

from ..errors import ConnectError, DecodeError
from ._listing import Export
from ._stores import telling

if TYPE_CHECKING:
    from obstore.store import ObjectStore

PIECE: Final = 8 << 20
MD5: Final = re.compile(r'"([0-9a-f]{32})"')


def cache_folder() -> Path:
    """Where fetched exports are kept: ``CORTEXCLIENT_CACHE``, else the user's folder of caches."""
    named = os.environ.get("CORTEXCLIENT_CACHE")
    if named:
        return Path(named).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "cortexclient"


async def fetch(store: ObjectStore, export: Export, part: Path, tell: Callable[[int], object]) -> None:
    """Fetch an object into ``part``, from where an earlier try left it.

    The name of ``part`` must change with the object. Several processes may fetch the same one at once: each writes the
    same bytes to the same places.

    Parameters
    ----------
    tell
        Is told how many bytes came.

    Raises
    ------
    DecodeError
        The bytes are not those that the store promised (its MD5); they are not kept.
    """
    import obstore

    with await anyio.to_thread.run_sync(_opened, part) as file:
        digest = await anyio.to_thread.run_sync(_digest, file)
        offset = file.tell()
        tell(offset)
        while offset < export.bytes:
            with telling(export.url):
                wanted: Any = {"range": {"offset": offset}} | _unchanged(export)
                reply = await obstore.get_async(store, export.path, options=wanted)
                before = offset
                async for piece in reply.stream(min_chunk_size=PIECE):
                    await anyio.to_thread.run_sync(_take, file, digest, piece)
                    offset += len(piece)
                    tell(len(piece))
            if offset == before:
                raise ConnectError(f"{export.url} ends after {offset:,} of its {export.bytes:,} bytes", sent=True)
        await anyio.to_thread.run_sync(os.fsync, file.fileno())
    promised = MD5.fullmatch(export.tag) if export.root.scheme == "gs" else None
    if offset > export.bytes or (promised and promised[1] != digest.hexdigest()):
        drop(part)
        raise DecodeError(f"what came of {export.url} is not what the bucket holds (its MD5 differs): ask again")


def _opened(part: Path) -> Any:
    """A file to go on with, made if it is not there."""
    part.parent.mkdir(parents=True, exist_ok=True)
    part.touch()
    return part.open("r+b")


def _unchanged(export: Export) -> dict[str, str]:
    """Only a file system and the cloud's own buckets have tags that can be insisted on."""
    return {"if_match": export.tag} if export.tag.startswith('"') else {}


def _digest(file: Any) -> Any:
    """MD5 of what is there already; the file stands at its end."""
    digest = hashlib.md5(usedforsecurity=False)
    while piece := file.read(PIECE):
        digest.update(piece)
    return digest


def _take(file: Any, digest: Any, piece: Any) -> None:
    file.write(piece)
    digest.update(piece)


def drop(path: Path) -> None:
    """Remove a file that nobody needs any more; another process may have done so, or still read it."""
    with suppress(OSError):
        path.unlink(missing_ok=True)
