"""What a notebook shows of values, and that it cannot be written into by a server."""

from __future__ import annotations

from cortexclient import NotFoundError, Outcome, Results, UnavailableError
from cortexclient._html import link, preformatted, table
from cortexclient.bulk.report import JobStatus


def test_everything_is_escaped() -> None:
    shown = (
        table("<b>", [("<script>", 1)], ("a&b",)) + link('https://example.org/"><script>', "<i>") + preformatted("<i>")
    )
    assert "<script>" not in shown
    assert "<b>" not in shown
    assert "<i>" not in shown
    assert "a&amp;b" in shown


def test_results_tell_counts_and_failures_by_reason() -> None:
    missing = [Outcome(number, error=NotFoundError(f"no root {number}")) for number in range(10, 1510)]
    broken = Outcome(7, error=UnavailableError("the server is away"))
    shown = Results([Outcome(1, "a"), *missing, broken])._repr_html_()
    assert shown.count("<tr>") == 1 + 3
    assert "1,500" in shown
    assert "no root 10" in shown
    assert "10, 11, 12" in shown
    assert "the server is away" in shown
    assert len(shown) < 2000


def test_results_without_failures_are_one_row() -> None:
    shown = Results([Outcome(number, "a") for number in range(10_000)])._repr_html_()
    assert shown.count("<tr>") == 2
    assert "10,000" in shown


def test_a_job_tells_how_far_it_is() -> None:
    shown = JobStatus("get_roots", parts=4, done=1, ids=100, ok=24, failed=1, rows=24)._repr_html_()
    assert "1 of 4" in shown
    assert "24 of 100" in shown
    assert ">75<" in shown
