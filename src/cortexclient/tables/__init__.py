"""``client.tables`` and ``client.views``: rows by name, with filters as keyword arguments."""

from __future__ import annotations

from ._listing import AsyncTable, AsyncTables, AsyncView, AsyncViews
from ._query import AsyncTableQuery, AsyncViewQuery

__all__ = ["AsyncTable", "AsyncTableQuery", "AsyncTables", "AsyncView", "AsyncViewQuery", "AsyncViews"]
