"""Arrow tables to pandas frames: ids stay int64, positions become what ``split_positions`` says."""

from __future__ import annotations

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
    frame: pd.DataFrame = table.to_pandas()
    for field in table.schema:
        column = table.column(field.name)
        if column.null_count and field.type in nullable:
            frame[field.name] = column.to_pandas(types_mapper=nullable.get)
    if split_positions:
        return frame
    for stem in position_stems(list(frame.columns)):
        points = positions(frame, stem)
        frame = frame.drop(columns=[stem + axis for axis in AXES])
        frame[stem] = pd.Series(list(points), index=frame.index, dtype=object)
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
    return np.column_stack([frame[name + axis].to_numpy() for axis in AXES])
