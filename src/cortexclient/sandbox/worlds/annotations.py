"""The annotation tables of a synthetic world: nuclei, their backups, cell types, proofreading status and synapses."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import numpy.typing as npt
import polars as pl

from ..graph import NEVER
from ..layout import Ids
from ..tables import Table, View, from_us
from .columns import bookkeeping, point, times
from .history import History, Outcome
from .proofreading import CORE, Population

if TYPE_CHECKING:
    from .dataset import Dataset
    from .synthetic import Recipe

NUCLEI: Final = "nucleus_detection_v0"
BACKUPS: Final = "nucleus_alternative_points"
PROOFREADING: Final = "proofreading_status_and_strategy"
CELL_TYPES: Final = "aibs_metamodel_celltypes_v661"

TYPES: Final = (
    *(("excitatory_neuron", name) for name in ("23P", "4P", "5P-IT", "5P-ET", "5P-NP", "6P-IT", "6P-CT")),
    *(("inhibitory_neuron", name) for name in ("BC", "MC", "BPC", "NGC")),
    *(("nonneuron", name) for name in ("astrocyte", "oligo", "microglia", "OPC")),
)
AXON: Final = ("none", "axon_partially_extended", "axon_fully_extended", "axon_interareal")
DENDRITE: Final = ("none", "dendrite_clean", "dendrite_extended")

NOWHERE: Final = -1
"""Instead of a patch: a point outside the segmentation, whose supervoxel is 0."""

FEW: Final = 0.003
"""Share of nuclei with each kind of odd row; at least three, but in tiny worlds."""


@dataclass(frozen=True, slots=True)
class Sites:
    """Where points lie, in patches.

    ``nucleus`` is the patch of each cell's main point; ``backup_of`` and ``backup`` are the cell and the patch of each
    alternative point; ``fragments`` are the patches of all edit-free fragments and ``hosts`` the patches they touch.
    """

    nucleus: Ids
    backup_of: Ids
    backup: Ids
    fragments: Ids
    hosts: Ids


def choose_sites(population: Population, backups: int, fragments: int, named: int, rng: np.random.Generator) -> Sites:
    """Place the nuclei, the fragments and the backups.

    Most backups exist because the main point is bad: it fell on a fragment in the soma (60 of 100), outside the
    segmentation (10), on another cell (5); the others merely lie elsewhere in the same cell. A few nuclei have two
    backups on different objects, and a few lie outside the segmentation without having one.
    """
    soma = population.patch[:, 0]
    nucleus = soma.copy()
    ordinary = rng.permutation(np.arange(named, len(soma)))
    twice = min(_few(len(soma)), backups // 3)
    cells, outside = ordinary[: backups - twice], ordinary[backups : backups + _few(len(soma))]
    kind = np.searchsorted((0.60, 0.70, 0.75), rng.random(len(cells)), side="right")
    decoyed = cells[kind == 0]
    hosts = np.concatenate([soma[decoyed], _some_patches(population, max(0, fragments - len(decoyed)), rng)])
    made = _grow_fragments(population.history, hosts)
    nucleus[decoyed] = made[: len(decoyed)]
    nucleus[cells[kind == 1]] = NOWHERE
    nucleus[cells[kind == 2]] = soma[rng.integers(0, len(soma), int((kind == 2).sum()))]
    elsewhere = cells[kind == 3]
    core = population.patch[elsewhere, 1]
    nucleus[elsewhere] = np.where(core >= 0, core, soma[elsewhere])
    nucleus[outside] = NOWHERE
    doubled = cells[:twice]
    second = soma[(doubled + 1) % len(soma)]
    return Sites(nucleus, np.append(cells, doubled), np.append(soma[cells], second), made, hosts)


def _few(n: int) -> int:
    return min(max(3, round(FEW * n)), n // 8)


def _some_patches(population: Population, n: int, rng: np.random.Generator) -> Ids:
    patches = population.patch[population.patch >= 0]
    return patches[rng.integers(0, len(patches), n)]


def _grow_fragments(history: History, hosts: Ids) -> Ids:
    """An object of one supervoxel in the chunk of each host."""
    patches = history.grow_patches(history.chunk(hosts), 1)
    states = history.states.add(time=np.full(len(patches), history.created_ms), id=0)
    history.members.add(state=states, level2=history.level2.add(patch=patches, time=history.created_ms, id=0))
    return patches


@dataclass(frozen=True)
class Annotator:
    """Makes the tables. Positions lie in the chunk of their supervoxel."""

    recipe: Recipe
    dataset: Dataset
    history: History
    outcome: Outcome
    population: Population
    sites: Sites
    rng: np.random.Generator

    def tables(self) -> list[Table]:
        """All tables, in the order in which they were made."""
        nuclei = self.nuclei()
        ids = nuclei.rows["id"].to_numpy()
        return [nuclei, self.backups(ids), self.synapses(), self.cell_types(ids), self.proofreading()]

    def nuclei(self) -> Table:
        """One row per cell. A few came later, a few were deleted."""
        n, named = len(self.sites.nucleus), len(self.recipe.cells)
        created, deleted = self._us(0.04, n), np.full(n, NEVER)
        odd = self.rng.permutation(np.arange(named, n))
        late, gone, _ = np.split(odd, np.cumsum([max(_few(n), n // 33), _few(n)]))
        created[late] = self._us(0.1, len(late), until=0.98)
        deleted[gone] = self._us(0.3, len(gone), until=0.99)
        soma = self.population.patch[:, 0]
        at = np.where(self.sites.nucleus >= 0, self.sites.nucleus, soma)
        position = self._positions(at)
        half = np.array([600, 600, 60])
        columns = bookkeeping(created, deleted)
        columns |= {"volume": pl.Series(self.rng.lognormal(np.log(300), 0.25, n)).cast(pl.Float32)}
        columns |= self._point("pt", position, self.sites.nucleus)
        columns |= point("bb_start", position - half) | point("bb_end", position + half)
        return self._table(NUCLEI, "nucleus_detection", {"id": self._nucleus_ids(n)} | columns)

    def _nucleus_ids(self, n: int) -> Ids:
        """Labels of the nucleus segmentation: distinct, in no order."""
        given = np.array(self.recipe.cells, np.int64)
        drawn = 20_000 + self.rng.permutation(max(750_000, 2 * n))[: n + len(given)]
        free = drawn[~np.isin(drawn, given)]
        return np.concatenate([given, free])[:n]

    def backups(self, nucleus_ids: Ids) -> Table:
        """Alternative points. A fifth came after some of the versions, a few were withdrawn again."""
        n = len(self.sites.backup)
        created, deleted = self._us(0.05, n), np.full(n, NEVER)
        late = self.rng.random(n) < 0.2
        created[late] = self._us(0.1, int(late.sum()), until=0.95)
        gone = self.rng.choice(n, min(n // 4, _few(n)), replace=False)
        deleted[gone] = created[gone] + (self._us(1.0, len(gone)) - created[gone]) // 2
        columns = {"id": np.arange(1, n + 1)} | bookkeeping(created, deleted)
        columns |= {"target_id": nucleus_ids[self.sites.backup_of]}
        columns |= self._point("pt", self._positions(self.sites.backup), self.sites.backup)
        return self._table(BACKUPS, "reference_point", columns, reference=NUCLEI)

    def cell_types(self, nucleus_ids: Ids) -> Table:
        """A type for two of three nuclei."""
        target = nucleus_ids[self.rng.random(len(nucleus_ids)) < 0.65]
        system, name = np.array(TYPES).T
        drawn = self.rng.choice(len(TYPES), len(target), p=_shares(len(TYPES)))
        columns = {"id": np.arange(1, len(target) + 1)} | {"created": times(self._us(0.07, len(target)))}
        columns |= {"target_id": target, "classification_system": system[drawn], "cell_type": name[drawn]}
        return self._table(CELL_TYPES, "cell_type_reference", columns, reference=NUCLEI)

    def proofreading(self) -> Table:
        """The cells with most edits, assessed late in their history; every tenth was assessed again."""
        cells, state, created = self._assessments()
        n, again = len(cells), np.arange(len(cells))[::10]
        rows = np.append(np.arange(n), again)
        created = np.append(created, (created[again] + self.recipe.end_ms * 1000) // 2)
        deleted, superceded = np.full(len(rows), NEVER), np.zeros(len(rows), np.int64)
        deleted[again], superceded[again] = created[n:], np.arange(n + 1, len(rows) + 1)
        axon = np.minimum(self.rng.geometric(0.5, len(rows)) - 1, len(AXON) - 1)
        dendrite = np.minimum(self.rng.geometric(0.4, len(rows)) - 1, len(DENDRITE) - 1)
        soma = self.population.patch[cells, 0]
        columns = {"id": np.arange(1, len(rows) + 1)} | bookkeeping(created, deleted, superceded)
        columns |= self._point("pt", self._positions(soma)[rows], soma[rows])
        columns |= {"valid_id": self.outcome.root[state][rows]}
        columns |= {"status_dendrite": dendrite > 0, "status_axon": axon > 0}
        columns |= {"strategy_dendrite": np.array(DENDRITE)[dendrite], "strategy_axon": np.array(AXON)[axon]}
        return self._table(PROOFREADING, "compartment_proofread_status_strategy", columns)

    def _assessments(self) -> tuple[Ids, Ids, Ids]:
        """Cells, the state of each that was assessed, and when (microseconds): half-way through that state."""
        trail, began = self.population.trail, self.outcome.began
        order = np.lexsort((began[trail["state"]], trail["cell"]))
        count = np.bincount(trail["cell"], minlength=len(self.population.patch))
        last = np.cumsum(count) - 1
        cells = np.argsort(-count, kind="stable")[: self.recipe.counted("proofread")]
        state = trail["state"][order[last[cells] - count[cells] // 5]]
        lasted = np.minimum(self.outcome.ended[state], self.recipe.end_ms) - began[state]
        created = (began[state] + np.maximum(lasted, 2) // 2) * 1000 + self.rng.integers(0, 1000, len(cells))
        return cells, state, created

    def synapses(self) -> Table:
        """Two of three from a fragment onto the cell it touches, others between cells; forty each way for named cells.

        Those between cells join places that are far apart: only their supervoxels and roots are meant to be used.
        """
        pre, post = self._partners(self.recipe.counted("synapses"))
        n = len(pre)
        at, chunk = self._positions(post), self.history.patches["chunk"]
        beside = at + self.rng.integers(-60, 60, (n, 3)) // (1, 1, 10)
        before = np.where((chunk[pre] == chunk[post])[:, None], beside, self._positions(pre))
        ids = np.sort(self.rng.choice(20 * n + 1, n, replace=False)) + 100_000_000
        columns: dict[str, Any] = {"id": ids, "created": times(self._us(0.05, n))}
        columns |= self._point("pre_pt", before, pre) | self._point("post_pt", at, post)
        columns |= point("ctr_pt", (at + before) // 2)
        columns |= {"size": pl.Series(self.rng.lognormal(np.log(4_600), 1.0, n)).cast(pl.Float32)}
        return self._table(self.dataset.synapse_table, "synapse", columns)

    def _partners(self, wanted: int) -> tuple[Ids, Ids]:
        """Patches before and after each of the synapses."""
        rng, cells = self.rng, self.population
        named = np.repeat(np.arange(len(self.recipe.cells)), 40)[: wanted // 3]
        core = cells.patch[named, rng.integers(0, CORE, len(named))]
        own = np.where(core >= 0, core, cells.patch[named, 0])
        rest = wanted - 2 * len(named)
        touching = rng.integers(0, max(1, len(self.sites.hosts)), rest * 2 // 3 if len(self.sites.hosts) else 0)
        others = [_some_patches(cells, n, rng) for n in (len(named), len(named), *[rest - len(touching)] * 2)]
        pre = [own, others[0], self.sites.fragments[touching], others[2]]
        post = [others[1], own, self.sites.hosts[touching], others[3]]
        return np.concatenate(pre), np.concatenate(post)

    def _us(self, share: float, n: int, until: float | None = None) -> Ids:
        """Times (UTC microseconds) at a share of the history: within a day, or spread as far as ``until``."""
        length = (self.recipe.end_ms - self.recipe.start_ms) * 1000
        width = 86_400_000_000 if until is None else int((until - share) * length)
        return self.recipe.start_ms * 1000 + int(share * length) + self.rng.integers(0, width, n)

    def _positions(self, patches: Ids) -> npt.NDArray[np.int64]:
        """A voxel (of the tables) in the inner part of each patch's chunk, (n, 3)."""
        layout = self.dataset.layout
        inside = self.rng.uniform(0.25, 0.75, (len(patches), 3))
        voxel = layout.voxel_offset + (self.history.chunk(patches) + inside) * layout.chunk_size
        scaled: npt.NDArray[np.int64] = (voxel * layout.resolution / self.dataset.voxel_resolution).astype(np.int64)
        return scaled

    def _point(self, name: str, position: npt.NDArray[np.int64], patch: Ids) -> dict[str, Any]:
        return point(name, position, np.where(patch >= 0, self.outcome.anchor[patch], 0))

    def _table(self, name: str, schema: str, columns: dict[str, Any], reference: str | None = None) -> Table:
        """Rows in the order of their creation, as a database keeps them."""
        return Table(
            name=name,
            schema_type=schema,
            voxel_resolution=self.dataset.voxel_resolution,
            rows=pl.DataFrame(columns).sort("created", maintain_order=True),
            description=f"Synthetic rows in the form of {name}.",
            reference_table=reference,
            created=from_us(int(self._us(0.03, 1)[0])),
        )


