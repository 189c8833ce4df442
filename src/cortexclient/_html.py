"""How things of this package show themselves in a notebook."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape

Row = Sequence[object]


def table(title: str, rows: Iterable[Row], header: Row = ()) -> str:
    """A table, below its title if it has one; everything is escaped."""
    head = f"<thead><tr>{_cells('th', header)}</tr></thead>" if header else ""
    body = "".join(f"<tr>{_cells('td', row)}</tr>" for row in rows)
    above = f"<div>{escape(title)}</div>" if title else ""
    return f"{above}<table>{head}<tbody>{body}</tbody></table>"


def preformatted(text: str) -> str:
    """A text with its own line breaks."""
    return f"<pre>{escape(text)}</pre>"


def link(url: str, text: str) -> str:
    """A link that opens beside the notebook."""
    return f'<a href="{escape(url)}" target="_blank" rel="noopener">{escape(text)}</a>'


def _cells(kind: str, row: Row) -> str:
    # notebooks align cells to the right
    return "".join(f'<{kind} style="text-align: left">{escape(str(cell))}</{kind}>' for cell in row)
