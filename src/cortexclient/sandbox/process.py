"""A sandbox in a process of its own: for benchmarks, where a server must not share the client's interpreter."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import threading
import urllib.request
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Self

from .address import Address
from .counters import Counts
from .faults import Faults

if TYPE_CHECKING:
    from ..datasets.spec import DatasetSpec
    from .world import World

READY: Final = "sandbox "
"""Begins the line on which the child tells where it is: ``sandbox {"url": ..., "token": ..., "spec": {...}}``."""
START_TIMEOUT: Final = 120.0
STOP_TIMEOUT: Final = 10.0


class SandboxProcess(Address):
    """``python -m cortexclient.sandbox`` as a child process, for the time of a ``with`` block.

    It ends with the block, and with this process, however that ends.

    Parameters
    ----------
    world
        As the command line's ``--world`` takes it (``default``, ``toy:FOLDER`` ...), or a world, which is saved to a
        temporary folder.
    options
        The command line's other options: ``latency="20ms", service_times=True, faults="503:2%"``.

    Examples
    --------
    >>> with SandboxProcess(latency="20ms") as sandbox, sandbox.env(), CortexClient("minnie_public") as client:
    ...     client.info.get_datastacks()
    ['minnie65_phase3_v1', 'minnie65_public']
    """

    def __init__(self, world: str | World = "default", **options: object) -> None:
        self._world = world
        self._options = options
        self._stack = ExitStack()
        self.pid = 0
        """Process id of the child, once it runs."""
        self._told: dict[str, Any] = {}

    @property
    def url(self) -> str:
        """``http://127.0.0.1:PORT``, once the child runs.

        Examples
        --------
        >>> sandbox.url
        'http://127.0.0.1:...'
        """
        return str(self._told["url"])

    @property
    def spec(self) -> DatasetSpec:
        """The dataset for a client of this package.

        Examples
        --------
        >>> sandbox.spec.datastack
        'minnie65_public'
        """
        from ..datasets.spec import DatasetSpec

        return DatasetSpec.from_json(self._told["spec"])

    @property
    def counters(self) -> RemoteCounters:
        """What the child has seen.

        Examples
        --------
        >>> sandbox.counters.snapshot().total.requests
        0
        """
        return RemoteCounters(self)

    @property
    def faults(self) -> Faults:
        """What goes wrong in the child; may be replaced at any time, also by text.

        Examples
        --------
        >>> sandbox.faults = Faults("503", times=1)
        >>> sandbox.faults.kinds
        '503'
        >>> sandbox.faults = ""
        """
        return Faults(**self.control("faults"))

    @faults.setter
    def faults(self, faults: str | Faults) -> None:
        new = Faults(faults) if isinstance(faults, str) else faults
        self.control("faults", new.settings())

    def expire_token(self, token: str | None = None) -> None:
        """From now on ``token`` (the sandbox's own by default) is answered with 401.

        Examples
        --------
        >>> with CortexClient(sandbox.spec, token=sandbox.issue_token()) as client:
        ...     sandbox.expire_token()
        ...     try:
        ...         client.info.get_datastacks()
        ...     except AuthError as error:
        ...         print(type(error).__name__)
        InvalidToken
        """
        self.control("token", {"expire": token or self.token})

    def issue_token(self) -> str:
        """A new token that may do everything; it becomes the sandbox's own.

        Examples
        --------
        >>> sandbox.issue_token() == sandbox.token
        True
        """
        self.token = str(self.control("token", {})["token"])
        return self.token

    def control(self, name: str, order: object = None) -> Any:
        """Talk to ``/sandbox/<name>``: GET, or POST of ``order`` as JSON.

        Examples
        --------
        >>> sorted(sandbox.control("counters"))
        ['routes', 'services', 'total']
        """
        data = None if order is None else json.dumps(order).encode()
        address = f"{self.url}/sandbox/{name}"
        with urllib.request.urlopen(address, data, timeout=STOP_TIMEOUT) as reply:  # noqa: S310 - our own child
            return json.load(reply)

    def __enter__(self) -> Self:
        try:
            self._start()
        except BaseException:
            self._stack.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._stack.close()

    def _start(self) -> None:
        world = self._world
        if not isinstance(world, str):
            folder = self._stack.enter_context(tempfile.TemporaryDirectory(prefix="sandbox-"))
            world.save(Path(folder))
            world = folder
        command = [sys.executable, "-m", "cortexclient.sandbox", "--world", world, "--child", *_flags(self._options)]
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)  # noqa: S603
        self._stack.callback(self._end, process)
        self.pid = process.pid
        self._told = json.loads(self._first_line(process))
        self.token = self._told["token"]

    def _first_line(self, process: subprocess.Popen[str]) -> str:
        """What the child says when it is ready. A child that stays mute too long is ended, which ends the wait."""
        watchdog = threading.Timer(START_TIMEOUT, process.kill)
        watchdog.start()
        try:
            line = process.stdout.readline() if process.stdout else ""
        finally:
            watchdog.cancel()
            watchdog.join()
        if not line.startswith(READY):
            raise RuntimeError(f"the sandbox did not start (exit status {process.wait()}): {line!r}; see its stderr")
        return line.removeprefix(READY)

    def _end(self, process: subprocess.Popen[str]) -> None:
        with process:
            process.terminate()
            try:
                process.wait(STOP_TIMEOUT)
            except subprocess.TimeoutExpired:
                process.kill()


class RemoteCounters:
    """The counters of a sandbox in another process."""

    def __init__(self, sandbox: SandboxProcess) -> None:
        self._sandbox = sandbox

    def snapshot(self) -> Counts:
        """All counts of this moment."""
        return Counts.from_json(self._sandbox.control("counters"))

    def reset(self) -> None:
        """Start again from zero."""
        self._sandbox.control("counters", {})


def _flags(options: dict[str, object]) -> list[str]:
    flags = []
    for name, value in options.items():
        option = f"--{name.replace('_', '-')}"
        if value is True:
            flags.append(option)
        elif value not in (None, False):
            flags += [option, str(value)]
    return flags
