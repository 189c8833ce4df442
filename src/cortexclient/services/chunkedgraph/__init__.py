"""The chunkedgraph service: supervoxels, roots and their history."""

from __future__ import annotations

from ._history import History
from ._logs import Logs


class AsyncChunkedGraph(History, Logs):
    """Supervoxels, roots and their history, with caveclient's method names (``ChunkedGraphClient``).

    Lists of ids may be of any length: they are deduplicated, cut into batches and asked in parallel, and the answers
    come back in the order of the input. Where no ``timestamp`` is given, the client's pinned instant counts, else now,
    resolved once for the whole call.
    """


__all__ = ["AsyncChunkedGraph"]
