"""Async, high-throughput client for CAVE connectomics datasets (minnie65, v1dd, ...).

:class:`AsyncCortexClient` fans out batched look-ups with bounded concurrency and retry; :class:`CortexClient` is the
same API, blocking, for notebooks. Everything here is loaded at first use: ``import cortexclient`` alone costs a few
milliseconds.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ._client import AsyncCortexClient
    from ._load import load_client
    from ._sync.client import CortexClient
    from ._twin import SyncStream
    from ._types import Ids, Snapshot, When
    from .bulk.blocking import BulkJob
    from .bulk.job import AsyncBulkJob
    from .config import Limits, RetryPolicy, Timeouts
    from .datasets import DatasetSpec, get_spec, known_specs, register
    from .errors import (
        AuthError,
        CortexError,
        CortexUsageError,
        DecodeError,
        NotFoundError,
        PartialFailure,
        ServerRefusedError,
        TruncatedResult,
        UnavailableError,
    )
    from .mapping import CellIndex
    from .progress import Progress
    from .results import Outcome, Results, Stream

_HOMES = {
    "AsyncBulkJob": ".bulk.job",
    "AsyncCortexClient": "._client",
    "AuthError": ".errors",
    "BulkJob": ".bulk.blocking",
    "CellIndex": ".mapping",
    "CortexClient": "._sync.client",
    "CortexError": ".errors",
    "CortexUsageError": ".errors",
    "DatasetSpec": ".datasets.spec",
    "DecodeError": ".errors",
    "Ids": "._types",
    "Limits": ".config",
    "NotFoundError": ".errors",
    "Outcome": ".results",
    "PartialFailure": ".errors",
    "Progress": ".progress",
    "Results": ".results",
    "RetryPolicy": ".config",
    "ServerRefusedError": ".errors",
    "Snapshot": "._types",
    "Stream": ".results",
    "SyncStream": "._twin",
    "Timeouts": ".config",
    "TruncatedResult": ".errors",
    "UnavailableError": ".errors",
    "When": "._types",
    "get_spec": ".datasets.spec",
    "known_specs": ".datasets.spec",
    "load_client": "._load",
    "register": ".datasets.spec",
}

__all__ = [
    "AsyncBulkJob",
    "AsyncCortexClient",
    "AuthError",
    "BulkJob",
    "CellIndex",
    "CortexClient",
    "CortexError",
    "CortexUsageError",
    "DatasetSpec",
    "DecodeError",
    "Ids",
    "Limits",
    "NotFoundError",
    "Outcome",
    "PartialFailure",
    "Progress",
    "Results",
    "RetryPolicy",
    "ServerRefusedError",
    "Snapshot",
    "Stream",
    "SyncStream",
    "Timeouts",
    "TruncatedResult",
    "UnavailableError",
    "When",
    "__version__",
    "get_spec",
    "known_specs",
    "load_client",
    "register",
]


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version

        return version("cortexclient")
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(_HOMES[name], __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__
