"""Meshworks of small cells in worlds of other shapes, held against pcg_skel, and built again while things go wrong."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from typing import Any

import anyio.to_thread
import numpy as np
import pytest

from cortexclient.config import RetryPolicy
from cortexclient.sandbox import Faults, Sandbox, World
from cortexclient.sandbox.graph import NEVER

from .conftest import client_of
from .meshworks import assert_same_meshwork, by_pcg_skel

pytest.importorskip("meshparty")
pytest.importorskip("pcg_skel")
pytestmark = pytest.mark.filterwarnings(
    *(f"ignore::{kind}Warning" for kind in ("Deprecation", "Future", "User", "Runtime"))
)

WORLDS: dict[str, tuple[Callable[[], World], bool]] = {
    "v1dd": (lambda: World.synthesize(2, nuclei=120, edits=150, dataset="v1dd", versions=3, expired=1), False),
    "edited": (lambda: World.synthesize(1, nuclei=40, edits=400, backups=16, versions=5, expired=2), True),
}
"""And whether their servers have the real ones' defects."""
PARTS: tuple[dict[str, Any], ...] = (
    {"synapses": True},
    {"restore_graph": True},
    {"synapses": True, "restore_graph": True, "restore_properties": True},
)
PATIENT = RetryPolicy(attempts=30, server_error_attempts=2, deadline=30, base=0.002, cap=0.01, max_retry_after=1)
EACH = 3
"""Cells of each kind."""


@pytest.fixture(scope="module", params=WORLDS)
def sandbox(request: pytest.FixtureRequest) -> Iterator[Sandbox]:
    make, strict = WORLDS[request.param]
    with Sandbox(make(), strict=strict) as sandbox:
        yield sandbox


@pytest.fixture
def cells(sandbox: Sandbox) -> list[int]:
    """Some current and some retired cells of several chunks (pcg_skel fails for those of one)."""
    graph = sandbox.world.graph
    roots = graph.root_ids()
    _, owner = graph.leaves_of(roots, 2)
    roots = roots[np.bincount(owner, minlength=len(roots)) > 5]
    current = graph.retired(roots) == NEVER
    return [*roots[current][:EACH].tolist(), *roots[~current][:EACH].tolist()]


@functools.cache
def theirs(sandbox: Sandbox, root: int, number: int) -> Any:
    """Once for both flavours."""
    return by_pcg_skel(sandbox, root, **PARTS[number])


@pytest.mark.parametrize("number", range(len(PARTS)))
async def test_the_same_meshworks_as_pcg_skel_builds(
    flavour: str, sandbox: Sandbox, cells: list[int], number: int
) -> None:
    async with client_of(flavour, sandbox) as client:
        ours = await client.get_skeletons(cells, **PARTS[number])
    assert list(ours) == cells
    for root in cells[number % 2 :: 2]:  # both kinds in turn
        assert_same_meshwork(ours[root], await anyio.to_thread.run_sync(theirs, sandbox, root, number))


@pytest.mark.parametrize("kind", ["503:10%,reset-body:10%,429-retry-after:5%", "short:15%"])
async def test_meshworks_are_those_of_a_calm_day(flavour: str, sandbox: Sandbox, cells: list[int], kind: str) -> None:
    async with client_of(flavour, sandbox) as client:
        calm = await client.get_skeletons(cells, **PARTS[-1])
    sandbox.faults = faults = Faults(kind, retry_after=0.01, seed=7)
    try:
        async with client_of(flavour, sandbox, retry=PATIENT) as client:
            found = await client.get_skeletons(cells, **PARTS[-1])
    finally:
        sandbox.faults = Faults()
    assert faults.dealt
    for root, neuron in found.items():
        assert_same_meshwork(neuron, calm[root])
    if not kind.startswith("short"):  # (nothing on the wire shows that a body is short: some cells may be lost)
        assert list(found) == cells
