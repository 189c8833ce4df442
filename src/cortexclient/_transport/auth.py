"""Where tokens come from, and whom they may be shown to."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from ..errors import CortexUsageError, MissingToken

TOKEN_VARIABLE = "CORTEXCLIENT_TOKEN"  # noqa: S105 (the name of a variable, not a token)
DEFAULT_PORTS = {"http": ":80", "https": ":443"}


def origin_of(url: str) -> str:
    """``scheme://host[:port]`` in one spelling, so that two origins can be compared as text."""
    parts = urlsplit(url)
    if not parts.scheme or not parts.netloc:
        raise CortexUsageError(f"{url!r} is no server address: it needs a scheme, like https://{url}")
    scheme = parts.scheme.lower()
    return f"{scheme}://{parts.netloc.lower().removesuffix(DEFAULT_PORTS.get(scheme, ' '))}"


@dataclass(frozen=True, slots=True, repr=False)
class Token:
    """A secret and where it was found. Shows only the latter, and refuses to be pickled."""

    value: str
    source: str

    def __post_init__(self) -> None:
        if not self.value.isascii() or not self.value.isprintable() or " " in self.value or not self.value:
            raise CortexUsageError(f"the token from {self.source} is empty or holds blanks or control characters")

    def __repr__(self) -> str:
        return f"<token from {self.source}>"

    def __reduce__(self) -> Any:
        raise TypeError("a token is never pickled: it is looked up again where it is needed")


class TokenSource:
    """Finds the token for a server: the argument, else the environment, else CAVE's secret files.

    The files are the ones that caveclient writes: ``~/.cloudvolume/secrets/<host>-cave-secret.json``,
    ``cave-secret.json``, ``chunkedgraph-secret.json``; each holds ``{"token": "..."}``. They are read at the first
    request to a server, not before.

    Pickling drops a token that was given as an argument, so that none travels to disk or over a network: the worker
    looks it up again, in its own environment and files.
    """

    def __init__(self, token: str | None = None) -> None:
        self._given = None if token is None else Token(token, "token=")
        self._dropped = False
        self._found: dict[str, Token | None] = {}

    def find(self, server: str) -> Token | None:
        """The token for ``server`` (the datastack's global server, whose name the secret files carry)."""
        if self._given is not None:
            return self._given
        if server not in self._found:
            self._found[server] = next(_candidates(server), None)
        return self._found[server]

    def forget(self) -> None:
        """Look again next time: the server refused what was found, and the user may save a new one."""
        self._found.clear()

    def describe(self, server: str) -> str:
        """Where the token for ``server`` came from, for messages."""
        token = self.find(server)
        if token is not None:
            return token.source
        if self._dropped:
            return "nowhere (the one given as token= does not travel between processes)"
        return "nowhere"

    def __repr__(self) -> str:
        return f"TokenSource({'token=...' if self._given else 'looked up'})"

    def __getstate__(self) -> dict[str, bool]:
        return {"dropped": self._dropped or self._given is not None}

    def __setstate__(self, state: dict[str, bool]) -> None:
        self._given = None
        self._dropped = state["dropped"]
        self._found = {}


@dataclass(frozen=True, slots=True)
class AuthStatus:
    """Where the token for a server is found."""

    server: str
    found: bool
    source: str
    """Where, in words; never the token."""
    path: Path
    """Where `save_token` puts it."""
    page: str
    """Where a person makes one."""


def auth_status(server: str) -> AuthStatus:
    """Look for the token of ``server``; nothing is sent."""
    tokens = TokenSource()
    return AuthStatus(
        server, tokens.find(server) is not None, tokens.describe(server), secret_path(server), token_page(server)
    )


def token_page(server: str) -> str:
    """Address of the page on which a person makes a token for ``server``."""
    return f"{origin_of(server)}/sticky_auth/settings/tokens"


def secret_path(server: str) -> Path:
    """The file of the token for ``server``: its host's own, as caveclient names it."""
    return _secrets() / f"{urlsplit(origin_of(server)).netloc}-cave-secret.json"


def save_token(token: str, server: str, *, overwrite: bool = False) -> Path:
    """Write a token where this package and caveclient look for it.

    Parameters
    ----------
    token
        The token.
    server
        The global server that it is for.
    overwrite
        Replace another token that is there.

    Returns
    -------
    Path
        The file, readable by its owner alone. What else it holds is kept.

    Raises
    ------
    CortexUsageError
        If there is another token and ``overwrite`` is False, or this is none.
    """
    value, path = Token(token.strip(), "save_token").value, secret_path(server)
    if _read_secret(path) not in ("", value) and not overwrite:
        raise CortexUsageError(f"{path} holds another token: pass overwrite to replace it")
    secret = json.loads(path.read_text()) if path.exists() else {}
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    draft = path.with_name(f"{path.name}.{os.getpid()}")
    with open(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:  # noqa: PTH123 (its mode)
        json.dump({**secret, "token": value}, file)
    draft.replace(path)
    return path


def _secrets() -> Path:
    return Path.home() / ".cloudvolume" / "secrets"


def _candidates(server: str) -> Iterator[Token]:
    if value := os.environ.get(TOKEN_VARIABLE, "").strip():
        yield Token(value, f"environment {TOKEN_VARIABLE}")
    host = urlsplit(server).netloc
    for name in (f"{host}-cave-secret.json", "cave-secret.json", "chunkedgraph-secret.json"):
        if value := _read_secret(_secrets() / name):
            yield Token(value, str(_secrets() / name))


def _read_secret(path: Path) -> str:
    try:
        secret = json.loads(path.read_text())
    except FileNotFoundError:
        return ""
    except (OSError, ValueError):
        # not "from": the decoder's error quotes the file, which may hold a token
        raise MissingToken(f'{path} cannot be read as {{"token": "..."}}: mend or remove it') from None
    value = secret.get("token") if isinstance(secret, dict) else None
    return value.strip() if isinstance(value, str) else ""
