"""What goes wrong on purpose: each fault looks on the wire as its page says."""

from __future__ import annotations

import gzip
import socket
import time
import zlib

import httpx
import numpy as np
import pytest
from tests.patience import HANG, until

from cortexclient.sandbox import Faults

BODY = "/echo/fixed/100000"
NODE = 864691135000000001


def raw(sandbox, path=BODY, *, encoding="identity"):
    """All bytes that come back on one connection, and whether it ended in a reset."""
    host, port = sandbox.url.removeprefix("http://").split(":")
    received = b""
    with socket.create_connection((host, int(port)), timeout=HANG) as connection:
        request = (
            f"GET {path} HTTP/1.1\r\nHost: {host}:{port}\r\nAccept-Encoding: {encoding}\r\nConnection: close\r\n\r\n"
        )
        connection.sendall(request.encode())
        try:
            while piece := connection.recv(65536):
                received += piece
        except ConnectionResetError:
            return received, True
    return received, False


def split(received):
    head, _, body = received.partition(b"\r\n\r\n")
    status, *lines = head.decode().split("\r\n")
    return int(status.split()[1]), dict(line.lower().split(": ", 1) for line in lines), body


def get(sandbox, path, **more):
    with httpx.Client() as client:
        return client.get(sandbox.url + path, **more)


def test_kinds_are_read():
    faults = Faults("503:2%, reset:1%,429-retry-after:0.5%,slow:0.25,502")
    assert faults.rates == {"503": 0.02, "reset": 0.01, "429-retry-after": 0.005, "slow": 0.25, "502": 1.0}


@pytest.mark.parametrize("kinds", ["nonsense:1%", "200:1%", "503:200%", "503:-1%", "503:x"])
def test_nonsense_is_refused(kinds):
    with pytest.raises(ValueError, match=r"fault|share|float"):
        Faults(kinds)


@pytest.mark.parametrize("status", [429, 502, 503, 504])
def test_statuses_of_the_proxy(serve, status):
    sandbox = serve(faults=str(status))
    answer = get(sandbox, BODY)
    assert answer.status_code == status
    assert answer.headers["content-type"] == "text/html"
    assert f"<h1>{status} " in answer.text
    assert "retry-after" not in answer.headers
    assert sandbox.counters.snapshot().total.statuses == {status: 1}


def test_a_500_is_json(serve):
    answer = get(serve(faults="500"), BODY)
    assert (answer.status_code, answer.json()) == (500, {"message": "Internal Server Error"})


def test_429_with_retry_after(serve):
    answer = get(serve(faults=Faults("429-retry-after", retry_after=2.5)), BODY)
    assert (answer.status_code, answer.headers["retry-after"]) == (429, "2.5")


def test_reset_comes_before_the_answer(serve):
    sandbox = serve(faults="reset")
    assert raw(sandbox) == (b"", True)
    assert sandbox.counters.snapshot().total.statuses == {0: 1}


def test_reset_inside_the_body(serve):
    received, reset = raw(serve(faults="reset-body"))
    assert reset
    assert len(received) < 100_000


def test_truncated_has_the_full_length_and_half_the_body(serve):
    received, reset = raw(serve(faults="truncated"))
    status, headers, body = split(received)
    assert (status, headers["content-length"], len(body), reset) == (200, "100000", 50_000, False)


def test_short_agrees_with_its_length(serve):
    status, headers, body = split(raw(serve(faults="short"))[0])
    assert (status, headers["content-length"], len(body)) == (200, "50000", 50_000)


def test_truncated_gzip_agrees_with_its_length_but_has_no_end(serve):
    status, headers, body = split(raw(serve(faults="truncated-gzip"), encoding="gzip")[0])
    assert (status, headers["content-encoding"], int(headers["content-length"])) == (200, "gzip", len(body))
    with pytest.raises(EOFError):
        gzip.decompress(body)
    unpacker = zlib.decompressobj(wbits=31)
    unpacker.decompress(body)
    assert not unpacker.eof


def test_truncated_gzip_of_a_plain_answer_is_truncated(serve):
    _, headers, body = split(raw(serve(faults="truncated-gzip"))[0])
    assert (headers["content-length"], len(body)) == ("100000", 50_000)


def test_slow_bodies_trickle(serve):
    sandbox = serve(faults=Faults("slow", slow_seconds=0.3))
    start = time.monotonic()
    _, _, body = split(raw(sandbox)[0])
    assert len(body) == 100_000
    assert time.monotonic() - start >= 0.3


def test_the_server_survives_broken_connections(serve, caplog):
    sandbox = serve()
    for kind in ("reset", "reset-body", "truncated"):
        sandbox.faults = kind
        raw(sandbox)
    sandbox.faults = ""
    assert len(get(sandbox, BODY).content) == 100_000
    until(lambda: not sandbox.counters.snapshot().total.in_flight)  # it ends after its answer
    assert not caplog.records


def test_only_some_paths(serve):
    sandbox = serve(faults=Faults("503", only="/fixed/"))
    assert get(sandbox, "/echo/open").status_code == 200
    assert get(sandbox, BODY).status_code == 503


def test_a_number_of_times(serve):
    sandbox = serve(faults=Faults("503", times=2))
    assert [get(sandbox, "/echo/open").status_code for _ in range(4)] == [503, 503, 200, 200]


def test_the_same_seed_deals_the_same_faults(serve):
    def statuses(seed):
        sandbox = serve(faults=Faults("503:30%,500:30%", seed=seed))
        with httpx.Client() as client:
            return [client.get(f"{sandbox.url}/echo/open").status_code for _ in range(40)]

    first = statuses(1)
    assert set(first) == {200, 500, 503}
    assert statuses(1) == first
    assert statuses(2) != first


@pytest.mark.parametrize(
    ("path", "body"),
    [
        (f"/echo/open?id={NODE}", b""),
        ("/echo/open", b'{"node_ids": [1, %d]}' % NODE),
        ("/echo/open", np.array([1, NODE], "<u8").tobytes()),
    ],
)
def test_poison_is_found_wherever_it_is(serve, path, body):
    sandbox = serve(faults=Faults(poison=[NODE]))
    with httpx.Client(base_url=sandbox.url) as client:
        answer = client.post(path, content=body)
        assert answer.status_code == 500
        assert answer.json() == {"code": 500, "message": str(NODE)}
        assert client.post(path.replace(str(NODE), f"{NODE}0"), content=b"[%d0]" % NODE).status_code == 200


def test_faults_over_http(serve):
    sandbox = serve()
    with httpx.Client(base_url=sandbox.url) as client:
        set_to = client.post("/sandbox/faults", json={"kinds": "503", "only": "/echo", "poison": [NODE]}).json()
        assert set_to["poison"] == [NODE]
        assert client.get("/echo/open").status_code == 503
        assert client.get("/sandbox/faults").json() == set_to
        assert client.post("/sandbox/faults", json={"kinds": "nonsense"}).status_code == 400
        assert client.post("/sandbox/faults", json={"unheard_of": 1}).status_code == 400
        client.post("/sandbox/faults", json={})
        assert client.get("/echo/open").status_code == 200


async def test_in_process_a_broken_connection_is_an_exception(serve):
    sandbox = serve(faults="reset")
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app=sandbox.asgi), base_url="http://sandbox") as client:
        with pytest.raises(ConnectionResetError):
            await client.get("/echo/open")
