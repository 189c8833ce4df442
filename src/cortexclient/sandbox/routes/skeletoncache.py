"""The skeleton service (SkeletonService 0.23.11), and its bucket."""

from __future__ import annotations

import json
import math
import re
from datetime import UTC, datetime
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import orjson

from .. import costs
from ..calls import JSON, Call, Reply, Route, RouteTable
from ..layout import Ids
from ..skeleton_formats import BINARY, FORMATS, packed
from ..skeletons import GENERATORS, Skeletons

if TYPE_CHECKING:
    from ..world import World

VERSIONS: Final = (-1, 0, 1, 2, 3, 4)
RESOLVED: Final = {-1: 4, 0: 2}
"""The newest, and the one for Neuroglancer."""
BULK_MOST, CACHED_MOST = 10, 500
KEPT_BODIES: Final = 1_024
BULK_SINCE: Final = (0, 23, 9)
"""Version of the service that brought the bulk route and the token to the bucket."""
MISSING: Final = "#missing"
"""What the rate of requests for skeletons that are not there is counted under, behind the route's path."""


class RefusedError(Exception):
    """A root that the service makes no skeleton of: a 400 with its reason."""


class UnknownRouteError(Exception):
    """An older service does not have this route."""


def on_error(call: Call, error: Exception) -> Reply:
    """What is the matter with a root is a 400; anything else is a 500 without a word, which is repaired to a 400."""
    if isinstance(error, RefusedError):
        return _answer({"Error": str(error)}, 400)
    if isinstance(error, UnknownRouteError):
        return _answer({"message": "The requested URL was not found on the server."}, 404)
    if isinstance(error, _BadFormatError):
        return _answer({"Error": "" if call.strict else f"there is no format {error}"}, 500 if call.strict else 400)
    if call.strict:
        return _answer({"message": "Internal Server Error"}, 500)
    return _answer({"message": f"{type(error).__name__}: {error}"}, 400)


def wrong_method(_: Call) -> Reply:
    """The service words this one in JSON."""
    return _answer({"message": "The method is not allowed for the requested URL."}, 405)


class _BadFormatError(Exception):
    pass


def _answer(value: Any, status: int = 200, price: float = 0.0) -> Reply:
    return Reply(json.dumps(value).encode() + b"\n", status, price=price)


def service_version(world: World, call: Call) -> Reply:  # noqa: ARG001 - handlers share one signature
    """Version of the service."""
    return _answer(world.skeletons.service_version)


def versions(_: World, call: Call) -> Reply:  # noqa: ARG001
    """Versions of skeletons."""
    return _answer(list(VERSIONS))


def health(_: World, call: Call) -> Reply:  # noqa: ARG001
    """Whether it is well."""
    return _answer("healthy")


def about(_: World, call: Call) -> Reply:
    """What stands above the skeletons."""
    return _answer({"datastack_name": call.params["datastack"]})


def info(_: World, call: Call) -> Reply:
    """Neuroglancer's description of the skeletons of a version; one without number is meant for it."""
    version = int(call.params.get("version", "2"))
    if version not in (1, 2, 3, 4):
        raise ValueError(f"no description of version {version}")
    kind = "float32" if version == 2 else "uint8"
    described = [("radius", "float32"), ("compartment", kind)] if version > 1 else []
    attributes = [{"id": name, "data_type": kind, "num_components": 1} for name, kind in described]
    unity = [1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1, 0]
    return _answer({"@type": "neuroglancer_skeletons", "transform": unity, "vertex_attributes": attributes})


