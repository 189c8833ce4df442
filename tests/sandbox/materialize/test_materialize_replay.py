"""Recorded exchanges of a real materialization server (and schema service), put to the handlers of the sandbox.

Every exchange under ``/materialize/`` and ``/schema/`` is compared in strict mode as `tools/replay.py` of the
recordings does it: status and body, with clocks and addresses folded; besides, the headers that caveclient reads must
be equal. The exchanges that differ are named in `DIFFERENT`, each with the reason.
"""

from __future__ import annotations

import ast
import base64
import gzip
import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any
from urllib.parse import parse_qsl

import pytest

from cortexclient.sandbox.calls import Call, Reply
from cortexclient.sandbox.router import Match, Router
from cortexclient.sandbox.routes import materialize, schema
from cortexclient.sandbox.schemas import documents
from cortexclient.sandbox.world import World

NOW_MS = 1_795_300_000_000
ROUTER = Router([materialize.TABLE, schema.TABLE])
GROUPS = ("live", "meta", "pinned", "public", "query", "schema", "tables", "views")
READ_BY_CLIENTS = ("Warning", "dataframe_resolution", "column_names")

ROW_ORDER = (
    "which rows a limit keeps is the choice of PostgreSQL's planner; here rows keep the order they were written in"
)
SAMPLED = "random_sample draws pages at random"
LATER = "recorded before the tables of the expired version 1 were registered"
TEXTS = "schemas come without descriptions, enumerations and display hints"
NOT_BUILT = "not part of the sandbox: annotation sources for neuroglancer, views of the live database (version 0)"

DIFFERENT: dict[str, str] = {
    **dict.fromkeys(("query:133", "query:150", "query:151", "query:216", "query:217", "query:236"), ROW_ORDER),
    **dict.fromkeys(("query:251", "tables:32", "live:31"), ROW_ORDER),
    **dict.fromkeys(("query:211", "query:212", "query:213", "live:51"), SAMPLED),
    **dict.fromkeys(("meta:24", "meta:30", "meta:45"), LATER),
    **dict.fromkeys(("schema:6", "schema:8", "schema:9", "tables:6", "public:37"), TEXTS),
    **dict.fromkeys(("meta:85", "meta:86", "views:113", "views:114"), NOT_BUILT),
    **dict.fromkeys(("views:6", "views:37"), "the merged version's view was written by hand with a constant time"),
}
"""Group and line of an exchange -> why its answer is another one."""

Exchange = dict[str, Any]


@pytest.fixture(scope="module")
def toy(shared_data: Path) -> World:
    return World.from_toy(shared_data)


def recorded(data: Path, group: str) -> Iterator[tuple[str, Exchange]]:
    with gzip.open(data / "me_toy" / f"exchanges_{group}.jsonl.gz", "rt") as lines:
        for number, line in enumerate(lines):
            exchange = json.loads(line).get("exchange")
            if exchange and exchange["path"].startswith(("/materialize/", "/schema/")):
                yield f"{group}:{number}", exchange


def answered(world: World, exchange: Exchange) -> Reply:
    match = ROUTER.find(exchange["method"], exchange["path"])
    if not isinstance(match, Match):
        return Reply(b"", 404)
    call = Call(
        exchange["method"],
        exchange["path"],
        match.params,
        dict(parse_qsl(exchange["query"])),
        {name.lower(): value for name, value in exchange["request_headers"]},
        base64.b64decode(exchange["request_body_b64"]),
        NOW_MS,
        "http://sandbox",
        user_id=1,
        strict=True,
    )
    try:
        return match.route.handler(world, call)
    except Exception as error:  # noqa: BLE001 - what the server around the handlers does
        assert match.table.on_error is not None
        return match.table.on_error(call, error)


def plain_body(reply: Reply) -> bytes:
    coded = dict(reply.headers).get("Content-Encoding") == "gzip"
    return gzip.decompress(reply.body) if coded else reply.body


def client_headers(headers: Any) -> dict[str, Any]:
    found: dict[str, Any] = {key: [value for name, value in headers if name == key] for key in READ_BY_CLIENTS}
    found["column_names"] = [ast.literal_eval(value) for value in found["column_names"]]
    return found


@pytest.mark.parametrize("group", GROUPS)
def test_recorded_exchanges_get_the_same_answers(group: str, shared_data: Path, toy: World, replay: ModuleType) -> None:
    tally: Counter[str] = Counter()
    different = {}
    for name, exchange in recorded(shared_data, group):
        reply = answered(toy, exchange)
        kind, why = replay.compare(exchange, reply.status, plain_body(reply))
        tally[kind] += 1
        if kind not in ("same", "order", "message"):
            different[name] = f"{kind} {exchange['method']} {exchange['path']}: {why}"
    assert different.keys() == {name for name in DIFFERENT if name.startswith(f"{group}:")}, different
    assert tally["same"] > 0


def test_nineteen_of_twenty_are_equal(shared_data: Path, toy: World, replay: ModuleType) -> None:
    exchanges = [item for group in GROUPS for item in recorded(shared_data, group)]
    assert len(exchanges) - len(DIFFERENT) > 0.95 * len(exchanges)


@pytest.mark.parametrize("group", GROUPS)
def test_clients_read_the_same_headers(group: str, shared_data: Path, toy: World) -> None:
    """`live:45` is a table that no version holds: the real header names one column more."""
    for name, exchange in recorded(shared_data, group):
        if exchange["status"] != 200 or name in DIFFERENT or name == "live:45":
            continue
        assert client_headers(answered(toy, exchange).headers) == client_headers(exchange["response_headers"]), name


def test_schemas_equal_the_real_ones_but_for_their_texts(shared_data: Path) -> None:
    real = next(x["response_json"] for name, x in recorded(shared_data, "schema") if name == "schema:9")
    hints = {"description", "desription", "order", "enum", "enumNames", "default", "index"}

    def bare(properties: dict[str, Any]) -> dict[str, Any]:
        return {name: {k: v for k, v in field.items() if k not in hints} for name, field in properties.items()}

    for document in real.values():
        for definition in document["definitions"].values():
            definition["properties"] = bare(definition["properties"])
    assert real == documents()
