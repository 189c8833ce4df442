"""Neuroglancer states and links, by nglui."""

from __future__ import annotations

import importlib
import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from .._quietly import quietly
from ..errors import CortexUsageError, MissingDependency

if TYPE_CHECKING:
    import pandas as pd

VIEWER = "https://spelunker.cave-explorer.org/"
"""Where links lead if neither caller nor datastack says."""


POINTS = ("ctr_pt_position", "pt_position")
"""What a row's point may be called: that of a synapse, or of any other annotation."""


def viewer_state(
    record: Mapping[str, Any], root_ids: Sequence[int], annotations: pd.DataFrame | None = None
) -> dict[str, Any]:
    """The state that shows a datastack's images and segmentation, with some cells selected; nothing is sent.

    nglui would open the images to guess position and voxel size: it is told the record's voxel size instead.

    Parameters
    ----------
    annotations
        Rows of a table, whose points become a layer; ``attrs["dataframe_resolution"]`` tells their unit.
    """
    try:
        new_state = quietly("nglui.statebuilder").ViewerState
    except ImportError as error:
        raise MissingDependency("nglui", "neuroglancer", "neuroglancer_url") from error
    resolution = [float(record[f"viewer_resolution_{axis}"]) for axis in "xyz"]
    viewer = new_state(dimensions=resolution, infer_coordinates=False)
    viewer.add_image_layer(source=record["aligned_volume"]["image_source"], name="imagery")
    sources = [record["segmentation_source"], *filter(None, [record.get("skeleton_source")])]
    viewer.add_segmentation_layer(source=sources, name="segmentation", segments=list(root_ids))
    if annotations is not None and len(annotations):
        sides = [column for column in ("pre_pt_root_id", "post_pt_root_id") if column in annotations]
        rows = annotations.assign(description=annotations["id"].astype(str) if "id" in annotations else None)
        rows["segments"] = annotations[sides].to_numpy().tolist()
        viewer.add_points(
            data=rows,
            name="synapses" if sides else "annotations",
            point_column=_point_column(annotations),
            segment_column="segments" if sides else None,
            description_column="description",
            data_resolution=_unit(annotations),
            linked_segmentation="segmentation",
        )
    state: dict[str, Any] = json.loads(viewer.to_json_string())  # its dictionary holds numpy's integers
    for layer in state["layers"]:
        for item in layer.get("annotations", ()):
            if "segments" in item:  # as text: JavaScript rounds integers of this size (nglui 4.9 writes numbers)
                item["segments"] = [[str(one) for one in ends] for ends in item["segments"]]
    return state


def _point_column(frame: pd.DataFrame) -> str | list[str]:
    """The column of the points, or the three of them."""
    for name in POINTS:
        split = [f"{name}_{axis}" for axis in "xyz"]
        if name in frame:
            return name
        if set(split) <= set(frame.columns):
            return split
    raise CortexUsageError(
        f"the annotations have no column {' or '.join(POINTS)}: {', '.join(map(str, frame.columns))}"
    )


def _unit(frame: pd.DataFrame) -> list[float]:
    unit = frame.attrs.get("dataframe_resolution")
    if unit is None:
        raise CortexUsageError(
            "the annotations do not tell the unit of their points: set frame.attrs['dataframe_resolution'] to the nm "
            "of one unit on each axis ([1, 1, 1] for nm)"
        )
    return [float(nm) for nm in unit]


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
