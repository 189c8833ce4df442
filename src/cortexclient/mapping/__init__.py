"""Which cell is this root, and which root is that cell now? The translation between root ids and cell ids."""

from ._mapper import IdMapper

__all__ = ["IdMapper"]
