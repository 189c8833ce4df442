"""Every module has its layer, and no task is started that nobody waits for. (`lint-imports` checks the layers.)"""

from __future__ import annotations

import ast
import configparser
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "src" / "cortexclient"

LOOSE = {"__init__", "sandbox", "datasets"}
"""The lazy face; the server, which has a contract of its own; a package whose modules are on two layers."""


def contracts() -> dict[str, configparser.SectionProxy]:
    parser = configparser.ConfigParser()
    parser.read(ROOT / ".importlinter")
    return {name.rpartition(":")[2]: parser[name] for name in parser.sections()}


def test_every_module_has_a_layer() -> None:
    named = set(re.findall(r"cortexclient\.([\w.]+)", contracts()["layers"]["layers"]))
    modules = {path.stem for path in PACKAGE.iterdir() if path.suffix == ".py" or (path / "__init__.py").is_file()}
    assert modules - LOOSE - {name for name in named if "." not in name} == set(), "give them a layer in .importlinter"
    datasets = {f"datasets.{path.stem}" for path in (PACKAGE / "datasets").glob("[a-z]*.py")}
    assert datasets == {name for name in named if name.startswith("datasets.")}


def test_every_layer_exists() -> None:
    for name in re.findall(r"(?<!\()cortexclient\.([\w.]+)", contracts()["layers"]["layers"]):
        path = PACKAGE.joinpath(*name.split("."))
        assert path.with_suffix(".py").is_file() or path.is_dir(), name


DETACHED = {"create_task", "ensure_future", "run_in_executor"}
MAY_START_TASKS = {
    "_portal.py": "where blocking calls meet the loop",
    "_twin.py": "one pump feeds a blocking stream",
    "_coalesce.py": "several callers wait for one request",
    "_fanout.py": "in a task group of asyncio, whose tasks cost a quarter of anyio's",
    "_transport/cache.py": "several callers wait for one load",
}
CLIENT_FILES = sorted(str(path.relative_to(PACKAGE)) for path in PACKAGE.rglob("*.py"))
CLIENT_FILES = [name for name in CLIENT_FILES if not name.startswith("sandbox/") and name not in MAY_START_TASKS]


@pytest.mark.parametrize("name", CLIENT_FILES)
def test_no_task_is_detached(name: str) -> None:
    source = (PACKAGE / name).read_text()
    called = {
        node.attr if isinstance(node, ast.Attribute) else node.id
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.Attribute | ast.Name)
    }
    assert not called & DETACHED, "work belongs into a task group, which ends with its call"
