"""Links into Neuroglancer, and the client's face in a notebook."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from . import _html
from ._types import Ids
from .ids import as_ids
from .interop import nglui
from .services._base import Session
from .services.state import AsyncStates

if TYPE_CHECKING:
    import pandas as pd


async def neuroglancer_url(
    session: Session,
    states: AsyncStates,
    *,
    target_url: str | None,
    clipboard: bool,
    shorten: bool,
    root_ids: Ids | None,
    annotations: pd.DataFrame | None,
) -> str:
    """See :meth:`cortexclient.AsyncCortexClient.neuroglancer_url`."""
    record = await session.record()
    selected = [] if root_ids is None else as_ids(root_ids, "root_ids").tolist()
    state, viewer = nglui.viewer_state(record, selected, annotations), nglui.site(record, target_url)
    if shorten:
        link = nglui.short_link(session.server, await states.upload_state_json(state), viewer)
    else:
        link = nglui.long_link(state, viewer)
    if clipboard:
        nglui.copy_to_clipboard(link)
    return link


def plain_state(record: Mapping[str, Any]) -> dict[str, Any]:
    """The same layers as a notebook's link shows, without loading nglui."""
    axes = zip("xyz", (record[f"viewer_resolution_{axis}"] for axis in "xyz"), strict=True)
    layers = [
        {"type": "image", "source": record["aligned_volume"]["image_source"], "name": "imagery"},
        {"type": "segmentation", "source": record["segmentation_source"], "name": "segmentation"},
    ]
    return {"dimensions": {axis: [float(nm) * 1e-9, "m"] for axis, nm in axes}, "layers": layers}


def client_as_html(text: str, session: Session) -> str:
    """A client's text as a link to its data, made of what is known without asking anybody."""
    record = session.known_record()
    url = nglui.VIEWER if record is None else nglui.long_link(plain_state(record), nglui.site(record, None))
    pinned = session.timestamp if session.version is None else f"version {session.version}"
    known = {
        "datastack": session.spec.datastack,
        "server": session.server,
        "cells": session.spec.nucleus_table or "no table known",
        "pinned to": pinned or "nothing: the newest version, or now",
    }
    return _html.link(url, text) + _html.table("", known.items())
