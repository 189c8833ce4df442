"""The HTTP server around the handlers: requests in, answers out, start and stop."""

from __future__ import annotations

import asyncio
import gzip
import http.client
import json
import os
import socket
import threading
import time
import types
from datetime import UTC, datetime
from typing import Any

import httpx
import pytest
from tests.patience import HANG, until_so

from cortexclient.sandbox import RateLimits, Sandbox, World, listener
from cortexclient.sandbox.auth import GOOD_TOKEN

LOGIN = {"Authorization": f"Bearer {GOOD_TOKEN}"}


def get(sandbox: Sandbox, path: str, **more: Any) -> httpx.Response:
    with httpx.Client(headers=LOGIN) as client:
        return client.get(sandbox.url + path, **more)


def post(sandbox: Sandbox, path: str, **more: Any) -> httpx.Response:
    with httpx.Client(headers=LOGIN) as client:
        return client.post(sandbox.url + path, **more)


def test_a_handler_gets_the_whole_request(serve):
    sandbox = serve()
    with httpx.Client(headers=LOGIN) as client:
        seen = client.request("GET", f"{sandbox.url}/echo/table/toy_v1/view?a=1&b=&a=2&c=%2B+x", content=b"[1]").json()
    assert seen["method"] == "GET"
    assert seen["params"] == {"table": "toy_v1"}
    assert seen["query"] == {"a": "2", "b": "", "c": "+ x"}
    assert seen["body"] == "[1]"
    assert seen["origin"] == sandbox.url
    assert seen["user_id"] == 101
    assert seen["strict"] is False
    assert abs(seen["now_ms"] / 1000 - datetime.now(UTC).timestamp()) < 5


def test_a_large_body_arrives_whole(serve):
    body = os.urandom(3_000_000)
    assert post(serve(), "/echo/login", content=body).json()["body"].encode("latin-1") == body


def test_request_bodies_may_be_gzipped(serve):
    packed = {"Content-Encoding": "gzip"}
    sandbox = serve()
    assert post(sandbox, "/echo/login", content=gzip.compress(b"[1,2]"), headers=packed).json()["body"] == "[1,2]"
    assert post(sandbox, "/echo/login", content=b"no gzip", headers=packed).json()["body"] == "no gzip"


def test_answers_are_gzipped_when_asked_for_and_only_if_they_are_good(serve):
    sandbox = serve()
    asked = {"Accept-Encoding": "deflate, gzip"}
    zipped = get(sandbox, "/echo/fixed/1000", headers=asked)
    assert zipped.headers["content-encoding"] == "gzip"
    assert zipped.headers["vary"] == "Accept-Encoding"
    assert zipped.content == b"x" * 1000
    assert int(zipped.headers["content-length"]) < 100
    assert "content-encoding" not in get(sandbox, "/echo/fixed/1000", headers={"Accept-Encoding": "zstd"}).headers
    assert "content-encoding" not in get(sandbox, "/echo/broken", headers=asked).headers
    assert "content-encoding" not in get(sandbox, "/info/health", headers=asked).headers


@pytest.mark.parametrize("path", ["/", "/nope", "/echo/login/", "/echo/number/x", "/echo/table//view", "/ECHO/login"])
def test_an_unknown_path_is_flasks_404(serve, path):
    answer = get(serve(), path)
    assert answer.status_code == 404
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    assert answer.text == (
        "<!doctype html>\n<html lang=en>\n<title>404 Not Found</title>\n<h1>Not Found</h1>\n<p>The requested URL was "
        "not found on the server. If you entered the URL manually please check your spelling and try again.</p>\n"
    )


def test_a_wrong_method_is_flasks_405_or_what_the_service_makes_of_it(serve):
    sandbox = serve()
    refused = post(sandbox, "/echo/stack/toy/view")
    assert refused.status_code == 405
    assert refused.headers["allow"] == "GET, OPTIONS"
    assert refused.text == (
        "<!doctype html>\n<html lang=en>\n<title>405 Method Not Allowed</title>\n<h1>Method Not Allowed</h1>\n"
        "<p>The method is not allowed for the requested URL.</p>\n"
    )
    assert get(sandbox, "/plain/write").json() == {"message": "405 Method Not Allowed"}


