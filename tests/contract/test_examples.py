"""Everything that a user names has an example in its docstring, and the examples do what they say, on a sandbox.

That is: what the package exports, every public method of both clients, of their services and of what they return, and
the sandbox. One sandbox and one client serve all examples. They are checked where every extra is: an example that needs
a package which is missing here is left out.
"""

from __future__ import annotations

import ast
import asyncio
import doctest
import inspect
import re
from collections.abc import Iterator
from contextlib import ExitStack
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pytest

import cortexclient
from cortexclient import (
    AsyncBulkJob,
    AsyncCortexClient,
    CortexClient,
    _costs,
    _sync,
    diagnosis,
    errors,
    sandbox,
    skeletons,
)
from cortexclient._transport import TransportStats
from cortexclient._transport.cache import CacheInfo
from cortexclient.bulk.ledger import Manifest
from cortexclient.bulk.report import JobPlan, JobStatus, Verification
from cortexclient.bulk.spec import JobSpec
from cortexclient.datasets import spec
from cortexclient.errors import MissingDependency
from cortexclient.exports._listing import Export
from cortexclient.interop.matplotlib import save_picture
from cortexclient.sandbox import Sandbox, SandboxProcess, World

REFERENCE = Path(__file__).parents[2] / "docs" / "reference"
NO_EXAMPLE = {"Ids", "When", "__version__"}
"""Hints and a text."""
NOT_HERE = {"World.from_toy", "World.from_minnie65", "BulkJob.run_on"}
"""Their examples need data that is not part of the package, or a cluster; other tests run them."""
FLAGS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE

RETURNED = (
    *(_costs.CostEstimate, _costs.Step, _costs.Totals, diagnosis.Diagnosis, diagnosis.ServiceStatus),
    *(TransportStats, CacheInfo, skeletons.Skeleton, Export),
    *(JobPlan, JobSpec, JobStatus, Manifest, Verification),
)
"""Values that calls give back, beside those that the package exports."""


def described(cls: type) -> dict[str, Any]:
    """The public members of a class that are this package's own, each by the function that has its docstring."""
    members = {name: inspect.getattr_static(cls, name) for name in dir(cls) if not name.startswith("_")}
    functions = {name: function(member) for name, member in members.items()}
    ours = {name: f for name, f in functions.items() if getattr(f, "__module__", "").startswith("cortexclient")}
    return {name: f for name, f in ours.items() if inspect.isfunction(f) and not getattr(f, "internal", False)}


def function(member: Any) -> Any:
    if isinstance(member, property):
        return member.fget
    return member.func if isinstance(member, cached_property) else getattr(member, "__func__", member)


def members(*classes: type) -> dict[str, Any]:
    return {f"{cls.__name__}.{name}": found for cls in classes for name, found in described(cls).items()}


NAMES = {name: getattr(cortexclient, name) for name in cortexclient.__all__ if name not in NO_EXAMPLE}
SANDBOX = {name: getattr(sandbox, name) for name in sandbox.__all__}
TWINS: list[Any] = [getattr(_sync, name) for name in _sync.__all__]
ORIGINALS = [AsyncCortexClient if twin is CortexClient else twin.__orig_bases__[0].__args__[0] for twin in TWINS]
HELPERS = {name: getattr(errors, name) for name in errors.__all__} | {"save_picture": save_picture}
VALUES = [thing for thing in (*NAMES.values(), *SANDBOX.values()) if inspect.isclass(thing)]
EVERYTHING = (
    *(NAMES | SANDBOX | HELPERS).items(),
    *((cls.__name__, cls) for cls in RETURNED),
    *members(*ORIGINALS, AsyncBulkJob, *VALUES, *RETURNED).items(),
)
SYNC = members(*TWINS)
ASYNC = {name: thing for name, thing in EVERYTHING if name not in SYNC}


def examples(thing: Any) -> list[doctest.Example]:
    """Those of its docstring; an error has those of its kind."""
    kinds = [kind for kind in thing.__mro__ if kind is not object] if inspect.isclass(thing) else [thing]
    texts = (inspect.cleandoc(kind.__doc__ or "").partition("\nExamples\n--------\n")[2] for kind in kinds)
    return next((found for text in texts if (found := doctest.DocTestParser().get_examples(text))), [])


def skipped(example: doctest.Example) -> bool:
    return bool(example.options.get(doctest.SKIP))


