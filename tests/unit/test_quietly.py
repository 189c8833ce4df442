"""Imports that keep quiet, from several threads at once."""

from __future__ import annotations

import sys
import types
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Event

import pytest
from tests.patience import HANG

from cortexclient._quietly import quietly

FIRST = """
import warnings, quiet_meeting
quiet_meeting.first_is_in.set()
quiet_meeting.second_is_in.wait(0.3)
warnings.warn("changes are announced", DeprecationWarning)
"""
SECOND = """
import warnings, quiet_meeting
quiet_meeting.second_is_in.set()
quiet_meeting.first_is_out.wait()
warnings.warn("changes are announced", DeprecationWarning)
"""


def test_threads_leave_the_filters_as_they_were(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that begins within the other, and ends after it, would put back what the other one had set."""
    meeting = types.SimpleNamespace(first_is_in=Event(), second_is_in=Event(), first_is_out=Event())
    for name, text in (("quiet_first", FIRST), ("quiet_second", SECOND)):
        (tmp_path / f"{name}.py").write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setitem(sys.modules, "quiet_meeting", meeting)
    before = [*warnings.filters]
    with ThreadPoolExecutor(2) as threads:
        first = threads.submit(quietly, "quiet_first")
        assert meeting.first_is_in.wait(HANG)
        second = threads.submit(quietly, "quiet_second")
        assert first.result().__name__ == "quiet_first"
        meeting.first_is_out.set()
        assert second.result() is sys.modules["quiet_second"]
    assert warnings.filters == before
    for name in ("quiet_first", "quiet_second"):
        del sys.modules[name]


def test_what_is_loaded_leaves_the_filters_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    def touched() -> None:
        raise AssertionError("the filters are changed for each mesh")

    monkeypatch.setattr(warnings, "catch_warnings", touched)
    assert quietly("json") is sys.modules["json"]
