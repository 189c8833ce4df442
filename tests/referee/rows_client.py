"""Rows of the client itself and of the info service."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from tests.oracle import oracle_root_to_cell

from . import truth
from .comparisons import (
    same_flags,
    same_lifetimes,
    same_names,
    same_times,
    same_times_but_now,
    same_translation,
)
from .facts import Facts
from .rows import Ask, Defect, Ours, Row, Theirs, ask, once
from .rows_graph import birthdays, get_roots, latest_lookups, lifetimes_by_two_calls
from .rows_history import get_latest_roots, suggest_latest_roots

if TYPE_CHECKING:
    from .peers import Peers


def cortical(name: str) -> Theirs:
    """The method of that name of cortical-tools' client."""
    return lambda peers, asked: getattr(peers.cortical(asked.pin), name)(**asked.arguments)


def value_of_cave(name: str) -> Theirs:
    """An attribute of caveclient."""
    return lambda peers, asked: getattr(peers.cave(asked.pin), name)


def pinned_or_not(facts: Facts) -> list[Ask]:
    return [ask(), *(ask(pin=version.version) for version in facts.valid)]


def numbers(facts: Facts) -> list[Ask]:
    """Versions: valid ones, expired ones, and such as never were."""
    known = [*facts.valid, *facts.expired]
    unknown = [0, -1, 1, 99_999, 10**12]
    return [
        *(ask(version=version.version) for version in known),
        *(ask(version=number) for number in unknown if number not in {v.version for v in known}),
        ask(version=None),
        *(ask(pin=version.version) for version in facts.valid),
        *(ask(pin=facts.newest, version=version.version) for version in facts.valid),
    ]


def volumes(facts: Facts) -> list[str]:
    known = sorted({stack.aligned_volume for stack in facts.world.datastacks.values()})
    return [*known, *facts.world.datastacks, known[0].upper(), "nowhere", "a b", "ü", "1", "-", "_", "a.b"]


def value_of(name: str) -> Ours:
    """An attribute, which takes no asking."""

    async def ours(client: Any, _: Ask) -> Any:
        return getattr(client, name)

    return ours


# -- translation -------------------------------------------------------------------------------------------------------


def asked_cells(facts: Facts) -> list[Ask]:
    cells = facts.some(facts.cells, 30).tolist()
    unknown = [7, 123_456_789_012]
    return [
        ask(cell_ids=cells),
        ask(cell_ids=sorted(cells)),
        ask(cell_ids=cells[:1]),
        ask(cell_ids=cells[:4] + cells[:2]),
        ask(cell_ids=cells[:4] + unknown),
        ask(cell_ids=unknown),
        ask(cell_ids=[]),
        ask(cell_ids=facts.backed[:20]),
        ask(cell_ids=facts.cells),
        *(ask(cell_ids=cells, version=version.version) for version in (*facts.valid, *facts.expired[:1])),
        ask(cell_ids=cells, version=99_999),
        *(ask(cell_ids=[*cells[:10], *facts.backed[:10]], timestamp=when) for when in facts.instants()),
    ]


def view_lookup(peers: Peers, asked: Ask) -> dict[int, set[int]]:
    """The roots of each cell: none where the view lacks it, one for each backup."""
    found = peers.cortical().cell_id_to_root_id(
        asked["cell_ids"], peers.cave(), timestamp=asked["timestamp"], materialization_version=asked["version"]
    )
    roots: dict[int, set[int]] = {cell: set() for cell in truth.as_list(asked["cell_ids"])}
    for cell, root in found.items():
        roots.setdefault(int(cell), set()).update({int(root)} - {0})
    return roots


def roots_of_cells(facts: Facts, asked: Ask) -> dict[int, set[int]]:
    us = facts.world.version(asked["version"]).time_us
    ms = us // 1000 if asked["timestamp"] is None else truth.ms(asked["timestamp"])
    points = facts.oracle.points(us).of_cell
    return {
        cell: {facts.oracle.root_at(point, ms) for point in points.get(cell, ()) if point} - {0}
        for cell in truth.as_list(asked["cell_ids"])
    }


def same_roots_of_cells(ours: Any, theirs: dict[int, set[int]]) -> None:
    """One root is the answer; none or several are -1."""
    same_translation(ours, {cell: min(roots) if len(roots) == 1 else -1 for cell, roots in theirs.items()})
    assert ours.index.isin(list(theirs)).all()


