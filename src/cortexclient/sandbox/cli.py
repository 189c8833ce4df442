"""``cortexclient sandbox``: the options of the command line."""

from __future__ import annotations

import json
import os
import re
import signal
import sys
import threading
from pathlib import Path
from types import FrameType
from typing import Annotated

import typer

from .faults import Faults
from .process import READY
from .server import Sandbox
from .world import World

_UNITS = {"us": 1e-6, "ms": 1e-3, "s": 1.0, "": 1.0}


def seconds(text: str) -> float:
    """``20ms``, ``1.5s``, ``-2s`` or a bare number of seconds.

    Raises
    ------
    typer.BadParameter
        Anything else.
    """
    found = re.fullmatch(r"(-?\d+(?:\.\d+)?)\s*(us|ms|s|)", text.strip())
    if found is None:
        raise typer.BadParameter(f"{text!r} is no duration; write 20ms or 1.5s")
    return float(found[1]) * _UNITS[found[2]]


def bytes_per_second(text: str) -> float | None:
    """``10MB`` (per second), ``500kB``, or a bare number of bytes; ``none``: no limit.

    Raises
    ------
    typer.BadParameter
        Anything else.
    """
    if text == "none":
        return None
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*(k|M|G|)B?(?:/s)?", text.strip())
    if found is None or float(found[1]) == 0:
        raise typer.BadParameter(f"{text!r} is no bandwidth; write 10MB or 500kB")
    return float(found[1]) * {"": 1, "k": 1e3, "M": 1e6, "G": 1e9}[found[2]]


def make_world(source: str, *, seed: int | None = None, **recipe: int | str | None) -> World:
    """The world that ``--world`` names.

    ``recipe`` shapes a synthetic one (see `cortexclient.sandbox.worlds.synthetic.Recipe`); None is left to its default.
    """
    kind, _, folder = source.partition(":")
    if kind == "synthetic":
        return World.synthesize(seed or 0, **{name: value for name, value in recipe.items() if value is not None})
    if kind == "minnie65" and folder:
        return World.from_minnie65(folder, seed or 0)
    if kind == "default":
        return World.default()
    if kind == "toy" and folder:
        return World.from_toy(folder)
    if (Path(source) / "world.json").is_file():
        return World.load(source)
    raise typer.BadParameter(f"{source!r} is neither synthetic, default, toy:FOLDER, minnie65:FOLDER nor a saved world")


def sandbox(
    *,
    world: Annotated[
        str, typer.Option(help="synthetic, default, toy:DATA, minnie65:DATA, or a folder that World.save wrote.")
    ] = "default",
    strict: Annotated[bool, typer.Option("--strict", help="Reproduce the real servers' defects too.")] = False,
    port: Annotated[int, typer.Option(help="0: a free one.")] = 0,
    latency: Annotated[str, typer.Option(metavar="TIME", help="Round trip: 20ms, 1s.")] = "0",
    bandwidth: Annotated[str, typer.Option(metavar="BYTES", help="Per second, of all answers: 10MB.")] = "none",
    service_times: Annotated[
        bool, typer.Option("--service-times", help="Take as long as the real services would.")
    ] = False,
    limits: Annotated[str, typer.Option(help="none, charts, or charts-retry-after.")] = "none",
    workers: Annotated[int, typer.Option(help="Requests that one service works on at once.")] = 16,
    faults: Annotated[str, typer.Option(metavar="KINDS", help="503:2%,reset:1%,429:3%,truncated:1%,slow:1%.")] = "",
    clock_skew: Annotated[str, typer.Option(metavar="TIME", help="By which the server's clock is ahead.")] = "0",
    seed: Annotated[int | None, typer.Option(help="Of a synthetic world, and of the faults.")] = None,
    nuclei: Annotated[int | None, typer.Option(help="Cells of a synthetic world.")] = None,
    edits: Annotated[int | None, typer.Option(help="Merges and splits in a synthetic world.")] = None,
    synapses: Annotated[int | None, typer.Option(help="Synapses of a synthetic world.")] = None,
    dataset: Annotated[str | None, typer.Option(help="What a synthetic world imitates: minnie65 or v1dd.")] = None,
    url: Annotated[bool, typer.Option("--url", help="Print the address and nothing else.")] = False,
    child: Annotated[bool, typer.Option("--child", hidden=True)] = False,
) -> None:
    """Run a local CAVE server until stopped (Ctrl-C)."""
    try:
        serving = Sandbox(
            make_world(world, seed=seed, nuclei=nuclei, edits=edits, synapses=synapses, dataset=dataset),
            strict=strict,
            port=port,
            latency=seconds(latency),
            bandwidth=bytes_per_second(bandwidth),
            service_times=service_times,
            limits=limits,
            workers=workers,
            faults=Faults(faults, seed=seed or 0),
            clock_skew=seconds(clock_skew),
        )
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error
    stop = _stop_signal(follow_stdin=child)
    with serving:
        typer.echo(_greeting(serving, url_only=url, child=child))
        sys.stdout.flush()
        while not stop.wait(1.0):
            pass


def _greeting(serving: Sandbox, *, url_only: bool, child: bool) -> str:
    if child:
        return READY + json.dumps({"url": serving.url, "token": serving.token, "spec": serving.spec.to_json()})
    if url_only:
        return serving.url
    return f"{serving.url}\nexport CORTEXCLIENT_SERVER={serving.url}\nexport CORTEXCLIENT_TOKEN={serving.token}"


def _stop_signal(*, follow_stdin: bool) -> threading.Event:
    """Set by SIGINT and SIGTERM; for a child process also by the end of its parent, which closes its stdin."""
    stop = threading.Event()

    def on_signal(number: int, frame: FrameType | None) -> None:  # noqa: ARG001 - as the signal module calls it
        stop.set()

    signal.signal(signal.SIGINT, on_signal)
    signal.signal(signal.SIGTERM, on_signal)
    if follow_stdin:
        threading.Thread(target=_set_at_end_of_input, args=(stop,), daemon=True).start()
    return stop


def _set_at_end_of_input(stop: threading.Event) -> None:
    # read without Python's buffer: its lock, held for ever, would end the interpreter with a fatal error
    while os.read(sys.stdin.fileno(), 4096):
        pass
    stop.set()
