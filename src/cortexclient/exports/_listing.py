"""What exports there are: one walk through the folders of each root, with sizes."""

from __future__ import annotations

import asyncio
import difflib
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import chain
from typing import Any, Final

from ..errors import NotFoundError
from ._stores import Bucket, Root

VERSION: Final = re.compile(r"(?:.*/)?v(\d+)")
DATA: Final = ".csv.gz"
HEADER: Final = "_header.csv"


@dataclass(frozen=True, slots=True)
class Export:
    """One export of one table or view at one version.

    Examples
    --------
    >>> export = (await client.exports.available_files())[0]
    >>> export.name, export.version, export.kind
    ('aibs_metamodel_celltypes_v661', 117, 'csv')
    """

    name: str
    """Of the table or view, as the file is called."""
    version: int
    kind: str
    """``csv``: a gzipped dump. ``delta``: a Delta Lake."""
    ordering: str
    """The column that a Delta Lake is partitioned and sorted by; empty for a dump."""
    bytes: int
    updated: datetime
    """When it was last written (UTC)."""
    root: Root
    path: str
    """The dump or the folder of the lake, below its root."""
    tag: str
    """Changes whenever the dump does: the store's own tag, of GCS its MD5."""
    header_bytes: int = 0
    """Of the file beside a dump that tells its columns; 0: there is none."""

    @property
    def url(self) -> str:
        """Where it is.

        Examples
        --------
        >>> (await client.exports.available_files())[0].url
        'gs://...csv.gz'
        """
        return self.root.child(self.path)


async def walk(bucket: Bucket) -> list[Export]:
    """List all exports of a root. A header without its dump is of one that is still being written: no export."""

    async def version(folder: str, number: int) -> list[Export]:
        found = await bucket.level(folder)
        headers = {item["path"]: item["size"] for item in found["objects"] if item["path"].endswith(HEADER)}
        dumps = [item for item in found["objects"] if item["path"].endswith(DATA)]
        tables = found["common_prefixes"]
        files = await asyncio.gather(*map(bucket.objects, tables))
        parts = [_lakes(table, objects, number, bucket.root) for table, objects in zip(tables, files, strict=True)]
        return [*(_dump(item, headers, number, bucket.root) for item in dumps), *chain.from_iterable(parts)]

    top = (await bucket.level())["common_prefixes"]
    if not top and bucket.root.scheme in ("http", "https"):
        raise NotFoundError(
            f"{bucket.root.url} lists nothing, as web pages seldom do: name the bucket behind it (gs://, s3://)"
        )
    folders = [(path, VERSION.fullmatch(path)) for path in top]
    parts = await asyncio.gather(*(version(path, int(found[1])) for path, found in folders if found))
    return list(chain.from_iterable(parts))


def header_of(path: str) -> str:
    """Where the header of a dump is."""
    return path.removesuffix(DATA) + HEADER


def _dump(item: Any, headers: Mapping[str, int], version: int, root: Root) -> Export:
    path, tag = item["path"], item["e_tag"] or str(item["last_modified"])
    name = path.rpartition("/")[2].removesuffix(DATA)
    header = headers.get(header_of(path), 0)
    return Export(name, version, "csv", "", item["size"], item["last_modified"], root, path, tag, header)


def _lakes(table: str, objects: Sequence[Any], version: int, root: Root) -> list[Export]:
    """The lakes among the files of a table's folder: those that have a log, in it or one level below."""
    logs = sorted({item["path"].partition("/_delta_log/")[0] for item in objects if "/_delta_log/" in item["path"]})
    found = []
    for lake in logs:
        files = [item for item in objects if item["path"].startswith(f"{lake}/")]
        size = sum(
            item["size"] for item in files if item["path"].endswith(".parquet") and "/_delta_log/" not in item["path"]
        )
        updated = max(item["last_modified"] for item in files)
        ordering = lake.removeprefix(table).strip("/")
        found.append(Export(table.rpartition("/")[2], version, "delta", ordering, size, updated, root, lake, ""))
    return found


def find(exports: Iterable[Export], name: str, version: int) -> list[Export]:
    """The exports of a table at a version.

    Raises
    ------
    NotFoundError
        With the nearest names, or the versions that there are.
    """
    there = list(exports)
    named = [export for export in there if export.name == name]
    if not named:
        names = sorted({export.name for export in there})
        nearest = difflib.get_close_matches(name, names, n=3, cutoff=0.3)
        told = f"; the nearest are {', '.join(nearest)}" if nearest else f"; there are {len(names)} others"
        raise NotFoundError(f"no table or view called {name!r} is exported{told}", nearest=nearest)
    found = [export for export in named if export.version == version]
    if not found:
        versions = sorted({export.version for export in named}, key=lambda v: (abs(v - int(version)), v))
        text = f"{name} is not exported at version {version}, but at {', '.join(map(str, sorted(versions)))}"
        raise NotFoundError(text, nearest=map(str, versions[:3]))
    return found
