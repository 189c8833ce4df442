"""Recorded exchanges of a real chunkedgraph server, put to the handlers of the sandbox.

Every exchange under ``/segmentation/`` that got past the login layer and reaches a handler is compared as
`tools/replay.py` of the recordings does: status and body, error texts included, clocks and addresses folded, lists that
the server leaves unordered in any order. None may differ.
"""

from __future__ import annotations

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
from cortexclient.sandbox.routes.chunkedgraph import ROUTES, on_error
from cortexclient.sandbox.world import World
from cortexclient.sandbox.worlds.toy_graph import toy_graph

NOW_MS = 1_795_350_500_000
"""Just after the recording."""

REPAIRED = {
    "105": "leaves_many of two roots that share parts of the tree: each is given all of its leaves",
    "299": "user_operations without a user: everybody's",
    "437": "the CSV log has the newest operation too",
}
"""Recorded successes that are answered differently out of strict mode."""

Exchange = dict[str, Any]


@pytest.fixture(scope="module")
def world(shared_data: Path) -> World:
    return World("toy", 0, toy_graph(shared_data))


def recorded(data: Path) -> Iterator[tuple[str, Exchange]]:
    """Call id and exchange of everything that the login layer let through."""
    with gzip.open(data / "pcg_toy" / "exchanges.jsonl.gz", "rt") as lines:
        for line in lines:
            record = json.loads(line)
            exchange = record.get("exchange")
            if (
                exchange
                and exchange["status"] not in (302, 401, 403)
                and "error" not in (exchange_body(exchange) or ())
            ):
                yield record["call"]["id"], exchange


def exchange_body(exchange: Exchange) -> Any:
    return exchange.get("response_json")


def answer(world: World, match: Match, exchange: Exchange, *, strict: bool) -> Reply:
    body = base64.b64decode(exchange["request_body_b64"])
    headers = {name.lower(): value for name, value in exchange["request_headers"]}
    if headers.get("content-encoding") == "gzip":
        body = gzip.decompress(body)
    call = Call(
        method=exchange["method"],
        path=exchange["path"],
        params=match.params,
        query=dict(parse_qsl(exchange["query"], keep_blank_values=True)),
        headers=headers,
        body=body,
        now_ms=NOW_MS,
        origin="http://127.0.0.1:8000",
        user_id=101,
        strict=strict,
    )
    try:
        return match.route.handler(world, call)
    except Exception as error:  # noqa: BLE001 - the server catches whatever a handler lets through
        return on_error(call, error)


def test_recorded_exchanges_get_the_recorded_answers(world: World, shared_data: Path, replay: ModuleType) -> None:
    router = Router([ROUTES])
    tally, different = Counter[str](), []
    for number, exchange in recorded(shared_data):
        match = router.find(exchange["method"], exchange["path"])
        if not isinstance(match, Match):
            continue
        reply = answer(world, match, exchange, strict=True)
        kind, why = replay.compare(exchange, reply.status, reply.body)
        tally[kind] += 1
        if kind not in ("same", "order"):
            different.append(f"{kind} {number} {exchange['path']} {exchange['query']}: {why}")
    assert not different, "\n".join(different)
    assert tally.total() >= 484


def test_out_of_strict_mode_answers_are_the_same_and_failures_say_whose_fault_it_was(
    world: World, shared_data: Path, replay: ModuleType
) -> None:
    router = Router([ROUTES])
    statuses, different = Counter[tuple[int, int]](), []
    for number, exchange in recorded(shared_data):
        match = router.find(exchange["method"], exchange["path"])
        if not isinstance(match, Match):
            continue
        reply = answer(world, match, exchange, strict=False)
        statuses[exchange["status"], reply.status] += 1
        if exchange["status"] == 200 and replay.compare(exchange, reply.status, reply.body)[0] not in ("same", "order"):
            different.append(number)
    assert different == list(REPAIRED)
    assert set(statuses) == {(200, 200), (400, 400), (400, 200), (500, 200), (500, 400), (500, 404), (500, 501)}
    assert statuses[400, 200] == 1, "user_operations without end_time"