def lookup_view(dataset: Dataset) -> View:
    """The nuclei with the point that is to be looked up: the alternative one where there is one."""
    axes: Sequence[str] = "xyz"
    place = ", ".join(f"n.pt_position_{axis}" for axis in axes)
    better = ", ".join(
        f"COALESCE(a.pt_position_{axis}, n.pt_position_{axis}) AS pt_position_lookup_{axis}" for axis in axes
    )
    return View(
        name=dataset.lookup_view,
        sql=f"SELECT n.id, n.volume, {place}, COALESCE(a.pt_root_id, n.pt_root_id) AS pt_root_id, "  # noqa: S608
        "n.pt_root_id AS orig_root_id, COALESCE(a.pt_supervoxel_id, n.pt_supervoxel_id) AS pt_supervoxel_id, "
        f"{better} FROM {NUCLEI} AS n LEFT JOIN {BACKUPS} AS a ON n.id = a.target_id",
        voxel_resolution=dataset.voxel_resolution,
        description="Nuclei with the point to look up: the alternative one where there is one.",
        live_compatible=True,
    )


def _shares(n: int) -> npt.NDArray[np.float64]:
    """Falling shares that sum to one."""
    weights = np.power(0.8, np.arange(n, dtype=np.float64))
    shares: npt.NDArray[np.float64] = weights / weights.sum()
    return shares
