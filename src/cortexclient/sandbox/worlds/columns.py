"""Columns of annotation tables: bookkeeping times and points."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from ..graph import NEVER
from ..layout import Ids


def times(us: Ids) -> pl.Series:
    """Naive UTC datetimes from microseconds; null for `NEVER`."""
    return pl.Series(us).replace(NEVER, None).cast(pl.Datetime("us"))


def bookkeeping(created: Ids, deleted: Ids, superceded: Ids | None = None) -> dict[str, Any]:
    """The columns that tell when a row was there, from microseconds (`NEVER`: still is) and ids (0: by no other)."""
    by = np.zeros(len(created), np.int64) if superceded is None else superceded
    return {
        "created": times(created),
        "deleted": times(deleted),
        "superceded_id": pl.Series(by).replace(0, None),
        "valid": deleted == NEVER,
    }


def point(name: str, position: npt.NDArray[np.int64], supervoxel: Ids | None = None) -> dict[str, Any]:
    """The columns of a point, from voxels (n, 3) and, for a bound one, supervoxel ids."""
    columns: dict[str, Any] = {
        f"{name}_position_{axis}": position[:, k].astype(np.int32) for k, axis in enumerate("xyz")
    }
    if supervoxel is not None:
        columns[f"{name}_supervoxel_id"] = supervoxel
    return columns
