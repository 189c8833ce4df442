"""Bulk exports: what there is, what is in it, and what is said of it when it cannot be had."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pytest
from polars.testing import assert_frame_equal

from cortexclient import AsyncCortexClient
from cortexclient.errors import CortexUsageError, MissingDependency, MissingPermission, NotFoundError
from cortexclient.sandbox import Sandbox, World
from cortexclient.sandbox.exports import exported

from .conftest import client_of

NEWEST = 1484
SYNAPSES = "synapses_pni_2"
GATED = ["gs://mat_dbs_gated/public/minnie65_public", "gs://mat_dbs_gated/public/deltalake_exports/minnie65_public"]


@pytest.fixture(scope="module")
def seen(world: World) -> Iterator[tuple[Sandbox, list[tuple[str, str]]]]:
    """A sandbox of the tests' own, and path and range of every request to it."""
    asked: list[tuple[str, str]] = []
    with Sandbox(world) as sandbox:
        answer = sandbox.asgi._answer

        async def noted(found: Any, call: Any) -> Any:
            asked.append((call.path, call.headers.get("range", "")))
            return await answer(found, call)

        sandbox.asgi._answer = noted  # type: ignore[method-assign]
        yield sandbox, asked


@pytest.fixture
def folder(world: World, tmp_path: Path) -> Path:
    """The exports of the newest version as files."""
    version = world.version(NEWEST)
    for name in (
        f"mat_dbs/public/minnie65_public/v{version.version}/",
        "mat_dbs/public/deltalake_exports/minnie65_public/v1484/",
    ):
        for path, data in world.exports._made(name).items():
            target = tmp_path / "exports" / f"v{version.version}" / path
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(data)
    return tmp_path / "exports"


def true_rows(world: World, name: str) -> pl.DataFrame:
    return exported(world, "minnie65_public", world.version(NEWEST))[name]


def same_rows(found: pl.DataFrame, wanted: pl.DataFrame) -> None:
    assert_frame_equal(found.select(wanted.columns).cast(dict(wanted.schema)).sort("id"), wanted.sort("id"))


# -- what there is -----------------------------------------------------------------------------------------------------


async def test_everything_is_listed(client: AsyncCortexClient, world: World) -> None:
    frame = await client.exports.available_data_df()
    assert list(frame) == ["name", "version", "size", "bytes", "kind", "ordering", "updated"]
    assert frame["version"].dtype == frame["bytes"].dtype == np.int64
    assert frame["updated"].dt.tz is UTC or str(frame["updated"].dt.tz) == "UTC"
    dumps = frame[frame["kind"] == "csv"]
    assert set(dumps.loc[dumps["version"] == NEWEST, "name"]) == set(
        exported(world, "minnie65_public", world.version())
    )
    lakes = frame[frame["kind"] == "delta"]
    assert set(lakes["ordering"]) == {"id", "pre_pt_root_id", "post_pt_root_id", "ctr_pt_position_morton"}
    assert (frame["bytes"] > 0).all()
    assert await client.exports.available_tables() == sorted(set(frame["name"]))
    assert await client.exports.available_versions(SYNAPSES) == [117, 661, 1412, 1484]
    assert await client.exports.available_versions("nope") == []


async def test_the_list_is_kept_until_it_is_asked_for_anew(flavour: str, seen: tuple[Sandbox, list[Any]]) -> None:
    sandbox, asked = seen
    async with client_of(flavour, sandbox) as client:
        await client.exports.available_tables()
        asked.clear()
        await client.exports.available_versions(SYNAPSES)
        assert asked == []
        files = await client.exports.reset_available_files()
        assert len(asked) > 1
        assert files[0].url.startswith("gs://mat_dbs/public/")


async def test_an_empty_place_gives_an_empty_frame(client: AsyncCortexClient, tmp_path: Path) -> None:
    client.set_export_cloudpath(str(tmp_path))
    frame = await client.exports.available_data_df()
    assert len(frame) == 0
    assert frame["version"].dtype == np.int64
    with pytest.raises(NotFoundError, match="nope"):
        await client.exports.get_table("nope", 1)


