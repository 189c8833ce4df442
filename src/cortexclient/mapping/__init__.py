"""Which cell is this root, and which root is that cell now? The translation between root ids and cell ids."""

from ._building import IndexBuilder
from ._index import CellIndex
from ._mapper import IdMapper

__all__ = ["CellIndex", "IdMapper", "IndexBuilder"]
