"""Objects of which only points were recorded: synapse partners, nuclei, typed cells. Their roots and ids are real.

An object consists of one patch for each chunk in which it has recorded supervoxels, and is never edited, unless a
nucleus was seen in two roots: then the first is merged with a fragment (and with what is known of the second) between.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt
import polars as pl

from ..layout import Ids
from ..tables import to_us
from .history import History
from .neurons import Neurons
from .proofreading import FACES, MARGIN, users

AXES: Final = "xyz"
SIDES: Final = ("pre", "post")
NM_PER_VOXEL: Final = {"x": 4, "y": 4, "z": 40}


def read_synapses(data: Path) -> pl.DataFrame:
    """All recorded synapses, each once.

    Returns
    -------
    ``id``, ``created`` (null where dropped upstream), ``size``, for ``pre_pt``, ``post_pt`` and ``ctr_pt`` the
    ``_position_x``, ``_y``, ``_z`` (voxels of 4 x 4 x 40 nm), for the first two ``_supervoxel_id``, ``_root_id`` and
    ``_level2_id`` (null on the partner's side).
    """
    shared = pl.read_parquet(data / "neurons" / "minnie65_83" / "synapses.parquet")
    points = ("pre", "post", "ctr")
    own = [pl.when(pl.col("side") == side).then("l2_id").alias(f"{side}_pt_level2_id").cast(pl.Int64) for side in SIDES]
    voxels = {f"{p}_{axis}_vx": f"{p}_pt_position_{axis}" for p in points for axis in AXES}
    first = shared.with_columns(own, created=pl.lit(None, pl.Datetime("us"))).rename(voxels)
    more = pl.read_parquet(data / "synapses.parquet").with_columns(
        pl.col("created").cast(pl.Datetime("us", "UTC")).dt.replace_time_zone(None),
        *(pl.col(f"{side}_pt_l2_id").alias(f"{side}_pt_level2_id").cast(pl.Int64) for side in SIDES),
        *(
            (pl.col(f"{p}_pt_position_{axis}_nm") // NM_PER_VOXEL[axis]).alias(f"{p}_pt_position_{axis}")
            for p in points
            for axis in AXES
        ),
    )
    ids = [f"{side}_pt_{kind}_id" for side in SIDES for kind in ("supervoxel", "root", "level2")]
    columns = ["id", "created", "size", *voxels.values(), *ids]
    types = pl.col("size").cast(pl.Int64), pl.col(list(voxels.values())).cast(pl.Int32)
    rows = [frame.select(columns).with_columns(*types) for frame in (first, more)]
    # a synapse between two of the neurons is there twice, once with the level-2 id of either side
    level2 = [pl.col(f"{side}_pt_level2_id").max().over("id") for side in SIDES]
    return pl.concat(rows).with_columns(level2).unique("id", keep="first").sort("id")


def synapse_points(synapses: pl.DataFrame) -> pl.DataFrame:
    """``supervoxel``, ``root``, ``level2`` of both sides of all synapses."""
    sides = (
        synapses.select(supervoxel=f"{s}_pt_supervoxel_id", root=f"{s}_pt_root_id", level2=f"{s}_pt_level2_id")
        for s in SIDES
    )
    return pl.concat(sides)


class Change(NamedTuple):
    """The root that follows another, and when."""

    root: int
    time_ms: int


def changes(nuclei: pl.DataFrame, known_ms: Mapping[str, int]) -> dict[int, Change]:
    """For each root of a nucleus that was seen in two: the second and a time half-way between the two sightings.

    Parameters
    ----------
    nuclei
        ``id``, ``pt_root_id``, ``version``, ``as_of``.
    known_ms
        Times of versions. Sightings of unknown time are taken for older than all others.
    """
    unseen = min(known_ms.values())
    when = [
        to_us(datetime.fromisoformat(as_of)) // 1000 if as_of else known_ms.get(version or "", unseen)
        for version, as_of in nuclei.select("version", "as_of").iter_rows()
    ]
    seen = (
        nuclei.with_columns(time=pl.Series(when))
        .drop_nulls("pt_root_id")
        .unique(["id", "pt_root_id"], keep="first", maintain_order=True)
        .sort("time", maintain_order=True)
        .group_by("id", maintain_order=True)
        .agg("pt_root_id", "time")
    )
    return {roots[0]: Change(roots[1], sum(times) // 2) for _, roots, times in seen.iter_rows() if len(roots) > 1}


@dataclass(frozen=True, slots=True)
class Objects:
    """The patches of all objects, sorted by root (0: unknown), with their level-2 nodes, and the state of each root."""

    root: Ids
    patch: Ids
    level2: Ids
    states: dict[int, int]

    def rows(self, root: int) -> Ids:
        """Those of one root."""
        first, last = np.searchsorted(self.root, [root, root + 1])
        return np.arange(first, last)


def bind_supervoxels(
    history: History, neurons: Neurons, patches: Ids, points: pl.DataFrame, later: Collection[int]
) -> Objects:
    """Put every recorded supervoxel into a patch, and make the objects that are no neurons.

    A supervoxel of a neuron goes to its recorded level-2 node, or to one of that neuron in its chunk. Where the neuron
    has none there, the recorded root is not that of the real state: the supervoxel becomes an object of unknown root.

    Parameters
    ----------
    history
        Where everything is written.
    neurons, patches
        The neurons and the patch of each node.
    points
        ``supervoxel``, ``root``, ``level2``; where a supervoxel is there twice the row that knows its node counts.
    later
        Roots that do not begin with the graph: their patches are made, but not yet members of anything.
    """
    best = points.sort("level2", nulls_last=True, maintain_order=True).unique(
        "supervoxel", keep="first", maintain_order=True
    )
    chunk = history.layout.make(2, history.layout.chunk(best["supervoxel"].to_numpy()), 0)
    recorded = pl.DataFrame({"level2": neurons.level2, "known": patches})
    place = {"chunk": history.patches["chunk"][patches], "root": neurons.root[neurons.neuron], "near": patches}
    near = pl.DataFrame(place).unique(["chunk", "root"], keep="first", maintain_order=True)
    found = (
        best.with_columns(chunk=pl.Series(chunk))
        .join(recorded, on="level2", how="left", maintain_order="left")
        .join(near, on=["chunk", "root"], how="left", maintain_order="left")
        .with_columns(patch=pl.coalesce("known", "near"))
    )
    mine = found.drop_nulls("patch")
    history.supervoxels.add(patch=mine["patch"].to_numpy(), id=mine["supervoxel"].to_numpy())
    others = found.filter(pl.col("patch").is_null()).with_columns(
        root=pl.when(pl.col("root").is_in(neurons.root.tolist())).then(0).otherwise("root")
    )
    return _make_objects(history, others.select("supervoxel", "root", "chunk"), later)


def _make_objects(history: History, supervoxels: pl.DataFrame, later: Collection[int]) -> Objects:
    """An object for each root, of a patch for each chunk, and one for each supervoxel of unknown root."""
    alone = pl.when(pl.col("root") == 0).then("supervoxel").otherwise(0)
    keyed = supervoxels.with_columns(alone=alone).sort("root", "chunk", "alone")
    key = ["root", "chunk", "alone"]
    parts = keyed.select(key).unique(maintain_order=True)
    patch = history.patches.add(chunk=parts["chunk"].to_numpy())
    level2 = history.level2.add(patch=patch, time=history.created_ms, id=0)
    count = keyed.group_by(key, maintain_order=True).len()["len"].to_numpy().astype(np.int64)
    history.supervoxels.add(patch=np.repeat(patch, count), id=keyed["supervoxel"].to_numpy())
    root = parts["root"].to_numpy()
    first = np.flatnonzero((np.diff(root, prepend=-1) != 0) | (root == 0))
    begins = ~np.isin(root[first], list(later))
    states = np.full(len(first), -1)
    states[begins] = history.states.add(time=history.created_ms, id=root[first][begins])
    owner = np.repeat(states, np.diff(first, append=len(root)))
    there = owner >= 0
    history.members.add(state=owner[there], level2=level2[there])
    known = begins & (root[first] != 0)
    return Objects(root, patch, level2, dict(zip(root[first][known].tolist(), states[known].tolist(), strict=True)))


def place_nuclei(
    history: History, objects: Objects, nuclei: pl.DataFrame, later: Mapping[int, Change], rng: np.random.Generator
) -> pl.DataFrame:
    """Give every recorded nucleus a patch of its (first) root's object, and let the later roots come about.

    A nucleus without recorded place lies where its object is, or anywhere.

    Returns
    -------
    One row per nucleus: ``id``, ``patch``, and as recorded or null ``supervoxel``, ``x``, ``y``, ``z`` (voxels),
    ``volume`` (um3), ``created``.
    """
    seconds = [change.root for change in later.values()]
    place = {axis: f"pt_position_{axis}_vx" for axis in AXES}
    distinct = (
        nuclei.filter(~pl.col("pt_root_id").is_in(seconds) | pl.col("pt_root_id").is_null())
        .group_by("id", maintain_order=True)
        .agg(
            pl.col("pt_root_id").first().alias("root"),
            pl.col("pt_supervoxel_id").max().alias("supervoxel"),
            *(pl.col(column).max().alias(axis) for axis, column in place.items()),
            pl.col("volume_um3").max().alias("volume"),
            pl.col("created").max(),
        )
    )
    patches = []
    for root, supervoxel, *voxel in distinct.select("root", "supervoxel", *AXES).iter_rows():
        rows = objects.rows(root or -1)
        if supervoxel is not None:
            at = history.layout.make(2, history.layout.chunk([supervoxel]), 0)
            row = rows[history.patches["chunk"][objects.patch[rows]] == at][:1]
            patch, level2 = objects.patch[row], objects.level2[row]
        else:
            patch = history.grow_patches(_nucleus_chunk(history, objects.patch[rows], voxel, rng), 1)
            level2 = history.level2.add(patch=patch, time=history.created_ms, id=0)
            history.members.add(state=_state(history, objects, root), level2=level2)
        if root in later:
            _merge_into(history, objects, (root, later[root]), (patch, level2), rng)
        patches.append(int(patch[0]))
    return distinct.with_columns(patch=pl.Series(patches)).drop("root")


def _nucleus_chunk(
    history: History, patches: Ids, voxel: list[int | None], rng: np.random.Generator
) -> npt.NDArray[np.int64]:
    layout = history.layout
    if voxel[0] is not None:
        nm = np.array(voxel) * list(NM_PER_VOXEL.values())
        return layout.chunk_at(nm // np.array(layout.resolution))[None]
    if len(patches):
        return history.chunk(patches[:1])
    last = np.asarray(layout.volume_size) // np.asarray(layout.chunk_size) - MARGIN
    return rng.integers(MARGIN, last, (1, 3))


def _state(history: History, objects: Objects, root: int | None) -> int:
    """The state of a root, made where nothing but its id was recorded; a new one for None."""
    if root in objects.states:
        return objects.states[root]
    state = int(history.states.add(time=history.created_ms, id=root or 0)[0])
    if root:
        objects.states[root] = state
    return state


def _merge_into(
    history: History,
    objects: Objects,
    roots: tuple[int, Change],
    nucleus: tuple[Ids, Ids],
    rng: np.random.Generator,
) -> None:
    """Merge the object of the first root, at the nucleus, with a fragment and all that is known of the second root."""
    first, (second, time_ms) = roots
    patch, level2 = nucleus
    old, own = objects.level2[objects.rows(first)], objects.level2[objects.rows(second)]
    fragment = history.grow_patches(history.chunk(patch) + FACES[rng.integers(0, len(FACES), 1)], 1)
    history.contacts.add(a=patch, b=fragment)
    partner = history.states.add(time=history.created_ms, id=0)
    at_first = history.level2.add(patch=fragment, time=history.created_ms, id=0)
    history.members.add(state=partner, level2=np.append(own, at_first))
    touched = history.level2.add(patch=np.append(patch, fragment), time=time_ms, id=0)
    new = history.states.add(time=time_ms, id=second)
    kept = np.append(old[old != level2], own)
    history.members.add(state=new, level2=np.append(kept, touched))
    operation = history.edit(np.array([time_ms]), merge=True, user=users(1, rng), at=(patch, fragment), new=new)
    former = np.append(partner, objects.states[first])
    history.lineage.add(former=former, new=new, operation=operation)