async def test_names_that_are_not_there(client: AsyncCortexClient) -> None:
    with pytest.raises(NotFoundError, match="nucleus_detection_v0") as unknown:
        await client.exports.get_table("nucleus_detection", NEWEST)
    assert "nucleus_detection_v0" in unknown.value.nearest
    with pytest.raises(NotFoundError, match="117, 661, 1412, 1484") as version:
        await client.exports.scan(SYNAPSES, 1483)
    assert version.value.nearest[0] == "1484"
    with pytest.raises(CortexUsageError, match=r"nope.*pre_pt_root_id"):
        await client.exports.scan(SYNAPSES, NEWEST, where={"nope": [1]})
    with pytest.raises(CortexUsageError, match=r"nope.*n_syn"):
        await client.exports.scan("connections_with_nuclei", NEWEST, where={"nope": [1]})
    with pytest.raises(CortexUsageError, match=r"'size'.*post_pt_root_id"):
        await client.exports.scan(SYNAPSES, NEWEST, ordering="size")
    with pytest.raises(CortexUsageError, match="dump"):
        await client.exports.scan("nucleus_detection_v0", NEWEST, ordering="id")
    client.set_export_cloudpath("gs://mat_dbs/public/deltalake_exports/minnie65_public")
    with pytest.raises(CortexUsageError, match="scan"):
        await client.exports.download(SYNAPSES, NEWEST)


# -- where it is -------------------------------------------------------------------------------------------------------


async def test_a_place_must_be_known(flavour: str, sandbox: Sandbox) -> None:
    spec = replace(sandbox.spec, exports_url=None)
    async with client_of(flavour, sandbox) as known:
        pass
    unknown = type(known._blocking)(spec, token=sandbox.token) if flavour == "sync" else AsyncCortexClient(spec)
    if flavour == "sync":
        with unknown, pytest.raises(CortexUsageError, match="set_export_cloudpath"):
            unknown.exports.available_tables()
        return
    async with unknown:
        with pytest.raises(CortexUsageError, match="set_export_cloudpath"):
            await unknown.exports.available_tables()
        with pytest.raises(CortexUsageError, match="ftp://"):
            unknown.set_export_cloudpath("ftp://somewhere/else")


async def test_all_views_look_where_one_is_told_to(client: AsyncCortexClient) -> None:
    view = client.at(version=117)
    client.set_export_cloudpath("gs://my-bucket/exports/")
    assert "connections_with_nuclei" in await view.exports.available_tables()
    assert {file.url.partition("/v")[0] for file in await view.exports.available_files()} == {"gs://my-bucket/exports"}
    view.set_export_cloudpath(["gs://mat_dbs/public/minnie65_phase3_v1"])
    assert (await client.exports.available_files())[0].url.startswith("gs://mat_dbs/")


@pytest.mark.parametrize("scheme", ["gs", "s3", "http", "google", "file", "folder"])
async def test_the_same_rows_from_everywhere(
    flavour: str, sandbox: Sandbox, world: World, folder: Path, scheme: str
) -> None:
    places = {
        "gs": ["gs://mat_dbs/public/minnie65_public", GATED[1].replace("_gated", "")],
        "s3": ["s3://mat_dbs/public/minnie65_public", "s3://mat_dbs/public/deltalake_exports/minnie65_public"],
        "http": [f"{sandbox.url}/storage/mat_dbs/public/minnie65_public/"],
        "google": ["https://storage.googleapis.com/mat_dbs/public/minnie65_public"],
        "file": [f"file://{folder}"],
        "folder": [str(folder)],
    }
    async with client_of(flavour, sandbox) as client:
        client.set_export_cloudpath(places[scheme])
        found = await client.exports.get_table("nucleus_detection_v0__minnie3_v1", NEWEST)
        same_rows(pl.from_pandas(found), true_rows(world, "nucleus_detection_v0__minnie3_v1"))
        if scheme not in ("http", "google"):
            lazy = await client.exports.scan(SYNAPSES, NEWEST)
            same_rows(
                lazy.select("id", "pre_pt_root_id").collect(),
                true_rows(world, f"{SYNAPSES}_merged").select("id", "pre_pt_root_id"),
            )


async def test_a_web_page_is_no_bucket(client: AsyncCortexClient, sandbox: Sandbox) -> None:
    client.set_export_cloudpath(f"{sandbox.url}/info/datastacks")
    with pytest.raises(NotFoundError, match="/info/datastacks lists nothing"):
        await client.exports.available_tables()


# -- rows of dumps -----------------------------------------------------------------------------------------------------


