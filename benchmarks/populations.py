"""The fixed sets of ids that root-to-cell mapping is measured with.

Everything is seeded: a name means the same ids on every machine. ``python -m benchmarks.populations`` lists them.

On the world `WORLD` (100,000 nuclei, 100,000 edits, 8 versions that can be queried, 20 expired ones), distinct ids:

==================  ======  ==========================================================================
``newest``           5,500  roots with a nucleus that are alive at the newest version
``older``            3,000  roots with a nucleus that are alive at older queryable versions only
``between``          1,000  roots with a nucleus that lived between two queryable versions only
``without_nucleus``    300  roots of any time that hold no point of the nucleus tables
``missing``            200  ids of the roots' layer that never existed
``mixed``           10,000  all of these, shuffled
==================  ======  ==========================================================================

On the world `BULK_WORLD` (the same with 720,000 edit-free fragments): ``bulk``, 5,000,000 ids of 1,000,000 distinct
roots, of which some 700,000 are edit-free fragments and 1 % never existed.
"""

from __future__ import annotations

import time
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from cortexclient.sandbox.world import World

Ids = npt.NDArray[np.int64]

WORLD: Final[dict[str, Any]] = {
    "seed": 1,
    "nuclei": 100_000,
    "edits": 100_000,
    "backups": 8_000,
    "versions": 8,
    "expired": 20,
}
BULK_WORLD: Final[dict[str, Any]] = WORLD | {"fragments": 720_000}

SHARES: Final = {"newest": 0.55, "older": 0.30, "between": 0.10, "without_nucleus": 0.03, "missing": 0.02}

POINTS: Final = ("nucleus_detection_v0", "nucleus_alternative_points")


def populations(world: World, size: int = 10_000, seed: int = 0) -> dict[str, Ids]:
    """All named populations of a world but ``bulk``; ``size`` is that of ``mixed``.

    Raises
    ------
    ValueError
        The world has too few roots of a kind.
    """
    rng = np.random.default_rng(seed)
    roots = world.graph.root_ids()
    alive = alive_at_versions(world, roots)
    nucleus = holds_nucleus(world, roots)
    newest, ever = alive[:, -1], alive.any(1)
    versions = version_times(world)
    between = ~ever & (world.graph.created(roots) > versions[0]) & (world.graph.retired(roots) <= versions[-1])
    pools = {
        "newest": roots[nucleus & newest],
        "older": roots[nucleus & ever & ~newest],
        "between": roots[nucleus & between],
        "without_nucleus": roots[~nucleus],
        "missing": missing_ids(world, 4 * size, rng),
    }
    chosen = {name: _draw(name, pool, round(size * SHARES[name]), rng) for name, pool in pools.items()}
    return chosen | {"mixed": rng.permutation(np.concatenate(list(chosen.values())))}


def bulk(world: World, size: int = 5_000_000, distinct: int = 1_000_000, unknown: float = 0.01, seed: int = 0) -> Ids:
    """``size`` ids of ``distinct`` roots of any time and kind, a share of them unknown: each once or more, shuffled."""
    rng = np.random.default_rng(seed)
    never = missing_ids(world, round(2 * distinct * unknown), rng)
    never = rng.choice(never, round(distinct * unknown), replace=False)
    roots = np.concatenate([_draw("bulk", world.graph.root_ids(), distinct - len(never), rng), never])
    return rng.permutation(np.concatenate([roots, roots[rng.integers(0, distinct, size - distinct)]]))


def version_times(world: World) -> Ids:
    """Times (ms) of the versions that can be queried, oldest first."""
    return np.unique([v.time_us // 1000 for v in world.versions if v.valid])


def alive_at_versions(world: World, roots: Ids) -> npt.NDArray[np.bool_]:
    """Which roots (rows) are alive at which queryable versions (columns, oldest first)."""
    times = version_times(world)
    created, retired = world.graph.created(roots), world.graph.retired(roots)
    return (created[:, None] <= times) & (times < retired[:, None])


def holds_nucleus(world: World, roots: Ids) -> npt.NDArray[np.bool_]:
    """Which roots hold a supervoxel that any row of the nucleus tables, deleted or not, points at."""
    points = np.concatenate([world.tables[name].rows["pt_supervoxel_id"].to_numpy() for name in POINTS])
    supervoxels, owner = world.graph.leaves_of(roots)
    holds = np.zeros(len(roots), bool)
    holds[owner[np.isin(supervoxels, points[points != 0])]] = True
    return holds


def missing_ids(world: World, n: int, rng: np.random.Generator) -> Ids:
    """Ids of the roots' layer that no root ever had."""
    layout = world.graph.layout
    ids = layout.make(layout.n_layers, np.zeros((n, 3), np.int64), rng.integers(1 << 31, 1 << 33, n))
    return np.setdiff1d(ids, world.graph.root_ids())


def stabbing_epochs(start: Ids, end: Ids) -> int:
    """The fewest instants such that each interval ``[start, end)`` holds one: greedily by earliest end."""
    instants, last = 0, -1
    for begin, finish in sorted(zip(start.tolist(), end.tolist(), strict=True), key=lambda interval: interval[1]):
        if begin > last:
            instants, last = instants + 1, finish - 1
    return instants


def _draw(name: str, pool: Ids, n: int, rng: np.random.Generator) -> Ids:
    if len(pool) < n:
        raise ValueError(f"{name}: {n} ids wanted, the world has {len(pool)}; take more edits or versions")
    return rng.choice(pool, n, replace=False)


def main() -> None:
    begun = time.perf_counter()
    world = World.synthesize(**WORLD)
    print(f"world: {time.perf_counter() - begun:.1f} s, {len(world.graph.root_ids()):,} roots")
    for name, ids in populations(world).items():
        print(f"{name:16} {len(ids):>10,}")
        if name == "between":
            epochs = stabbing_epochs(world.graph.created(ids), world.graph.retired(ids))
            print(f"{'':16} {epochs:>10,} stabbing epochs")
    begun = time.perf_counter()
    ids = bulk(World.synthesize(**BULK_WORLD))
    print(f"{'bulk':16} {len(ids):>10,} ({time.perf_counter() - begun:.1f} s with its world)")


if __name__ == "__main__":
    main()
