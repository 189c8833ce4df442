"""The real servers: ``pytest -m live``, by hand, with a token. Nothing here runs, or opens a socket, by default."""

from __future__ import annotations

import os

import pytest

from cortexclient._transport.auth import TokenSource
from cortexclient.datasets.spec import get_spec

DATASETS = ("minnie_public", "v1dd_public")
SERVER = os.environ.get("CORTEXCLIENT_SERVER")
# read before the tests' scratch HOME hides CAVE's secret files
TOKENS = {name: TokenSource().find(SERVER or get_spec(name).server) for name in DATASETS}


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Only those who ask for live tests get them, whatever else they select."""
    if "live" in str(config.option.markexpr):
        return
    live = [item for item in items if item.get_closest_marker("live")]
    config.hook.pytest_deselected(items=live)
    items[:] = [item for item in items if item not in set(live)]


@pytest.fixture(params=DATASETS)
def dataset(request: pytest.FixtureRequest, scratch_home: object, monkeypatch: pytest.MonkeyPatch) -> str:
    """The name of a public dataset that there is a token for."""
    name = str(request.param)
    token = TOKENS[name]
    if token is None:
        pytest.skip(f"no token for {name}: cortexclient auth setup {name}, or CORTEXCLIENT_TOKEN")
    monkeypatch.setenv("CORTEXCLIENT_TOKEN", token.value)
    if SERVER:
        monkeypatch.setenv("CORTEXCLIENT_SERVER", SERVER)
    return name
