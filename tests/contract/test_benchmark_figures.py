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
        columns = {column.replace("_", " ") for row in kept["rows"] for column in row}
        assert {cell.strip() for cell in table[0].strip("|").split("|")} == columns


def test_the_page_shows_every_part() -> None:
    page = PAGE.read_text()
    assert [part for part in report.stored() if f"<!-- figures: {part} -->" not in page] == []


ODD = [{"way": "ours", "seconds": 1.5}, {"way": "peer", "seconds": None, "refused": 3}, {"way": "bare", "seconds": "?"}]


def test_a_row_that_differs_from_the_first_one_loses_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(report, "RESULTS", tmp_path)
    monkeypatch.setattr(report, "PACKAGES", ("numpy",))
    report.keep("part", "odd", {"rounds": 1}, ODD)
    header, _, *rows = report.as_markdown("part").split("\n\n")[1].splitlines()
    assert header == "| way | refused | seconds |"
    assert rows == ["| ours |  | 1.5 |", "| peer | 3 | None |", "| bare |  | ? |"]
    assert "refused" in capsys.readouterr().out
