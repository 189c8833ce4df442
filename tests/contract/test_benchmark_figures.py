"""The figures that are kept can be shown: the documentation's benchmark page is made of them."""

from __future__ import annotations

from pathlib import Path

import pytest
from benchmarks import report

PAGE = Path(__file__).parents[2] / "docs" / "benchmarks.md"


@pytest.mark.parametrize("part", sorted(report.stored()))
def test_every_kept_figure_has_its_place_in_a_table(part: str) -> None:
    text = report.as_markdown(part)
    for name, kept in report.stored()[part].items():
        table = text.split(f"**{name}**")[1].split("<small>")[0].strip().splitlines()
        assert len(table) == 2 + len(kept["rows"])
        assert len({line.count(" | ") for line in table}) == 1
        assert all(column.replace("_", " ") in table[0] for column in kept["rows"][0])


def test_the_page_shows_every_part() -> None:
    page = PAGE.read_text()
    assert [part for part in report.stored() if f"<!-- figures: {part} -->" not in page] == []
