"""The public surface: complete, sorted, documented in numpydoc."""

from __future__ import annotations

import ast
import importlib
import inspect
import pkgutil
import re
from collections.abc import Callable, Iterator
from functools import cached_property
from types import ModuleType
from typing import Any

import pytest

import cortexclient
from cortexclient import AsyncCortexClient

MODULES = ["cortexclient", "cortexclient.errors", "cortexclient.datasets", "cortexclient.sandbox"]
SERVICES = [
    importlib.import_module(module.name)
    for module in pkgutil.iter_modules(
        importlib.import_module("cortexclient.services").__path__, "cortexclient.services."
    )
    if not module.name.rpartition(".")[2].startswith("_")
]


@pytest.mark.parametrize("name", MODULES)
def test_all_is_sorted_and_real(name: str) -> None:
    module = importlib.import_module(name)
    assert sorted(module.__all__) == sorted(set(module.__all__))
    if name != "cortexclient.datasets":  # ruff sorts constants, classes, functions
        assert list(module.__all__) == sorted(module.__all__)
    assert {public for public in module.__all__ if not hasattr(module, public)} == set()


def test_dir_and_the_type_checker_see_the_same_names() -> None:
    tree = ast.parse(inspect.getsource(cortexclient))
    block = next(node for node in tree.body if isinstance(node, ast.If))
    seen = {alias.name for node in block.body if isinstance(node, ast.ImportFrom) for alias in node.names}
    assert seen | {"__version__"} == set(cortexclient.__all__) == set(dir(cortexclient))


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        cortexclient.nonsense  # noqa: B018


def test_the_version_is_the_installed_one() -> None:
    assert re.fullmatch(r"\d+\.\d+\.\d+.*", cortexclient.__version__)


def public_objects() -> Iterator[tuple[str, Any]]:
    """Everything of ours that a user can reach by public names."""
    modules: list[ModuleType] = [importlib.import_module(name) for name in MODULES]
    seen: set[int] = set()
    for module in [*modules, *SERVICES]:
        for name in getattr(module, "__all__", vars(module)):
            value = getattr(module, name)
            home = getattr(value, "__module__", "")
            ours = home.startswith("cortexclient") if hasattr(module, "__all__") else home == module.__name__
            if id(value) in seen or name.startswith("_") or not ours or not callable(value):
                continue
            seen.add(id(value))
            yield f"{module.__name__}.{name}", value
            if inspect.isclass(value):
                yield from public_members(value)


def public_members(cls: type) -> Iterator[tuple[str, Any]]:
    for name, _ in inspect.getmembers(cls):
        member = inspect.getattr_static(cls, name)
        if isinstance(member, staticmethod | classmethod):
            member = member.__func__
        if isinstance(member, property | cached_property):
            member = member.fget if isinstance(member, property) else member.func
        if name.startswith("_") or not inspect.isfunction(member) or not member.__module__.startswith("cortexclient"):
            continue
        if getattr(member, "internal", False):  # what services do for each other
            continue
        yield f"{cls.__module__}.{cls.__name__}.{name}", member


OBJECTS = dict(public_objects())


@pytest.mark.parametrize("name", sorted(OBJECTS))
def test_everything_public_says_what_it_is(name: str) -> None:
    text = inspect.getdoc(OBJECTS[name])
    assert text, "no docstring"
    assert text.splitlines()[0].rstrip().endswith((".", ":", "?")), "the first line is a sentence"


FUNCTIONS = {name: value for name, value in OBJECTS.items() if inspect.isfunction(value)}
OF_CLIENTS = {
    name: value
    for name, value in FUNCTIONS.items()
    if name.startswith((f"{AsyncCortexClient.__module__}.", "cortexclient.services", "cortexclient._load"))
}
COMMON = {"self", "progress", "timeout", "version", "materialization_version"}
"""Explained once, with the client."""


def documented_parameters(text: str) -> set[str]:
    section = re.search(r"^Parameters\n-+\n(.*?)(?:\n\n[A-Z][a-z]+\n-+\n|\Z)", text, re.MULTILINE | re.DOTALL)
    lines = section[1].splitlines() if section else []
    heads = (line.split(":")[0] for line in lines if line and not line[0].isspace())
    return {name.strip(" *") for head in heads for name in head.split(",")}


SYNONYMS = {"timestamp": r"timestamp|instant|time", "bound": "bound|box"}


def speaks_of(text: str, parameter: str) -> bool:
    """Whether the text names what a parameter is called after: the root of ``root_ids``, the instant of a timestamp."""
    if f"``{parameter}``" in text:
        return True
    words = [word.removesuffix("s") for word in parameter.split("_") if word not in {"id", "ids", "name"}]
    return any(re.search(rf"\b(?:{SYNONYMS.get(word, word)})s?\b", text, re.IGNORECASE) for word in words)


@pytest.mark.parametrize("name", sorted(OF_CLIENTS))
def test_every_parameter_of_a_clients_method_is_explained(name: str) -> None:
    method: Callable[..., Any] = OF_CLIENTS[name]
    text = inspect.getdoc(method) or ""
    if re.search(r"(?i)see\s+(?::meth:)?`|as\s+(?:in|for|of)\s+:meth:", text):  # explained where it leads
        return
    unexplained = set(inspect.signature(method).parameters) - COMMON - documented_parameters(text)
    assert {parameter for parameter in unexplained if not speaks_of(text, parameter)} == set()


@pytest.mark.parametrize("name", sorted(OF_CLIENTS))
def test_nothing_is_explained_that_is_not_there(name: str) -> None:
    parameters = set(inspect.signature(OF_CLIENTS[name]).parameters)
    assert documented_parameters(inspect.getdoc(OF_CLIENTS[name]) or "") <= parameters
