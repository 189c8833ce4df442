"""What the state server keeps: JSON documents by number."""

from __future__ import annotations

from typing import Final

FIRST: Final = 4_500_000_000_000_001
"""The first number that is given away; real ones have 16 digits too."""


class States:
    """Neuroglancer states and segment properties, as they were sent."""

    def __init__(self) -> None:
        self._documents: dict[tuple[str, int], bytes] = {}

    def put(self, kind: str, document: bytes, number: int | None = None) -> int:
        """Keep a document under a number, a fresh one if none is given."""
        number = FIRST + len(self._documents) if number is None else number
        self._documents[kind, number] = document
        return number

    def get(self, kind: str, number: int) -> bytes | None:
        """The document of a number, if there is one."""
        return self._documents.get((kind, number))
