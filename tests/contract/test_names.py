"""Every name that the documentation promises is there, on both clients."""

from __future__ import annotations

import importlib
import inspect
import typing

import pytest

import cortexclient
from cortexclient import AsyncCortexClient, CortexClient

from .test_sync_parity import function, hints

EXAMPLES_PAGE = """
    cave neuroglancer_url tables views tables.*().query views.*().query
    root_id_to_cell_id cell_id_to_root_id space mesh.get_mesh mesh.get_meshes get_skeleton
    set_export_cloudpath exports.available_data_df exports.get_table exports.available_versions
"""
BEYOND = """
    at get_skeletons stream_skeletons root_lifetimes update_roots query_synapses plan diagnose
    tables.load tables.*().query_polars tables.*().query_arrow tables.*().stream
"""
CORTICAL_TOOLS = """
    get_roots is_latest_roots get_latest_roots suggest_latest_roots get_l2_ids get_l2data skeletons_exist
    version_timestamp latest_valid_timestamp most_recent_materialization_version get_datastack_info image_source
    segmentation_source viewer_resolution get_state_json upload_state_json now
"""
SERVICES = "chunkedgraph materialize l2cache skeleton mesh info state exports"

NAMES = sorted({*EXAMPLES_PAGE.split(), *BEYOND.split(), *CORTICAL_TOOLS.split(), *SERVICES.split()})

STILL_TO_COME = ""
"""Promised, not built. It may only shrink: a name that exists must leave it."""


def exists(cls: type, path: str) -> bool:
    """Whether a dotted name can be followed from a class, by what its members say they return.

    ``*`` is any attribute, ``()`` a call.
    """
    for step in path.replace("*()", "__getattr__.__call__").split("."):
        member = inspect.getattr_static(cls, step, None)
        if member is None:
            return False
        if callable(function(member)):
            returned = hints(member).get("return")
            cls = typing.get_origin(returned) or returned or object
            cls = cls if isinstance(cls, type) else object
    return True


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("cls", [AsyncCortexClient, CortexClient])
def test_the_name_is_there(cls: type, name: str) -> None:
    if name in STILL_TO_COME.split():
        assert not exists(cls, name), f"{cls.__name__}.{name} exists: take it from STILL_TO_COME"
    else:
        assert exists(cls, name), f"there is no {cls.__name__}.{name}"


def test_nothing_else_is_to_come() -> None:
    coming = STILL_TO_COME.split()
    assert coming == sorted(set(coming) & set(NAMES))


@pytest.mark.parametrize("name", ["minnie_public", "minnie_prod", "v1dd", "v1dd_public"])
def test_each_dataset_has_a_client_of_its_own(name: str) -> None:
    module = importlib.import_module(f"cortexclient.datasets.{name}")
    assert isinstance(module.client, CortexClient)
    assert module.client.spec.name == name
    assert module.client is cortexclient.load_client(name)


def test_the_package_exports_what_it_lists() -> None:
    assert cortexclient.__all__ == sorted(cortexclient.__all__)
    assert set(cortexclient.__all__) == {"__version__", *cortexclient._HOMES}
    for name in cortexclient.__all__:
        assert getattr(cortexclient, name) is not None
    with pytest.raises(AttributeError, match="no_such_name"):
        cortexclient.no_such_name  # noqa: B018
