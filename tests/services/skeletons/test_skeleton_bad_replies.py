"""Replies that say 200 and hold something else, services that never finish, tokens that end in mid-run."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from cortexclient import AsyncCortexClient
from cortexclient.errors import DeadlineExceeded, DecodeError, InvalidToken
from cortexclient.sandbox import Sandbox, World, app
from cortexclient.sandbox.calls import Reply
from cortexclient.services.skeleton import _queue

from ..conftest import client_of

CURRENT = 864691134885645050
ERRORS = {
    "an error": b'{"message": "Internal Server Error"}',
    "a page": b"<html><body>502 Bad Gateway</body></html>",
    "nothing": b"",
    "null": b"null",
    "a list": b"[[1, 2]]",
    "other ids": b'{"5": {}}',
}
Call = Callable[[AsyncCortexClient], Awaitable[Any]]
CALLS: dict[str, Call] = {
    "skeletoncache/api/version": lambda client: client.skeleton.get_version(),
    "skeletoncache/api/versions": lambda client: client.skeleton.get_versions(),
    "skeleton/exists": lambda client: client.skeletons_exist([CURRENT]),
    "gen_skeletons": lambda client: client.skeleton.generate_bulk_skeletons_async([CURRENT]),
    "query_cache": lambda client: client.skeleton.get_cache_contents([CURRENT]),
    "get_refusal_list": lambda client: client.skeleton.get_refusal_list(),
    "table_mapping": lambda client: client.l2cache.has_cache(),
}


def answer_instead(monkeypatch: pytest.MonkeyPatch, part: str, body: bytes) -> list[str]:
    """Answer what is asked of paths that end with ``part`` (or go on behind it) by a 200 with that body."""
    real, seen = app._run, []

    def run(world: World, found: Any, call: Any) -> Reply:
        if call.path.endswith(part) or f"{part}/" in call.path:
            seen.append(call.path)
            return Reply(body)
        return real(world, found, call)

    monkeypatch.setattr(app, "_run", run)
    return seen


@pytest.mark.parametrize("kind", ERRORS)
async def test_a_200_that_holds_an_error_is_no_answer(
    client: AsyncCortexClient, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    for part, call in CALLS.items():
        if kind == "other ids" and part == "table_mapping":
            continue  # which is an answer there
        with monkeypatch.context() as patch:
            seen = answer_instead(patch, part, ERRORS[kind])
            with pytest.raises(DecodeError):
                await call(client)
            assert seen


@pytest.mark.parametrize("kind", ERRORS)
async def test_level_2_records_that_are_none(
    client: AsyncCortexClient, own_world: World, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    chunks = own_world.graph.leaves(CURRENT, 2)
    seen = answer_instead(monkeypatch, "attributes", ERRORS[kind])
    for call in (client.get_l2data, client.l2cache.get_l2data):
        with pytest.raises(DecodeError):
            await call(chunks)
    assert seen


@pytest.mark.parametrize("kind", [kind for kind in ERRORS if kind != "other ids"])
async def test_a_bulk_reply_or_a_file_that_holds_an_error_spoils_its_roots(
    client: AsyncCortexClient, cached: list[int], monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    pytest.importorskip("h5py")
    ways = (("service", "get_cached_skeletons", cached[:3]), ("bucket", "/o", cached[3:6]))
    for method, part, asked in ways:
        with monkeypatch.context() as patch:
            seen = answer_instead(patch, part, ERRORS[kind])
            found = await client.skeleton.get_skeletons(asked, method=method)  # type: ignore[arg-type]
            assert seen
        assert list(found.errors) == asked
        assert all(isinstance(error, DecodeError) for error in found.errors.values())
        assert list(await client.skeleton.get_skeletons(asked)) == asked, "no error may be remembered"


@pytest.mark.parametrize("kind", ERRORS)
async def test_a_token_that_is_none_leaves_the_service(
    client: AsyncCortexClient, cached: list[int], monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    pytest.importorskip("h5py")
    seen = answer_instead(monkeypatch, "get_skeleton_token", ERRORS[kind])
    assert list(await client.skeleton.get_skeletons(cached[:3], method="bucket")) == cached[:3]
    assert seen


async def test_what_is_queued_and_never_made_ends_without_a_deadline_too(
    client: AsyncCortexClient, own_world: World, missing: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_queue, "PATIENCE", 0.5)
    own_world.skeletons.stuck.add(missing[0])
    found = await client.skeleton.get_skeletons([missing[0], CURRENT])
    assert list(found) == [CURRENT]
    assert isinstance(found.errors[missing[0]], DeadlineExceeded)
    assert "queued, and not made within 0.5 seconds" in str(found.errors[missing[0]])


async def test_a_token_that_ends_in_mid_run_keeps_what_has_arrived(
    flavour: str, server: Sandbox, cached: list[int]
) -> None:
    asked, arrived = cached[:2000], []

    async def read(client: AsyncCortexClient) -> None:
        async with client.skeleton.stream_skeletons(asked) as outcomes:
            async for outcome in outcomes:
                arrived.append(outcome)
                if len(arrived) == 5:
                    server.expire_token()

    async with client_of(flavour, server) as client:
        with pytest.raises(InvalidToken):
            await read(client)
    assert 5 <= len(arrived) < len(asked)
    assert all(outcome.ok for outcome in arrived)
