"""The materialization service: versions, tables and views, and the rows in them."""

from __future__ import annotations

from ._catalogue import Catalogue
from ._queries import Queries
from ._versions import Versions


class AsyncMaterialize(Queries, Catalogue, Versions):
    """Versions, tables, views and their rows, with caveclient's method names (``MaterializationClient``).

    Where no version is given, the client's pinned one counts, else the newest that can be queried.
    """


__all__ = ["AsyncMaterialize"]
