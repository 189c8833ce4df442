"""The sandbox as a program: the command line, and the child process of benchmarks."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest
import typer
from tests.patience import HANG

from cortexclient.sandbox import Faults, SandboxProcess, World
from cortexclient.sandbox.cli import bytes_per_second, make_world, seconds

COMMAND = [sys.executable, "-m", "cortexclient.sandbox"]


@pytest.fixture(scope="module")
def child():
    with SandboxProcess("synthetic", nuclei=30, edits=20, seed=3, latency="1ms", limits="charts") as process:
        yield process


def ask(process, path, token=None):
    request = urllib.request.Request(process.url + path, headers={"Authorization": f"Bearer {token or process.token}"})
    with urllib.request.urlopen(request, timeout=HANG) as reply:
        return json.load(reply)


def test_a_child_serves_its_world(child):
    stack = child.spec.datastack
    assert ask(child, "/info/api/v2/datastacks")[0] == stack
    assert ask(child, f"/info/api/v2/datastack/full/{stack}")["local_server"] == child.url
    assert child.spec.server == child.url


def test_its_counters_and_faults_are_reached_from_here(child):
    child.counters.reset()
    ask(child, "/info/health")
    counts = child.counters.snapshot()
    assert counts.total.statuses == {200: 1}
    assert list(counts.routes) == ["GET /info/health"]
    child.faults = Faults("503", only="/info", times=1)
    with pytest.raises(urllib.error.HTTPError, match="503"):
        ask(child, "/info/health")
    assert ask(child, "/info/health") == "healthy"
    assert child.faults.only == "/info"
    child.faults = ""
    assert child.faults.rates == {}


def test_its_token_expires_and_is_issued(child):
    old = child.token
    child.expire_token()
    with pytest.raises(urllib.error.HTTPError, match="401"):
        ask(child, "/info/api/v2/datastacks")
    assert child.issue_token() != old
    assert ask(child, "/info/api/v2/datastacks")


def test_a_world_of_this_process_is_served_by_a_child(capfd):
    world = World.synthesize(seed=4, nuclei=12, edits=5)
    with SandboxProcess(world) as child:
        assert ask(child, "/info/api/v2/datastacks") == list(world.datastacks)
        address = child.url
    with pytest.raises(urllib.error.URLError):
        urllib.request.urlopen(f"{address}/info/health", timeout=HANG)
    assert capfd.readouterr().err == ""


def test_a_child_that_cannot_start_says_so(capfd):
    with pytest.raises(RuntimeError, match="did not start"):
        SandboxProcess("/no/such/folder").__enter__()
    assert "neither synthetic" in capfd.readouterr().err


def test_a_child_does_not_outlive_its_parent():
    script = (
        "from cortexclient.sandbox import SandboxProcess\n"
        "import os\n"
        "child = SandboxProcess('synthetic', nuclei=5, edits=2).__enter__()\n"
        "print(child.url, flush=True)\n"
        "os._exit(9)\n"
    )
    died = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=HANG, check=False)
    assert died.returncode == 9
    deadline = time.monotonic() + HANG
    while time.monotonic() < deadline:
        try:
            urllib.request.urlopen(f"{died.stdout.strip()}/info/health", timeout=HANG)
        except (urllib.error.URLError, ConnectionError):
            return
        time.sleep(0.05)
    pytest.fail("the child still answers though its parent died")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_program_prints_what_to_export_and_ends_on_a_signal(number):
    options = ["--world", "synthetic", "--nuclei", "5", "--edits", "2"]
    program = subprocess.Popen([*COMMAND, *options], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    with program:
        lines = [program.stdout.readline().strip() for _ in range(3)]
        program.send_signal(number)
        assert program.wait(HANG) == 0
        assert program.stderr.read() == ""
    address = lines[0]
    assert address.startswith("http://127.0.0.1:")
    assert lines[1] == f"export CORTEXCLIENT_SERVER={address}"
    assert lines[2].startswith("export CORTEXCLIENT_TOKEN=")


def test_url_prints_the_address_alone():
    options = ["--world", "synthetic", "--nuclei", "5", "--edits", "2", "--url"]
    with subprocess.Popen([*COMMAND, *options], stdout=subprocess.PIPE, text=True) as program:
        assert program.stdout.readline().startswith("http://127.0.0.1:")
        program.terminate()
        assert program.stdout.read() == ""


@pytest.mark.parametrize(("text", "value"), [("20ms", 0.02), ("1.5s", 1.5), ("2", 2.0), ("-3s", -3.0), ("50us", 5e-5)])
def test_durations(text, value):
    assert seconds(text) == pytest.approx(value)


@pytest.mark.parametrize(("text", "value"), [("10MB", 1e7), ("500kB/s", 5e5), ("100", 100.0), ("none", None)])
def test_bandwidths(text, value):
    assert bytes_per_second(text) == value


@pytest.mark.parametrize("text", ["fast", "20 minutes", "", "ms"])
def test_nonsense_is_refused(text):
    with pytest.raises(typer.BadParameter):
        seconds(text)
    with pytest.raises(typer.BadParameter):
        bytes_per_second(text)


def test_worlds_by_name(tmp_path: Path):
    made = make_world("synthetic", seed=1, nuclei=5, edits=2, dataset=None)
    made.save(tmp_path / "saved")
    assert make_world(str(tmp_path / "saved")).seed == 1
    with pytest.raises(typer.BadParameter):
        make_world(str(tmp_path))
    with pytest.raises(typer.BadParameter):
        make_world("toy")


def test_an_unknown_option_is_an_error():
    done = subprocess.run(
        [*COMMAND, "--faults", "nonsense:1%"], capture_output=True, text=True, timeout=HANG, check=False
    )
    assert done.returncode != 0
    assert "unknown fault" in done.stderr
    assert os.linesep not in done.stdout
