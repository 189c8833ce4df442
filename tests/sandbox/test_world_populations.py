"""The benchmarks' id populations are what their names say."""

from __future__ import annotations

import numpy as np
import pytest
from benchmarks.populations import SHARES, alive_at_versions, bulk, holds_nucleus, populations, stabbing_epochs
from tests.oracle import oracle_for, version_us

from cortexclient.sandbox.world import World

SIZE = 400


@pytest.fixture(scope="module")
def world() -> World:
    return World.synthesize(seed=1, nuclei=2_000, edits=8_000, versions=4, expired=4)


def test_each_population_is_what_it_is_called(world: World) -> None:
    parts = populations(world, SIZE)
    assert {name: len(ids) for name, ids in parts.items()} == {n: round(SIZE * s) for n, s in SHARES.items()} | {
        "mixed": SIZE
    }
    assert len(np.unique(parts["mixed"])) == SIZE
    alive = {name: alive_at_versions(world, ids) for name, ids in parts.items()}
    assert alive["newest"][:, -1].all()
    assert (alive["older"].any(1) & ~alive["older"][:, -1]).all()
    assert not alive["between"].any()
    assert not world.graph.exists(parts["missing"]).any()
    for name in ("newest", "older", "between"):
        assert holds_nucleus(world, parts[name]).all()
    assert world.graph.is_root(parts["without_nucleus"]).all()


def test_roots_without_nucleus_map_to_nothing(world: World) -> None:
    oracle, annotations = oracle_for(world), version_us(world, None)
    for root in populations(world, SIZE)["without_nucleus"].tolist():
        assert oracle.root_to_cell(root, annotations).status == "none"


def test_roots_between_versions_need_many_instants(world: World) -> None:
    ids = populations(world, SIZE)["between"]
    assert stabbing_epochs(world.graph.created(ids), world.graph.retired(ids)) > len(ids) // 2


def test_stabbing_counts_the_fewest_instants() -> None:
    start, end = np.array([0, 1, 5, 6, 9]), np.array([3, 4, 8, 7, 10])
    assert stabbing_epochs(start, end) == 3
    assert stabbing_epochs(start[:0], end[:0]) == 0


def test_populations_are_the_same_every_time(world: World) -> None:
    assert np.array_equal(populations(world, SIZE)["mixed"], populations(world, SIZE)["mixed"])
    assert not np.array_equal(populations(world, SIZE)["mixed"], populations(world, SIZE, seed=1)["mixed"])


def test_bulk_repeats_each_of_its_roots(world: World) -> None:
    ids = bulk(world, size=20_000, distinct=5_000)
    assert len(ids) == 20_000
    distinct = np.unique(ids)
    assert len(distinct) == 5_000
    assert (~world.graph.is_root(distinct)).sum() == 50  # the unknown ones


def test_a_world_that_is_too_small_is_refused(world: World) -> None:
    with pytest.raises(ValueError, match="more edits"):
        populations(world, 100_000)