def get_skeleton(world: World, call: Call) -> Reply:
    """One skeleton. A root without one is queued, and the answer waits for it; so long that a proxy may step in."""
    root_id, version = int(call.params["root"]), _version(call)
    form = call.params.get("format", "precomputed")
    if form == "h5" and call.strict:
        raise ValueError("the recorded service could not write it")  # its files had no inner "meta"
    if form not in FORMATS and form != "none":
        raise _BadFormatError(form)
    _check(world, root_id)
    store, ids = world.skeletons, np.array([root_id], np.int64)
    wait = 0.0
    if not store.cached(ids, call.now_ms)[0]:
        store.queue(ids, call.now_ms, timed=call.timed)
        wait = store.waiting_s(root_id, call.now_ms)
    if form == "none":
        return _answer(f"Skeleton {root_id} is queued" if wait else f"Skeleton {root_id} is there")
    if wait > costs.PROXY_PATIENCE:
        page = b"<html><head><title>504 Gateway Time-out</title></head></html>"
        return Reply(page, 504, "text/html", price=costs.PROXY_PATIENCE)
    _, content_type, compressible = FORMATS[form]
    body = _body(store, root_id, call.params["datastack"], version, form)
    headers = [] if content_type == JSON else [("Content-Disposition", "attachment")]
    if compressible:
        headers.append(("Vary", "Accept-Encoding"))
        if "gzip" in call.headers.get("accept-encoding", ""):
            body = packed(body)
            headers.append(("Content-Encoding", "gzip"))
    return Reply(body, 200, content_type, tuple(headers), price=costs.SKELETON_READ + wait)


def rate_of(world: World, call: Call) -> str:
    """Skeletons that are not there are asked for at another rate."""
    ids = np.array([int(call.params["root"])], np.int64) if call.params["root"].isdecimal() else np.zeros(0, np.int64)
    return "" if world.skeletons.cached(ids, call.now_ms).all() else MISSING


@lru_cache(maxsize=KEPT_BODIES)
def _body(store: Skeletons, root_id: int, datastack: str, version: int, form: str) -> bytes:
    make, _, _ = FORMATS[form]
    return make(store.get(root_id), datastack, version)


def _hex(store: Skeletons, root_id: int, datastack: str, version: int, form: str) -> str:
    # (SkeletonService 0.23.11: in bulk, swccompressed is the plain text)
    return _body(store, root_id, datastack, version, "swc" if form == "swccompressed" else form).hex()


def get_bulk(world: World, call: Call) -> Reply:
    """At most ten skeletons; those that are not there are queued, whatever the caller wants."""
    ids = _ids(call.params["ids"].split(","))[:BULK_MOST]
    store, form, version = world.skeletons, _bulk_format(call), _version(call)
    layers, roots = world.graph.layout.layer(ids), world.graph.is_root(ids)
    cached = store.cached(ids, call.now_ms)
    store.queue(ids[roots], call.now_ms, timed=call.timed)
    answer: dict[str, str] = {}
    for i, layer, good, there in zip(ids.tolist(), layers.tolist(), roots.tolist(), cached.tolist(), strict=True):
        if i in store.refused:
            continue
        if not good:
            answer[str(i)] = "invalid_rid" if layer == world.graph.layout.n_layers else "invalid_layer_rid"
        else:
            answer[str(i)] = _hex(store, i, call.params["datastack"], version, form) if there else "async"
    return Reply(orjson.dumps(answer), price=costs.SKELETON_READ * len(ids))


def get_cached(world: World, call: Call) -> Reply:
    """Up to 500 skeletons that are there; nothing is said of the others."""
    _since(world.skeletons, BULK_SINCE)
    asked = call.json()
    ids, form, version = _ids(asked["root_ids"]), _bulk_format(call), _version(call)
    if len(ids) > CACHED_MOST:
        raise RefusedError(f"Too many root IDs requested: {len(ids)}. Maximum allowed is {CACHED_MOST}.")
    store = world.skeletons
    cached = store.cached(ids, call.now_ms)
    if asked.get("generate_missing"):
        store.queue(ids[~cached], call.now_ms, timed=call.timed)
    answer = {str(i): _hex(store, i, call.params["datastack"], version, form) for i in ids[cached].tolist()}
    return Reply(orjson.dumps(answer), price=costs.SKELETON_READ * len(ids))


