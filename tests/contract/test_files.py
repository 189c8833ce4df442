"""Files and functions that fit into a head."""

from __future__ import annotations

import ast
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FILE_LINES = 600
FUNCTION_LINES = 60

FOLDERS = ("src", "tests", "benchmarks", "tools", "docs")


def python_files(*folders: str) -> list[Path]:
    return sorted(path for folder in folders for path in (ROOT / folder).rglob("*.py"))


def functions(path: Path) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node


def length(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Lines without the docstring, which explains and does not complicate."""
    body = function.body
    words = body[0] if isinstance(body[0], ast.Expr) and isinstance(body[0].value, ast.Constant) else None
    documented = words.end_lineno - words.lineno + 1 if words and words.end_lineno else 0
    return (function.end_lineno or function.lineno) - function.lineno + 1 - documented


def test_no_file_is_too_long() -> None:
    """But for the generated ones, which nobody reads as a whole: a twin has all that its classes inherit."""
    written = [path for path in python_files(*FOLDERS) if path.parent.name != "_sync"]
    lengths = {str(path.relative_to(ROOT)): len(path.read_text().splitlines()) for path in written}
    assert {name: lines for name, lines in lengths.items() if lines > FILE_LINES} == {}


def test_no_function_is_too_long() -> None:
    too_long = {
        f"{path.relative_to(ROOT)}:{function.lineno} {function.name}": length(function)
        for path in python_files("src", "tools")
        for function in functions(path)
        if length(function) > FUNCTION_LINES
    }
    assert too_long == {}


def test_nothing_is_left_undone() -> None:
    words = ("TO" + "DO", "FIX" + "ME", "XX" + "X", "NotImplemented" + "Error")
    found = [
        f"{path.relative_to(ROOT)}:{number}: {line.strip()}"
        for path in python_files("src", "tools", "benchmarks")
        for number, line in enumerate(path.read_text().splitlines(), 1)
        if any(word in line for word in words)
    ]
    assert found == []


@pytest.mark.parametrize("script", [".ci/run", "tools/make_sync.py"])
def test_scripts_can_be_run(script: str) -> None:
    assert os.access(ROOT / script, os.X_OK)
