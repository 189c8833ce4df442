"""``cortexclient auth``: tokens are found, tried and saved, and never shown."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from cortexclient.cli import app
from cortexclient.sandbox import Sandbox

RUN = CliRunner()


@pytest.fixture
def on_sandbox(sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> Sandbox:
    monkeypatch.setenv("CORTEXCLIENT_SERVER", sandbox.url)
    return sandbox


def test_a_token_is_saved_and_then_taken(on_sandbox: Sandbox, scratch_home: Path) -> None:
    done = RUN.invoke(app, ["auth", "status"])
    assert done.exit_code == 1
    assert "no token: run `cortexclient auth setup`" in done.output
    assert "info: token missing" in done.output

    done = RUN.invoke(app, ["auth", "setup"], input=f"{on_sandbox.token}\n")
    assert done.exit_code == 0, done.output
    assert f"{on_sandbox.url}/sticky_auth/settings/tokens" in done.output
    assert on_sandbox.token not in done.output
    (path,) = (scratch_home / ".cloudvolume" / "secrets").iterdir()
    assert json.loads(path.read_text()) == {"token": on_sandbox.token}

    done = RUN.invoke(app, ["auth", "status"])
    assert done.exit_code == 0, done.output
    assert f"token from {path}" in done.output
    for service in ("info", "chunkedgraph", "materialize"):
        assert f"{service}: token accepted" in done.output
    assert on_sandbox.token not in done.output


def test_another_token_is_replaced_only_on_demand(on_sandbox: Sandbox, scratch_home: Path) -> None:
    RUN.invoke(app, ["auth", "setup"], input="first\n")
    done = RUN.invoke(app, ["auth", "setup"], input="second\n")
    assert done.exit_code != 0
    assert "another token" in str(done.exception)
    done = RUN.invoke(app, ["auth", "setup", "--overwrite"], input="second\n")
    assert done.exit_code == 0, done.output
    assert "refused" in RUN.invoke(app, ["auth", "status"]).output
