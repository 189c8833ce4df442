"""Real servers and real processes."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tests.patience import HANG

from cortexclient.sandbox import Sandbox, World

Program = Callable[..., subprocess.Popen[str]]


@pytest.fixture(scope="session")
def world() -> World:
    """The default world. It is shared: whoever edits one makes one of their own."""
    return World.default()


@pytest.fixture
def sandbox(world: World) -> Iterator[Sandbox]:
    """A server of the test's own, which it may slow down or break."""
    with Sandbox(world) as sandbox:
        yield sandbox


@pytest.fixture
def program(sandbox: Sandbox, tmp_path: Path) -> Iterator[Program]:
    """Starts Python programs that find the sandbox in their environment. All warnings are errors there too."""
    started = []

    def start(text: str, *options: str) -> subprocess.Popen[str]:
        path = tmp_path / "program.py"
        path.write_text(text)
        with sandbox.env():
            started.append(
                subprocess.Popen(
                    [sys.executable, "-W", "error", *options, str(path)],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.PIPE,
                    text=True,
                    env={**os.environ, "PYTHONUNBUFFERED": "1"},
                )
            )
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.communicate()


def finish(process: subprocess.Popen[str]) -> str:
    """What a program printed. It must end by itself, well, and without a word of complaint."""
    out, err = process.communicate(timeout=HANG)
    assert (process.returncode, err) == (0, ""), err
    return out
