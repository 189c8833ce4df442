"""The meaning of the translation, as joins over three small tables. Pure: nothing here knows a server.

*points*: ``cell, supervoxel, source``. A cell's effective points are those of its backup rows where it has any, else
that of its main row; a main point that a backup replaces is kept, as such. Supervoxel 0 is no point.

*pairs*: ``root, supervoxel, at``. This supervoxel belongs to that root; ``at`` (ms) is an instant at which it was seen
to. The supervoxels of a root never change, so that pairs hold for ever, whatever instant they were seen at.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import polars as pl

from .._types import IdArray
from ..errors import CortexError, NotFoundError, ServerRefusedError

REPLACED = "main_replaced"
"""The source of a main point that a backup replaces; the others are ``main`` and ``backup``."""

ANSWERS = {
    "root": pl.Int64,
    "cell": pl.Int64,
    "status": pl.String,
    "source": pl.String,
    "n_matches": pl.Int64,
    "at": pl.Int64,
}
"""One row for each root: cell -1 unless status is ``ok``; ``n_matches`` counts cells; ``at`` in ms, null if never
seen.
"""


def points_of(mains: pl.DataFrame, backups: pl.DataFrame) -> pl.DataFrame:
    """Build *points* from rows ``cell, supervoxel`` of the main table and of all backup tables.

    A backup replaces the main point even where it lies outside the segmentation; one whose cell has no main row is of
    no cell.
    """
    backups = backups.join(mains, on="cell", how="semi")
    main = (
        pl.when(pl.col("cell").is_in(backups["cell"].unique().implode()))
        .then(pl.lit(REPLACED))
        .otherwise(pl.lit("main"))
    )
    points = [
        mains.select("cell", "supervoxel", source=main),
        backups.select("cell", "supervoxel", source=pl.lit("backup")),
    ]
    return pl.concat(points).filter(pl.col("supervoxel") != 0).unique(maintain_order=True)


def judge(pairs: pl.DataFrame, points: pl.DataFrame) -> pl.DataFrame:
    """Answer every root that has at least one point.

    One effective cell is the answer; several are ``multiple``. Where there is none, a cell whose replaced main point
    lies on the root answers.

    Returns
    -------
    DataFrame
        See `ANSWERS`; roots without any point are absent.
    """
    hits = pairs.join(points, on="supervoxel", how="inner")
    ranks = hits.group_by("root", replaced=pl.col("source") == REPLACED).agg(
        n_matches=pl.col("cell").n_unique().cast(pl.Int64),
        cell=pl.col("cell").min(),
        source=pl.col("source").min(),
        at=pl.col("at").max(),
    )
    best = ranks.sort("root", "replaced").unique("root", keep="first", maintain_order=True)
    return _only(best, "cell").select(*ANSWERS)


def roots_of_points(points: pl.DataFrame, at: int) -> pl.DataFrame:
    """Answer every cell that has an effective point on a segment.

    Parameters
    ----------
    points
        ``cell, root, source``.
    at
        The instant of the roots, ms.
    """
    effective = points.filter((pl.col("source") != REPLACED) & (pl.col("root") != 0))
    counted = effective.group_by("cell").agg(
        n_matches=pl.col("root").n_unique().cast(pl.Int64),
        root=pl.col("root").min(),
        source=pl.col("source").min(),
        at=pl.lit(at, pl.Int64),
    )
    return _only(counted, "root")


def _only(matches: pl.DataFrame, column: str) -> pl.DataFrame:
    """One match is the answer; several are none: -1 ``multiple``, of no source."""
    single = pl.col("n_matches") == 1
    return matches.with_columns(
        pl.when(single).then(column).otherwise(-1).alias(column),
        status=pl.when(single).then(pl.lit("ok")).otherwise(pl.lit("multiple")),
        source=pl.when(single).then("source"),
    )


def without_cell(roots: IdArray, status: str, at: Sequence[int | None] | None = None) -> pl.DataFrame:
    """Answer roots that have no cell, and say why."""
    return pl.DataFrame(
        {
            "root": roots,
            "cell": -1,
            "status": status,
            "source": None,
            "n_matches": 0,
            "at": [None] * len(roots) if at is None else at,
        },
        schema=ANSWERS,
    )


def status_of(error: CortexError | None) -> str:
    """What to say of an id that the server gave no answer for."""
    return "invalid" if error is None or isinstance(error, NotFoundError | ServerRefusedError) else "unresolved"


def in_doubt(answers: pl.DataFrame, column: str, doubts: Mapping[int, str]) -> pl.DataFrame:
    """Take back the answers about some ids (in ``column``), and give them a status instead."""
    if not doubts:
        return answers
    spoiled = pl.DataFrame({column: list(doubts), "status": list(doubts.values())})
    other = "root" if column == "cell" else "cell"
    spoiled = spoiled.with_columns(pl.lit(-1, pl.Int64).alias(other), pl.lit(0, pl.Int64).alias("n_matches"))
    return pl.concat([answers.join(spoiled, on=column, how="anti"), spoiled], how="diagonal")