def generate(world: World, call: Call) -> Reply:
    """Queue skeletons; the answer is a guess of the seconds until they are there."""
    ids = _ids(call.json()["root_ids"])
    dispatched = world.skeletons.queue(ids, call.now_ms, timed=call.timed)
    return _answer(math.ceil(dispatched / GENERATORS) * 60, price=costs.SKELETON_EXISTS * len(ids))


def exists(world: World, call: Call) -> Reply:
    """Whether skeletons are there: an object, and for one id a bare answer. The version does not matter."""
    ids = _ids(call.json()["root_ids"])
    found = world.skeletons.cached(ids, call.now_ms).tolist()
    price = costs.SKELETON_EXISTS * len(ids)
    return _answer(found[0] if len(ids) == 1 else dict(zip(map(str, ids.tolist()), found, strict=True)), price=price)


def exists_by_path(world: World, call: Call) -> Reply:
    """The older way to ask; with several ids it fails (0.23.11)."""
    ids = _ids(call.params["ids"].split(","))
    if len(ids) > 1 and call.strict:
        raise ValueError("one id at a time")
    return _answer(bool(world.skeletons.cached(ids, call.now_ms).all()))


def query_cache(world: World, call: Call) -> Reply:
    """Names of the files of roots that begin in one of some ways. Only version 4 is stored."""
    prefixes, limit = tuple(call.params["prefixes"].split(",")), int(call.params["limit"])
    roots = world.skeletons.bucket(call.now_ms) if int(call.params["version"]) == 4 else []
    found = sorted((i for i in roots if str(i).startswith(prefixes)), reverse=True)
    listed = found[:limit] if limit else found
    return _answer({"num_found": len(found), "files": [_file(call.params["datastack"], i) for i in listed]})


def _file(datastack: str, root_id: int | str) -> str:
    return f"skeleton__v4__rid-{root_id}__ds-{datastack}__res-1x1x1__cs-True__cr-7500.h5.gz"


def refusal_list(world: World, call: Call) -> Reply:
    """The roots that are refused, as packed CSV with a header."""
    rows = "".join(f"{call.params['datastack']},{i}\n" for i in world.skeletons.refusals(call.now_ms))
    headers = (("Content-Disposition", "attachment"),)
    return Reply(packed(f"DATASTACK_NAME,ROOT_ID\n{rows}".encode()), 200, BINARY, headers)


def token(world: World, call: Call) -> Reply:
    """The key to the bucket; the recorded service has no Google account to get one from."""
    store, datastack = world.skeletons, call.params["datastack"]
    _since(store, BULK_SINCE)
    _version(call)
    if call.strict:
        return _answer({"message": "Internal Server Error"}, 500)
    value, until_ms = store.passes.issue(call.now_ms)
    expiry = datetime.fromtimestamp(until_ms / 1000, UTC).replace(tzinfo=None).isoformat()
    path = f"{datastack}/4/{_file(datastack, '{rid}')}"
    return _answer(
        {"token": value, "token_type": "Bearer", "expiry": expiry, "bucket": BUCKET, "path_template": path},
        price=costs.BUCKET_TOKEN,
    )


BUCKET: Final = "cave_skeletons"
OBJECT: Final = re.compile(r"(?P<datastack>[^/]+)/4/skeleton__v4__rid-(?P<root>\d+)__ds-(?P=datastack)__res-.*\.h5\.gz")


def read_object(world: World, call: Call) -> Reply:
    """A file of the bucket, as Google's storage answers: with a good token, and without any ``Content-Encoding``."""
    store = world.skeletons
    if not store.passes.open(call.headers.get("authorization", "").removeprefix("Bearer "), call.now_ms):
        return _google_error(401, "Invalid Credentials")
    found = OBJECT.fullmatch(call.params["path"]) if call.params["bucket"] == BUCKET else None
    if found is None or not store.cached(np.array([int(found["root"])], np.int64), call.now_ms)[0]:
        return _google_error(404, f"No such object: {call.params['bucket']}/{call.params['path']}")
    return Reply(_stored(store, int(found["root"]), found["datastack"]), 200, BINARY)