async def test_a_table_is_typed(client: AsyncCortexClient, world: World) -> None:
    frame = await client.exports.get_table("nucleus_detection_v0", NEWEST)
    rows = world.annotations.frozen("nucleus_detection_v0", world.version(NEWEST))
    assert frame["id"].dtype == np.int64
    assert frame["id"].tolist() == rows["id"].to_list()  # every row, the first one too, in order
    assert frame["valid"].dtype == np.bool_
    assert frame["superceded_id"].dtype == pd.Int64Dtype()
    assert str(frame["created"].dtype) == "datetime64[us, UTC]"
    assert frame["created"].dt.tz_localize(None).tolist() == rows["created"].to_list()
    assert frame["deleted"].isna().all()
    for axis in "xyz":
        assert frame[f"bb_start_position_{axis}"].dtype == np.int32
        assert frame[f"pt_position_{axis}"].tolist() == rows[f"pt_position_{axis}"].to_list()
    assert not [name for name in frame if name.endswith("position")]


@pytest.mark.parametrize("name", ["nucleus_detection_lookup_v1", "proofreading_status_and_strategy_merged"])
async def test_views_and_joined_tables(client: AsyncCortexClient, world: World, name: str) -> None:
    same_rows(
        pl.from_pandas(await client.exports.get_table(name, NEWEST)),
        true_rows(world, name).drop("created", strict=False),
    )


async def test_a_dump_is_fetched_once(flavour: str, seen: tuple[Sandbox, list[tuple[str, str]]]) -> None:
    sandbox, asked = seen
    async with client_of(flavour, sandbox) as client:
        await client.exports.available_tables()
        asked.clear()
        told: list[Any] = []
        first, again = await asyncio.gather(
            client.exports.get_table("connections_with_nuclei", NEWEST, progress=told.append),
            client.exports.get_table("connections_with_nuclei", NEWEST),
        )
        assert [path.rpartition("/")[2] for path, _ in asked] == [
            "connections_with_nuclei_header.csv",
            "connections_with_nuclei.csv.gz",
        ]
        pd.testing.assert_frame_equal(first, again)
        path = await client.exports.download("connections_with_nuclei", NEWEST)
        assert len(asked) == 2
    size = len(
        sandbox.world.exports.read("mat_dbs/public/minnie65_phase3_v1/v1484/connections_with_nuclei.csv.gz") or b""
    )
    assert told == [] or {report.total for report in told} == {size, None}  # the caller who came second does not report
    assert pl.read_parquet(path).height == len(first)
    assert [file.suffix for file in path.parent.iterdir()] == [".parquet"]


async def test_a_damaged_file_in_the_cache_is_made_anew(client: AsyncCortexClient) -> None:
    path = await client.exports.download("connections_with_nuclei", NEWEST)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    frame = await client.exports.get_table("connections_with_nuclei", NEWEST)
    assert len(frame) == pl.read_parquet(path).height