def asked_roots(facts: Facts) -> list[Ask]:
    """Few at a time: the peer asks once for each end of a life, one after the other."""
    graph = facts.graph
    lived = facts.roots[graph.retired(facts.roots) - graph.created(facts.roots) > 2]  # the peer never ends on others
    holding = np.array([root for root in lived.tolist() if facts.rows_on(root)], np.int64)
    old = np.setdiff1d(holding, facts.current)
    return [
        *(ask(root_ids=facts.some(old, 5, skip)) for skip in range(4)),
        ask(root_ids=facts.some(holding, 12)),
        ask(root_ids=facts.some(np.intersect1d(holding, facts.current), 30)),
        ask(root_ids=facts.some(np.setdiff1d(facts.current, holding), 10)),
        ask(root_ids=facts.some(np.setdiff1d(lived, facts.current), 8)),
        ask(root_ids=np.repeat(facts.some(holding, 3), 2)),
        ask(root_ids=[int(holding[0])]),
        ask(root_ids=[]),
        ask(root_ids=[int(holding[0]), *facts.unknown(facts.top).tolist()]),
        ask(root_ids=[0, int(holding[0])]),
        ask(root_ids=facts.supervoxels[:2]),
    ]


def live_lookup(peers: Peers, asked: Ask) -> dict[int, int]:
    """Of the roots about which the peer cannot be wrong.

    It takes the tables as they were when one of the roots ended, where this package takes those of one version; a cell
    that is in both the main and the backup table counts as two; a main point counts although a backup replaces it.
    So what lies on the root must be rows of the main table that were there all the time, of cells without any backup.
    """
    found = peers.cortical().root_id_to_cell_id(asked["root_ids"], peers.cave())
    roots = np.unique(asked["root_ids"])
    return {int(root): int(cell) for root, cell in found.items() if peers.facts.is_plain(int(root), roots)}


def cells_of_roots(facts: Facts, asked: Ask) -> dict[int, int]:
    return {root: oracle_root_to_cell(facts.world, root).id for root in truth.as_list(asked["root_ids"])}


def has_strangers(facts: Facts, asked: Ask) -> bool:
    return not np.isin(truth.as_list(asked["root_ids"]), facts.roots).all()


# -- rows --------------------------------------------------------------------------------------------------------------

INFO: list[Row] = [
    Row("info.get_datastacks", once, same=same_names),
    Row("info.get_datastack_info", once),
    Row("info.local_server", once),
    Row("info.image_source", once),
    Row("info.segmentation_source", once),
    Row("info.viewer_site", once),
    Row("info.viewer_resolution", once),
    Row("info.get_image_mirrors", once),
    Row("info.get_image_mirror_names", once),
    Row("info.get_aligned_volumes", once, same=same_names),
    Row("info.get_aligned_volume_info", once),
    Row("info.aligned_volume_name", once),
    Row("info.aligned_volume_id", once),
    Row(
        "info.get_datastacks_by_aligned_volume",
        lambda facts: [ask(aligned_volume=name) for name in volumes(facts)],
        same=same_names,
    ),
    Row(
        "info.get_aligned_volume_info_by_id",
        lambda facts: [ask(aligned_volume_id=number) for number in (*range(9), 10**12)],
    ),
]

CLIENT: list[Row] = [
    Row(
        "root_id_to_cell_id",
        asked_roots,
        live_lookup,
        same=same_translation,
        known_defects=(
            Defect("no ids are an error", lambda _, asked: not len(asked["root_ids"])),
            Defect("one id that is no root fails the whole call", has_strangers),
        ),
        truth=cells_of_roots,
    ),
    Row(
        "cell_id_to_root_id",
        asked_cells,
        view_lookup,
        same=same_roots_of_cells,
        known_defects=(
            Defect("no ids are answered with the whole view", lambda _, asked: not len(asked["cell_ids"])),
            Defect(
                "before there was anything, supervoxels are given out as roots",
                lambda facts, asked: asked["timestamp"] == facts.before,
            ),
        ),
        truth=roots_of_cells,
    ),
    get_roots("get_roots", cortical("get_roots")),
    Row("is_latest_roots", latest_lookups, cortical("is_latest_roots"), same=same_flags),
    get_latest_roots("get_latest_roots", cortical("get_latest_roots")),
    suggest_latest_roots("suggest_latest_roots", lambda peers, pin: peers.cortical(pin)),
    Row(
        "latest_valid_timestamp",
        birthdays,
        cortical("latest_valid_timestamp"),
        same=same_times_but_now,
    ),
    Row("root_lifetimes", birthdays, lifetimes_by_two_calls, same=same_lifetimes),
    Row("version_timestamp", numbers, cortical("version_timestamp"), same=same_times),
    Row("most_recent_materialization_version", pinned_or_not, cortical("most_recent_materialization_version")),
    Row("get_datastack_info", once, cortical("get_datastack_info")),
    Row("image_source", once, cortical("image_source")),
    Row("segmentation_source", once, cortical("segmentation_source")),
    Row("viewer_resolution", once, cortical("viewer_resolution")),
    Row("datastack_name", once, value_of_cave("datastack_name"), value_of("datastack_name")),
    Row("server_address", once, value_of_cave("server_address"), value_of("server_address")),
    Row("version", pinned_or_not, value_of_cave("version"), value_of("version")),
]

ROWS: list[Row] = [*INFO, *CLIENT]
