"""What a scheduler says before it kills."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def on_sigterm(call: Callable[[], object]) -> Iterator[None]:
    """Have SIGTERM call something for the time of a block; on any thread but the main one it stays as it is."""
    try:
        before = signal.signal(signal.SIGTERM, lambda *_: call())
    except ValueError:  # Python hears signals on its main thread alone
        yield
        return
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
