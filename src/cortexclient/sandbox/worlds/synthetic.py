"""Synthetic worlds of any size, in the layout of a real dataset: deterministic, vectorised, with all the odd cases."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final

import numpy as np

from ..graph import NEVER, Layout
from ..layout import Ids
from ..tables import Version, from_us
from ..world import Datastack, World
from .annotations import Annotator, choose_sites, lookup_view
from .history import History
from .proofreading import Population, proofread

DAY_MS: Final = 86_400_000


@dataclass(frozen=True, slots=True)
class Dataset:
    """The names and the geometry of the dataset that a synthetic world imitates."""

    datastacks: tuple[tuple[str, str], ...]
    """Datastacks and the segmentation table of each."""
    aligned_volume: str
    layout: Layout
    voxel_resolution: tuple[float, float, float]
    """Of stored positions and of the viewer, in nm."""
    synapse_table: str
    lookup_view: str
    graph: str


MINNIE65: Final = Dataset(
    datastacks=(("minnie65_public", "minnie65_public"), ("minnie65_phase3_v1", "minnie3_v1")),
    aligned_volume="minnie65_phase3",
    layout=Layout.minnie65(),
    voxel_resolution=(4.0, 4.0, 40.0),
    synapse_table="synapses_pni_2",
    lookup_view="nucleus_detection_lookup_v1",
    graph="minnie3_v1",
)

V1DD: Final = Dataset(
    datastacks=(("v1dd_public", "v1dd_public"), ("v1dd", "v1dd")),
    aligned_volume="v1dd",
    layout=Layout(
        n_layers=11,
        spatial_bits={1: 10, 2: 10} | {layer: 11 - layer for layer in range(3, 11)} | {11: 1},
        chunk_size=(256, 256, 512),
        resolution=(9, 9, 45),
        voxel_offset=(4096, 2048, 3072),
        volume_size=(122_880, 98_304, 13_312),
    ),
    voxel_resolution=(9.0, 9.0, 45.0),
    synapse_table="synapses_v1dd",
    lookup_view="nucleus_alternative_lookup",
    graph="v1dd_synthetic",
)

DATASETS: Final = {"minnie65": MINNIE65, "v1dd": V1DD}


@dataclass(frozen=True, slots=True)
class Recipe:
    """What to make. Counts left out follow from ``nuclei``, in the proportions of minnie65.

    Parameters
    ----------
    seed
        Two worlds of one recipe are equal.
    nuclei
        Cells, each with a nucleus.
    edits
        Merges and splits, zero-inflated log-normal over the cells (a model, not a measurement).
    fragments
        Objects without nucleus that are never edited.
    backups
        Rows of the table of alternative points.
    synapses, proofread
        Rows of these tables.
    versions, expired
        How many materialized versions can be queried, and how many more once could. The newest one can.
    version_numbers
        All of them, oldest first, instead of drawn ones; a version's number counts days.
    years
        How long the history is.
    start
        When the graph was made.
    dataset
        ``minnie65`` or ``v1dd``.
    cells, roots
        Ids that nuclei and roots must have. The roots are states of these cells: one that is current at the newest
        version, one of an older version only, one that lived between two versions, and so on in turn.
    """

    seed: int = 0
    nuclei: int = 2_000
    edits: int = 5_000
    fragments: int | None = None
    backups: int | None = None
    synapses: int | None = None
    proofread: int | None = None
    versions: int = 4
    expired: int = 4
    version_numbers: tuple[int, ...] = ()
    years: float = 5.0
    start: datetime = datetime(2020, 5, 29, 13, 26, 43, 761_000, tzinfo=UTC)
    dataset: str = "minnie65"
    cells: tuple[int, ...] = ()
    roots: tuple[int, ...] = ()

    @property
    def start_ms(self) -> int:
        """UTC milliseconds."""
        return (self.start - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(milliseconds=1)

    @property
    def end_ms(self) -> int:
        """When the last edit has been made, UTC milliseconds."""
        return self.start_ms + int(self.years * 365.25 * DAY_MS)

    def counted(self, name: str) -> int:
        """A count, or what it is by default."""
        defaults = {
            "fragments": 2 * self.nuclei,
            "backups": self.nuclei * 8_388 // 144_120,
            "synapses": 5 * self.nuclei,
            "proofread": max(20, self.nuclei // 65),
        }
        value: int | None = getattr(self, name)
        return defaults[name] if value is None else value


def synthesize(recipe: Recipe) -> World:
    """Make the world of a recipe."""
    rng = np.random.default_rng(recipe.seed)
    dataset = DATASETS[recipe.dataset]
    numbers, times_us = calendar(recipe, rng)
    history = History(dataset.layout, recipe.start_ms)
    named = len(recipe.cells)
    edits = recipe.edits
    population = proofread(
        history,
        recipe.nuclei,
        edits,
        named=named,
        span=(recipe.start_ms, recipe.end_ms),
        moments=times_us // 1000,
        rng=rng,
    )
    sites = choose_sites(population, recipe.counted("backups"), recipe.counted("fragments"), named, rng)
    _name_roots(history, population, recipe.roots, named, times_us[_valid(recipe)] // 1000)
    outcome = history.outcome(rng, table=dataset.graph, taken=recipe.roots)
    tables = Annotator(recipe, dataset, history, outcome, population, sites, rng).tables()
    view = lookup_view(dataset)
    return World(
        name=recipe.dataset,
        seed=recipe.seed,
        graph=outcome.graph,
        tables={table.name: table for table in tables},
        views={view.name: view},
        versions=registry(
            recipe, [name for name, _ in dataset.datastacks], [t.name for t in tables], numbers, times_us
        ),
        datastacks={stack.name: stack for stack in _datastacks(dataset)},
        notes={"data": "synthetic: every id, position and edit is made up"},
    )


def calendar(recipe: Recipe, rng: np.random.Generator) -> tuple[Ids, Ids]:
    """Numbers and times (UTC microseconds) of all versions, oldest first.

    The newest is a little older than the last edit, so that the live tables differ from every version. Every other
    time is a whole millisecond, as times of edits are; none is a whole second, which caveclient cannot read.
    """
    days = (recipe.end_ms - recipe.start_ms) // DAY_MS
    newest_ms = recipe.end_ms - days * DAY_MS // 100
    numbers = np.array(recipe.version_numbers, np.int64)
    if not len(numbers):
        span = days * 9 // 10
        older = rng.choice(np.arange(1, span), recipe.versions + recipe.expired - 1, replace=False)
        numbers = np.sort(np.append(older, span))
    at_ms = newest_ms - (newest_ms % DAY_MS) - (numbers[-1] - numbers) * DAY_MS + 29_400_000
    fraction = rng.integers(1, 1000, len(numbers)) * 1000
    fraction[::2] += rng.integers(1, 1000, len(numbers[::2]))
    return numbers, at_ms // 1000 * 1_000_000 + fraction


def _valid(recipe: Recipe) -> Ids:
    """Which of the versions can be queried: the newest and others spread evenly over the years."""
    last = recipe.versions + recipe.expired - 1
    return np.unique(np.linspace(last, 0, recipe.versions, dtype=np.int64))


def registry(recipe: Recipe, datastacks: list[str], tables: list[str], numbers: Ids, times_us: Ids) -> list[Version]:
    """The rows of the versions' registry: all versions of one datastack, then those of the next."""
    valid = set(_valid(recipe).tolist())
    rows: list[Version] = []
    for datastack in datastacks:
        for order, (number, time_us) in enumerate(zip(numbers.tolist(), times_us.tolist(), strict=True)):
            alive = order in valid
            keep = timedelta(days=36_500 if alive else 60)
            rows.append(
                Version(
                    version=number,
                    datastack=datastack,
                    time_us=time_us,
                    tables=tuple(tables),
                    id=len(rows) + 1,
                    first_table_id=len(rows) * len(tables) + 1,
                    expires_on=from_us(time_us) + keep,
                    valid=alive,
                    status="AVAILABLE" if alive else "EXPIRED",
                )
            )
    return rows


