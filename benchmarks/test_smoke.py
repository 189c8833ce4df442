"""Every benchmark still runs, on sizes that measure nothing (``tox -e smoke``)."""

from __future__ import annotations

import json
import math
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from benchmarks import report
from benchmarks.__main__ import PARTS

MODULES = [module for modules in PARTS.values() for module in modules]


@pytest.fixture
def module(request: pytest.FixtureRequest) -> Any:
    """The benchmark that a test is called after."""
    return import_module(f"benchmarks.{request.function.__name__.removeprefix('test_')}")


@pytest.fixture(autouse=True)
def results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the figures go, instead of over those that were measured."""
    monkeypatch.setattr(report, "RESULTS", tmp_path)
    return tmp_path


def kept(results: Path, name: str, part: str = "foundation") -> list[dict[str, Any]]:
    rows = json.loads((results / f"{part}.json").read_text())[name]["rows"]
    figures = [value for row in rows for value in row.values() if isinstance(value, float)]
    assert figures
    assert all(math.isfinite(value) for value in figures)
    return list(rows)


def test_no_benchmark_is_left_out() -> None:
    assert [module for module in MODULES if f"test_{module}" not in globals()] == []


def test_transport(module: Any, results: Path) -> None:
    module.run(rounds=1, requests=64)
    assert len(kept(results, "transport")) == 2


def test_sandbox_server(module: Any, results: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "REQUESTS", 160)
    module.run(rounds=1)
    assert len(kept(results, "sandbox server")) == 4


def test_imports(module: Any, results: Path) -> None:
    pytest.importorskip("cortical_tools")
    module.run(rounds=1)
    assert {row["clock"] for row in kept(results, "import and construct")} == {"wall", "CPU"}


def test_mapping(module: Any, results: Path) -> None:
    pytest.importorskip("cortical_tools")
    world = {"seed": 1, "nuclei": 400, "edits": 400, "backups": 40, "versions": 3, "expired": 2}
    module.run(rounds=1, world_options=world, size=40)
    assert {"newest", "mixed"} <= {row["part"] for row in kept(results, "root_id_to_cell_id")}


def test_exports(module: Any, results: Path) -> None:
    pytest.importorskip("cortical_tools")
    module.run(rounds=1, rows=5_000)
    assert [row["rows"] for row in kept(results, "a dump", "exports")] == [4_999, 5_000, 5_000, 5_000]
    assert [row["rows"] for row in kept(results, "memory of a conversion", "exports")] == [5_000, 15_000]


def test_graph(module: Any, results: Path) -> None:
    pytest.importorskip("caveclient")
    world = {"seed": 1, "nuclei": 300, "edits": 300, "fragments": 2_000, "synapses": 1}
    module.run(rounds=1, world_options=world, timestamps=300, few=400, many=2_000)
    assert [row["way"] for row in kept(results, "timestamps", "graph")] == ["one call", "a call for each"]
    assert kept(results, "roots, costs off", "graph")[0]["ids"] == 2_000
    assert kept(results, "roots, costs on", "graph")[0]["ids"] == 400


def test_bulk(module: Any, results: Path) -> None:
    world = {"seed": 1, "nuclei": 300, "edits": 300, "fragments": 2_000, "synapses": 1}
    module.run(rounds=1, world_options=world, size=4_000, distinct=1_500, part_size=1_000)
    rows = kept(results, "root_id_to_cell_id", "bulk")
    assert [row["job"] for row in rows] == ["cold", "warm"]
    assert rows[0]["requests"] > rows[1]["requests"]


def test_growth(module: Any, results: Path) -> None:
    world = {"seed": 1, "nuclei": 100, "edits": 50, "fragments": 1_000, "synapses": 1}
    cells = world | {"fragments": 10}
    small: dict[str, Any] = {"counts": (100, 300), "in_flight": (4, 16), "ids": 300, "asked": (50, 1_000)}
    module.run(rounds=1, world_options=world, cells_options=cells, **small)
    assert [row["ids"] for row in kept(results, "root look-ups by number of ids", "growth")] == [100, 300]
    assert [row["in_flight"] for row in kept(results, "root look-ups by requests at once", "growth")] == [4, 16]
    routes = [(row["ids"], row["route"]) for row in kept(results, "roots to cells by number of ids", "growth")]
    assert routes == [
        (50, module.COLD),
        (50, module.WARM),
        (50, module.INDEX),
        (1_000, module.WARM),
        (1_000, module.INDEX),
    ]


def test_skeletons(module: Any, results: Path) -> None:
    pytest.importorskip("caveclient")
    pytest.importorskip("h5py")
    module.run(rounds=1, skeletons=30, vertices=50, streamed=60)
    assert len(kept(results, "cached skeletons as arrays", "skeletons")) == 5
    assert all(row["above_at_the_end_mb"] < 500 for row in kept(results, "streamed", "skeletons"))


def test_meshworks(module: Any, results: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("pcg_skel")
    monkeypatch.setattr(module, "DATA", Path("absent"))
    module.run(rounds=1, cells=6, looped=2)
    rows = kept(results, "Meshworks with synapses, synthetic cells", "skeletons")
    assert [row["who"] for row in rows] == ["ours", "pcg_skel"]


def test_tables(module: Any, results: Path) -> None:
    pytest.importorskip("cortical_tools")
    module.run(rounds=1, rows=2_000, neurons=12, synapses=2_000, cap=1_200)
    assert len(kept(results, "a whole table", "tables")) == 6
    ours, default, single = kept(results, "synapses of many roots", "tables")
    assert ours["missing"] == single["missing"] == 0
    assert default["missing"] > 0, "ten neurons have more synapses than the server gives at once"


def test_meshes(module: Any, results: Path) -> None:
    pytest.importorskip("cloudvolume")
    pytest.importorskip("cortical_tools")
    # the answers of both are compared before anything is kept
    module.run(rounds=1, neurons=2, fragments=8, peer_neurons=1, streamed=60)
    assert [row["layout"] for row in kept(results, "against cloud-volume", "meshes")] == ["apart", "fours"]
    assert kept(results, "streamed", "meshes")[0]["meshes"] >= 60


def test_labels(module: Any, results: Path) -> None:
    pytest.importorskip("cortical_tools")
    pytest.importorskip("gpytoolbox")
    module.run(rounds=1, fragments=8)
    by_method = {row["method"]: row["right"] for row in kept(results, "labels of vertices", "meshes")}
    assert by_method["fragments"] == 1
    assert by_method["geometry"] >= 0.995


def test_limits(module: Any, results: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SPEED", 60)
    module.run(minutes=1.2)
    rows = kept(results, "300 queries a minute", "limits")
    assert [row["way"] for row in rows] == list(module.WAYS)
    assert all(row["refused_share"] <= 0.1 for row in rows[:3])


def test_index(module: Any, results: Path) -> None:
    # the answers are compared before anything is kept
    module.run(rounds=1, ids=50_000, roots=5_000)
    assert kept(results, "roots to cells, file to file", "index")[0]["ids"] == 50_000
