"""Every Python block of the documentation runs against a sandbox, or says why it does not.

The blocks of a page are one program; how one is written, and run, is said in ``tools/docs_blocks.py``.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from tests.live import test_public_datastacks
from tools.docs_blocks import Block, blocks, run

from cortexclient.sandbox import Sandbox

ROOT = Path(__file__).parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")])
LANGUAGES = {"python", "bash", "text", "toml", "json"}


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


PROGRAMS = [page for page in PAGES if any(block.runs for block in blocks(page.read_text()))]


@pytest.mark.filterwarnings("ignore:Dataset.transform_nm is deprecated:DeprecationWarning")
@pytest.mark.parametrize("page", PROGRAMS, ids=name)
def test_the_blocks_of_a_page_run(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for _ in run(page, page.read_text()):
        pass


@pytest.mark.filterwarnings("ignore")
def test_the_live_tests_hold_on_a_sandbox(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What they ask of the real servers; no token, and the suite would rot unseen."""
    monkeypatch.chdir(tmp_path)
    with Sandbox() as sandbox, sandbox.env():
        test_public_datastacks.test_all_services_answer("minnie_public")
        test_public_datastacks.test_roots_of_the_newest_version_lead_to_their_cells_and_back("minnie_public")
        test_public_datastacks.test_the_page_of_examples("minnie_public")


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


def test_the_site_leads_to_every_page() -> None:
    listed = (ROOT / "mkdocs.yml").read_text()
    pages = [path.relative_to(ROOT / "docs").as_posix() for path in (ROOT / "docs").rglob("*.md")]
    assert [page for page in pages if page not in listed] == []


def test_the_readmes_commands_are_the_ones_that_ci_runs() -> None:
    readme = (ROOT / "README.md").read_text()
    assert 'pip install ".[all]" && cortexclient demo' in readme
    assert "pip install tox && tox" in readme
    assert "pip install --quiet tox" in (ROOT / ".ci" / "run").read_text()


def test_the_parser_sees_blocks_and_reasons() -> None:
    text = "a\n\n```python\nx = 1\n```\n\n<!-- not run: it writes -->\n```python\ny = 2\n```\n\n```bash\nls\n```\n"
    assert blocks(text) == [
        Block(3, "python", "x = 1", None, 5),
        Block(8, "python", "y = 2", "it writes", 10),
        Block(12, "bash", "ls", None, 14),
    ]


def test_a_block_shows_what_it_printed_and_its_last_value() -> None:
    text = "```python\nx = 6\nprint(x)\nx * 7\n```\n\n```python\ny = x\n```\n\n"
    text += "```python\nimport asyncio\nawait asyncio.sleep(0, y)\n```\n"
    assert [tuple(output) for _, output in run(Path("page.md"), text)] == [("6\n", 42), ("", None), ("", 6)]


def test_a_block_without_an_end_is_refused() -> None:
    with pytest.raises(ValueError, match="line 2 has no end"):
        blocks("a\n```python\nx\n")
