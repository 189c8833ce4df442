"""The sandbox: a local CAVE server, for learning, tests and benchmarks without a token or a network."""

from __future__ import annotations

from ..errors import MissingDependency
from .calls import Call, Reply, Route, RouteTable
from .counters import Counts, Tally
from .faults import Faults
from .limits import RateLimits
from .process import SandboxProcess
from .weather import Weather
from .world import Datastack, World

try:
    from .server import Sandbox
except ModuleNotFoundError as error:
    raise MissingDependency(str(error.name), "sandbox", "the sandbox") from error

__all__ = [
    "Call",
    "Counts",
    "Datastack",
    "Faults",
    "RateLimits",
    "Reply",
    "Route",
    "RouteTable",
    "Sandbox",
    "SandboxProcess",
    "Tally",
    "Weather",
    "World",
]
