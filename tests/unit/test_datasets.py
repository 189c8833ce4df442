"""Dataset specs: pure data, found by name or datastack."""

from __future__ import annotations

import dataclasses
import pickle

import pytest

from cortexclient import DatasetSpec, NotFoundError, datasets, get_spec, known_specs, register

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