def _name_roots(history: History, population: Population, roots: tuple[int, ...], named: int, version_ms: Ids) -> None:
    """Give the wanted ids to states of the first cells, no two of one cell: current, old, between versions in turn."""
    began, ended = history.lifetimes()
    mine = population.trail["cell"] < named
    cell, state = population.trail["cell"][mine], population.trail["state"][mine]
    alive = (began[state, None] <= version_ms) & (version_ms < ended[state, None])
    kinds = (
        alive[:, -1],
        alive[:, :-1].any(1) & ~alive[:, -1],
        ~alive.any(1) & (ended[state] < NEVER) & (began[state] > version_ms[0]),
    )
    free = np.ones(len(state), bool)
    for order, root in enumerate(roots):
        fit = np.flatnonzero(kinds[order % 3] & free)
        if not len(fit):
            raise ValueError(f"no state of the first {named} cells is like root {root} should be: take another seed")
        history.states["id"][state[fit[0]]] = root
        free &= cell != cell[fit[0]]


def _datastacks(dataset: Dataset) -> list[Datastack]:
    return [
        Datastack(
            name=name,
            aligned_volume=dataset.aligned_volume,
            segmentation=segmentation,
            synapse_table=dataset.synapse_table,
            soma_table="nucleus_detection_v0",
            viewer_resolution=dataset.voxel_resolution,
            description="Synthetic: made by cortexclient's sandbox.",
            image_source=f"precomputed://gs://{dataset.aligned_volume}/em",
        )
        for name, segmentation in dataset.datastacks
    ]
