"""Cells as meshparty Meshworks: skeletons, and what is known about their synapses and chunks, from few requests."""

from ._cells import Morphology
from ._parts import Parts

__all__ = ["Morphology", "Parts"]
