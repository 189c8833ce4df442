"""Fixtures that every test may use."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
from hypothesis import settings

from cortexclient.datasets import spec

settings.register_profile("any machine", deadline=None)  # a busy one is no failure
settings.load_profile("any machine")

# a shell's job in the background ignores Ctrl-C, and so would the programs that tests start and interrupt
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

REPOSITORY = Path(__file__).parents[1]


@pytest.fixture(autouse=True)
def scratch_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A HOME of its own for each test: caveclient writes into it, and no real token may leak in."""
    home = tmp_path / "home"
    home.mkdir()
    monkeypatch.setenv("HOME", str(home))
    for name in ("CORTEXCLIENT_SERVER", "CORTEXCLIENT_TOKEN", "CAVE_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    return home


@pytest.fixture(autouse=True)
def registry(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a test registers is forgotten."""
    monkeypatch.setattr(spec, "_SPECS", dict(spec._SPECS))


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real data (``pcg_toy/``, ``neurons/`` ...); tests that need it skip where it is absent."""
    folder = Path(os.environ.get("CORTEXCLIENT_SHARED_DATA", REPOSITORY.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip("the real data is not here: put it in ../shared/data or name it in CORTEXCLIENT_SHARED_DATA")
    return folder
