"""A mesh and its skeleton as a PNG."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from cortexclient.errors import CortexUsageError, MissingDependency
from cortexclient.interop.matplotlib import MOST_TRIANGLES, save_picture

pytest.importorskip("matplotlib")
SKELETON = SimpleNamespace(vertices=np.array([[10.0, 10, 0], [90, 190, 0]]), edges=np.array([[0, 1]]))


def slab(n: int = 8) -> Any:
    """A flat piece, 100 wide and 200 high."""
    x, y = np.meshgrid(np.linspace(0, 100, n + 1), np.linspace(0, 200, n + 1))
    vertices = np.stack([x.ravel(), y.ravel(), np.zeros(x.size)], axis=1)
    first = (np.arange(n)[:, None] * (n + 1) + np.arange(n)).ravel()
    faces = [np.stack([first, first + 1, first + n + 2], 1), np.stack([first, first + n + 2, first + n + 1], 1)]
    return SimpleNamespace(vertices=vertices, faces=np.concatenate(faces))


def pixels(path: Path) -> Any:
    from matplotlib.image import imread

    return np.round(imread(path)[:, :, :3], 2)


def test_the_mesh_fills_the_picture_and_the_skeleton_crosses_it(tmp_path: Path) -> None:
    path = save_picture(slab(), tmp_path / "cell.png", SKELETON, height=2, dpi=100)
    seen = pixels(path)
    assert seen.shape == (200, 100, 3)
    grey = (seen == 0.85).all(axis=2)
    red = (seen[:, :, 0] - seen[:, :, 1]) > 0.3
    assert 0.85 < grey.mean() < 0.999
    assert red[15:25, 8:16].any()
    assert red[175:185, 84:94].any(), "downwards is downwards"
    assert not red[15:25, 84:94].any()
    assert [file.name for file in tmp_path.iterdir() if file.suffix == ".png"] == ["cell.png"]


def test_seen_from_the_side_it_is_dark(tmp_path: Path) -> None:
    standing = slab()
    standing.vertices = standing.vertices[:, [2, 1, 0]] + [[0, 0, 1]]
    seen = pixels(save_picture(standing, tmp_path / "side.png", view="zy", height=2, dpi=100))
    assert (seen == 0.85).all(axis=2).mean() > 0.8, "along x it faces the viewer"


def test_a_large_mesh_is_thinned(tmp_path: Path) -> None:
    n = int(np.sqrt(MOST_TRIANGLES))
    assert save_picture(slab(n), tmp_path / "large.png", height=1, dpi=20).stat().st_size > 100


def test_what_cannot_be_drawn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    empty = SimpleNamespace(vertices=np.empty((0, 3)), faces=np.empty((0, 3), int))
    with pytest.raises(CortexUsageError, match="nothing to draw"):
        save_picture(empty, tmp_path / "x.png")
    with pytest.raises(CortexUsageError, match="view='up'"):
        save_picture(slab(), tmp_path / "x.png", view="up")  # type: ignore[arg-type]
    with pytest.raises(OSError):
        save_picture(slab(), tmp_path / "no" / "folder.png")
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(MissingDependency, match=r"cortexclient\[plot\]"):
        save_picture(slab(), tmp_path / "x.png")
    assert not [file for file in tmp_path.iterdir() if "x.png" in file.name]
