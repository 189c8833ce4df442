"""Everything that a user names has an example in its docstring, and the examples do what they say, on a sandbox.

They are checked where every extra is: an example that needs a package which is missing here is left out.
"""

from __future__ import annotations

import ast
import asyncio
import doctest
import inspect
from functools import cached_property
from typing import Any

import pytest

import cortexclient
from cortexclient import AsyncCortexClient, CortexClient
from cortexclient.datasets import spec
from cortexclient.errors import MissingDependency
from cortexclient.sandbox import Sandbox, World

NO_EXAMPLE = {"Ids", "When", "__version__"}
"""Hints and a text."""
FLAGS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE


def described(cls: type) -> dict[str, Any]:
    """The public members of a class, each by the function that has its docstring."""
    members = {name: inspect.getattr_static(cls, name) for name in dir(cls) if not name.startswith("_")}
    functions = {name: function(member) for name, member in members.items()}
    return {name: found for name, found in functions.items() if not getattr(found, "internal", False)}


def function(member: Any) -> Any:
    if isinstance(member, property):
        return member.fget
    return member.func if isinstance(member, cached_property) else getattr(member, "__func__", member)


NAMES = {name: getattr(cortexclient, name) for name in cortexclient.__all__ if name not in NO_EXAMPLE}
ASYNC = {f"AsyncCortexClient.{name}": found for name, found in described(AsyncCortexClient).items()}
SYNC = {f"CortexClient.{name}": found for name, found in described(CortexClient).items()}
EVERYTHING = NAMES | ASYNC | SYNC


def examples(thing: Any) -> list[doctest.Example]:
    """Those of its docstring; an error has those of its kind."""
    kinds = [kind for kind in thing.__mro__ if kind is not object] if inspect.isclass(thing) else [thing]
    texts = (inspect.cleandoc(kind.__doc__ or "").partition("\nExamples\n--------\n")[2] for kind in kinds)
    return next((found for text in texts if (found := doctest.DocTestParser().get_examples(text))), [])


def test_everything_public_has_an_example() -> None:
    assert {name for name, thing in EVERYTHING.items() if not examples(thing)} == set()


@pytest.fixture(scope="module")
def world() -> World:
    return World.default()


async def _awaited(code: Any, names: dict[str, Any]) -> None:
    await eval(code, names)


def play(example: doctest.Example, names: dict[str, Any], runner: asyncio.Runner) -> None:
    code = compile(example.source, "<example>", "single", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
    if code.co_flags & inspect.CO_COROUTINE:
        runner.run(_awaited(code, names))
    else:
        eval(code, names)


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")
@pytest.mark.parametrize("kind", [AsyncCortexClient, CortexClient])
def test_the_examples_do_what_they_say(
    kind: type[Any], world: World, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(spec, "_SPECS", dict(spec._SPECS))
    chosen = NAMES | ASYNC if kind is AsyncCortexClient else SYNC
    checker, wrong, left_out = doctest.OutputChecker(), {}, []
    with Sandbox(world) as sandbox, sandbox.env(), asyncio.Runner() as runner:
        for name, thing in chosen.items():
            names = NAMES | {"client": kind("minnie_public")}
            for example in examples(thing):
                if example.options.get(doctest.SKIP):
                    continue
                try:
                    play(example, names, runner)
                except (MissingDependency, ImportError):
                    left_out.append(name)
                    break
                if not checker.check_output(example.want, told := capsys.readouterr().out, FLAGS):
                    wrong[name] = (example.source, example.want, told)
    assert wrong == {}
    assert len(left_out) < len(chosen) // 3