def test_everything_public_has_an_example() -> None:
    assert {name for name, thing in (ASYNC | SYNC).items() if not examples(thing)} == set()


def test_no_example_is_only_for_show() -> None:
    assert {name for name, thing in (ASYNC | SYNC).items() if all(map(skipped, examples(thing)))} == NOT_HERE


def test_the_reference_has_every_class() -> None:
    """Twins stand for their originals there."""
    pages = REFERENCE.glob("*.md")
    shown = {line.rpartition(".")[2] for page in pages for line in page.read_text().splitlines() if line[:4] == "::: "}
    assert "::: cortexclient.errors" in (REFERENCE / "values.md").read_text()
    assert {cls.__name__ for cls in (*ORIGINALS, *VALUES, *RETURNED)} - set(errors.__all__) - shown == set()


TOLD = ("IdArray", "BoolArray", "NDArray", "DataFrame", "DatetimeIndex", "Results[", "LazyFrame", "pa.Table")


DESCRIBED = re.compile(r"^Returns$|``|:meth:|:class:|\(n,\)|ascending", re.MULTILINE)


def test_arrays_frames_and_results_are_described() -> None:
    """Shape, unit, order: under ``Returns``, where it says what else to see, or in a property's own sentence."""
    silent = {
        name
        for name, thing in (ASYNC | SYNC).items()
        if inspect.isfunction(thing) and any(kind in str(thing.__annotations__.get("return")) for kind in TOLD)
        if not DESCRIBED.search(inspect.getdoc(thing) or "")
    }
    assert silent == set()


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


class Stage:
    """What examples find: the names that everybody imports, some ids, an empty folder, a client, a sandbox."""

    def __init__(self, kind: type[Any], world: World, stack: ExitStack, scratch: Path) -> None:
        self._kind, self._stack, self._scratch = kind, stack, scratch
        self._sandbox = stack.enter_context(Sandbox(world))
        stack.enter_context(self._sandbox.env())
        self._process: SandboxProcess | None = None
        self._client = kind("minnie_public")
        roots = [864691134885645050, 864691135440543560, 864691135157210468]
        self._names = NAMES | SANDBOX | HELPERS | {"np": np, "pd": pd, "pl": pl, "roots": roots, "world": world}

    def names(self, name: str) -> dict[str, Any]:
        """Those for one member, which may do with them what it wants."""
        if self._client.closed:
            self._client = self._kind("minnie_public")
        server: Any = self._sandbox
        if name.startswith("SandboxProcess."):
            self._process = self._process or self._stack.enter_context(SandboxProcess())
            server = self._process
        folder = self._scratch / name
        folder.mkdir()
        return self._names | {"client": self._client, "sandbox": server, "folder": folder}


def wrong_examples(
    chosen: dict[str, Any], stage: Stage, runner: asyncio.Runner, capsys: pytest.CaptureFixture[str]
) -> Iterator[tuple[str, object]]:
    """What examples say that is not so; None for one that needs a package which is missing."""
    checker = doctest.OutputChecker()
    for name, thing in chosen.items():
        names = stage.names(name)
        for example in examples(thing):
            if skipped(example):
                continue
            try:
                play(example, names, runner)
            except (MissingDependency, ImportError):
                capsys.readouterr()
                yield name, None
                break
            if not checker.check_output(example.want, told := capsys.readouterr().out, FLAGS):
                yield name, (example.source, example.want, told)


# hundreds of examples; half of the time goes into loading the packages that some of them show
@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")
@pytest.mark.parametrize("kind", [AsyncCortexClient, CortexClient])
def test_the_examples_do_what_they_say(
    kind: type[Any],
    world: World,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    monkeypatch.setattr(spec, "_SPECS", dict(spec._SPECS))
    chosen = ASYNC if kind is AsyncCortexClient else SYNC
    # those that build an index before those that make the client forget what it learnt from building one
    chosen = {name: chosen[name] for name in sorted(chosen, key=lambda name: "index" not in name.lower())}
    with ExitStack() as stack:
        runner = stack.enter_context(asyncio.Runner())
        found = dict(wrong_examples(chosen, Stage(kind, world, stack, tmp_path), runner, capsys))
    assert {name: why for name, why in found.items() if why is not None} == {}
    assert len(found) < len(chosen) // 3
