"""Who may write into a job's folder: locks of the operating system, which end with their process, however it ends."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ..errors import CortexUsageError


@contextmanager
def locked(path: Path, *, shared: bool = False) -> Iterator[None]:
    """Hold a lock for the time of a block.

    Parameters
    ----------
    path
        The lock's file; it stays.
    shared
        Others may hold it too, but nobody alone.

    Raises
    ------
    CortexUsageError
        If somebody else holds it.
    """
    handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        if not _take(handle, shared):
            owner = os.pread(handle, 100, 1).decode(errors="replace") if hasattr(os, "pread") else ""
            raise CortexUsageError(
                f"{path.parent} is being written by another process{f' ({owner})' if owner else ''}: wait for it, or "
                "end it; what it has finished stays"
            )
        if not shared:  # from the second byte on: Windows cannot read a locked one
            os.ftruncate(handle, 0)
            os.lseek(handle, 1, os.SEEK_SET)
            os.write(handle, f"pid {os.getpid()} on {_host()}".encode())
        yield
    finally:
        os.close(handle)


def _host() -> str:
    import platform

    return platform.node()


def _take(handle: int, shared: bool) -> bool:
    try:
        import fcntl
    except ImportError:  # Windows has no shared ones: workers exclude each other there
        import msvcrt

        lock: Any = getattr(msvcrt, "locking")  # noqa: B009 (unknown to a type checker elsewhere)
        arguments: tuple[int, ...] = (handle, getattr(msvcrt, "LK_NBLCK"), 1)  # noqa: B009
    else:
        lock = fcntl.flock
        arguments = (handle, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
    try:
        lock(*arguments)
    except (BlockingIOError, PermissionError):
        return False
    return True