async def test_the_cache_is_where_it_is_wished(
    client: AsyncCortexClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CORTEXCLIENT_CACHE", str(tmp_path / "elsewhere"))
    path = await client.exports.download("connections_with_nuclei", NEWEST)
    assert path.is_relative_to(tmp_path / "elsewhere")


async def test_a_dump_can_be_lazy(client: AsyncCortexClient, world: World) -> None:
    truth = true_rows(world, "connections_with_nuclei")
    roots = truth["pre_pt_root_id"].unique().to_list()[:3]
    lazy = await client.exports.scan("connections_with_nuclei", NEWEST, where={"pre_pt_root_id": roots})
    found = lazy.collect().sort("pre_pt_root_id", "post_pt_root_id")
    wanted = truth.filter(pl.col("pre_pt_root_id").is_in(roots)).sort("pre_pt_root_id", "post_pt_root_id")
    assert_frame_equal(found, wanted)
    assert (
        (await client.exports.scan("connections_with_nuclei", NEWEST, where={"pre_pt_root_id": []}))
        .collect()
        .is_empty()
    )


# -- rows of lakes -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ordering", [None, "id", "pre_pt_root_id", "ctr_pt_position_morton"])
async def test_a_lake_has_the_rows_of_the_table(client: AsyncCortexClient, world: World, ordering: str | None) -> None:
    lazy = await client.exports.scan(SYNAPSES, NEWEST, ordering=ordering)
    same_rows(lazy.collect(), true_rows(world, f"{SYNAPSES}_merged").drop("created", "superceded_id"))


async def test_only_the_files_that_matter_are_read(
    flavour: str, seen: tuple[Sandbox, list[tuple[str, str]]], world: World
) -> None:
    sandbox, asked = seen
    truth = true_rows(world, f"{SYNAPSES}_merged")
    root = int(truth["post_pt_root_id"].value_counts(sort=True)["post_pt_root_id"][0])
    async with client_of(flavour, sandbox) as client:
        for where, later in (({"post_pt_root_id": root}, []), ({}, [pl.col("post_pt_root_id") == root])):
            lazy = await client.exports.scan(SYNAPSES, NEWEST, where=where, ordering="post_pt_root_id")
            asked.clear()
            found = lazy.filter(later).collect() if later else lazy.collect()
            assert sorted(found["id"]) == sorted(truth.filter(pl.col("post_pt_root_id") == root)["id"])
            assert len({path for path, _ in asked}) == 1  # of four


async def test_the_ordering_is_that_of_what_is_asked_for(
    flavour: str, seen: tuple[Sandbox, list[tuple[str, str]]]
) -> None:
    sandbox, asked = seen
    async with client_of(flavour, sandbox) as client:
        await client.exports.available_tables()
        asked.clear()
        await client.exports.scan(SYNAPSES, NEWEST, where={"pre_pt_root_id": [1]})
        assert {path.rpartition("/")[0].partition(f"{SYNAPSES}/")[2] for path, _ in asked if SYNAPSES in path} == {
            "pre_pt_root_id/_delta_log"
        }


async def test_a_lake_is_a_table_too(client: AsyncCortexClient, world: World) -> None:
    client.set_export_cloudpath("gs://mat_dbs/public/deltalake_exports/minnie65_public")
    frame = await client.exports.get_table(SYNAPSES, NEWEST)
    assert frame["pre_pt_root_id"].dtype == np.int64
    same_rows(pl.from_pandas(frame), true_rows(world, f"{SYNAPSES}_merged").drop("created", "superceded_id"))


async def test_an_unfinished_lake_is_told(client: AsyncCortexClient, folder: Path) -> None:
    log = folder / f"v{NEWEST}" / SYNAPSES / "id" / "_delta_log"
    for commit in sorted(log.iterdir())[1:]:
        commit.unlink()  # as if the server had died before it tidied up
    client.set_export_cloudpath(str(folder))
    with pytest.warns(UserWarning, match="rows may lack"):
        await client.exports.scan(SYNAPSES, NEWEST, ordering="id")


# -- who may read it ---------------------------------------------------------------------------------------------------


async def test_a_gated_bucket_wants_a_token(client: AsyncCortexClient) -> None:
    client.set_export_cloudpath(GATED)
    with pytest.raises(MissingPermission, match=r"mat_dbs_gated.*credentials="):
        await client.exports.available_tables()


async def test_a_gated_bucket_with_a_token(
    flavour: str, seen: tuple[Sandbox, list[tuple[str, str]]], world: World
) -> None:
    sandbox, asked = seen
    truth = true_rows(world, f"{SYNAPSES}_merged")
    root = int(truth["pre_pt_root_id"].value_counts(sort=True)["pre_pt_root_id"][0])
    async with client_of(flavour, sandbox) as client:
        client.set_export_cloudpath(GATED, credentials=lambda: (sandbox.token, datetime(2100, 1, 1, tzinfo=UTC)))
        assert len(await client.exports.get_table("connections_with_nuclei", NEWEST)) > 0
        lazy = await client.exports.scan(SYNAPSES, NEWEST, where={"pre_pt_root_id": [root, 7]})
        asked.clear()
        found = lazy.select("id", "pre_pt_root_id", "pre_pt_position_x").collect()
        same_rows(found, truth.filter(pl.col("pre_pt_root_id") == root).select(found.columns))
        assert len({path for path, _ in asked}) == 1
        nothing = await client.exports.scan(SYNAPSES, NEWEST, where={"pre_pt_root_id": [7]})
        assert nothing.collect().is_empty()
        everything = await client.exports.scan(SYNAPSES, NEWEST)
        assert everything.select(pl.len()).collect().item() == len(truth)


@pytest.mark.parametrize(("package", "call"), [("obstore", "get_table"), ("deltalake", "scan")])
async def test_a_missing_extra_is_named(
    client: AsyncCortexClient, monkeypatch: pytest.MonkeyPatch, package: str, call: str
) -> None:
    await client.exports.available_tables()
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(MissingDependency, match=r"cortexclient\[exports\]"):
        await getattr(client.exports, call)(SYNAPSES, NEWEST)
