"""Progress: counted in ids, not too often, and always to the end."""

from __future__ import annotations

import pytest

from cortexclient import progress
from cortexclient.progress import Progress, Reporter


def test_a_callable_gets_the_first_moment_and_the_last(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter([100.0, *(100.2 + i / 1000 for i in range(1000))])
    monkeypatch.setattr(progress.time, "monotonic", lambda: next(clock))
    seen: list[Progress] = []
    with Reporter(seen.append, total=50) as reporter:
        for i in range(50):
            reporter.add(done=i % 5 > 0, failed=i % 5 == 0)
    assert len(seen) == 2  # 50 ms long
    assert (seen[-1].done, seen[-1].failed, seen[-1].total) == (40, 10, 50)
    assert seen[-1].seconds > seen[0].seconds > 0


def test_at_most_ten_reports_a_second(monkeypatch: pytest.MonkeyPatch) -> None:
    ticks = iter(range(10_000))
    monkeypatch.setattr(progress.time, "monotonic", lambda: 100 + next(ticks) / 1000)
    seen: list[Progress] = []
    with Reporter(seen.append, total=None) as reporter:
        for _ in range(3_000):
            reporter.add(done=1)
    assert 0 < len(seen) <= 10 * seen[-1].seconds + 2
    assert seen[-1].done == 3_000


def test_the_last_report_comes_even_if_the_call_fails() -> None:
    seen: list[Progress] = []

    def fail() -> None:
        with Reporter(seen.append, total=9) as reporter:
            reporter.add(done=4)
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert seen[-1].done == 4


def test_true_is_a_bar_on_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    with Reporter(True, total=3) as reporter:
        reporter.add(done=2, failed=1)
    shown = capsys.readouterr()
    assert "3.00/3.00" in shown.err
    assert "failed=1" in shown.err
    assert shown.out == ""


@pytest.mark.parametrize("silent", [None, False])
def test_none_is_silent(silent: bool | None, capsys: pytest.CaptureFixture[str]) -> None:
    with Reporter(silent, total=3) as reporter:
        reporter.add(done=3)
    assert capsys.readouterr() == ("", "")
