"""The sandbox: a local CAVE server, for learning, tests and benchmarks without a token or a network."""

from __future__ import annotations

from .calls import Call, Reply, Route, RouteTable
from .counters import Counts, Tally
from .faults import Faults
from .limits import RateLimits
from .process import SandboxProcess
from .server import Sandbox
from .weather import Weather
from .world import Datastack, World

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
