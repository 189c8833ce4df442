"""Parts of a world that are made when somebody asks for them."""

from __future__ import annotations

import threading
from functools import cached_property
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    made_once = cached_property
else:

    class made_once(cached_property):  # noqa: N801 (reads as a decorator)
        """A cached property of which two threads, a test's and a server's, find the same.

        From Python 3.12 on, those of the standard library may be made twice.
        """

        _making = threading.RLock()

        def __get__(self, owner: Any, kind: type | None = None) -> Any:
            with self._making:
                return super().__get__(owner, kind)
