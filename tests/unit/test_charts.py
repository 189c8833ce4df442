"""The rates that the presets keep to are half of what the services' charts allow, by the charts' own names."""

from __future__ import annotations

import json
import pickle

import pytest

from cortexclient._wire import endpoints
from cortexclient.config import Limits
from cortexclient.datasets.spec import CHARTS, DatasetSpec, known_specs, polite
from cortexclient.sandbox import Sandbox
from cortexclient.sandbox.limits import CHARTS as SANDBOX_CHARTS
from cortexclient.sandbox.limits import _category


@pytest.mark.parametrize("endpoint", endpoints.ALL, ids=str)
def test_endpoints_are_counted_as_the_server_counts_them(endpoint: endpoints.Endpoint) -> None:
    """The sandbox finds the category by the URL, as the services do; the client has it in its table."""
    category, per_minute = _category(endpoint.path)
    assert endpoint.category == (category if per_minute else None)


def test_both_know_the_same_charts() -> None:
    named = {category: rate for _, category, rate in SANDBOX_CHARTS if rate}
    assert dict(CHARTS) == named


def test_presets_keep_to_half() -> None:
    assert known_specs()
    for spec in known_specs():
        assert spec.limits.per_minute == {category: rate / 2 for category, rate in CHARTS.items()}
    assert DatasetSpec(name="other", datastack="other").limits == Limits()


@pytest.mark.parametrize("limits", [Limits(), Limits(per_minute={}), polite()])
def test_a_spec_travels(limits: Limits) -> None:
    spec = DatasetSpec(name="a", datastack="b", backup_tables=("c", "d"), limits=limits)
    for copy in (DatasetSpec.from_json(json.loads(json.dumps(spec.to_json()))), pickle.loads(pickle.dumps(spec))):
        assert copy == spec
        assert copy.limits == limits
        assert hash(copy) == hash(spec)


@pytest.mark.parametrize(("limits", "rates"), [("none", None), ("charts", polite().per_minute)])
def test_a_sandbox_says_what_its_clients_should_keep_to(limits: str, rates: object) -> None:
    assert Sandbox(limits=limits).spec.limits.per_minute == rates
