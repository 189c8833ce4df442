"""The live suite: never by default, skipped without a token."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def run(*options: str) -> str:
    command = [sys.executable, "-m", "pytest", "tests/live", "-q", "-p", "no:cacheprovider", *options]
    return subprocess.run(command, check=False, cwd=ROOT, env=os.environ, capture_output=True, text=True).stdout


def test_it_is_deselected_unless_it_is_asked_for() -> None:
    assert "5 deselected" in run("--collect-only", "-m", "not slow")


def test_it_is_skipped_without_a_token() -> None:
    told = run("-m", "live")
    assert "5 skipped" in told
    assert "cortexclient auth setup minnie_public" in told
