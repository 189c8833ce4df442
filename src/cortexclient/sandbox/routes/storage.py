"""An object store: meshes, bulk exports and other files, for everybody, as public buckets serve them.

Two ways in, as Google's has: the XML one (``/storage/BUCKET/NAME``, which S3's clients speak too), and the JSON one
(``/storage/v1/b/BUCKET/o``), which Google's own library speaks where ``STORAGE_EMULATOR_HOST`` names the sandbox.
Objects are never compressed, so that a range of an object is a range of its bytes.
"""

from __future__ import annotations

import base64
import json
import re
from dataclasses import replace
from email.utils import formatdate
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote
from xml.sax.saxutils import escape

from ..auth import Accounts
from ..calls import JSON, Call, Handler, Reply, Route, RouteTable
from ..exports import GATED_BUCKET, Listing
from ..meshes import FOLDER

if TYPE_CHECKING:
    from ..world import World

BINARY: Final = "application/octet-stream"
XML: Final = "application/xml; charset=UTF-8"
RANGE: Final = re.compile(r"bytes=(\d*)-(\d*)")
PAGE: Final = 1_000
"""The most names in one answer."""
WRITTEN: Final = 1_700_000_000
"""When every object was written: seconds since the epoch."""


def get(world: World, call: Call) -> Reply:
    """An object, or one range of its bytes: 206 with exactly these, 416 if it begins behind the end."""
    bucket, path = call.params["bucket"], call.params["path"]
    found = _object(world, bucket, path)
    if found is None:
        return _failure("NoSuchKey", 404)
    kind = JSON if path.endswith(("info", ".json")) else BINARY
    headers = [("Accept-Ranges", "bytes"), ("Last-Modified", formatdate(WRITTEN, usegmt=True))]
    if bucket != world.graph.table:
        digest = world.exports.md5(f"{bucket}/{path}", found)
        tag = f'"{digest.hex()}"'
        if call.headers.get("if-match", tag) != tag:
            return _failure("PreconditionFailed", 412)
        headers += [("ETag", tag), ("x-goog-hash", f"md5={base64.b64encode(digest).decode()}")]
    asked = RANGE.fullmatch(call.headers.get("range", ""))
    if asked is None or asked.group() == "bytes=-":
        return Reply(found, content_type=kind, headers=tuple(headers))
    first, last = asked.groups()
    start = int(first) if first else max(len(found) - int(last), 0)
    stop = min(int(last) + 1, len(found)) if first and last else len(found)
    if start >= stop:
        return Reply(b"", 416, kind, (("Content-Range", f"bytes */{len(found)}"),))
    headers.append(("Content-Range", f"bytes {start}-{stop - 1}/{len(found)}"))
    return Reply(found[start:stop], 206, kind, tuple(headers))


def _object(world: World, bucket: str, path: str) -> bytes | None:
    folder, _, name = path.partition("/")
    if bucket != world.graph.table or folder != FOLDER or f"{bucket}/{path}" in world.files:
        return world.exports.read(f"{bucket}/{path}")
    return json.dumps(world.meshes.folder_info()).encode() if name == "info" else world.meshes.read(name)


def _failure(code: str, status: int) -> Reply:
    return Reply(f"<?xml version='1.0' encoding='UTF-8'?><Error><Code>{code}</Code></Error>".encode(), status, XML)


# -- lists -------------------------------------------------------------------------------------------------------------


def _page(world: World, call: Call, size: str, token: str) -> tuple[Listing, str]:
    """One page of what is listed, and the last name on it if there are more."""
    bucket, asked = call.params["bucket"], call.query
    whole = world.exports.list(bucket, asked.get("prefix", ""), asked.get("delimiter", ""))
    after, most = asked.get(token, ""), min(int(asked.get(size) or PAGE), PAGE)
    names = sorted(name for name in [*(n for n, _ in whole.objects), *whole.prefixes] if name > after)
    last = names[most - 1] if len(names) > most else ""
    page = Listing(
        [(name, data) for name, data in whole.objects if after < name and (not last or name <= last)],
        [name for name in whole.prefixes if after < name and (not last or name <= last)],
    )
    return page, last