def test_head_and_options(serve):
    sandbox = serve()
    with httpx.Client() as client:
        head = client.head(f"{sandbox.url}/echo/fixed/1000", headers={"Accept-Encoding": "identity"})
        assert (head.status_code, head.headers["content-length"], head.content) == (200, "1000", b"")
        options = client.options(f"{sandbox.url}/echo/table/toy_v1/edit", headers={"Origin": "https://viewer"})
        assert (options.status_code, options.headers["allow"]) == (200, "POST, OPTIONS")
        assert options.headers["access-control-allow-origin"] == "*"


def test_a_bug_in_a_handler_is_a_500(serve, caplog):
    sandbox = serve()
    assert get(sandbox, "/echo/broken").json() == {"message": "KeyError"}
    assert not caplog.records
    unmapped = get(sandbox, "/plain/broken")
    assert (unmapped.status_code, unmapped.json()) == (500, {"message": "Internal Server Error"})
    assert "/plain/broken failed" in caplog.text


def test_path_parameters(serve):
    sandbox = serve()
    assert get(sandbox, "/echo/number/12").json()["params"] == {"n": "12"}
    assert get(sandbox, "/echo/file/a/b%20c/d.json").json()["params"] == {"name": "a/b c/d.json"}


def test_connections_are_kept(serve):
    sandbox = serve()
    connection = http.client.HTTPConnection("127.0.0.1", int(sandbox.url.rsplit(":", 1)[1]))
    connection.request("GET", "/info/health")
    connection.getresponse().read()
    used = connection.sock
    connection.request("POST", "/echo/open", b"x")
    assert json.loads(connection.getresponse().read())["body"] == "x"
    assert connection.sock is used
    connection.close()


def test_answers_do_not_wait_for_acknowledgements(serve, monkeypatch):
    made, delays = listener._Protocol.connection_made, []

    def look(self, transport) -> None:
        made(self, transport)
        delays.append(not transport.get_extra_info("socket").getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))

    monkeypatch.setattr(listener._Protocol, "connection_made", look)
    get(serve(), "/info/health")
    assert delays == [False], "Nagle's algorithm costs 40 ms an answer"


def test_the_counters_tell_what_came(serve):
    sandbox = serve()
    nodes = list(range(864691135000000000, 864691135000000005))
    post(sandbox, "/echo/login", json={"node_ids": nodes}, headers={"Accept-Encoding": "identity"})
    get(sandbox, f"/echo/file/{nodes[0]}?stop=2")
    get(sandbox, "/nope")
    counts = sandbox.counters.snapshot()
    assert counts.total.requests == 3
    assert counts.total.ids == 6
    assert counts.total.statuses == {200: 2, 404: 1}
    assert counts.services["echo"].requests == 2
    assert counts.routes["POST /echo/login"].bytes_in == len(json.dumps({"node_ids": nodes}, separators=(",", ":")))
    assert counts.routes["POST /echo/login"].bytes_out > 100
    sandbox.counters.reset()
    assert sandbox.counters.snapshot().total.requests == 0


def test_ids_are_counted_alike_in_small_and_large_bodies(serve):
    sandbox = serve()
    nodes = list(range(864691135000000000, 864691135000001000))
    post(sandbox, "/echo/login", json={"node_ids": nodes, "limit": 5000})
    assert sandbox.counters.snapshot().total.ids == 1000


def test_counters_over_http_need_no_token_and_are_not_counted(serve):
    sandbox = serve()
    get(sandbox, "/info/health")
    with httpx.Client(base_url=sandbox.url) as client:
        assert client.get("/sandbox/counters").json()["total"]["requests"] == 1
        assert client.post("/sandbox/counters").json()["total"]["requests"] == 0


def test_latency_is_slept_side_by_side(serve):
    sandbox = serve(latency=0.1)
    assert get(sandbox, "/info/health").elapsed.total_seconds() >= 0.1
    sandbox.weather.latency = HANG

    async def burst() -> None:
        async with httpx.AsyncClient(timeout=HANG) as client:
            asked = [asyncio.create_task(client.get(f"{sandbox.url}/info/health")) for _ in range(10)]
            await until_so(lambda: sandbox.counters.snapshot().total.in_flight == len(asked))
            for task in asked:
                task.cancel()
            await asyncio.wait(asked)

    asyncio.run(burst())


