"""A world of real minnie65 data: 84 neurons, their synapses and partners, 152 nuclei, with invented edits in between.

Real are all ids of neurons, level-2 nodes, synapses and their supervoxels, partner roots, the rows of the nucleus, type
and proofreading tables, and the times that came with them. Invented are the edits, the supervoxels with a segment id
from 1,000,000 on, the nuclei of the 84 neurons (ids from 1,000,000 on, in the order of their roots), the ten cells of
the examples page, the versions' times (interpolated between two real ones), and places that nobody recorded.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import polars as pl

from ..graph import NEVER
from ..layout import Ids
from ..static_meshes import publish
from ..tables import Table
from ..world import World
from .annotations import BACKUPS, CELL_TYPES, NUCLEI, PROOFREADING, lookup_view
from .columns import bookkeeping, point
from .dataset import MINNIE65, Release, assemble
from .examples_page import CELLS, ROOTS
from .history import History, Outcome
from .neurons import SINGLE, Neurons, write_neurons
from .proofreading import NAMED_EDITS, Population, proofread
from .recorded import AXES, SIDES, Objects, bind_supervoxels, changes, place_nuclei, read_synapses, synapse_points
from .shapes import minnie65_shapes
from .synthetic import DAY_MS, name_roots

FIRST_MADE: Final = 1_000_000
"""Lowest segment id of what is invented, and lowest id of an invented nucleus."""

CREATED_MS: Final = 1_590_758_803_761
"""2020-05-29 13:26:43.761 UTC, the earliest time known of a level-2 node."""

REAL_MS: Final = {True: 1_736_823_932_283, False: 1_634_256_000_000}
"""When the root of `SINGLE` (True) and those of the other neurons were current: January 2025, October 2021."""

KNOWN_TIMES: Final = ((117, 1_623_399_000_000_253), (1078, 1_717_582_201_203_215))
"""Versions whose time (UTC microseconds) is known: 2021-06-11 08:10:00 and 2024-06-05 10:10:01."""

VERSIONS: Final = (117, 343, 661, 1078, 1412, 1484, 1718)
EXPIRED: Final = (250, 500, 943, 1300)

DETECTED_US: Final = 1_601_333_068_479_993
"""2020-09-28 22:44:28 UTC, when a real nucleus was written; the invented ones follow."""

SYNAPSES_US: Final = 1_604_472_538_343_057
"""2020-11-04 06:48:58 UTC, when the first real synapse was written."""

SYNAPSES_TOOK_US: Final = 50_150_000_000

REAL_MESH: Final = 648518346349539862
"""A neuron of pinky100, whose mesh is recorded."""

COLUMN_TYPES: Final = "allen_v1_column_types_slanted"

NOTES: Final = {
    "data": "real minnie65 ids, level-2 graphs, synapses, nuclei, cell types and proofreading rows of the MICrONS "
    "Consortium (Nature 640, 2025; CC BY), see SOURCES.md of the data",
    "edits": "invented; operations, lineage and all roots but the recorded ones are synthetic",
    "nuclei": "ids from 1,000,000 on (neurons) and those of the examples page are synthetic",
    "supervoxels": "those with a segment id from 1,000,000 on are synthetic",
    "meshes": f"{REAL_MESH} is a real mesh of another dataset (pinky100), in a flat segmentation; those of the graph's "
    "nodes are made",
    "versions": "times other than those of 117 and 1078 are interpolated",
}


def releases() -> list[Release]:
    """All versions, oldest first. A version's number counts days, nearly: times between known ones follow from it."""
    (first, first_us), (second, second_us) = KNOWN_TIMES
    return [
        Release(number, first_us + (second_us - first_us) * (number - first) // (second - first), number in VERSIONS)
        for number in sorted(VERSIONS + EXPIRED)
    ]


def minnie65_world(data: Path, seed: int = 0) -> World:
    """Read ``neurons/``, ``synapses.parquet``, ``nuclei.parquet`` and others below ``data`` and make the world."""
    rng = np.random.default_rng(seed)
    history = History(MINNIE65.layout, CREATED_MS, first_segment=FIRST_MADE)
    end_ms = releases()[-1].time_us // 1000 + 30 * DAY_MS
    examples = proofread(
        history,
        len(CELLS),
        len(CELLS) * NAMED_EDITS,
        named=len(CELLS),
        span=(CREATED_MS, end_ms),
        moments=np.empty(0, np.int64),
        rng=rng,
    )
    name_roots(history, examples, ROOTS, len(CELLS), releases())
    neurons = Neurons.read(data)
    real_ms = np.array([REAL_MS[root == SINGLE] for root in neurons.root.tolist()])
    patches = write_neurons(history, neurons, real_ms, end_ms, rng)
    synapses, seen = read_synapses(data), pl.read_parquet(data / "nuclei.parquet")
    later = changes(seen, {str(release.number): release.time_us // 1000 for release in releases()})
    points = pl.concat([synapse_points(synapses), _other_points(data)])
    objects = bind_supervoxels(history, neurons, patches, points, [change.root for change in later.values()])
    nuclei = place_nuclei(history, objects, seen, later, rng)
    outcome = history.outcome(rng, table=MINNIE65.graph)
    makers = _Tables(data, history, outcome, neurons, patches, objects, examples, nuclei, synapses, rng)
    world = assemble(
        MINNIE65,
        outcome.graph,
        makers.all(),
        lookup_view(MINNIE65),
        releases(),
        name="minnie65",
        seed=seed,
        notes=NOTES,
        shapes=minnie65_shapes(data),
    )
    publish_real_mesh(world, data)
    return world


def publish_real_mesh(world: World, data: Path) -> None:
    """Serve the real mesh of 1.4 million triangles, Draco as it was recorded, as a flat segmentation of its dataset."""
    fragment = f"{REAL_MESH}:0:0"
    manifest = json.dumps({"fragments": [fragment]}).encode()
    drawn = (data / "neurons" / f"pinky100_{REAL_MESH}" / "mesh.drc").read_bytes()
    publish(world, "pinky100_v185/seg", {f"{REAL_MESH}:0": manifest, fragment: drawn})


def _other_points(data: Path) -> pl.DataFrame:
    """Supervoxels of nuclei and typed cells, with the first root each was seen in."""
    frames = [pl.read_parquet(data / name) for name in ("nuclei.parquet", "cell_types.parquet")]
    columns = {"supervoxel": "pt_supervoxel_id", "root": "pt_root_id"}
    rows = pl.concat([frame.select(**columns).drop_nulls() for frame in frames])
    return rows.with_columns(level2=pl.lit(None, pl.Int64))


@dataclass(frozen=True)
class _Tables:
    """Makes the annotation tables."""

    data: Path
    history: History
    outcome: Outcome
    neurons: Neurons
    patches: Ids
    objects: Objects
    examples: Population
    nuclei: pl.DataFrame
    synapses: pl.DataFrame
    rng: np.random.Generator

    def all(self) -> list[Table]:
        """All tables; the nuclei come first."""
        decoys = self._decoys()
        nuclei = self._nuclei(decoys)
        return [nuclei, self._backups(decoys), self._synapses(), *self._types(), self._proofreading(nuclei)]

    def _decoys(self) -> dict[int, int]:
        """For every seventeenth neuron a fragment in the chunk of its soma, on which its main point falls.

        -1 where there is none: that main point falls outside the segmentation.
        """
        chunk = self.history.patches["chunk"]
        order = np.argsort(chunk[self.objects.patch], kind="stable")
        fragments = self.objects.patch[order]
        somata = self.patches[self.neurons.start[:-1]]
        found = {}
        for neuron in range(0, len(somata), 17):
            row = np.searchsorted(chunk[fragments], chunk[somata[neuron]])
            there = row < len(fragments) and chunk[fragments[row]] == chunk[somata[neuron]]
            found[neuron] = int(fragments[row]) if there else -1
        return found

    def _nuclei(self, decoys: dict[int, int]) -> Table:
        """The real nuclei, one for each neuron, and those of the examples."""
        somata = self.patches[self.neurons.start[:-1]]
        main = somata.copy()
        main[list(decoys)] = list(decoys.values())
        made = np.append(main, self.examples.patch[:, 0])
        at = self._positions(np.append(somata, self.examples.patch[:, 0]))
        anchor = np.where(made >= 0, self.outcome.anchor[made], 0)
        rank = np.argsort(np.argsort(self.neurons.root))
        ids = np.concatenate([self.nuclei["id"].to_numpy(), FIRST_MADE + rank, CELLS])
        real = self._positions(self.nuclei["patch"].to_numpy())
        for k, axis in enumerate(AXES):
            real[:, k] = self.nuclei[axis].fill_null(pl.Series(real[:, k])).to_numpy()
        own = self.nuclei["supervoxel"].fill_null(pl.Series(self.outcome.anchor[self.nuclei["patch"].to_numpy()]))
        position = np.concatenate([real, at])
        created = DETECTED_US + 1_000 * np.arange(len(ids))
        created[: len(real)] = (
            self.nuclei["created"].dt.epoch("us").fill_null(pl.Series(created[: len(real)])).to_numpy()
        )
        volume = self.nuclei["volume"].extend(pl.Series(self.rng.lognormal(np.log(300), 0.2, len(made))))
        columns = {"id": ids} | bookkeeping(created, np.full(len(ids), NEVER)) | {"volume": volume.cast(pl.Float32)}
        columns |= point("pt", position, np.append(own.to_numpy(), anchor))
        half = np.array([600, 600, 60])
        columns |= point("bb_start", position - half) | point("bb_end", position + half)
        return _table(NUCLEI, "nucleus_detection", columns)

    def _backups(self, decoys: dict[int, int]) -> Table:
        """The somata of the neurons whose main point is bad. Invented."""
        rank = np.argsort(np.argsort(self.neurons.root))
        neuron = np.array(list(decoys))
        somata = self.patches[self.neurons.start[neuron]]
        columns = {"id": np.arange(1, len(neuron) + 1)}
        columns |= bookkeeping(np.full(len(neuron), DETECTED_US + DAY_MS * 30_000), np.full(len(neuron), NEVER))
        columns |= {"target_id": FIRST_MADE + rank[neuron]}
        columns |= point("pt", self._positions(somata), self.outcome.anchor[somata])
        return _table(BACKUPS, "reference_point", columns, NUCLEI)

    def _synapses(self) -> Table:
        """The real synapses, and twenty each way for the cells of the examples."""
        real, n = self.synapses, 2 * 20 * len(CELLS)
        known = self.examples.patch[self.examples.patch >= 0]
        pre, post = (known[self.rng.integers(0, len(known), n)] for _ in SIDES)
        ends = {side: self._positions(patch) for side, patch in zip(SIDES, (pre, post), strict=True)}
        made: dict[str, Any] = {"id": real["id"].to_numpy().max() + 1 + np.arange(n)}
        made |= {"created": pl.Series(np.full(n, None), dtype=pl.Datetime("us"))}
        made |= point("pre_pt", ends["pre"], self.outcome.anchor[pre])
        made |= point("post_pt", ends["post"], self.outcome.anchor[post])
        made |= point("ctr_pt", (ends["pre"] + ends["post"]) // 2)
        made |= {"size": self.rng.integers(200, 20_000, n)}
        rows = pl.concat([real.select(*made), pl.DataFrame(made)])
        step = SYNAPSES_TOOK_US // len(rows)
        created = pl.Series(SYNAPSES_US + step * np.arange(len(rows))).cast(pl.Datetime("us"))
        return _table(
            MINNIE65.synapse_table,
            "synapse",
            rows.with_columns(pl.col("created").fill_null(created), pl.col("size").cast(pl.Float32)),
        )

    def _types(self) -> list[Table]:
        """The real rows: types of nuclei, and of points in the column."""
        rows = pl.read_parquet(self.data / "cell_types.parquet")
        names = ["classification_system", "cell_type"]
        created = pl.lit(DETECTED_US + 900 * DAY_MS * 1000).cast(pl.Datetime("us")).alias("created")
        of_nuclei = rows.drop_nulls("target_id").with_row_index("number", offset=1)
        types = of_nuclei.select(pl.col("number").cast(pl.Int64).alias("id"), created, "target_id", *names)
        place = [pl.col(f"pt_position_{axis}_vx").cast(pl.Int32).alias(f"pt_position_{axis}") for axis in AXES]
        points = rows.drop_nulls("id").select("id", created, *names, *place, "pt_supervoxel_id")
        return [
            _table(CELL_TYPES, "cell_type_reference", types, NUCLEI),
            _table(COLUMN_TYPES, "cell_type_local", points),
        ]

    def _proofreading(self, nuclei: Table) -> Table:
        """The real rows, at the points of their nuclei, a day after their root came about."""
        rows = pl.read_parquet(self.data / "proofreading.parquet").join(
            nuclei.rows.select(pl.col("id").alias("target_id"), pl.col("^pt_.*$")),
            on="target_id",
            maintain_order="left",
        )
        born = self.outcome.graph.created(rows["pt_root_id"].to_numpy())
        created = np.maximum(born + DAY_MS, DETECTED_US // 1000 + 600 * DAY_MS) * 1000 + 1
        columns = {"id": np.arange(1, len(rows) + 1)} | bookkeeping(created, np.full(len(rows), NEVER))
        names = ["status_dendrite", "status_axon", "strategy_dendrite", "strategy_axon"]
        columns |= {name: rows[name] for name in (*[f"pt_position_{axis}" for axis in AXES], "pt_supervoxel_id")}
        columns |= {"valid_id": rows["pt_root_id"]} | {name: rows[name] for name in names}
        return _table(PROOFREADING, "compartment_proofread_status_strategy", columns)

    def _positions(self, patches: Ids) -> npt.NDArray[np.int64]:
        """The voxel (of the tables) in the middle of each patch's chunk, (n, 3)."""
        layout = MINNIE65.layout
        middle = layout.voxel_offset + (self.history.chunk(patches) + 0.5) * layout.chunk_size
        scaled: npt.NDArray[np.int64] = (middle * layout.resolution / MINNIE65.voxel_resolution).astype(np.int64)
        return scaled


def _table(name: str, schema: str, rows: Any, reference: str | None = None) -> Table:
    frame = rows if isinstance(rows, pl.DataFrame) else pl.DataFrame(rows)
    return Table(
        name=name,
        schema_type=schema,
        voxel_resolution=MINNIE65.voxel_resolution,
        rows=frame.sort("created", maintain_order=True),
        description=f"Rows of {name}; see the notes of the world for what is real.",
        reference_table=reference,
    )
