"""What mkdocs does besides its trade (named in ``mkdocs.yml``): outputs under blocks, the root's pages, the figures."""

from __future__ import annotations

import contextlib
import html
import logging
import os
import posixpath
import re
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))  # mkdocs adds the folder of this file only

from benchmarks import charts, report  # noqa: E402
from tools.docs_blocks import Block, Output, run  # noqa: E402

FROM_ROOT = {"CONTRIBUTING.md": "contributing.md", "CHANGELOG.md": "changelog.md", "README.md": "index.md"}
"""Pages that stand in the root of the repository, and what they are on the site; the README is not shown twice."""
LINK = re.compile(r"(\]\()(?!https?://|#|mailto:)([^)#\s]+)")
ROLE = re.compile(r":(?:attr|class|exc|func|meth|mod):(?=<code>)")
"""Sphinx' roles in docstrings, in front of what they mark as code."""
FIGURES = re.compile(r"<!-- (figures|charts): (\w+) -->")
DRAWN = {"figures": report.as_markdown, "charts": charts.as_html}


def on_startup(**_: Any) -> None:
    """Let the notebooks find real data, where it is; their pictures are explained above them."""
    logging.getLogger("traitlets").setLevel(logging.ERROR)
    os.environ.setdefault("CORTEXCLIENT_SHARED_DATA", str(ROOT.parent / "shared" / "data"))


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages of the repository's root."""
    for source, target in FROM_ROOT.items():
        if target not in files.src_uris:
            files.append(File.generated(config, target, content=(ROOT / source).read_text()))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:  # noqa: ARG001
    """Put outputs under the blocks, the figures where they are wanted, and links right."""
    place = page.file.src_uri
    source = next(
        (root for root, target in FROM_ROOT.items() if target == place and root != "README.md"), f"docs/{place}"
    )
    markdown = FIGURES.sub(lambda told: DRAWN[told[1]](told[2]), markdown)
    return LINK.sub(lambda found: found[1] + site_link(found[2], source, place), with_outputs(markdown, ROOT / source))


def on_page_content(content: str, page: Page, config: MkDocsConfig, files: Files) -> str:  # noqa: ARG001
    """Take Sphinx' roles from the reference."""
    return ROLE.sub("", content).replace("<code>~", "<code>")


def site_link(target: str, source: str, place: str) -> str:
    """A link between files of the repository as one between pages of the site."""
    path = posixpath.normpath(posixpath.join(posixpath.dirname(source), target))
    page = FROM_ROOT.get(path, path.removeprefix("docs/"))
    return posixpath.relpath(page, posixpath.dirname(place) or ".")


def with_outputs(markdown: str, source: Path) -> str:
    """Run the blocks of a page; what they showed stands below them."""
    lines = markdown.splitlines()
    wide = pd.option_context("display.max_rows", 8, "display.max_columns", 12, "display.width", 120)
    with tempfile.TemporaryDirectory() as scratch, contextlib.chdir(scratch), wide:
        shown = list(_shown(markdown, source))
    for block, text in reversed(shown):
        lines[block.end : block.end] = ["", text]
    return "\n".join(lines)


def _shown(markdown: str, source: Path) -> Iterator[tuple[Block, str]]:
    for block, output in run(source, markdown):
        if text := "".join(_as_html(output)):
            yield block, f'<div class="output">{text}</div>'


def _as_html(output: Output) -> Iterator[str]:
    if output.printed:
        yield _preformatted(output.printed)
    if output.value is not None:
        yield _value(output.value)


def _value(value: Any) -> str:
    rich = getattr(value, "_repr_html_", None)
    # a blank line would end the HTML block in Markdown
    return re.sub(r"\n\s*", "\n", rich()) if rich else _preformatted(repr(value))


def _preformatted(text: str) -> str:
    return f"<pre>{html.escape(text.rstrip()).replace(os.linesep, '&#10;')}</pre>"