def test_service_times_hold_the_workers(serve, monkeypatch):
    sandbox = serve(service_times=True, workers=2)
    working, done, sleep = [], threading.Event(), asyncio.sleep

    async def work(seconds: float) -> None:
        """The price of a request, which is paid when the test says so."""
        if seconds == 0.2:
            working.append(seconds)
            while not done.is_set():
                await sleep(0.001)
        await sleep(0)

    monkeypatch.setattr("cortexclient.sandbox.app.asyncio", types.SimpleNamespace(**vars(asyncio) | {"sleep": work}))

    async def burst() -> None:
        async with httpx.AsyncClient(timeout=HANG) as client:
            asked = [asyncio.create_task(client.get(f"{sandbox.url}/echo/fixed/1")) for _ in range(6)]
            await until_so(lambda: sandbox.counters.snapshot().total.in_flight == 6 and len(working) >= 2)
            assert len(working) == 2, "six requests are in, and two workers"
            done.set()
            await asyncio.gather(*asked)

    asyncio.run(burst())
    assert len(working) == 6
    assert sandbox.counters.snapshot().total.price == pytest.approx(1.2)
    sandbox.weather.service_times = False
    get(sandbox, "/echo/fixed/1")
    assert len(working) == 6


def test_bandwidth_is_shared(serve):
    sandbox = serve(bandwidth=1_000_000)
    start = time.monotonic()
    assert len(get(sandbox, "/echo/fixed/300000", headers={"Accept-Encoding": "identity"}).content) == 300_000
    assert time.monotonic() - start >= 0.3


def test_the_clock_may_be_wrong(serve):
    ahead = get(serve(clock_skew=3600), "/echo/open").json()["now_ms"] / 1000 - time.time()
    assert 3590 < ahead < 3610


@pytest.mark.parametrize(("retry_after", "header"), [(False, None), (True, "20")])
def test_rate_limits_are_per_user_and_endpoint(serve, retry_after, header):
    sandbox = serve(limits=RateLimits(retry_after=retry_after, scale=0.01, clock=lambda: 0.0))  # 3 queries a minute
    statuses = [post(sandbox, "/materialize/api/v3/query").status_code for _ in range(3)]
    assert statuses == [200] * 3
    refused = post(sandbox, "/materialize/api/v3/query")
    assert refused.status_code == 429
    assert refused.headers.get("retry-after") == header
    assert "error" in refused.json()
    other = post(sandbox, "/materialize/api/v3/query", headers={"Authorization": "Bearer view-token"})
    assert other.status_code == 200
    assert get(sandbox, "/echo/login").status_code == 200


def test_a_bucket_fills_again():
    now = [0.0]
    limits = RateLimits(retry_after=True, scale=0.01, clock=lambda: now[0])
    route = "/materialize/api/v3/datastack/{datastack}/query"
    assert [limits.refuse(1, route) is None for _ in range(4)] == [True, True, True, False]
    now[0] += 19.5
    refused = limits.refuse(1, route)
    assert refused is not None
    assert refused.headers == (("Retry-After", "1"),), "who comes as told is let in"
    now[0] += 0.5
    assert [limits.refuse(1, route) is None for _ in range(2)] == [True, False]


def test_unknown_limits_are_refused():
    with pytest.raises(ValueError, match="none, charts or charts-retry-after"):
        RateLimits.parse("all")


def test_restart_keeps_the_port(serve):
    sandbox = serve()
    before = sandbox.url
    sandbox.restart()
    assert sandbox.url == before
    assert get(sandbox, "/info/health").json() == "healthy"


def test_refusing_breaks_connections_and_then_accepts_again(serve):
    sandbox = serve()
    with httpx.Client(base_url=sandbox.url) as client:
        client.get("/info/health")
        with sandbox.refusing(), pytest.raises(httpx.ConnectError):
            client.get("/info/health")
        assert client.get("/info/health").status_code == 200


