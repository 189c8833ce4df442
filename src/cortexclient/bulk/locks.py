"""Who may write into a job's folder: locks of the operating system, which end with their process, however it ends."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any

from ..errors import CortexUsageError


@contextmanager
def locked(path: Path, *, shared: bool = False) -> Iterator[None]:
    """Hold a lock for the time of a block.

    Parameters
    ----------
    path
        The lock's file. It stays, unless the block removes it, which only a holder may.
    shared
        Others may hold it too, but nobody alone.

    Raises
    ------
    CortexUsageError
        If somebody else holds it.
    """
    handle = _opened(path, shared)
    try:
        os.ftruncate(handle, 0)  # the name of an earlier holder
        if not shared:  # from the second byte on: Windows cannot read a locked one
            os.lseek(handle, 1, os.SEEK_SET)
            os.write(handle, f"pid {os.getpid()} on {_host()}".encode())
        yield
    finally:
        _release(handle)
        os.close(handle)


def _opened(path: Path, shared: bool) -> int:
    """The file, with the lock."""
    while True:
        handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            _take(handle, shared)
        except (BlockingIOError, PermissionError):
            raise _refusal(path, handle) from None
        except BaseException:
            os.close(handle)
            raise
        if _is_at(path, handle):
            return handle
        os.close(handle)  # its last holder has removed it since it was opened: others would lock a new file


def _is_at(path: Path, handle: int) -> bool:
    try:
        return os.path.samestat(path.stat(), os.fstat(handle))
    except FileNotFoundError:
        return False


def _refusal(path: Path, handle: int) -> CortexUsageError:
    os.lseek(handle, 1, os.SEEK_SET)
    owner = os.read(handle, 100).decode(errors="replace")
    os.close(handle)
    return CortexUsageError(
        f"{path.parent} is being written by another process{f' ({owner})' if owner else ''}: wait for it, or end it; "
        "what it has finished stays"
    )


def _host() -> str:
    import platform

    return platform.node()


def _take(handle: int, shared: bool) -> None:
    try:
        import fcntl
    except ImportError:  # Windows has no shared ones: workers exclude each other there
        _locking(handle, "LK_NBLCK")
    else:
        fcntl.flock(handle, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)


def _release(handle: int) -> None:
    """Give it back now: a child that is just being forked still has the file open, and Windows takes its time."""
    try:
        import fcntl
    except ImportError:
        _locking(handle, "LK_UNLCK")
    else:
        fcntl.flock(handle, fcntl.LOCK_UN)


def _locking(handle: int, how: str) -> None:
    msvcrt: Any = import_module("msvcrt")  # unknown to a type checker elsewhere
    os.lseek(handle, 0, os.SEEK_SET)  # it locks from where the file stands
    msvcrt.locking(handle, getattr(msvcrt, how), 1)
