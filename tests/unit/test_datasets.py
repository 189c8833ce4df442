"""Dataset specs: pure data, found by name or datastack."""

from __future__ import annotations

import dataclasses
import pickle
from dataclasses import replace

import pytest

from cortexclient import (
    AsyncCortexClient,
    CortexClient,
    DatasetSpec,
    NotFoundError,
    datasets,
    get_spec,
    known_specs,
    register,
)

PRESETS = {
    "minnie_public": "minnie65_public",
    "minnie_prod": "minnie65_phase3_v1",
    "v1dd": "v1dd",
    "v1dd_public": "v1dd_public",
}


def test_the_presets_are_known_by_name_and_by_datastack() -> None:
    assert [spec.name for spec in known_specs()] == sorted(PRESETS)
    for name, datastack in PRESETS.items():
        assert get_spec(name).datastack == datastack
        assert get_spec(datastack) is get_spec(name) is getattr(datasets, name.upper())


def test_every_preset_can_translate_cell_ids() -> None:
    for spec in known_specs():
        assert spec.server.startswith("https://")
        assert spec.nucleus_table
        assert spec.cell_id_view
        assert spec.space


def test_a_spec_is_itself() -> None:
    mine = DatasetSpec(name="fish", datastack="fish1_public")
    assert get_spec(mine) is mine


def test_a_registered_spec_is_found() -> None:
    mine = register(DatasetSpec(name="fish", datastack="fish1_public"))
    assert get_spec("fish") is get_spec("fish1_public") is mine
    assert mine in known_specs()


def test_an_unknown_name_gets_the_nearest_ones() -> None:
    with pytest.raises(NotFoundError, match="minnie_public") as caught:
        get_spec("minnie_pubic")
    assert caught.value.nearest[0] == "minnie_public"


def test_a_spec_is_frozen_hashable_and_travels() -> None:
    spec = get_spec("v1dd")
    assert pickle.loads(pickle.dumps(spec)) == spec
    assert hash(pickle.loads(pickle.dumps(spec))) == hash(spec)
    with pytest.raises(dataclasses.FrozenInstanceError):
        spec.server = "https://elsewhere.example.org"  # type: ignore[misc]


# -- which server counts ---------------------------------------------------------------------------------------------

OWN = DatasetSpec(name="fish", datastack="fish1_public", server="https://own.example.org")
STANDS_IN = "http://127.0.0.1:9"


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CORTEXCLIENT_SERVER", STANDS_IN)


@pytest.mark.parametrize(
    "dataset",
    [
        "minnie_public",
        "v1dd",
        datasets.V1DD,
        replace(datasets.V1DD, nucleus_table="mine", server=datasets.V1DD.server + "/"),
        replace(OWN, server=DatasetSpec.__dataclass_fields__["server"].default),
    ],
)
@pytest.mark.usefixtures("environment")
def test_the_environment_stands_in_for_the_servers_of_the_presets(dataset: str | DatasetSpec) -> None:
    client = AsyncCortexClient(dataset)
    assert client.server_address == STANDS_IN
    assert client.session().object_url("gs://bucket/object") == f"{STANDS_IN}/storage/bucket/object"


@pytest.mark.parametrize("by_name", [False, True])
@pytest.mark.usefixtures("environment")
def test_a_server_that_the_code_names_counts_for_more(by_name: bool) -> None:
    register(OWN)
    client = AsyncCortexClient("fish" if by_name else OWN)
    assert client.server_address == "https://own.example.org"
    assert client.session().object_url("gs://bucket/object") == "https://storage.googleapis.com/bucket/object"
    for dataset in ("v1dd", OWN):
        assert AsyncCortexClient(dataset, server="http://127.0.0.1:7/").server_address == "http://127.0.0.1:7"


@pytest.mark.parametrize("kind", [AsyncCortexClient, CortexClient])
@pytest.mark.usefixtures("environment")
def test_the_environments_server_travels(kind: type[CortexClient], monkeypatch: pytest.MonkeyPatch) -> None:
    texts = [pickle.dumps(kind(dataset)) for dataset in ("minnie_public", OWN)]
    for elsewhere in ("http://127.0.0.1:7", ""):
        monkeypatch.setenv("CORTEXCLIENT_SERVER", elsewhere)
        assert [pickle.loads(text).server_address for text in texts] == [STANDS_IN, OWN.server]
