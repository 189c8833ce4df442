"""Synthetic worlds of any size, in the layout of a real dataset: deterministic, vectorised, with all the odd cases."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final

import numpy as np

from ..graph import NEVER
from ..layout import Ids
from ..world import World
from .annotations import Annotator, choose_sites, lookup_view
from .dataset import DATASETS, Release, assemble
from .history import History
from .proofreading import Population, proofread

DAY_MS: Final = 86_400_000


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
    releases = calendar(recipe, rng)
    history = History(dataset.layout, recipe.start_ms)
    named = len(recipe.cells)
    population = proofread(
        history,
        recipe.nuclei,
        recipe.edits,
        named=named,
        span=(recipe.start_ms, recipe.end_ms),
        moments=np.array([release.time_us // 1000 for release in releases]),
        rng=rng,
    )
    sites = choose_sites(population, recipe.counted("backups"), recipe.counted("fragments"), named, rng)
    name_roots(history, population, recipe.roots, named, releases)
    outcome = history.outcome(rng, table=dataset.graph)
    tables = Annotator(recipe, dataset, history, outcome, population, sites, rng).tables()
    return assemble(
        dataset,
        outcome.graph,
        tables,
        lookup_view(dataset),
        releases,
        name=recipe.dataset,
        seed=recipe.seed,
        notes={"data": "synthetic: every id, position and edit is made up"},
    )


def calendar(recipe: Recipe, rng: np.random.Generator) -> list[Release]:
    """All versions, oldest first; those that can be queried are the newest and others spread evenly over the years.

    The newest is a little older than the last edit, so that the live tables differ from every version. Every other
    time is a whole millisecond, as times of edits are; none is a whole second, which caveclient cannot read.
    """
    count = recipe.versions + recipe.expired
    days = (recipe.end_ms - recipe.start_ms) // DAY_MS
    newest_ms = recipe.end_ms - days * DAY_MS // 100
    numbers = np.array(recipe.version_numbers, np.int64)
    if not len(numbers):
        span = days * 9 // 10
        numbers = np.sort(np.append(rng.choice(np.arange(1, span), count - 1, replace=False), span))
    at_ms = newest_ms - (newest_ms % DAY_MS) - (numbers[-1] - numbers) * DAY_MS + 29_400_000
    fraction = rng.integers(1, 1000, count) * 1000
    fraction[::2] += rng.integers(1, 1000, len(numbers[::2]))
    times_us = at_ms // 1000 * 1_000_000 + fraction
    valid = np.zeros(count, bool)
    valid[np.linspace(count - 1, 0, recipe.versions, dtype=np.int64)] = True
    return [Release(*row) for row in zip(numbers.tolist(), times_us.tolist(), valid.tolist(), strict=True)]


def name_roots(
    history: History, population: Population, roots: tuple[int, ...], named: int, releases: list[Release]
) -> None:
    """Give the wanted ids to states of the first cells, no two of one cell: current, old, between versions in turn."""
    version_ms: Ids = np.array([release.time_us // 1000 for release in releases if release.valid])
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
