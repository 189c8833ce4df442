"""Meshworks: equal to those that the unmodified pcg_skel builds, and moved as standard_transform moves them."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import anyio.to_thread
import numpy as np
import pandas as pd
import polars as pl
import pytest

from cortexclient import AsyncCortexClient
from cortexclient.errors import CortexUsageError, DeadlineExceeded, NotFoundError
from cortexclient.sandbox import Sandbox, World

from .conftest import client_of
from .meshworks import assert_same_meshwork, by_pcg_skel, by_standard_transform

pytest.importorskip("meshparty")
pytestmark = pytest.mark.filterwarnings(
    *(f"ignore::{kind}Warning" for kind in ("Deprecation", "Future", "User", "Runtime"))
)

NEURONS = 84
"""Those of which real skeletons are recorded: 83 and, the last, a larger one."""
SAMPLE = range(NEURONS) if os.environ.get("CORTEXCLIENT_EVERY_NEURON") else (42, 73, 83)
"""Which of them the referees are asked about; by default a current one, one that no version knows, and the largest."""
REAL = (864691134884871930, 864691135162310957, 864691135181977858)
CURRENT = 864691134885645050


@pytest.fixture(scope="module")
def minnie(shared_data: Path) -> Iterator[Sandbox]:
    with Sandbox(World.from_minnie65(shared_data)) as sandbox:
        yield sandbox


@pytest.fixture
async def client(flavour: str, minnie: Sandbox) -> AsyncIterator[AsyncCortexClient]:
    async with client_of(flavour, minnie) as client:
        yield client


@pytest.mark.parametrize("root", REAL)
@pytest.mark.parametrize("synapses", [False, True])
async def test_the_same_meshwork_as_pcg_skel_builds(
    client: AsyncCortexClient, minnie: Sandbox, root: int, synapses: bool
) -> None:
    theirs = await anyio.to_thread.run_sync(lambda: by_pcg_skel(minnie, root, synapses=synapses))
    minnie.counters.reset()
    ours = await client.get_skeleton(root, synapses=synapses)
    assert_same_meshwork(ours, theirs)
    # skeleton and what it needs once; life, versions, tables; two queries; two look-ups
    assert minnie.counters.snapshot().total.requests <= (14 if synapses else 3)


@pytest.mark.parametrize("wanted", ["restore_graph", "restore_properties"])
async def test_the_same_graph_and_properties_as_pcg_skel_restores(
    client: AsyncCortexClient, minnie: Sandbox, wanted: str
) -> None:
    theirs = await anyio.to_thread.run_sync(lambda: by_pcg_skel(minnie, REAL[0], **{wanted: True}))
    ours = await client.get_skeleton(REAL[0], **{wanted: True})
    assert_same_meshwork(ours, theirs)
    if wanted == "restore_graph":
        assert len(ours.mesh.link_edges) > len(ours.mesh.vertices) * 0.9
    else:
        assert {"vol_prop", "segment_properties"} <= set(ours.anno.table_names)


async def test_chunks_that_are_not_computed_yet_spoil_nothing(client: AsyncCortexClient, minnie: Sandbox) -> None:
    chunks = (await client.skeleton.get_skeleton(REAL[1])).lvl2_ids
    minnie.world.level2.missing.update(chunks[:3].tolist())
    try:
        found = await client.get_skeleton(REAL[1], restore_graph=True, restore_properties=True)
    finally:
        minnie.world.level2.missing.clear()
    np.testing.assert_array_equal(found.mesh.vertices[:3], found.skeleton.vertices[found.skeleton.mesh_to_skel_map[:3]])
    assert found.anno.vol_prop.df["size_nm3"].isna().tolist() == [True] * 3 + [False] * (len(chunks) - 3)


async def test_the_same_columns_of_reference_tables_as_pcg_skel_adds(flavour: str) -> None:
    world = World.default()
    about = world.tables["synapses_pni_2"].rows.select("id", "created")[::2]
    rows = pl.DataFrame(
        {
            "id": about["id"] + 10**9,
            "target_id": about["id"],
            "created": about["created"],
            "tag": ["shaft"] * len(about),
        }
    ).with_columns(valid=True, deleted=pl.lit(None, pl.Datetime("us")), superceded_id=pl.lit(None, pl.Int64))
    world.tables["synapse_tag"] = replace(
        world.tables["synapses_pni_2"],
        name="synapse_tag",
        schema_type="simple_reference",
        reference_table="synapses_pni_2",
        rows=rows,
    )
    world.versions = [replace(version, tables=(*version.tables, "synapse_tag")) for version in world.versions]
    with Sandbox(world) as sandbox:
        theirs = await anyio.to_thread.run_sync(
            lambda: by_pcg_skel(sandbox, CURRENT, synapses=True, synapse_reference_tables={"post": "synapse_tag"})
        )
        async with client_of(flavour, sandbox) as client:
            ours = await client.get_skeleton(CURRENT, synapses=True, synapse_reference_tables={"post": ["synapse_tag"]})
            with pytest.raises(CortexUsageError, match="synapses=True"):
                await client.get_skeleton(CURRENT, synapse_reference_tables={"post": "synapse_tag"})
            with pytest.raises(CortexUsageError, match="'pre' and 'post'"):
                await client.get_skeleton(CURRENT, synapses=True, synapse_reference_tables={"both": "synapse_tag"})
            broken = await client.get_skeletons(
                [CURRENT], synapses=True, synapse_reference_tables={"pre": "synapse_tags"}
            )
    assert_same_meshwork(ours, theirs)
    tags = ours.anno.post_syn.df["tag"]
    assert 0 < tags.notna().sum() < len(tags)
    assert "tag" not in ours.anno.pre_syn.df
    assert isinstance(broken.errors[CURRENT], NotFoundError)


async def test_a_table_that_changed_since_is_asked_at_the_last_instant(flavour: str) -> None:
    world = World.default()
    table = world.tables["synapses_pni_2"]
    newest = max(version.time_us for version in world.versions)
    gone = table.rows.filter(pl.col("valid"))["id"][-1]
    deleted = pl.when(pl.col("id") == gone).then(pl.lit(newest + 10**9).cast(pl.Datetime("us")))
    world.tables["synapses_pni_2"] = replace(
        table,
        rows=table.rows.with_columns(
            deleted=deleted.otherwise(pl.col("deleted")), valid=pl.col("valid") & (pl.col("id") != gone)
        ),
    )
    with Sandbox(world) as sandbox:
        theirs = await anyio.to_thread.run_sync(lambda: by_pcg_skel(sandbox, CURRENT, synapses=True))
        async with client_of(flavour, sandbox) as client:
            ours = await client.get_skeleton(CURRENT, synapses=True)
        routes = sandbox.counters.snapshot().routes
    assert_same_meshwork(ours, theirs)
    assert not any("table/{table}/query" in route for route in routes), "a version would tell what has been deleted"


async def test_many_at_once_are_the_same_as_one_by_one(client: AsyncCortexClient) -> None:
    together = await client.get_skeletons([*REAL, 5], synapses=True)
    assert list(together) == list(REAL)
    assert isinstance(together.errors[5], NotFoundError)
    for root in REAL:
        alone = await client.get_skeleton(root, synapses=True)
        assert_same_meshwork(together[root], alone)


async def test_cells_that_one_version_tells_are_asked_together(client: AsyncCortexClient, minnie: Sandbox) -> None:
    """Not each by the newest version at which it was current."""
    graph, roots = minnie.world.graph, minnie.world.shapes.skeletons["root_id"].to_numpy()
    at = np.unique([version.time_us // 1000 for version in minnie.world.versions])
    alive = (graph.created(roots)[:, None] <= at) & (at < graph.retired(roots)[:, None])
    shared = alive[:, :-1] & alive[:, 1:]  # some version, and a newer one
    when = int(np.flatnonzero(shared.any(axis=0) & (alive[:, :-1] & ~alive[:, 1:]).any(axis=0))[0])
    cells = [roots[shared[:, when]][0], roots[alive[:, when] & ~alive[:, when + 1]][0]]
    minnie.counters.reset()
    found = await client.get_skeletons(cells, synapses=True)
    assert list(found) == cells
    routes = minnie.counters.snapshot().routes
    assert sum(tally.requests for route, tally in routes.items() if "table/{table}/query" in route) == 2


async def test_streams_give_meshworks(client: AsyncCortexClient) -> None:
    async with client.stream_skeletons(REAL) as outcomes:
        roots = [outcome.unwrap().seg_id async for outcome in outcomes]
    assert sorted(roots) == sorted(REAL)


async def test_rigid_moves_skeleton_and_synapses_to_micrometres_below_the_pia(client: AsyncCortexClient) -> None:
    plain = await client.get_skeleton(REAL[0], synapses=True)
    moved = await client.get_skeleton(REAL[0], synapses=True, transform="rigid")
    apply = client.space.transform("nm").apply
    np.testing.assert_array_equal(moved.skeleton.vertices, apply(plain.skeleton.vertices))
    np.testing.assert_array_equal(moved.mesh.vertices, apply(plain.mesh.vertices))
    for table in ("pre_syn", "post_syn"):
        for column in ("pre_pt_position", "post_pt_position", "ctr_pt_position"):
            before, after = (np.vstack(neuron.anno[table].df[column]) for neuron in (plain, moved))
            np.testing.assert_array_equal(after, apply(before))
    assert 0 < moved.skeleton.vertices[:, 1].min() < moved.skeleton.vertices[:, 1].max() < 1500
    distances = [
        np.linalg.norm(np.diff(n.skeleton.vertices[n.skeleton.edges], axis=1), axis=-1).sum() for n in (plain, moved)
    ]
    assert distances[1] == pytest.approx(distances[0] / 1000)


async def test_streamline_measures_from_the_root_of_the_skeleton(client: AsyncCortexClient) -> None:
    plain = await client.get_skeleton(REAL[0], synapses=True)
    moved = await client.get_skeleton(REAL[0], synapses=True, transform="streamline")
    anchor, streamline = plain.skeleton.root_position, client.space.streamline("nm")
    expected = streamline.radial_points(anchor, plain.skeleton.vertices)
    np.testing.assert_allclose(moved.skeleton.vertices, expected)
    np.testing.assert_allclose(moved.skeleton.vertices[moved.skeleton.root][[0, 2]], 0, atol=1e-6)
    before, after = (np.vstack(neuron.anno.post_syn.df["ctr_pt_position"]) for neuron in (plain, moved))
    np.testing.assert_allclose(after, streamline.radial_points(anchor, before))


async def test_the_spatial_transform_of_the_examples_page(client: AsyncCortexClient) -> None:
    points = pd.DataFrame({f"pt_position_{axis}": [700_000.0, 650_000.0] for axis in "xyz"})
    soma_depth = client.space.transform_nm.apply_dataframe("pt_position", points, projection="y")
    expected = client.space.transform("nm").apply(points.to_numpy())[:, 1]
    np.testing.assert_array_equal(np.asarray(soma_depth), expected)


@pytest.mark.parametrize("index", SAMPLE)
async def test_real_neurons_equal_the_referees_in_every_array(minnie: Sandbox, index: int) -> None:
    """Both clients against caveclient, pcg_skel and standard_transform.

    All of the neurons, in ten minutes: CORTEXCLIENT_EVERY_NEURON=1 pytest -o faulthandler_timeout=0 -k every_array
    """
    caveclient = pytest.importorskip("caveclient")
    pytest.importorskip("standard_transform")
    cave = caveclient.CAVEclient(
        "minnie65_public", server_address=minnie.url, auth_token=minnie.token, write_server_cache=False
    )
    root = int(minnie.world.shapes.skeletons["root_id"][index])
    arrays = await anyio.to_thread.run_sync(cave.skeleton.get_skeleton, root)
    ours: dict[tuple[str, str | None], Any] = {}
    for flavour in ("async", "sync"):
        for method in ("service", "bucket"):
            async with client_of(flavour, minnie) as client:
                found = await client.skeleton.get_skeletons([root], method=method)  # type: ignore[arg-type]
                for name in ("vertices", "edges", "radius", "compartment", "lvl2_ids", "mesh_to_skel_map", "root"):
                    np.testing.assert_array_equal(getattr(found[root], name), arrays[name])
        async with client_of(flavour, minnie) as client:
            for how in (None, "rigid", "streamline"):
                ours[flavour, how] = await client.get_skeleton(root, synapses=True, transform=how)  # type: ignore[arg-type]
    # a Meshwork with synapses cannot be copied, so it is built once more for the second transform
    for transforms in ((None, "rigid"), ("streamline",)):
        theirs = await anyio.to_thread.run_sync(lambda: by_pcg_skel(minnie, root, synapses=True))
        for how in transforms:
            expected = theirs if how is None else by_standard_transform(theirs, how)
            for flavour in ("async", "sync"):
                assert_same_meshwork(ours[flavour, how], expected)


async def test_the_examples_page_on_real_neurons(client: AsyncCortexClient) -> None:
    """Its sections on skeletons, spatial transformations and links, by both clients."""
    pytest.importorskip("nglui")
    for transform, unit in ((None, 1_000), ("rigid", 1), ("streamline", 1)):
        nrn = await client.get_skeleton(REAL[0], synapses=True, transform=transform)  # type: ignore[arg-type]
        assert 100 * unit < np.ptp(np.asarray(nrn.skeleton.vertices)[:, 1]) < 3_000 * unit
        assert len(nrn.anno.pre_syn.df)
        assert len(nrn.anno.post_syn.df)
    proof_df = await client.tables.proofreading_status_and_strategy(status_axon=True).query(
        desired_resolution=[1, 1, 1], split_positions=True
    )
    soma_depth = client.space.transform_nm.apply_dataframe("pt_position", proof_df, projection="y")
    assert len(soma_depth) == len(proof_df) > 0
    link = await client.neuroglancer_url(root_ids=[REAL[0]])
    assert str(REAL[0]) in link


async def test_a_transform_that_does_not_exist(client: AsyncCortexClient) -> None:
    with pytest.raises(CortexUsageError, match="rigid"):
        await client.get_skeleton(REAL[0], transform="bent")  # type: ignore[arg-type]


async def test_a_cell_of_one_chunk(flavour: str) -> None:
    world = World.default()
    roots = world.graph.root_ids()
    cached = roots[world.skeletons.cached(roots, 0)]
    _, owner = world.graph.leaves_of(cached, 2)
    single = int(cached[np.flatnonzero(np.bincount(owner, minlength=len(cached)) == 1)[0]])
    with Sandbox(world) as sandbox:
        async with client_of(flavour, sandbox) as client:
            skeleton = await client.skeleton.get_skeleton(single)
            neuron = await client.get_skeleton(single, synapses=True)
    assert skeleton.edges.shape == (0, 2)
    assert neuron.skeleton.n_vertices == 1
    assert len(neuron.anno.lvl2_ids.df) == 1


async def test_a_retired_cell_has_the_synapses_of_its_last_day(flavour: str) -> None:
    world = World.default()
    with Sandbox(world) as sandbox:
        async with client_of(flavour, sandbox) as client:
            neuron = await client.get_skeleton(864691135440543560, synapses=True)
    level2 = set(neuron.anno.lvl2_ids.df["lvl2_id"])
    for name in ("pre", "post"):
        rows = neuron.anno[f"{name}_syn"].df
        assert set(rows[f"{name}_pt_level2_id"]) <= level2


async def test_a_datastack_without_synapses_says_so_for_each_id(flavour: str) -> None:
    world = World.default()
    world.datastacks = {name: replace(stack, synapse_table=None) for name, stack in world.datastacks.items()}
    with Sandbox(world) as sandbox:
        async with client_of(flavour, sandbox) as client:
            found = await client.get_skeletons([CURRENT], synapses=True)
            assert "synapses=False" in str(found.errors[CURRENT])
            assert len(await client.get_skeletons([CURRENT])) == 1


async def test_a_call_without_time_left_tells_it_for_each_cell(flavour: str) -> None:
    with Sandbox(World.default(), service_times=True, latency=0.05) as sandbox:
        async with client_of(flavour, sandbox) as client:
            await client.skeleton.get_skeleton(CURRENT)
            found = await client.get_skeletons([CURRENT], synapses=True, timeout=0.2)
    assert isinstance(found.errors[CURRENT], DeadlineExceeded)


async def test_a_stream_of_meshworks_may_be_left_early(flavour: str) -> None:
    world = World.default()
    roots = world.graph.root_ids()
    with Sandbox(world) as sandbox:
        cached = roots[world.skeletons.cached(roots, 0)][:200]
        async with client_of(flavour, sandbox) as client, client.stream_skeletons(cached) as outcomes:
            async for outcome in outcomes:
                assert outcome.ok
                break
