"""What a row of the table is made of."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from operator import attrgetter
from typing import TYPE_CHECKING, Any

from cortexclient import AsyncCortexClient
from cortexclient.errors import CortexError

from .comparisons import same
from .facts import Facts

if TYPE_CHECKING:
    from .peers import Peers


@dataclass(frozen=True)
class Ask:
    """One variation: the arguments, spelled as this package does, and the version both clients are pinned to."""

    arguments: Mapping[str, Any]
    pin: int | None = None

    def __getitem__(self, name: str) -> Any:
        return self.arguments.get(name)

    def __or__(self, more: Mapping[str, Any]) -> Ask:
        return Ask({**self.arguments, **more}, self.pin)

    def __str__(self) -> str:
        pinned = "" if self.pin is None else f" at version {self.pin}"
        return ", ".join(f"{key}={short(value)}" for key, value in self.arguments.items()) + pinned


@contextmanager
def quiet() -> Iterator[None]:
    """What the peers warn of is not ours to mend."""
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(logging.NOTSET)


def short(value: Any) -> str:
    """How a failing variation names an argument."""
    if isinstance(value, datetime):
        return value.isoformat()
    text = repr(value.tolist() if hasattr(value, "tolist") else value)
    return text if len(text) < 200 else f"{text[:150]} ... ({len(value)} of them)"


def ask(pin: int | None = None, **arguments: Any) -> Ask:
    return Ask(arguments, pin)


class Raises:
    """A truth: this package raises that error."""

    def __init__(self, kind: type[CortexError]) -> None:
        self.kind = kind


@dataclass(frozen=True)
class Defect:
    """Why a peer may differ or fail where this package answers; then the answer is held against the world's truth."""

    reason: str
    when: Callable[[Facts, Ask], Any]


Ours = Callable[[AsyncCortexClient, Ask], Any]
Theirs = Callable[["Peers", Ask], Any]
Truth = Callable[[Facts, Ask], Any]


@dataclass(frozen=True)
class Row:
    """One public method and how it is judged.

    Parameters
    ----------
    name
        Dotted, from the client: ``chunkedgraph.get_roots``.
    variations
        What to ask of a world.
    theirs, ours
        How to ask; by default the method (or property) of that name with those arguments.
    same
        Raises if two answers differ; see `comparisons`.
    known_defects
        The first whose ``when`` holds excuses the peer, and binds this package to ``truth``.
    truth
        The answer as it follows from the world's raw facts, or `Raises`; NotImplemented where it is not worked out.
    """

    name: str
    variations: Callable[[Facts], Iterable[Ask]]
    theirs: Theirs | None = None
    ours: Ours | None = None
    same: Callable[[Any, Any], None] = same
    known_defects: tuple[Defect, ...] = field(default=())
    truth: Truth | None = None

    def __post_init__(self) -> None:
        if self.known_defects and self.truth is None:
            raise ValueError(f"{self.name}: a defect of the peer is no excuse without the truth")

    def __str__(self) -> str:
        return self.name

    async def ask_ours(self, client: AsyncCortexClient, asked: Ask) -> Any:
        client = client if asked.pin is None else client.at(version=asked.pin)
        if self.ours:
            return await self.ours(client, asked)
        return await attrgetter(self.name)(client)(**asked.arguments)

    def ask_theirs(self, peers: Peers, asked: Ask) -> Any:
        with quiet():
            if self.theirs:
                return self.theirs(peers, asked)
            found = attrgetter(self.name)(peers.cave(asked.pin))
            return found(**asked.arguments) if callable(found) else found

    def excuse(self, facts: Facts, asked: Ask) -> Defect | None:
        return next((defect for defect in self.known_defects if defect.when(facts, asked)), None)


def once(_: Facts) -> list[Ask]:
    """The variations of what takes no arguments."""
    return [ask()]
