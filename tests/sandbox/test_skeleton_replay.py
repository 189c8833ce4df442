"""Recorded exchanges of a real skeleton service (0.23.11) and of the chunkedgraph beside it, put to a strict sandbox.

None may differ but by packing.
"""

from __future__ import annotations

import base64
import gzip
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
from tests.patience import HANG

from cortexclient.sandbox import Sandbox, World


def recorded(data: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    path = data / "skeleton_toy" / "exchanges.jsonl.gz"
    if not path.is_file():
        pytest.skip("the recordings of the skeleton service are not in the data folder")
    for line in gzip.decompress(path.read_bytes()).splitlines():
        record = json.loads(line)
        exchange = record.get("exchange")
        if exchange and not exchange["path"].startswith("/info"):  # a stub stood in for that service
            yield record["call"]["id"], exchange


def unpacked(value: Any) -> Any:
    """Take gzip away wherever it is: the bytes depend on who packed them, and when."""
    if isinstance(value, dict):
        return {key: unpacked(item) for key, item in value.items()}
    if isinstance(value, str) and value.startswith("1f8b"):
        value = bytes.fromhex(value)
    if isinstance(value, bytes) and value.startswith(b"\x1f\x8b"):
        value = gzip.decompress(value)
    if isinstance(value, bytes) and value.startswith(b"{"):
        return json.loads(value)
    return value


def content(exchange: dict[str, Any]) -> Any:
    if "response_body_b64" in exchange:
        return base64.b64decode(exchange["response_body_b64"])
    return exchange.get("response_json", exchange.get("response_text"))


def test_recorded_exchanges_get_the_recorded_answers(shared_data: Path) -> None:
    world = World.from_toy(shared_data)
    world.skeletons.seconds = 3_600.0  # the recorded service made none
    different, compared = [], 0
    with Sandbox(world, strict=True) as sandbox:
        for number, exchange in recorded(shared_data):
            url = f"{sandbox.url}{exchange['path']}?{exchange['query']}"
            body = base64.b64decode(exchange["request_body_b64"])
            headers = dict(exchange["request_headers"])
            reply = requests.request(exchange["method"], url, data=body, headers=headers, timeout=HANG)
            want = content(exchange)
            got: Any = reply.content if isinstance(want, bytes) else reply.text
            if not isinstance(want, bytes | str) or exchange["path"].endswith("version"):
                got = reply.json()
            compared += 1
            same = reply.status_code == exchange["status"] and unpacked(got) == unpacked(want)
            kind = dict(exchange["response_headers"])["Content-Type"]
            if not same or reply.headers["Content-Type"] != kind:
                different.append(f"{number} {exchange['path']}: {reply.status_code} {got!r:.200} != {want!r:.200}")
    assert not different, "\n".join(different)
    assert compared == 275
