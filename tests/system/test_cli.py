"""The command line, as a program: what it writes, what it says, and how it ends."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from pyarrow import parquet
from tests.patience import HANG

from cortexclient import Progress
from cortexclient._cli_bulk import describe, throttle
from cortexclient._transport.reply import TransportStats
from cortexclient.cli import main
from cortexclient.sandbox import Sandbox
from cortexclient.sandbox.worlds.examples_page import CELLS, ROOTS

PROGRAM = [sys.executable, "-W", "error", "-c", "from cortexclient.cli import main; main()"]
ONE_APART = [2**53, 2**53 + 1]


class Done(NamedTuple):
    returncode: int
    stdout: str
    stderr: str


Run = Callable[..., Done]


@pytest.fixture(scope="module")
def sandbox() -> Iterator[Sandbox]:
    with Sandbox() as sandbox:
        yield sandbox


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs the command line in a folder of its own, in this process: starting another one takes a second."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")

    def call(*arguments: object, **variables: str) -> Done:
        with monkeypatch.context() as patch:
            patch.setattr(sys, "argv", ["cortexclient", *map(str, arguments)])
            for name, value in variables.items():
                patch.setenv(name, value)
            with pytest.raises(SystemExit) as ended:
                main()
        return Done(int(ended.value.code or 0), *capsys.readouterr())

    return call


def on(sandbox: Sandbox) -> dict[str, str]:
    return {"CORTEXCLIENT_SERVER": sandbox.url, "CORTEXCLIENT_TOKEN": sandbox.token}


def write_txt(path: Path, ids: list[int]) -> Path:
    path = path.with_suffix(".txt")
    path.write_text("\n".join(map(str, ids)) + "\n\n")
    return path


def write_csv(path: Path, ids: list[int]) -> Path:
    path = path.with_suffix(".csv")
    pd.DataFrame({"weight": 0.5, "root_id": ids}).to_csv(path, index=False)
    return path


def write_parquet(path: Path, ids: list[int]) -> Path:
    path = path.with_suffix(".parquet")
    parquet.write_table(pa.table({"root_id": pa.array(ids, pa.uint64()), "weight": [0.5] * len(ids)}), path)
    return path


@pytest.mark.parametrize("written", [write_txt, write_csv, write_parquet])
def test_root_to_cell_reads_every_kind_of_file(run: Run, sandbox: Sandbox, tmp_path: Path, written: Callable) -> None:
    ids = [*ROOTS, *ONE_APART, ROOTS[0]]
    source = written(tmp_path / "ids", ids)
    done = run("map", "root-to-cell", source, "-o", "out/cells.parquet", **on(sandbox))
    assert done.returncode == 0, done.stderr
    answer = parquet.read_table(tmp_path / "out" / "cells.parquet")
    assert answer.column_names == ["root_id", "cell_id"]
    assert answer.schema.types == [pa.int64(), pa.int64()]
    assert answer["root_id"].to_pylist() == ids
    cells = answer["cell_id"].to_pylist()
    assert set(cells[:3]) <= set(CELLS)
    assert cells[3:] == [-1, -1, cells[0]]
    assert re.search(r"6 ids \(4 ok, 2 invalid\), version 1484, \d+ requests: out/cells\.parquet", done.stdout)


def test_there_and_back_again(run: Run, sandbox: Sandbox, tmp_path: Path) -> None:
    source = write_txt(tmp_path / "cells", list(CELLS))
    assert run("map", "cell-to-root", source, "-o", "roots.parquet", "--detail", **on(sandbox)).returncode == 0
    roots = pd.read_parquet(tmp_path / "roots.parquet")
    assert list(roots.columns) == ["cell_id", "root_id", "status", "timestamp", "source", "n_matches"]
    found = roots[roots["status"] == "ok"]
    assert len(found) > 0
    done = run("map", "root-to-cell", "roots.parquet", "-o", "back.parquet", "--server", sandbox.url, **on(sandbox))
    assert done.returncode == 0, done.stderr
    back = pd.read_parquet(tmp_path / "back.parquet")
    assert back["cell_id"].to_numpy()[found.index].tolist() == found["cell_id"].tolist()


def test_versions_and_instants(run: Run, sandbox: Sandbox, tmp_path: Path) -> None:
    source = write_txt(tmp_path / "cells", list(CELLS))
    time = next(v.time_us for v in sandbox.world.versions if v.version == 661)
    instant = pd.Timestamp(time, unit="us", tz="UTC").isoformat()
    for out, *options in (("a.parquet", "--version", 661), ("b.parquet", "--version", 661, "--timestamp", instant)):
        done = run("map", "cell-to-root", source, "-o", out, *options, **on(sandbox))
        assert done.returncode == 0, done.stderr
    a, b, newest = (pd.read_parquet(tmp_path / name) for name in ("a.parquet", "b.parquet", "a.parquet"))
    pd.testing.assert_frame_equal(a, b)
    run("map", "cell-to-root", source, "-o", "a.parquet", **on(sandbox))
    newest = pd.read_parquet(tmp_path / "a.parquet")
    assert not a.equals(newest)


def test_no_ids_are_an_empty_answer(run: Run, sandbox: Sandbox, tmp_path: Path) -> None:
    (tmp_path / "none.txt").write_text("")
    done = run("map", "root-to-cell", "none.txt", "-o", "out.parquet", **on(sandbox))
    assert done.returncode == 0, done.stderr
    assert parquet.read_table(tmp_path / "out.parquet").schema.types == [pa.int64(), pa.int64()]


@pytest.mark.parametrize(
    ("name", "text", "options", "why"),
    [
        ("ids.txt", "864691135858491438.0", [], "must be decimal digits"),
        ("ids.txt", "12 twelve", [], "must be decimal digits"),
        ("ids.csv", "root_id\n1.5\n", [], "cannot be read"),
        ("ids.csv", "root_id\n1e17\n", [], "cannot be read"),
        ("ids.csv", "root_id,x\n1,1\n,2\n", [], "null"),
        ("ids.csv", "a,b\n1,2\n", [], "give --column one of a, b"),
        ("ids.csv", "a,root_id\n1,2\n", ["--column", "c"], "no column 'c'"),
        ("ids.csv", "", [], "cannot be read"),
        ("ids.parquet", "no parquet", [], "cannot be read"),
        ("ids.txt", "1", ["--timestamp", "yesterday"], "no ISO time"),
        ("ids.txt", "1", ["--timestamp", "2024-01-01"], "no time zone"),
        ("ids.txt", "1", ["--version", "two"], "--version"),
        ("ids.txt", "1", ["--colum", "x"], "No such option"),
        ("other.txt", "1", [], "does not exist"),
    ],
)
def test_a_wrong_question_is_exit_status_2(
    run: Run, tmp_path: Path, name: str, text: str, options: list[str], why: str
) -> None:
    (tmp_path / name).write_text(text)
    done = run("map", "root-to-cell", "ids" + Path(name).suffix, "-o", "out.parquet", *options)
    assert done.returncode == 2
    assert why in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "out.parquet").exists()


def test_a_failure_is_exit_status_1_and_one_line(run: Run, sandbox: Sandbox, tmp_path: Path) -> None:
    source = write_txt(tmp_path / "ids", list(ROOTS))
    for variables, options, why in (
        (on(sandbox) | {"CORTEXCLIENT_TOKEN": "marker"}, [], "InvalidToken"),
        (on(sandbox), ["--version", "3"], "NotFoundError"),
        (on(sandbox), ["--dataset", "minnie_pubic"], "NotFoundError"),
    ):
        done = run("map", "root-to-cell", source, "-o", "out.parquet", *options, **variables)
        assert done.returncode == 1
        assert done.stderr.startswith(why)
        assert len(done.stderr.splitlines()) == 1
        assert "marker" not in done.stderr + done.stdout


def test_the_version_and_the_help(run: Run) -> None:
    program = subprocess.run([*PROGRAM, "--version"], capture_output=True, text=True, check=True)
    assert program.stdout == run("--version").stdout
    assert re.fullmatch(r"\d+\.\d+\.\d+\S*\n", program.stdout)
    shown = run("--help").stdout
    assert all(command in shown for command in ("demo", "map", "sandbox"))


def test_a_missing_extra_names_its_pip_line(tmp_path: Path) -> None:
    code = "import sys; sys.modules['starlette'] = None; from cortexclient.cli import main; main()"
    for command in ("demo", "sandbox"):
        done = subprocess.run(
            [sys.executable, "-c", code, command], cwd=tmp_path, capture_output=True, text=True, check=False
        )
        assert done.returncode == 1
        assert 'pip install "cortexclient[sandbox]"' in done.stderr


def test_the_demo_shows_its_figures_and_writes_its_answers(run: Run, tmp_path: Path) -> None:
    done = run("demo")
    assert done.returncode == 0, done.stderr
    answer = pd.read_parquet(tmp_path / "cortexclient-demo" / "root_id_to_cell_id.parquet")
    assert len(answer) > 1_000
    assert answer["cell_id"].dtype == np.int64
    made, usual = (
        int(re.search(rf"requests {what}\D+([\d,]+)", done.stdout)[1]) for what in ("made", "of the usual way")
    )
    assert made < usual
    assert "cortexclient-demo/root_id_to_cell_id.parquet" in done.stdout


@pytest.mark.slow
def test_the_demo_on_real_rows(run: Run, shared_data: Path) -> None:
    """Slow: it loads 84 real neurons."""
    done = run("demo", "--data", shared_data, "--out", "real")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "147 of 147 roots map as written" in done.stdout
    assert "Root 864691135858491438, which holds 7 real nuclei: -1 (multiple, 7 cells)" in done.stdout


def test_the_sandbox_runs_until_it_is_stopped(tmp_path: Path) -> None:
    process = subprocess.Popen([*PROGRAM, "sandbox", "--url"], cwd=tmp_path, stdout=subprocess.PIPE, text=True)
    with process:
        assert process.stdout
        url = process.stdout.readline().strip()
        (tmp_path / "ids.txt").write_text(str(ROOTS[0]))
        try:
            assert re.fullmatch(r"http://127\.0\.0\.1:\d+", url)
        finally:
            process.send_signal(signal.SIGINT)
        assert process.wait(timeout=HANG) == 0


# -- bulk jobs -------------------------------------------------------------------------------------------------------


def test_a_job_from_the_shell(run: Run, sandbox: Sandbox, tmp_path: Path) -> None:
    world = sandbox.world
    roots = [*world.graph.root_ids()[:200].tolist(), *ONE_APART]
    source = write_parquet(tmp_path / "ids", roots)
    begun = ("map", "root-to-cell", source, "-o", "job", "--part-size", 30)
    planned = run(*begun, "--plan", **on(sandbox))
    assert planned.returncode == 0, planned.stderr
    assert "202 ids to ask in 7 parts of 30" in planned.stdout
    assert not (tmp_path / "job").exists()
    done = run(*begun, **on(sandbox))
    assert done.returncode == 0, done.stderr
    assert "7 of 7 parts, 202 of 202 ids (0 failed), 202 rows: job" in done.stdout
    run("map", "root-to-cell", source, "-o", "all.parquet", "--detail", **on(sandbox))
    parts = pd.read_parquet([str(path) for path in sorted((tmp_path / "job").glob("part-*.parquet"))])
    at_once = pd.read_parquet(tmp_path / "all.parquet")
    assert parts["root_id"].tolist() == sorted(roots)
    assert parts["cell_id"].tolist() == at_once.sort_values("root_id")["cell_id"].tolist()
    again = run(*begun, **on(sandbox))
    assert (again.returncode, "--resume" in again.stderr) == (2, True)
    (tmp_path / "job" / "part-000003.parquet").write_bytes(b"")
    bad = run("jobs", "verify", "job")
    assert (bad.returncode, "part 3: part-000003.parquet is damaged" in bad.stdout) == (1, True)
    assert "parts 3 were damaged and made again" in run(*begun, "--resume", **on(sandbox)).stdout
    for command in ("verify", "status"):
        good = run("jobs", command, "job")
        assert good.returncode == 0, good.stdout + good.stderr


def test_parts_of_an_array_job(run: Run, sandbox: Sandbox, tmp_path: Path) -> None:
    world = sandbox.world
    cells = world.annotations.frozen("nucleus_detection_v0", world.version())["pt_root_id"].to_numpy()
    source = write_txt(tmp_path / "ids", [5, *np.unique(cells)[1:25].tolist()])
    made = run("jobs", "create", "get_skeletons", source, "-o", "job", "--part-size", 10, **on(sandbox))
    assert made.stdout.endswith("parts 0 to 2\n"), made.stderr
    assert run("jobs", "status", "job").returncode == 1
    first = run("jobs", "run", "job", "--part", 1, "--workers", 3, **on(sandbox))
    assert (first.returncode, first.stdout) == (0, "part 1: 10 ok, 0 failed, 10 rows\n"), first.stderr
    for part in range(3):  # as SLURM numbers its tasks
        assert run("jobs", "run", "job", SLURM_ARRAY_TASK_ID=str(part), **on(sandbox)).returncode == 0
    told = run("jobs", "status", "job")
    assert told.returncode == 0
    assert "3 of 3 parts, 25 of 25 ids (1 failed)" in told.stdout
    assert "1 NotFoundError" in told.stdout
    assert len([*(tmp_path / "job" / "swc").iterdir()]) == 24
    retried = run("jobs", "retry", "job", **on(sandbox))
    assert "(1 failed)" in retried.stdout
    assert run("jobs", "run", "job", "--part", 3, **on(sandbox)).returncode == 2


def test_synapses_and_meshes_from_the_shell(run: Run, sandbox: Sandbox, tmp_path: Path) -> None:
    world = sandbox.world
    cells = world.annotations.frozen("nucleus_detection_v0", world.version())["pt_root_id"].to_numpy()
    source = write_txt(tmp_path / "ids", np.unique(cells)[1:9].tolist())
    for out, *options in (("rows",), ("edges", "--edges"), ("inputs", "--side", "post")):
        done = run("synapses", source, "-o", out, *options, **on(sandbox))
        assert done.returncode == 0, done.stderr
    rows, edges, inputs = (
        pd.read_parquet(tmp_path / name / "part-000000.parquet") for name in ("rows", "edges", "inputs")
    )
    assert edges["n_synapses"].sum() == len(rows) > len(inputs) > 0
    assert run("meshes", source, "-o", "meshes", "--max-bytes", 10_000_000, **on(sandbox)).returncode == 0
    assert len([*(tmp_path / "meshes" / "draco").iterdir()]) == 8


def test_sigterm_ends_a_job_in_good_order(sandbox: Sandbox, tmp_path: Path) -> None:
    source = write_txt(tmp_path / "ids", sandbox.world.graph.root_ids()[:3_000].tolist())
    with Sandbox(sandbox.world, latency=0.1) as slow:
        job = [*PROGRAM, "map", "root-to-cell", str(source), "-o", "job", "--part-size", "50"]
        with subprocess.Popen(
            job, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=os.environ | on(slow)
        ) as process:
            while not list(tmp_path.glob("job/part-*.parquet")):
                assert process.poll() is None
                time.sleep(0.05)
            process.send_signal(signal.SIGTERM)
            out, err = process.communicate(timeout=HANG)
    assert (process.returncode, err) == (143, "")
    assert "stopped; `cortexclient jobs run job` goes on" in out


def test_progress_names_the_rate_and_what_holds_it_up() -> None:
    now = Progress(done=900, failed=100, total=4_000, seconds=2.0)
    assert describe(now) == "1,000/4,000 ids, 100 failed, 500 ids/s, 0:00:06 to go"
    before = TransportStats(waited=1.0, retries=2, held_back={"query": 3.0})
    assert throttle(before, before) == ""
    after = TransportStats(waited=2.0, retries=5, held_back={"query": 4.0}, per_minute={"query": 150.0})
    assert throttle(before, after) == ", held up by the rate of query (150 a minute) and 3 retries"
