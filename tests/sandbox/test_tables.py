"""The state of annotation tables at versions and in between."""

from __future__ import annotations

from datetime import datetime

import numpy as np
import polars as pl
import pytest

from cortexclient.sandbox.tables import Ids, Table, Tables, Version, View, from_us, to_us

NEVER = np.iinfo(np.int64).max


class Split:
    """Two supervoxels 11 and 12 in root 100, which an edit at 5000 ms splits into 101 and 102."""

    def __init__(self) -> None:
        self.lifetimes = {0: (NEVER, NEVER), 100: (0, 5000), 101: (5000, NEVER), 102: (5000, NEVER)}
        self.asked: list[int] = []

    def roots(self, ids: Ids, time_ms: int) -> Ids:
        self.asked.extend(ids.tolist())
        return np.array([100 if time_ms < 5000 else i + 90 for i in ids], np.int64)

    def created(self, ids: Ids) -> Ids:
        return np.array([self.lifetimes[i][0] for i in ids], np.int64)

    def retired(self, ids: Ids) -> Ids:
        return np.array([self.lifetimes[i][1] for i in ids], np.int64)


def at(seconds: float) -> datetime:
    return from_us(int(seconds * 1e6))


@pytest.fixture
def store() -> Tables:
    rows = pl.DataFrame(
        {
            "id": [1, 2, 3, 4],
            "created": [at(1), at(1), at(2), at(6)],
            "deleted": [None, at(3), None, None],
            "superceded_id": [None, 3, None, None],
            "valid": [True, False, True, True],
            "pt_position_x": [10, 20, 30, 40],
            "pt_position_y": [1, 2, 3, 4],
            "pt_position_z": [0, 0, 0, 0],
            "pt_supervoxel_id": [11, 12, 12, 0],
        },
        schema_overrides={f"pt_position_{a}": pl.Int32 for a in "xyz"},
    )
    table = Table("points", "bound_tag", (4, 4, 40), rows)
    view = View("roots", "SELECT pt_root_id, COUNT(*) AS n FROM points GROUP BY pt_root_id", (4, 4, 40))
    versions = [
        Version(1, "ds", 2_500_000, ("points",)),
        Version(2, "ds", 4_000_000, ("points",)),
        Version(3, "ds", 7_000_000, ("points",)),
        Version(0, "ds", 1_000_000, ("points",), valid=False, status="EXPIRED"),
    ]
    return Tables(Split(), {"points": table}, {"roots": view}, versions)


def test_a_version_holds_the_rows_that_were_there_with_the_roots_of_its_time(store: Tables) -> None:
    first, second, third = (store.frozen("points", v) for v in store.versions[:3])
    assert first.select("id", "pt_root_id").rows() == [(1, 100), (2, 100), (3, 100)]
    assert second.select("id", "pt_root_id").rows() == [(1, 100), (3, 100)]
    assert third.select("id", "pt_root_id").rows() == [(1, 101), (3, 102), (4, 0)]
    assert first["valid"].all()
    assert first["superceded_id"].is_null().all()
    assert "deleted" not in first.columns
    assert first.columns[-2:] == ["pt_supervoxel_id", "pt_root_id"]


def test_frozen_states_are_kept(store: Tables) -> None:
    assert store.frozen("points", store.versions[0]) is store.frozen("points", store.versions[0])


def test_an_expired_version_is_refused(store: Tables) -> None:
    with pytest.raises(LookupError, match="version 0 of ds"):
        store.frozen("points", store.versions[3])


@pytest.mark.parametrize("seconds", [0.5, 1, 2, 2.5, 3, 4.999, 5, 6, 9])
@pytest.mark.parametrize("base", [0, 1, 2])
def test_live_rows_do_not_depend_on_the_version_they_start_from(store: Tables, seconds: float, base: int) -> None:
    rows = store.live("points", int(seconds * 1e6), store.versions[base]).rows
    truth = {i: (0 if i == 4 else 100 if seconds < 5 else {1: 101, 2: 102, 3: 102}[i]) for i in (1, 2, 3, 4)}
    alive = [i for i, (born, died) in {1: (1, 99), 2: (1, 3), 3: (2, 99), 4: (6, 99)}.items() if born <= seconds < died]
    assert dict(rows.select("id", "pt_root_id").rows()) == {i: truth[i] for i in alive}


def test_only_changed_roots_are_looked_up(store: Tables) -> None:
    store.frozen("points", store.versions[1])
    asked = store.graph.asked  # type: ignore[attr-defined]
    asked.clear()
    assert store.live("points", 4_900_000, store.versions[1]).looked_up.tolist() == []
    assert asked == []
    assert store.live("points", 6_900_000, store.versions[1]).looked_up.tolist() == [11, 12]


def test_a_view_is_sql_over_the_frozen_tables(store: Tables) -> None:
    rows = store.view("roots", store.versions[2]).sort("pt_root_id").rows()
    assert rows == [(0, 1), (101, 1), (102, 1)]


def test_times_convert_exactly() -> None:
    moment = datetime(2026, 11, 17, 0, 0, 0, 654321)  # noqa: DTZ001
    assert from_us(to_us(moment)) == moment


def test_last_modified_follows_from_the_rows(store: Tables) -> None:
    assert store.tables["points"].modified == at(6)


def test_a_table_without_deletions_needs_no_columns_that_tell_of_them() -> None:
    rows = pl.DataFrame({"id": [1], "created": [at(1)], "tag": ["a"]})
    table = Table("tags", "bound_tag", (4, 4, 40), rows)
    assert table.rows.columns == ["id", "created", "deleted", "superceded_id", "valid", "tag"]
    assert table.alive(2_000_000).all()
