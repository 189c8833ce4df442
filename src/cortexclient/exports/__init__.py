"""Bulk exports: whole tables as files in a bucket, found, fetched and read as frames."""

from ._listing import Export
from ._service import AsyncExports

__all__ = ["AsyncExports", "Export"]
