"""Every Python block of the documentation runs against a sandbox, or says why it does not.

The blocks of a page are one program, in order; ``await`` works at the top level. A block that is not run carries
``<!-- not run: the reason -->`` on the line before it.
"""

from __future__ import annotations

import ast
import asyncio
import inspect
import re
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from cortexclient.sandbox import Sandbox

ROOT = Path(__file__).parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")])
NOT_RUN = re.compile(r"<!-- not run: (?P<reason>\S.*\S) -->")
LANGUAGES = {"python", "bash", "text", "toml", "json"}


class Block(NamedTuple):
    line: int
    language: str
    source: str
    reason: str | None
    """Why it is not run."""


def blocks(text: str) -> list[Block]:
    found: list[Block] = []
    opened: tuple[int, str] | None = None
    body: list[str] = []
    before = ""
    for number, line in enumerate(text.splitlines(), 1):
        fence = re.match(r"\s*(?:```|~~~)\s*(\S*)", line)
        if fence and opened is None:
            opened, body = (number, fence[1]), []
        elif fence and opened:
            told = NOT_RUN.fullmatch(before.strip())
            found.append(Block(*opened, "\n".join(body), told["reason"] if told else None))
            opened, before = None, ""
        elif opened:
            body.append(line)
        if line.strip() and opened is None and not fence:
            before = line
    assert opened is None, f"the block of line {opened} has no end"
    return found


def name(page: Path) -> str:
    return str(page.relative_to(ROOT))


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_every_block_names_its_language(page: Path) -> None:
    unknown = {block.line: block.language for block in blocks(page.read_text()) if block.language not in LANGUAGES}
    assert unknown == {}, "write python for a block that runs, bash or text for others"


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_reasons_belong_to_python_blocks(page: Path) -> None:
    text = page.read_text()
    given = [block for block in blocks(text) if block.reason]
    assert all(block.language == "python" for block in given)
    assert text.count("not run:") == len(given), "a reason without its block, or on another line than the one before"


PROGRAMS = [page for page in PAGES if any(b.language == "python" and not b.reason for b in blocks(page.read_text()))]


@pytest.mark.parametrize("page", PROGRAMS, ids=name)
def test_the_blocks_of_a_page_run(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {"__name__": "__main__"}
    with Sandbox() as sandbox, sandbox.env(), asyncio.Runner() as runner:
        for block in blocks(page.read_text()):
            if block.language == "python" and not block.reason:
                source = "\n" * block.line + block.source
                code = compile(source, str(page), "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
                if code.co_flags & inspect.CO_COROUTINE:
                    runner.run(_awaited(code, names))
                else:
                    exec(code, names)


async def _awaited(code: Any, names: dict[str, Any]) -> None:
    await eval(code, names)


LINK = re.compile(r"\[[^\]]*\]\((?!https?://|#|mailto:)([^)#\s]+)")


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_links_lead_somewhere(page: Path) -> None:
    missing = [target for target in LINK.findall(page.read_text()) if not (page.parent / target).exists()]
    assert missing == []


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_paths_that_are_named_exist(page: Path) -> None:
    """Inline code that looks like one of our paths is one."""
    named = re.findall(r"`((?:src|tests|docs|tools|benchmarks)/[\w./-]+)`", page.read_text())
    assert [path for path in named if not (ROOT / path).exists()] == []


def test_the_readmes_commands_are_the_ones_that_ci_runs() -> None:
    readme = (ROOT / "README.md").read_text()
    assert 'pip install ".[all]" && cortexclient demo' in readme
    assert "pip install tox && tox" in readme
    assert "pip install --quiet tox" in (ROOT / ".ci" / "run").read_text()


def test_the_parser_sees_blocks_and_reasons() -> None:
    text = "a\n\n```python\nx = 1\n```\n\n<!-- not run: it writes -->\n```python\ny = 2\n```\n\n```bash\nls\n```\n"
    assert blocks(text) == [
        Block(3, "python", "x = 1", None),
        Block(8, "python", "y = 2", "it writes"),
        Block(12, "bash", "ls", None),
    ]
