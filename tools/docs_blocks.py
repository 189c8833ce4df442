"""The code blocks of the documentation: finding them, and running those of a page as one program.

A block names its language. Python blocks run, in order, against a sandbox of the page's own; ``await`` works at the top
level. A block that is not run carries ``<!-- not run: the reason -->`` on the line before it.
"""

from __future__ import annotations

import ast
import asyncio
import contextlib
import inspect
import io
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from cortexclient.sandbox import Sandbox

NOT_RUN = re.compile(r"<!-- not run: (?P<reason>\S.*\S) -->")
FENCE = re.compile(r"\s*(?:```|~~~)\s*(\S*)")


class Block(NamedTuple):
    """A fenced block, from the line of its opening fence to that of its closing one (counted from 1)."""

    line: int
    language: str
    source: str
    reason: str | None
    """Why it is not run."""
    end: int

    @property
    def runs(self) -> bool:
        """Whether it is part of the page's program."""
        return self.language == "python" and self.reason is None


class Output(NamedTuple):
    """What a block showed: printed text, then the value of its last line."""

    printed: str
    value: Any


def blocks(text: str) -> list[Block]:
    """All fenced blocks of a page."""
    found: list[Block] = []
    opened: tuple[int, str] | None = None
    body: list[str] = []
    before = ""
    for number, line in enumerate(text.splitlines(), 1):
        fence = FENCE.match(line)
        if fence and opened is None:
            opened, body = (number, fence[1]), []
        elif fence and opened:
            told = NOT_RUN.fullmatch(before.strip())
            found.append(Block(*opened, "\n".join(body), told["reason"] if told else None, number))
            opened, before = None, ""
        elif opened:
            body.append(line)
        if line.strip() and opened is None and not fence:
            before = line
    if opened is not None:
        raise ValueError(f"the block of line {opened[0]} has no end")
    return found


def run(page: Path, text: str) -> Iterator[tuple[Block, Output]]:
    """Run a page's program on a sandbox of its own, block by block."""
    if any(block.runs for block in blocks(text)):
        with Sandbox() as sandbox, sandbox.env():
            yield from execute(page, text, {})


def execute(page: Path, text: str, names: dict[str, Any]) -> Iterator[tuple[Block, Output]]:
    """Run a page's program wherever the environment leads, block by block; ``names`` are its variables."""
    names["__name__"] = "__main__"
    with asyncio.Runner() as runner:
        for block in blocks(text):
            if block.runs:
                yield block, _run(block, page, names, runner)


def _run(block: Block, page: Path, names: dict[str, Any], runner: asyncio.Runner) -> Output:
    tree = ast.parse("\n" * block.line + block.source, str(page))
    last = tree.body[-1] if tree.body and isinstance(tree.body[-1], ast.Expr) else None
    if last is not None:
        tree.body[-1] = ast.copy_location(ast.Assign([ast.Name("_", ast.Store())], last.value), last)
    code = compile(ast.fix_missing_locations(tree), str(page), "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        result = eval(code, names)  # a coroutine if the block awaits
        if code.co_flags & inspect.CO_COROUTINE:
            runner.run(_awaited(result))
    return Output(printed.getvalue(), names.pop("_", None) if last is not None else None)


async def _awaited(result: Any) -> None:
    await result
