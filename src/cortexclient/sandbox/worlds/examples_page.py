"""The ids that the examples of the documentation use, and the small world that is served by default and holds them.

The ids are those of real minnie65 objects; what they stand for here (positions, edits, which root belongs to which
cell) is synthetic.
"""

from __future__ import annotations

from typing import Final

from ..world import World
from .synthetic import Recipe, synthesize

ROOTS: Final = (864691134885645050, 864691135440543560, 864691135157210468)
"""Each of another cell: a current root, one that was current at an older version, and one that lived between two
versions only."""

CELLS: Final = (264898, 262893, 260746, 256505, 304873, 309263, 292878, 365890, 230644, 518853)

VERSIONS: Final = (117, 343, 661, 943, 1300, 1412, 1440, 1462, 1484)
"""Of these 117, 661, 1412 and 1484 can be queried, the others are expired."""


def default_world() -> World:
    """About 2,000 cells and 5,000 edits over five years, made in a fraction of a second."""
    world = synthesize(
        Recipe(seed=65, version_numbers=VERSIONS, versions=4, expired=len(VERSIONS) - 4, cells=CELLS, roots=ROOTS)
    )
    world.notes["examples"] = (
        "roots and cells of the examples page have their real ids, all else about them is synthetic"
    )
    return world
