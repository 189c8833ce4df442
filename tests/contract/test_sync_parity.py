"""Both clients have the same members, parameters, defaults, hints and docs: by reflection, without the generator."""

from __future__ import annotations

import inspect
import re
import typing
from collections.abc import Iterator
from datetime import datetime
from functools import cached_property
from typing import Any

import httpx
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

from cortexclient import AsyncCortexClient, CellIndex, CortexClient, Stream, SyncStream, _sync, _twin
from cortexclient._twin import SyncBatchStream, Twin
from cortexclient.results import BatchStream

IN_HINTS = {"CellIndex": CellIndex, "httpx": httpx, "pd": pd, "pl": pl, "pa": pa, "datetime": datetime}
"""What the source imports for type checkers alone."""

LIFE = {"aclose": "close", "__aenter__": "__enter__", "__aexit__": "__exit__"}
"""Members with another name on the blocking side."""
NOT_COMPARED = {*dir(Twin), "__annotations__", "__dict__", "__init__", "__setstate__", "__weakref__"}


def twin_of(cls: type) -> type:
    found = getattr(_sync, cls.__name__.removeprefix("Async"))
    assert isinstance(found, type)
    return found


def public(cls: type) -> dict[str, Any]:
    """Members that a user may name, the special methods of the class itself included, but for the life cycle."""
    special = {name for name in dir(cls) if name.startswith("__")} - NOT_COMPARED
    names = {name for name in dir(cls) if not name.startswith("_")} | special
    members = {name: inspect.getattr_static(cls, name) for name in names - LIFE.keys() - set(LIFE.values())}
    return {name: member for name, member in members.items() if not getattr(function(member), "internal", False)}


def function(member: Any) -> Any:
    if isinstance(member, property | cached_property):
        return member.fget if isinstance(member, property) else member.func
    return getattr(member, "__func__", member)


def hints(member: Any) -> dict[str, Any]:
    return typing.get_type_hints(function(member), localns=IN_HINTS, include_extras=True)


def async_classes(hint: Any) -> Iterator[type]:
    """The classes of ours that a hint speaks of."""
    for part in (hint, typing.get_origin(hint), *typing.get_args(hint)):
        if isinstance(part, type) and part.__name__.startswith("Async") and part.__module__.startswith("cortexclient"):
            yield part


def reachable() -> list[type]:
    """The client and everything that its members give, however deep."""
    found, waiting = [], [AsyncCortexClient]
    while waiting:
        cls: type = waiting.pop()
        if cls not in found:
            found.append(cls)
            for member in public(cls).values():
                for hint in hints(member).values():
                    waiting += async_classes(hint)
    return sorted(found, key=lambda cls: cls.__name__)


CLASSES = reachable()
MEMBERS = [(cls, name) for cls in CLASSES for name in sorted(public(cls))]


def expected(hint: Any) -> Any:
    """A hint as the blocking side should have it."""
    if typing.get_origin(hint) is Stream:
        return SyncStream[typing.get_args(hint)]
    if hint is BatchStream:
        return SyncBatchStream
    return twin_of(hint) if any(async_classes(hint)) else hint


def test_every_class_has_a_twin_and_no_more() -> None:
    assert sorted(_sync.__all__) == sorted(twin_of(cls).__name__ for cls in CLASSES)
    assert len(MEMBERS) > 60


@pytest.mark.parametrize("cls", CLASSES)
def test_same_members(cls: type) -> None:
    assert sorted(public(twin_of(cls))) == sorted(public(cls))


@pytest.mark.parametrize(("cls", "name"), MEMBERS, ids=lambda v: getattr(v, "__name__", v))
def test_same_member(cls: type, name: str) -> None:
    ours, theirs = public(twin_of(cls))[name], public(cls)[name]
    assert type(ours) is type(theirs)
    assert not inspect.iscoroutinefunction(function(ours))
    assert not inspect.isasyncgenfunction(function(theirs))
    bare = inspect.Signature.empty
    signatures = [inspect.signature(function(member)) for member in (ours, theirs)]
    parameters = [[p.replace(annotation=bare) for p in s.parameters.values()] for s in signatures]
    assert parameters[0] == parameters[1]  # names, order, kinds, defaults
    assert hints(ours) == {key: expected(hint) for key, hint in hints(theirs).items()}
    assert summary(ours) == summary(theirs)


def summary(member: Any) -> str:
    text = inspect.getdoc(function(member)) or ""
    return text.partition("\n")[0].replace("Async", "")


@pytest.mark.parametrize("cls", CLASSES)
def test_docs_speak_of_the_class_itself(cls: type) -> None:
    assert (twin_of(cls).__doc__ or "").partition("\n")[0] == (cls.__doc__ or "").partition("\n")[0]
    for name, member in public(twin_of(cls)).items():
        text = inspect.getdoc(function(member)) or ""
        assert not re.search(r"\bAsync[A-Z]|``(await|async) |aclose", text), f"{name}: {text}"
        if "Examples" in text:
            assert not re.search(r"\b(await|async)\b", text.partition("Examples")[2])


def test_clients_are_built_alike() -> None:
    ours, theirs = inspect.signature(CortexClient), inspect.signature(AsyncCortexClient)
    assert [str(p) for p in ours.parameters.values()] == [str(p) for p in theirs.parameters.values()]
    assert hints(CortexClient.__init__) == hints(AsyncCortexClient.__init__)


def test_both_have_a_life_of_their_own_kind() -> None:
    for asynchronous, blocking in LIFE.items():
        assert inspect.iscoroutinefunction(getattr(AsyncCortexClient, asynchronous))
        assert not inspect.iscoroutinefunction(getattr(CortexClient, blocking))
        assert not hasattr(CortexClient, asynchronous)


def test_reprs_differ_by_the_class_name_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_twin, "LOOK_SECONDS", 0.01)  # the blocking list of tables looks, in vain
    monkeypatch.setenv("CORTEXCLIENT_SERVER", "http://127.0.0.1:9")
    clients = CortexClient("minnie_public", version=1412), AsyncCortexClient("minnie_public", version=1412)
    ours, theirs = map(repr, clients)
    assert "1412" in ours
    assert theirs == f"Async{ours}"
    for name in (n for n, member in public(CortexClient).items() if isinstance(member, property | cached_property)):
        if any(async_classes(hints(public(AsyncCortexClient)[name])["return"])):
            ours, theirs = (repr(getattr(client, name)) for client in clients)
            assert ours == theirs.replace("Async", "")
            assert "Async" not in ours
