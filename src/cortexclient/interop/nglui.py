"""Neuroglancer states and links, by nglui."""

from __future__ import annotations

import importlib
import json
import warnings
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import quote

from ..errors import MissingDependency

VIEWER = "https://spelunker.cave-explorer.org/"
"""Where links lead if neither caller nor datastack says."""


def viewer_state(record: Mapping[str, Any], root_ids: Sequence[int]) -> dict[str, Any]:
    """The state that shows a datastack's images and segmentation, with some cells selected; nothing is sent.

    nglui would open the images to guess position and voxel size: it is told the record's voxel size instead.
    """
    try:
        with warnings.catch_warnings():  # some of its own dependencies announce changes at import
            warnings.simplefilter("ignore")
            from nglui.statebuilder import ViewerState
    except ImportError as error:
        raise MissingDependency("nglui", "neuroglancer", "neuroglancer_url") from error
    resolution = [float(record[f"viewer_resolution_{axis}"]) for axis in "xyz"]
    viewer = ViewerState(dimensions=resolution, infer_coordinates=False)
    viewer.add_image_layer(source=record["aligned_volume"]["image_source"], name="imagery")
    sources = [record["segmentation_source"], *filter(None, [record.get("skeleton_source")])]
    viewer.add_segmentation_layer(source=sources, name="segmentation", segments=list(root_ids))
    state: dict[str, Any] = viewer.to_dict()
    return state


def site(record: Mapping[str, Any], target_url: str | None) -> str:
    """Address of the viewer, without a slash at the end."""
    return str(target_url or record.get("viewer_site") or VIEWER).rstrip("/")


def long_link(state: Mapping[str, Any], viewer: str) -> str:
    """A link that holds the whole state."""
    return f"{viewer}/#!{quote(json.dumps(state, separators=(',', ':')), safe='')}"


def short_link(server: str, state_id: int, viewer: str) -> str:
    """A link that holds the number of a stored state; the reader logs in to see it."""
    return f"{viewer}/#!middleauth+{server}/nglstate/api/v1/{state_id}"


def copy_to_clipboard(text: str) -> None:
    """Put a text on the clipboard of the machine that runs Python."""
    try:
        pyperclip = importlib.import_module("pyperclip")
    except ImportError as error:
        raise MissingDependency("pyperclip", "neuroglancer", "neuroglancer_url(clipboard=True)") from error
    pyperclip.copy(text)
