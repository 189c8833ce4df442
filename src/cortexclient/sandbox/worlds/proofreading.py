"""Cells that are proofread: their shapes, and which edits happen to them and when, for many cells at once.

A cell is a chain of up to four core patches, of which the first holds the soma, and up to six branches on them. Merges
bring a branch (a fragment of the initial segmentation, or one that this cell lost before), splits take one away. Cells
can also be wrongly merged with each other, and parted again.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final, Self

import numpy as np
import numpy.typing as npt

from ..layout import Ids
from .history import History, Rows

CORE: Final = 4
"""Places for core patches; those of branches follow."""

BRANCHES: Final = 6

SOMA_SUPERVOXELS: Final = 3

MARGIN: Final = 5
"""Chunks between a soma and the border of the volume; no branch reaches further."""

FACES: Final = np.concatenate([np.eye(3, dtype=np.int64), -np.eye(3, dtype=np.int64)])

_USERS: Final = np.array([161, 121, 2378, 95, 688, 1014, 37, 2030, 1482, 512, 877, 1230])


def users(n: int, rng: np.random.Generator) -> Ids:
    """Who edits: few people do most of it."""
    return _USERS[np.minimum(rng.geometric(0.3, n) - 1, len(_USERS) - 1)]


class Population:
    """The cells and what they consist of now.

    Parameters
    ----------
    history
        Where everything is written.
    soma_chunk
        (n, 3) chunk of each soma.
    objects
        (n,) number of the initial object each cell belongs to, from 0: cells of one object start merged.
    rng
        Draws shapes, kinds of edits and users.
    """

    def __init__(
        self, history: History, soma_chunk: npt.NDArray[np.int64], objects: Ids, rng: np.random.Generator
    ) -> None:
        self.history = history
        self.rng = rng
        n = len(soma_chunk)
        self.patch = np.full((n, CORE + BRANCHES), -1, np.int64)
        self.level2 = self.patch.copy()
        self.attached = np.zeros_like(self.patch)
        self._lost = np.full((n, 3), -1, np.int64)
        self.trail = Rows("cell", "state")
        self._grow(soma_chunk)
        states = history.states.add(time=np.full(objects.max(initial=-1) + 1, history.created_ms), id=0)
        self.state = states[objects]
        self._write_members(np.arange(n), self.state)

    def _grow(self, soma_chunk: npt.NDArray[np.int64]) -> None:
        everyone = np.arange(len(soma_chunk))
        self._place(everyone, np.zeros_like(everyone), self.history.grow_patches(soma_chunk, SOMA_SUPERVOXELS))
        length = self.rng.integers(1, CORE + 1, len(everyone))
        for place in range(1, CORE):
            who = everyone[length > place]
            self._extend(who, np.full_like(who, place - 1), np.full_like(who, place))
        branches = self.rng.integers(0, 4, len(everyone))
        for branch in range(3):
            who = everyone[branches > branch]
            self._extend(who, self.rng.integers(0, length[who]), np.full_like(who, CORE + branch))

    def _extend(self, who: Ids, onto: Ids, place: Ids) -> None:
        """Give each cell a new patch next to the one at ``onto``."""
        patch = self._neighbour(self.patch[who, onto])
        self.attached[who, place] = onto
        self._place(who, place, patch)

    def _neighbour(self, patch: Ids) -> Ids:
        """A new patch in a chunk that shares a face with that of each patch, and in contact with it."""
        step = FACES[self.rng.integers(0, len(FACES), len(patch))]
        new = self.history.grow_patches(self.history.chunk(patch) + step, self.rng.integers(1, 3, len(patch)))
        self.history.contacts.add(a=patch, b=new)
        return new

    def _place(self, who: Ids, place: Ids, patch: Ids) -> None:
        self.patch[who, place] = patch
        self.level2[who, place] = self.history.level2.add(patch=patch, time=self.history.created_ms, id=0)

    def _touch(self, who: Ids, place: Ids, when: Ids) -> None:
        """An edit at these patches: each gets a new level-2 node."""
        self.level2[who, place] = self.history.level2.add(patch=self.patch[who, place], time=when, id=0)

    def _write_members(self, who: Ids, states: Ids) -> None:
        """All current patches of the cells ``who`` (row for row) make up ``states``."""
        level2 = self.level2[who]
        row, place = np.nonzero(level2 >= 0)
        self.history.members.add(state=states[row], level2=level2[row, place])
        self.trail.add(cell=who, state=states)

    def _new_states(self, when: Ids) -> Ids:
        return self.history.states.add(time=when, id=0)

    def edit(self, who: Ids, when: Ids) -> None:
        """One edit of each cell, a merge or a split; no cell may occur twice."""
        branches = (self.level2[who, CORE:] >= 0).sum(1)
        merging = (self.rng.random(len(who)) < 0.5) | (branches == 0)
        merging &= branches < BRANCHES
        self._merge(who[merging], when[merging])
        self._split(who[~merging], when[~merging])

    def _merge(self, who: Ids, when: Ids) -> None:
        place = CORE + np.argmin(self.level2[who, CORE:] >= 0, axis=1)
        again = (self._lost[who, 0] >= 0) & (self.rng.random(len(who)) < 0.3)
        partner = np.empty(len(who), np.int64)
        self._take_back(who[again], place[again])
        partner[again] = self._lost[who[again], 1]
        self._lost[who[again]] = -1
        partner[~again] = self._meet_fragment(who[~again], place[~again])
        onto = self.attached[who, place]
        self._touch(who, place, when)
        self._touch(who, onto, when)
        former, new = self.state[who], self._new_states(when)
        self.state[who] = new
        self._write_members(who, new)
        at = self.patch[who, onto], self.patch[who, place]
        operation = self.history.edit(when, merge=True, user=users(len(who), self.rng), at=at, new=new)
        self.history.lineage.add(former=former, new=new, operation=operation)
        self.history.lineage.add(former=partner, new=new, operation=operation)

    def _take_back(self, who: Ids, place: Ids) -> None:
        self.patch[who, place] = self._lost[who, 0]
        self.attached[who, place] = self._lost[who, 2]

    def _meet_fragment(self, who: Ids, place: Ids) -> Ids:
        """A fragment that has been there from the start comes next to each cell; returns its state."""
        cores = (self.level2[who, :CORE] >= 0).sum(1)
        self._extend(who, self.rng.integers(0, cores), place)
        states = self._new_states(np.full(len(who), self.history.created_ms))
        self.history.members.add(state=states, level2=self.level2[who, place])
        return states

    def _split(self, who: Ids, when: Ids) -> None:
        taken = self.level2[who, CORE:] >= 0
        place = CORE + np.argmax(taken * self.rng.random(taken.shape), axis=1)
        onto = self.attached[who, place]
        self._touch(who, place, when)
        self._touch(who, onto, when)
        former, new, branch = self.state[who], self._new_states(when), self._new_states(when)
        self.history.members.add(state=branch, level2=self.level2[who, place])
        at = self.patch[who, onto], self.patch[who, place]
        self._lost[who] = np.stack([self.patch[who, place], branch, onto], axis=1)
        self.patch[who, place] = self.level2[who, place] = -1
        self.state[who] = new
        self._write_members(who, new)
        operation = self.history.edit(when, merge=False, user=users(len(who), self.rng), at=at, new=new, other=branch)
        self.history.lineage.add(former=former, new=new, operation=operation)
        self.history.lineage.add(former=former, new=branch, operation=operation)

    def fuse(self, pairs: npt.NDArray[np.int64], when: Ids) -> None:
        """Merge whole cells, wrongly: those of a pair (n, 2) share one root from then on."""
        a, b = pairs.T
        soma = np.zeros_like(a)
        self._touch(a, soma, when)
        self._touch(b, soma, when)
        new = self._new_states(when)
        operation = self._log_pair(a, b, when, merge=True, new=new)
        for cell in (a, b):
            self.history.lineage.add(former=self.state[cell], new=new, operation=operation)
            self.state[cell] = new
            self._write_members(cell, new)

    def part(self, pairs: npt.NDArray[np.int64], when: Ids) -> None:
        """Undo a wrong merge: those of a pair (n, 2), which share a root, get one each."""
        a, b = pairs.T
        soma = np.zeros_like(a)
        self._touch(a, soma, when)
        self._touch(b, soma, when)
        former, new, other = self.state[a], self._new_states(when), self._new_states(when)
        operation = self._log_pair(a, b, when, merge=False, new=new, other=other)
        for cell, state in ((a, new), (b, other)):
            self.history.lineage.add(former=former, new=state, operation=operation)
            self.state[cell] = state
            self._write_members(cell, state)

    def _log_pair(self, a: Ids, b: Ids, when: Ids, **what: Any) -> Ids:
        return self.history.edit(when, user=users(len(a), self.rng), at=(self.patch[a, 0], self.patch[b, 0]), **what)


CROWD: Final = 7
"""Nuclei of the largest wrong merges (a real root of minnie65 owns as many)."""

NAMED_EDITS: Final = 12
"""Edits of each of the first cells, whose roots are wanted."""


@dataclass(frozen=True, slots=True)
class Mergers:
    """Cells that are merged with each other, wrongly.

    ``crowds`` (n, 7) are one object for ever, ``early`` (n, 2) start as one and are parted, ``late`` (n, 2) are merged
    and parted again, ``lasting`` (n, 2) are merged and stay so.
    """

    crowds: npt.NDArray[np.int64]
    early: npt.NDArray[np.int64]
    late: npt.NDArray[np.int64]
    lasting: npt.NDArray[np.int64]

    @classmethod
    def choose(cls, candidates: Ids, edits: int) -> Self:
        """A few of the candidates, which come in random order."""
        n = len(candidates)
        crowds = min(max(1, n // 1000), 5, n // 30)
        pairs = min(max(2, n // 300), n // 12, edits // 8)
        cut = np.cumsum([crowds * CROWD, pairs * 2, pairs * 2, pairs * 2])
        groups = np.split(candidates[: cut[-1]], cut[:-1])
        return cls(groups[0].reshape(-1, CROWD), *(group.reshape(-1, 2) for group in groups[1:]))

    @property
    def edits(self) -> int:
        """Operations that they take."""
        return len(self.early) + 2 * len(self.late) + len(self.lasting)

    def members(self) -> Ids:
        """All cells that take part."""
        return np.concatenate([g.ravel() for g in (self.crowds, self.early, self.late, self.lasting)])


def proofread(
    history: History,
    cells: int,
    edits: int,
    *,
    named: int,
    span: tuple[int, int],
    moments: Ids,
    rng: np.random.Generator,
) -> Population:
    """Make ``cells`` and edit them.

    Parameters
    ----------
    history
        Where everything is written.
    cells, edits
        How many.
    named
        So many first cells get edits of their own and no part in wrong merges.
    span
        First and last time of edits, ms.
    moments
        Times (ms) at each of which one edit is to happen exactly.
    rng
        Draws everything.
    """
    mergers = Mergers.choose(rng.permutation(np.arange(named, cells)), edits)
    population = _settle(history, cells, mergers, rng)
    windows = np.repeat([span], cells, axis=0)
    length = span[1] - span[0]
    parted = span[0] + rng.integers(length // 20, length // 5, len(mergers.early))
    windows[mergers.early, 0] = parted[:, None]
    fused = span[0] + rng.integers(length * 7 // 10, length * 8 // 10, len(mergers.late) + len(mergers.lasting))
    for pairs in (mergers.late, mergers.lasting):
        windows[pairs, 1] = span[0] + length * 7 // 10
    population.part(mergers.early, parted)
    _edit_singly(population, windows, mergers, edits - mergers.edits, named=named, moments=moments)
    pairs = np.concatenate([mergers.late, mergers.lasting])
    population.fuse(pairs, fused)
    population.part(mergers.late, span[0] + rng.integers(length * 8 // 10, length, len(mergers.late)))
    return population


def _settle(history: History, cells: int, mergers: Mergers, rng: np.random.Generator) -> Population:
    """Place the cells in the volume; those to be merged side by side."""
    volume = np.asarray(history.layout.volume_size) // np.asarray(history.layout.chunk_size)
    soma = rng.integers(MARGIN, volume - MARGIN, (cells, 3))
    objects = np.arange(cells)
    for groups in (mergers.crowds, mergers.early, mergers.late, mergers.lasting):
        for member in range(1, groups.shape[1]):
            soma[groups[:, member]] = soma[groups[:, 0]]
            soma[groups[:, member], 0] += member
    for groups in (mergers.crowds, mergers.early):
        objects[groups] = groups[:, :1]
    population = Population(history, soma, np.unique(objects, return_inverse=True)[1], rng)
    somas = population.patch[:, 0]
    for groups in (mergers.crowds, mergers.early, mergers.late, mergers.lasting):
        history.contacts.add(a=somas[groups[:, :-1]], b=somas[groups[:, 1:]])
    return population


def _edit_singly(
    population: Population,
    windows: npt.NDArray[np.int64],
    mergers: Mergers,
    total: int,
    *,
    named: int,
    moments: Ids,
) -> None:
    """Spread ``total`` edits over the cells, each cell's within its window."""
    count = np.zeros(len(windows), np.int64)
    count[:named] = min(NAMED_EDITS, total // max(named, 1))
    candidates = np.setdiff1d(np.arange(named, len(windows)), mergers.crowds)
    count[candidates] = edit_counts(len(candidates), total - int(count.sum()), population.rng)
    times = session_times(count, windows, population.rng)
    free = np.ones(len(windows), bool)
    free[:named] = False
    free[mergers.members()] = False
    cell = np.repeat(np.arange(len(count)), count)
    _coincide(times, cell, np.flatnonzero(free[cell]), moments)
    first = np.cumsum(count) - count
    for number in range(count.max(initial=0)):
        who = np.flatnonzero(count > number)
        population.edit(who, times[first[who] + number])


def edit_counts(cells: int, total: int, rng: np.random.Generator) -> Ids:
    """How many edits each cell gets, ``total`` in all: none for most, else log-normal, median 5, tail to 700."""
    counts = np.zeros(cells, np.int64)
    if not cells or total <= 0:
        return counts
    median, sigma, most = 5, 1.3, 700
    mean = median * np.exp(sigma**2 / 2)
    touched = min(max(1, round(total / mean)), max(1, cells * 4 // 5))
    drawn = np.minimum(np.ceil(rng.lognormal(np.log(median), sigma, touched)), most).astype(np.int64)
    drawn = np.clip(total - (np.cumsum(drawn) - drawn), 0, drawn)
    missing = total - int(drawn.sum())
    drawn += missing // touched
    drawn[: missing % touched] += 1
    counts[rng.choice(cells, touched, replace=False)] = drawn
    return counts


def session_times(count: Ids, windows: npt.NDArray[np.int64], rng: np.random.Generator) -> Ids:
    """Times (ms) of each cell's edits, cell after cell, strictly increasing within each.

    People work in sessions: three of four edits follow the one before by minutes (one in twenty by milliseconds), the
    others begin a session at any time in the cell's window.
    """
    n = int(count.sum())
    cell = np.repeat(np.arange(len(count)), count)
    number = np.arange(n) - np.repeat(np.cumsum(count) - count, count)
    opens = (number == 0) | (rng.random(n) < 0.25)
    weight = np.where(opens, rng.exponential(1.0, n), 0.0)
    pause = np.where(opens, 0.0, rng.exponential(240_000.0, n))
    pause[rng.random(n) < 0.05] /= 10_000
    total = np.bincount(cell, weight, len(count)) + rng.exponential(1.0, len(count))
    begin, end = windows[cell].T
    room = (end - begin) * 0.99
    offset = _running(weight, number) / total[cell] * room + _running(pause, number)
    times: Ids = begin + offset.astype(np.int64) + number
    return times


def _running(values: npt.NDArray[np.float64], number: Ids) -> npt.NDArray[np.float64]:
    """Cumulative sums that start anew wherever ``number`` is 0."""
    sums = np.cumsum(values)
    start = np.flatnonzero(number == 0)
    before = sums[start] - values[start]
    return sums - np.repeat(before, np.diff(start, append=len(values)))


def _coincide(times: Ids, cell: Ids, free: Ids, moments: Ids) -> None:
    """Move a few of the edits ``free``: to each of the moments the nearest one, and some onto each other's time.

    The order of a cell's edits stays: between an edit and where it goes there is no other.
    """
    if not len(free):
        return
    order = free[np.argsort(times[free], kind="stable")]
    pairs = np.flatnonzero(cell[order[1:]] != cell[order[:-1]])[:: max(1, len(order) // 20)]
    times[order[pairs + 1]] = times[order[pairs]]
    for moment in moments:
        times[free[np.argmin(np.abs(times[free] - moment))]] = moment
