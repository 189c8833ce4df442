"""Arrow tables to frames: ids stay int64, points come in the unit that is wanted, split or not."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from fractions import Fraction
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

AXES = ("_x", "_y", "_z")


def position_stems(columns: list[str]) -> list[str]:
    """Find the points among columns: ``pt_position`` for adjacent ``pt_position_x``, ``_y``, ``_z``."""
    stems = (name[:-2] for name in columns if name.endswith(AXES[0]))
    triples = ((stem, [stem + axis for axis in AXES]) for stem in stems)
    return [stem for stem, names in triples if names == columns[columns.index(names[0]) :][:3]]


def scaled(table: pa.Table, stored: Sequence[float], desired: Sequence[float], finer: int = 1) -> pa.Table:
    """Give all points in another unit: int64 where the factors are whole numbers, else float64.

    (int64 even for small numbers: squares of nanometres do not fit 32 bits.)

    Parameters
    ----------
    stored, desired
        nm per axis, before and after.
    finer
        The stored values are about multiples of this, made whole by cutting: the nearest multiple is meant.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    factors = [_ratio(a, b) * finer for a, b in zip(stored, desired, strict=True)]
    whole = all(factor.denominator == 1 for factor in factors)
    columns = dict(zip(table.column_names, table.columns, strict=True))
    for stem in position_stems(table.column_names):
        for axis, factor in zip(AXES, factors, strict=True):
            values = columns[stem + axis]
            if finer > 1:
                values = pc.round(pc.divide(pc.cast(values, pa.float64()), float(finer)))
            values = pc.cast(values, pa.int64())
            if factor.numerator != 1:
                values = pc.multiply(values, pa.scalar(factor.numerator, pa.int64()))
            if not whole:
                values = pc.divide(pc.cast(values, pa.float64()), float(factor.denominator))
            columns[stem + axis] = values
    return pa.Table.from_arrays(list(columns.values()), names=list(columns))


@functools.cache
def _ratio(stored: float, desired: float) -> Fraction:
    """The factor as it was meant: 9.7 is 97/10, not the nearest binary fraction."""
    return (Fraction(str(stored)) / Fraction(str(desired))).limit_denominator(10**9)


def to_pandas(table: pa.Table, split_positions: bool = True) -> pd.DataFrame:
    """Make a pandas frame of a query's answer.

    Integers without nulls are plain int64 or int32, with nulls nullable (``Int64``), never floats.

    Parameters
    ----------
    table
        Points split into ``_x``, ``_y``, ``_z``.
    split_positions
        False: each point becomes one column, after all others, of (3,) arrays (views into one array), as in caveclient.
    """
    import pandas as pd
    import pyarrow as pa

    nullable = {pa.int64(): pd.Int64Dtype(), pa.int32(): pd.Int32Dtype(), pa.bool_(): pd.BooleanDtype()}
    stems = [] if split_positions else position_stems(table.column_names)
    scalars = table.drop_columns([stem + axis for stem in stems for axis in AXES])
    lacking = {f.name for f in scalars.schema if f.type in nullable and scalars.column(f.name).null_count}
    whole = all(column.num_chunks < 2 for column in scalars.columns)  # not copied; what came in parts is, by all cores
    frame: pd.DataFrame = scalars.drop_columns(list(lacking)).to_pandas(split_blocks=whole)
    for position, name in enumerate(scalars.column_names):
        if name in lacking:
            frame.insert(position, name, scalars.column(name).to_pandas(types_mapper=nullable.get))
    for stem in stems:
        points = np.column_stack([table.column(stem + axis).to_numpy() for axis in AXES])  # nulls are NaN
        frame[stem] = pd.Series(np.fromiter(points, object, len(points)), index=frame.index)
    return frame


def positions(frame: pd.DataFrame, stem: str) -> npt.NDArray[Any]:
    """Give the points of a frame as one (n, 3) array, split or not.

    Parameters
    ----------
    stem
        ``"pt_position"``, or short ``"pt"``.
    """
    name = stem if stem in frame or stem + AXES[0] in frame else f"{stem}_position"
    if name in frame:
        column = frame[name]
        return np.stack(column.to_list()) if len(column) else np.empty((0, 3))
    columns = [frame[name + axis] for axis in AXES]
    if any(column.hasnans for column in columns):  # an optional point: NaN where there is none
        return np.column_stack([column.to_numpy(np.float64, na_value=np.nan) for column in columns])
    return np.column_stack([column.to_numpy() for column in columns])
