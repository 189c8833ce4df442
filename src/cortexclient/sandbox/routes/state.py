"""The JSON state server (``/nglstate``), and the ``version.json`` that tells which Neuroglancer a viewer is."""

from __future__ import annotations

import json
import zlib
from typing import TYPE_CHECKING

from ..calls import JSON, Call, Handler, Reply, Route, RouteTable

if TYPE_CHECKING:
    from ..world import World

VERSION = "0.4.2"
VIEWER = {"tag": "v2.41", "url": "https://github.com/google/neuroglancer"}
"""A viewer that answers this is taken for one with current links (``#!middleauth+...``)."""


def version(_: World, call: Call) -> Reply:  # noqa: ARG001 - handlers share one signature
    """The service's version."""
    return Reply(json.dumps(VERSION).encode())


def viewer_version(_: World, call: Call) -> Reply:  # noqa: ARG001
    """What a Neuroglancer says of itself."""
    return Reply(json.dumps(VIEWER).encode())


def _upload(kind: str, prefix: str) -> Handler:
    def upload(world: World, call: Call) -> Reply:
        """Keep a document; the answer is its address, as a JSON string."""
        try:
            call.json()
        except ValueError:
            return Reply(b'{"message": "the body is no JSON"}\n', 400)
        number = int(call.params["id"]) if "id" in call.params else None
        number = world.states.put(kind, call.body, number)
        return Reply(json.dumps(f"{call.origin}/nglstate/api/v1/{prefix}{number}").encode())

    return upload


def _download(kind: str, *, raw: bool = False) -> Handler:
    def download(world: World, call: Call) -> Reply:
        """Give a document back as it was sent, or packed by zlib."""
        found = world.states.get(kind, int(call.params["id"]))
        if found is None:
            return Reply(b'{"message": "there is no such document"}\n', 404)
        return Reply(zlib.compress(found), content_type="application/octet-stream") if raw else Reply(found, 200, JSON)

    return download


_S = "/nglstate/api/v1"
_UPLOAD_STATE, _UPLOAD_PROPERTY = _upload("state", ""), _upload("property", "property/")
TABLE = RouteTable(
    "state",
    (
        Route(("GET",), f"{_S}/version", version, permission=None),
        Route(("POST",), f"{_S}/post", _UPLOAD_STATE),
        Route(("POST",), f"{_S}/post/{{id:int}}", _UPLOAD_STATE),
        Route(("GET",), f"{_S}/raw/{{id:int}}", _download("state", raw=True)),
        Route(("POST",), f"{_S}/property/post", _UPLOAD_PROPERTY),
        Route(("POST",), f"{_S}/property/post/{{id:int}}", _UPLOAD_PROPERTY),
        Route(("GET",), f"{_S}/property/raw/{{id:int}}", _download("property", raw=True)),
        Route(("GET",), f"{_S}/property/{{id:int}}/info", _download("property")),
        Route(("GET",), f"{_S}/{{id:int}}", _download("state")),
        Route(("GET",), "/ngl/version.json", viewer_version, permission=None),
        Route(("GET",), "/ngl//version.json", viewer_version, permission=None),
    ),
)