def list_xml(world: World, call: Call) -> Reply:
    """The objects of a bucket, as ListObjectsV2 tells them."""
    page, last = _page(world, call, "max-keys", "continuation-token")
    bucket = call.params["bucket"]
    contents = [
        f"<Contents><Key>{escape(name)}</Key><LastModified>2023-11-14T22:13:20.000Z</LastModified>"
        f'<ETag>"{world.exports.md5(f"{bucket}/{name}", data).hex()}"</ETag><Size>{len(data)}</Size></Contents>'
        for name, data in page.objects
    ]
    folders = [f"<CommonPrefixes><Prefix>{escape(name)}</Prefix></CommonPrefixes>" for name in page.prefixes]
    more = f"<NextContinuationToken>{escape(last)}</NextContinuationToken>" if last else ""
    text = (
        f"<?xml version='1.0' encoding='UTF-8'?><ListBucketResult><Name>{escape(bucket)}</Name>"
        f"<Prefix>{escape(call.query.get('prefix', ''))}</Prefix><KeyCount>{len(contents) + len(folders)}</KeyCount>"
        f"<IsTruncated>{str(bool(last)).lower()}</IsTruncated>{more}{''.join(contents + folders)}</ListBucketResult>"
    )
    return Reply(text.encode(), content_type=XML)


def list_json(world: World, call: Call) -> Reply:
    """The objects of a bucket, as Google's JSON interface tells them."""
    page, last = _page(world, call, "maxResults", "pageToken")
    document: dict[str, Any] = {
        "kind": "storage#objects",
        "items": [_record(world, call, name, data) for name, data in page.objects],
        "prefixes": page.prefixes,
    }
    return _json(document | ({"nextPageToken": last} if last else {}))


def describe(world: World, call: Call) -> Reply:
    """The record of one object, or the object itself with ``alt=media``."""
    bucket, path = call.params["bucket"], call.params["path"]
    found = _object(world, bucket, path)
    if found is None:
        return _json({"error": {"code": 404, "message": f"No such object: {bucket}/{path}"}}, 404)
    return get(world, call) if call.query.get("alt") == "media" else _json(_record(world, call, path, found))


def _record(world: World, call: Call, name: str, data: bytes) -> dict[str, Any]:
    bucket = call.params["bucket"]
    digest = world.exports.md5(f"{bucket}/{name}", data)
    return {
        "kind": "storage#object",
        "name": name,
        "bucket": bucket,
        "size": str(len(data)),
        "md5Hash": base64.b64encode(digest).decode(),
        "etag": digest.hex(),
        "generation": str(WRITTEN * 1_000_000),
        "updated": "2023-11-14T22:13:20.000Z",
        "contentType": BINARY,
        "mediaLink": f"{call.origin}/download/storage/v1/b/{bucket}/o/{quote(name, safe='')}?alt=media",
    }


def _json(document: dict[str, Any], status: int = 200) -> Reply:
    return Reply(json.dumps(document).encode(), status, JSON)


GET: Final = ("GET",)
TABLE: Final = RouteTable(
    "storage",
    (
        Route(GET, "/storage/{bucket}", list_xml, None),
        Route(GET, "/storage/v1/b/{bucket}/o", list_json, None),
        Route(GET, "/storage/v1/b/{bucket}/o/{path:path}", describe, None),
        Route(GET, "/download/storage/v1/b/{bucket}/o/{path:path}", describe, None),
        Route(GET, "/storage/{bucket}/{path:path}", get, None),
    ),
)


def gated(accounts: Accounts) -> RouteTable:
    """The bucket that wants a token, and refuses whoever shows none as Google's does."""

    def for_members(handler: Handler) -> Handler:
        def ask(world: World, call: Call) -> Reply:
            if isinstance(accounts.identify(call), Reply):
                return _failure("AuthenticationRequired", 401)
            return handler(world, replace(call, params={**call.params, "bucket": GATED_BUCKET}))

        return ask

    place = f"/storage/{GATED_BUCKET}"
    listed = Route(GET, place, for_members(list_xml), None)
    return RouteTable("storage", (listed, Route(GET, f"{place}/{{path:path}}", for_members(get), None)))