def _google_error(status: int, message: str) -> Reply:
    return _answer({"error": {"code": status, "message": message, "errors": [{"message": message}]}}, status)


@lru_cache(maxsize=KEPT_BODIES)
def _stored(store: Skeletons, root_id: int, datastack: str) -> bytes:
    make, _, _ = FORMATS["h5"]
    return packed(make(store.get(root_id), datastack, 4))


def _since(store: Skeletons, version: tuple[int, ...]) -> None:
    """Refuse what came with a later version of the service."""
    if tuple(map(int, store.service_version.split("."))) < version:
        raise UnknownRouteError


def _check(world: World, root_id: int) -> None:
    """Refuse what is on the list, of another layer, or unknown."""
    layout = world.graph.layout
    if root_id in world.skeletons.refused:
        raise RefusedError(f"Problematic root id: {root_id} is in the refusal list")
    if layout.layer(root_id) != layout.n_layers:
        raise RefusedError(
            f"Invalid root id: {root_id} (perhaps this is an id corresponding to a different level of the PCG, e.g., a "
            "supervoxel id)"
        )
    if not world.graph.is_root([root_id])[0]:
        raise RefusedError(f"Invalid root id: {root_id} (perhaps it doesn't exist; the error is unclear)")


def _version(call: Call) -> int:
    version = int(call.params.get("version", "0"))
    if version not in VERSIONS:
        raise ValueError(f"no skeletons of version {version}")
    return RESOLVED.get(version, version)


def _bulk_format(call: Call) -> str:
    form = call.params["format"]
    if form not in ("flatdict", "swccompressed"):
        raise _BadFormatError(form)
    return form


def _ids(values: list[Any]) -> Ids:
    """Ids as integers or as text: caveclient sends both."""
    return np.array([int(value) for value in values], np.int64)


_GET, _POST = ("GET",), ("POST",)
_P = "/skeletoncache/api/v1/{datastack}"
_S = f"{_P}/precomputed/skeleton"


def _open(path: str, handler: Any) -> Route:
    return Route(_GET, path, handler, permission=None)


def _get(path: str, handler: Any) -> Route:
    return Route(_GET, path, handler, resource="datastack")


def _post(path: str, handler: Any) -> Route:
    return Route(_POST, path, handler, resource="datastack")


TABLE = RouteTable(
    "skeleton",
    (
        _open("/skeletoncache/api/version", service_version),
        _open("/skeletoncache/api/versions", versions),
        _open("/skeletoncache/health", health),
        _get(f"{_P}/precomputed", about),
        _get(f"{_S}/info", info),
        _get(f"{_S}/get_refusal_list", refusal_list),
        _post(f"{_S}/exists", exists),
        _get(f"{_S}/exists/{{version}}/{{ids}}", exists_by_path),
        _get(f"{_S}/query_cache/{{version}}/{{prefixes}}/{{limit}}", query_cache),
        _get(f"{_S}/{{version}}/info", info),
        *(
            Route(_GET, f"{_P}/{way}/{rest}", get_skeleton, resource="datastack", rate=rate_of)
            for way in ("precomputed/skeleton", "async/get_skeleton")
            for rest in ("{version}/{root}/{format}", "{version}/{root}", "{root}")
        ),
        _get(f"{_P}/bulk/get_skeletons/{{version}}/{{format}}/{{generate}}/{{ids}}", get_bulk),
        _post(f"{_P}/bulk/get_cached_skeletons/{{version}}/{{format}}", get_cached),
        _post(f"{_P}/bulk/get_skeleton_token/{{version}}", token),
        _post(f"{_P}/bulk/gen_skeletons", generate),
    ),
    on_error=on_error,
    wrong_method=wrong_method,
)

BUCKET_TABLE = RouteTable(
    "storage", (_open("/storage/download/storage/v1/b/{bucket}/o/{path:path}", read_object),), on_error=on_error
)
"""Google's storage, as the tokens open it (its JSON API)."""
