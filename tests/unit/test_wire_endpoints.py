"""The table of endpoints."""

from __future__ import annotations

import re

from cortexclient._wire import endpoints


def test_names_and_addresses_are_unique() -> None:
    assert len({str(endpoint) for endpoint in endpoints.ALL}) == len(endpoints.ALL) > 30
    assert len({(endpoint.method, endpoint.path) for endpoint in endpoints.ALL}) == len(endpoints.ALL)


def test_paths_are_absolute_templates() -> None:
    for endpoint in endpoints.ALL:
        assert endpoint.path.startswith("/")
        assert "//" not in endpoint.path
        assert re.fullmatch(r"(?:[\w/.:-]|\{[a-z_]+\})+", endpoint.path), endpoint


def test_what_is_sent_and_asked_is_consistent() -> None:
    for endpoint in endpoints.ALL:
        assert endpoint.method in {"GET", "POST", "PUT", "DELETE"}, endpoint
        assert endpoint.batch is None or endpoint.batch > 0, endpoint
        assert endpoint.scope == ("global" if endpoint.service in {"info", "auth", "schema", "state"} else "local")
