"""The meaning of the translation, as joins over three small tables. Pure: nothing here knows a server.

*points*: ``cell, supervoxel, effective``. A cell's effective point is its backup point where it has one, else its main
point; a main point that a backup replaces is kept, marked as not effective. Supervoxel 0 is no point.

*pairs*: ``root, supervoxel, at``. This supervoxel belongs to that root; ``at`` (ms) is an instant at which it was seen
to. The supervoxels of a root never change, so that pairs hold for ever, whatever instant they were seen at.
"""

from __future__ import annotations

from collections.abc import Sequence

import polars as pl

from .._types import IdArray

POINTS = {"cell": pl.Int64, "supervoxel": pl.Int64, "effective": pl.Boolean}
PAIRS = {"root": pl.Int64, "supervoxel": pl.Int64, "at": pl.Int64}
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
    """Build *points* from rows ``cell, supervoxel`` of the main table and of all backup tables."""
    real = pl.col("supervoxel") != 0
    backups = backups.filter(real).select("cell", "supervoxel", pl.lit(True).alias("effective"))
    replaced = pl.col("cell").is_in(backups["cell"].unique().implode())
    mains = mains.filter(real).select("cell", "supervoxel", (~replaced).alias("effective"))
    return pl.concat([mains, backups]).unique(maintain_order=True)


def judge(pairs: pl.DataFrame, points: pl.DataFrame) -> pl.DataFrame:
    """Answer every root that has at least one point.

    One effective cell is the answer; several are ``multiple``. Where there is none, a cell whose replaced main point
    lies on the root answers with the source ``main_replaced``.

    Returns
    -------
    DataFrame
        See `ANSWERS`; roots without any point are absent.
    """
    hits = pairs.join(points, on="supervoxel", how="inner")
    if hits.is_empty():
        return pl.DataFrame(schema=ANSWERS)
    by_rank = hits.group_by("root", "effective").agg(
        n_matches=pl.col("cell").n_unique(), cell=pl.col("cell").min(), at=pl.col("at").max()
    )
    # effective points outrank replaced ones
    best = by_rank.sort("root", pl.col("effective").not_()).unique("root", keep="first", maintain_order=True)
    single = pl.col("n_matches") == 1
    backed = pl.col("cell").is_in(points.filter(~pl.col("effective"))["cell"].unique().implode())
    source = pl.when(~pl.col("effective")).then(pl.lit("main_replaced")).when(backed).then(pl.lit("backup"))
    return best.select(
        "root",
        cell=pl.when(single).then("cell").otherwise(-1),
        status=pl.when(single).then(pl.lit("ok")).otherwise(pl.lit("multiple")),
        source=pl.when(single).then(source.otherwise(pl.lit("main"))),
        n_matches=pl.col("n_matches").cast(pl.Int64),
        at="at",
    )


def roots_of_points(points: pl.DataFrame, backed: IdArray, at: int) -> pl.DataFrame:
    """Answer every cell that has an effective point on a segment; several roots make -1 ``multiple``.

    Parameters
    ----------
    points
        ``cell, root``: effective points.
    backed
        Cells that have a backup point.
    at
        The instant of the roots, ms.
    """
    single = pl.col("n_matches") == 1
    counted = points.group_by("cell").agg(n_matches=pl.col("root").n_unique().cast(pl.Int64), root=pl.col("root").min())
    is_backed = pl.col("cell").is_in(pl.Series(backed).implode())
    return counted.with_columns(
        root=pl.when(single).then("root").otherwise(-1),
        status=pl.when(single).then(pl.lit("ok")).otherwise(pl.lit("multiple")),
        source=pl.when(is_backed).then(pl.lit("backup")).otherwise(pl.lit("main")),
        at=pl.lit(at, pl.Int64),
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
