"""An object store (``/storage/BUCKET/PATH``): meshes and other files, for everybody, as public buckets serve them.

Objects are never compressed, so that a range of an object is a range of its bytes.
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Final

from ..calls import JSON, Call, Reply, Route, RouteTable
from ..meshes import FOLDER

if TYPE_CHECKING:
    from ..world import World

BINARY: Final = "application/octet-stream"
XML: Final = "application/xml; charset=UTF-8"
RANGE: Final = re.compile(r"bytes=(\d*)-(\d*)")


def get(world: World, call: Call) -> Reply:
    """An object, or one range of its bytes: 206 with exactly these, 416 if it begins behind the end."""
    found = _object(world, call.params["bucket"], call.params["path"])
    if found is None:
        text = "<?xml version='1.0' encoding='UTF-8'?><Error><Code>NoSuchKey</Code></Error>"
        return Reply(text.encode(), 404, XML)
    kind = JSON if call.params["path"].endswith(("info", ".json")) else BINARY
    asked = RANGE.fullmatch(call.headers.get("range", ""))
    if asked is None or asked.group() == "bytes=-":
        return Reply(found, content_type=kind, headers=(("Accept-Ranges", "bytes"),))
    first, last = asked.groups()
    start = int(first) if first else max(len(found) - int(last), 0)
    stop = min(int(last) + 1, len(found)) if first and last else len(found)
    if start >= stop:
        return Reply(b"", 416, kind, (("Content-Range", f"bytes */{len(found)}"),))
    return Reply(found[start:stop], 206, kind, (("Content-Range", f"bytes {start}-{stop - 1}/{len(found)}"),))


def _object(world: World, bucket: str, path: str) -> bytes | None:
    stored = world.files.get(f"{bucket}/{path}")
    folder, _, name = path.partition("/")
    if stored is not None or bucket != world.graph.table or folder != FOLDER:
        return stored
    return json.dumps(world.meshes.folder_info()).encode() if name == "info" else world.meshes.read(name)


TABLE: Final = RouteTable("storage", (Route(("GET",), "/storage/{bucket}/{path:path}", get, None),))
