"""A picture of a cell, for a page or a look in between: not a viewer."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
import numpy.typing as npt

from ..errors import CortexUsageError, MissingDependency

View = Literal["xy", "xz", "zy"]
VIEWS: Final = {"xy": (0, 1, 2), "xz": (0, 2, 1), "zy": (2, 1, 0)}
"""The axes of the picture, to the right and downwards, and the one that is looked along."""
MOST_TRIANGLES: Final = 200_000
"""More are not drawn one by one: at the size of a picture nobody sees the difference, and it would take minutes."""


def save_picture(
    mesh: Any,
    path: str | Path,
    skeleton: Any = None,
    *,
    view: View = "xy",
    height: float = 6.0,
    dpi: int = 150,
) -> Path:
    """Draw a mesh, and its skeleton over it, into a PNG.

    Parameters
    ----------
    mesh
        Anything with ``vertices`` (n, 3) and ``faces`` (m, 3). Of more than 200,000 triangles every k-th is drawn.
    path
        Of the file. It gets its name when it is whole.
    skeleton
        Anything with ``vertices`` (k, 3) and ``edges`` (l, 2) in the same units.
    view
        The two axes that are seen; y and z grow downwards, as in the volume.
    height
        Of the picture, inches; the width follows from the cell.
    dpi
        Dots per inch.

    Returns
    -------
    pathlib.Path
        Where it is.

    Raises
    ------
    MissingDependency
        matplotlib is not installed.

    Examples
    --------
    >>> mesh = await client.mesh.get_mesh(864691134885645050)
    >>> save_picture(mesh, folder / "cell.png", view="zy", height=3).stat().st_size > 1000
    True
    """
    if view not in VIEWS:
        raise CortexUsageError(f"view={view!r}: must be one of {', '.join(VIEWS)}")
    corners = np.asarray(mesh.vertices, np.float64)[np.asarray(mesh.faces)]
    if not len(corners):
        raise CortexUsageError("the mesh has no triangles: there is nothing to draw")
    lines = np.empty((0, 2, 3))
    if skeleton is not None:
        lines = np.asarray(skeleton.vertices, np.float64)[np.asarray(skeleton.edges)]
    figure = _drawn(corners[:: -(-len(corners) // MOST_TRIANGLES)], lines, VIEWS[view], height)
    target = Path(path)
    unfinished = target.with_name(f".{target.name}.{os.getpid()}")
    try:
        figure.savefig(unfinished, format="png", dpi=dpi)
        unfinished.replace(target)
    finally:
        unfinished.unlink(missing_ok=True)
    return target


def _drawn(
    corners: npt.NDArray[np.float64], lines: npt.NDArray[np.float64], view: tuple[int, int, int], height: float
) -> Any:
    """A figure of triangles (m, 3, 3), the nearest last, and lines (l, 2, 3) over them."""
    try:
        from matplotlib.collections import LineCollection, PolyCollection
        from matplotlib.figure import Figure
    except ImportError as error:
        raise MissingDependency("matplotlib", "plot", "pictures") from error
    across, down, depth = view
    corners = corners[np.argsort(-corners[:, :, depth].mean(axis=1))]
    low, high = corners.min(axis=(0, 1)), corners.max(axis=(0, 1))
    width = height * float(np.clip((high[across] - low[across]) / max(high[down] - low[down], 1), 0.2, 5))
    figure = Figure(figsize=(width, height))
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set_axis_off()
    axes.set_aspect("equal")
    axes.set_xlim(low[across], high[across])
    axes.set_ylim(high[down], low[down])
    axes.add_collection(
        PolyCollection(list(corners[:, :, [across, down]]), facecolors=_shades(corners, depth), linewidths=0)
    )
    axes.add_collection(LineCollection(list(lines[:, :, [across, down]]), colors="#b2182b", linewidths=1.2))
    return figure


def _shades(corners: npt.NDArray[np.float64], depth: int) -> npt.NDArray[np.float64]:
    """Grey for each triangle, lighter the more it faces the viewer, (m, 3)."""
    normal = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    length = np.linalg.norm(normal, axis=1)
    facing = np.abs(normal[:, depth]) / np.where(length > 0, length, 1)
    return np.repeat((0.35 + 0.5 * facing)[:, None], 3, axis=1)
