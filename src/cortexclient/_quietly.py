"""Imports of packages whose own dependencies warn while they are loaded."""

from __future__ import annotations

import sys
import threading
import warnings
from importlib import import_module
from typing import Any

_loading = threading.Lock()


def quietly(module: str) -> Any:
    """Import a module without its warnings.

    The filters of warnings are the whole process's: two threads that change them at once may leave them changed for
    good. So they are changed once for each module, by one thread at a time.

    Raises
    ------
    ImportError
        It is not installed.
    """
    if module in sys.modules:
        return import_module(module)  # which waits for a thread that is still at it
    with _loading, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return import_module(module)
