"""The info service: datastacks and aligned volumes (AnnotationFrameworkInfoService 4.3)."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..calls import Call, Reply, Route, RouteTable

if TYPE_CHECKING:
    from ..world import Datastack, World

VERSION = "4.3.3"
IMAGE_LAYER = "img"


@dataclass(frozen=True, slots=True)
class _Volume:
    """An aligned volume; the worlds know only its name and its image."""

    id: int
    name: str
    image_source: str

    def record(self) -> dict[str, Any]:
        return {
            "id": self.id,
            "name": self.name,
            "display_name": self.name,
            "description": "",
            "image_source": self.image_source,
        }


def _volumes(world: World) -> dict[str, _Volume]:
    sources = {stack.aligned_volume: stack.image_source for stack in world.datastacks.values()}
    return {name: _Volume(number, name, source) for number, (name, source) in enumerate(sources.items(), start=1)}


def _json(value: object, status: int = 200) -> Reply:
    return Reply(json.dumps(value).encode() + b"\n", status)


def _missing(what: str) -> Reply:
    return _json({"message": f"{what} not found"}, 404)


def _common(stack: Datastack, call: Call) -> dict[str, Any]:
    """What both descriptions of a datastack hold. Its servers are the address the caller used."""
    x, y, z = stack.viewer_resolution
    return {
        "segmentation_source": f"graphene://{call.origin}/segmentation/table/{stack.segmentation}",
        "skeleton_source": f"precomputed://{call.origin}/skeletoncache/api/v1/{stack.name}/precomputed/skeleton",
        "analysis_database": None,
        "viewer_site": stack.viewer_site,
        "synapse_table": stack.synapse_table,
        "soma_table": stack.soma_table,
        "local_server": call.origin,
        "description": stack.description,
        "viewer_resolution_x": x,
        "viewer_resolution_y": y,
        "viewer_resolution_z": z,
        "proofreading_status_table": None,
        "cell_identification_table": None,
        "proofreading_review_table": None,
    }


def _images(volume: _Volume) -> list[dict[str, Any]]:
    source = {
        "id": volume.id,
        "name": "default",
        "viewer_layer_name": IMAGE_LAYER,
        "image_source": volume.image_source,
        "description": "",
    }
    return [source]


def version(_: World, call: Call) -> Reply:  # noqa: ARG001 - handlers share one signature
    """``GET /info/version``."""
    return _json(VERSION)


def versions(_: World, call: Call) -> Reply:  # noqa: ARG001
    """``GET /info/api/versions``."""
    return _json([2])


def health(_: World, call: Call) -> Reply:  # noqa: ARG001
    """``GET /info/health``."""
    return _json("healthy")


def datastacks(world: World, call: Call) -> Reply:  # noqa: ARG001
    """Names of all datastacks."""
    return _json(list(world.datastacks))


def datastack_full(world: World, call: Call) -> Reply:
    """What a client needs to know about a datastack; ``image_source_name`` picks another image."""
    stack = world.datastacks[call.params["datastack"]]
    volume = _volumes(world)[stack.aligned_volume]
    mirror = call.query.get("image_source_name")
    if mirror is not None and mirror not in {image["name"] for image in _images(volume)}:
        return _missing(f"image source {mirror}")
    return _json({"aligned_volume": volume.record(), **_common(stack, call)})


def datastack(world: World, call: Call) -> Reply:
    """The database row of a datastack, with a link in place of its aligned volume."""
    stack = world.datastacks[call.params["datastack"]]
    return _json(
        {
            "id": list(world.datastacks).index(stack.name) + 1,
            "name": stack.name,
            "display_name": stack.name,
            "viewer_layer_name": "seg",
            "base_link_id": None,
            "aligned_volume": f"/info/api/v2/aligned_volume/{stack.aligned_volume}",
            **_common(stack, call),
        }
    )


def image_sources(world: World, call: Call) -> Reply:
    """The images of a datastack."""
    return _json(_images(_volumes(world)[world.datastacks[call.params["datastack"]].aligned_volume]))


def aligned_volumes(world: World, call: Call) -> Reply:  # noqa: ARG001
    """Names of all aligned volumes."""
    return _json(list(_volumes(world)))


def aligned_volume(world: World, call: Call) -> Reply:
    """One aligned volume, by name."""
    return _json(_volumes(world)[call.params["aligned_volume"]].record())


def aligned_volume_by_id(world: World, call: Call) -> Reply:
    """One aligned volume, by number."""
    number = int(call.params["id"])
    found = [volume.record() for volume in _volumes(world).values() if volume.id == number]
    return _json(found[0]) if found else _missing(f"aligned volume {number}")


def datastacks_of(world: World, call: Call) -> Reply:
    """Names of the datastacks on an aligned volume."""
    volume = call.params["aligned_volume"]
    return _json([name for name, stack in world.datastacks.items() if stack.aligned_volume == volume])


def viewer_config(world: World, call: Call) -> Reply:
    """Neuroglancer layers by aligned volume."""
    config: dict[str, Any] = {}
    for stack in world.datastacks.values():
        layers = {
            IMAGE_LAYER: {"type": "image", "source": stack.image_source},
            stack.name: {"type": "segmentation", "source": _common(stack, call)["segmentation_source"]},
        }
        config.setdefault(stack.aligned_volume, {"layers": {}})["layers"] |= layers
    return _json(config)


_GET = ("GET",)
TABLE = RouteTable(
    "info",
    (
        Route(_GET, "/info/version", version, permission=None),
        Route(_GET, "/info/api/versions", versions, permission=None),
        Route(_GET, "/info/health", health, permission=None),
        Route(_GET, "/info/api/v2/datastacks", datastacks),
        Route(_GET, "/info/api/v2/datastack/full/{datastack}", datastack_full, resource="datastack"),
        Route(_GET, "/info/api/v2/datastack/{datastack}", datastack, resource="datastack"),
        Route(_GET, "/info/api/v2/datastack/{datastack}/image_sources", image_sources, resource="datastack"),
        Route(_GET, "/info/api/v2/aligned_volume", aligned_volumes),
        Route(_GET, "/info/api/v2/aligned_volume/{aligned_volume}", aligned_volume, resource="aligned_volume"),
        Route(_GET, "/info/api/v2/aligned_volume/id/{id:int}", aligned_volume_by_id, permission=None),
        Route(_GET, "/info/api/v2/aligned_volume/{aligned_volume}/datastacks", datastacks_of),
        Route(_GET, "/info/api/v2/ngl_info", viewer_config),
    ),
)