def test_stopping_breaks_requests_in_flight(serve, caplog):
    sandbox = serve(latency=30)
    failed = threading.Event()

    def wait() -> None:
        with pytest.raises(httpx.RemoteProtocolError), httpx.Client() as client:
            client.get(f"{sandbox.url}/info/health", timeout=HANG)
        failed.set()

    waiting = threading.Thread(target=wait)
    waiting.start()
    while sandbox.counters.snapshot().total.in_flight == 0:
        time.sleep(0.01)
    sandbox.stop()
    waiting.join(HANG)
    assert failed.is_set()
    assert not caplog.records


def test_no_thread_and_no_port_is_left_behind(empty_world):
    threads = threading.active_count()
    with Sandbox(empty_world) as sandbox:
        port = int(sandbox.url.rsplit(":", 1)[1])
        assert threading.active_count() == threads + 1
    assert threading.active_count() == threads
    with socket.socket() as probe:
        assert probe.connect_ex(("127.0.0.1", port)) != 0
    sandbox.stop()


def test_a_taken_port_is_an_oserror(empty_world):
    with Sandbox(empty_world) as first, pytest.raises(OSError, match="in use"):
        Sandbox(empty_world, port=int(first.url.rsplit(":", 1)[1])).start()


async def test_async_with(empty_world):
    async with Sandbox(empty_world) as sandbox, httpx.AsyncClient() as client:
        assert (await client.get(f"{sandbox.url}/info/health")).json() == "healthy"


async def test_in_process(empty_world):
    sandbox = Sandbox(empty_world)
    transport = httpx.ASGITransport(app=sandbox.asgi)
    async with httpx.AsyncClient(transport=transport, base_url="http://sandbox", headers=LOGIN) as client:
        full = (await client.get("/info/api/v2/datastack/full/toy")).json()
    assert full["local_server"] == "http://sandbox"
    assert sandbox.counters.snapshot().services["info"].requests == 1


def test_env_points_there_and_back(empty_world, monkeypatch):
    monkeypatch.setenv("CORTEXCLIENT_TOKEN", "mine")
    with Sandbox(empty_world) as sandbox:
        with sandbox.env():
            assert os.environ["CORTEXCLIENT_SERVER"] == sandbox.url
            assert os.environ["CORTEXCLIENT_TOKEN"] == sandbox.token
        assert "CORTEXCLIENT_SERVER" not in os.environ
        assert os.environ["CORTEXCLIENT_TOKEN"] == "mine"


def test_info_describes_the_datastack_at_the_callers_address(serve):
    sandbox = serve()
    full = get(sandbox, "/info/api/v2/datastack/full/toy").json()
    assert full["local_server"] == sandbox.url
    assert full["segmentation_source"] == f"graphene://{sandbox.url}/segmentation/table/toy_v1"
    assert full["aligned_volume"]["name"] == "toy_vol"
    assert full["aligned_volume"]["id"] == 1
    assert "name" not in full
    assert get(sandbox, "/info/api/v2/datastack/toy").json()["name"] == "toy"
    assert get(sandbox, "/info/api/v2/datastacks").json() == ["toy", "toy_public"]
    assert get(sandbox, "/info/api/v2/aligned_volume/id/1").json() == full["aligned_volume"]
    assert get(sandbox, "/info/api/v2/aligned_volume/id/9").status_code == 404
    assert get(sandbox, "/info/api/v2/aligned_volume/toy_vol/datastacks").json() == ["toy", "toy_public"]
    assert get(sandbox, "/info/api/v2/datastack/toy/image_sources").json()[0]["name"] == "default"
    assert get(sandbox, "/info/api/v2/datastack/full/toy?image_source_name=x").status_code == 404
    assert set(get(sandbox, "/info/api/v2/ngl_info").json()["toy_vol"]["layers"]) == {"img", "toy", "toy_public"}


def test_the_state_service_tells_its_version(serve):
    assert isinstance(get(serve(), "/nglstate/api/v1/version").json(), str)


def test_spec_of_a_datastack_without_preset(empty_world: World):
    spec = Sandbox(empty_world).spec
    assert (spec.name, spec.datastack, spec.nucleus_table) == ("toy", "toy", None)
