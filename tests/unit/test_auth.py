"""Where tokens are found, and that they are shown to nobody else."""

from __future__ import annotations

import copy
import json
import pickle
from pathlib import Path

import pytest

from cortexclient._transport.auth import Token, TokenSource, auth_status, origin_of, save_token, secret_path
from cortexclient.errors import CortexUsageError, MissingToken

SERVER = "https://global.example.org"
MARKER = "marker0123456789"


def save(home: Path, name: str, content: object) -> Path:
    path = home / ".cloudvolume" / "secrets" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


def found(source: TokenSource, server: str = SERVER) -> tuple[str, str]:
    token = source.find(server)
    assert token is not None
    return token.value, token.source


def test_nothing_anywhere_is_no_token() -> None:
    assert TokenSource().find(SERVER) is None
    assert TokenSource().describe(SERVER) == "nowhere"


def test_the_argument_comes_first_then_the_environment_then_the_files(
    scratch_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = save(scratch_home, "chunkedgraph-secret.json", {"token": "old"})
    assert found(TokenSource()) == ("old", str(old))
    common = save(scratch_home, "cave-secret.json", {"token": "common"})
    assert found(TokenSource()) == ("common", str(common))
    own = save(scratch_home, "global.example.org-cave-secret.json", {"token": "own"})
    assert found(TokenSource()) == ("own", str(own))
    assert found(TokenSource(), "https://other.example.org") == ("common", str(common))
    monkeypatch.setenv("CORTEXCLIENT_TOKEN", " fromenv\n")
    assert found(TokenSource()) == ("fromenv", "environment CORTEXCLIENT_TOKEN")
    assert found(TokenSource("given")) == ("given", "token=")


def test_a_port_is_part_of_the_files_name(scratch_home: Path) -> None:
    save(scratch_home, "127.0.0.1:8000-cave-secret.json", {"token": "local"})
    assert found(TokenSource(), "http://127.0.0.1:8000")[0] == "local"


def test_a_file_without_a_token_is_passed_over(scratch_home: Path) -> None:
    save(scratch_home, "global.example.org-cave-secret.json", {"other": "x"})
    save(scratch_home, "cave-secret.json", {"token": "common"})
    assert found(TokenSource())[0] == "common"


def test_a_broken_file_is_named_and_not_quoted(scratch_home: Path) -> None:
    path = save(scratch_home, "cave-secret.json", f'{{"token": "{MARKER}"')
    with pytest.raises(MissingToken) as caught:
        TokenSource().find(SERVER)
    assert str(path) in str(caught.value)
    assert MARKER not in f"{caught.value!r} {caught.value.__cause__!r}"


def test_the_search_happens_at_the_first_question_and_once(scratch_home: Path) -> None:
    source = TokenSource()
    path = save(scratch_home, "cave-secret.json", {"token": "first"})
    assert found(source)[0] == "first"
    path.write_text('{"token": "second"}')
    assert found(source)[0] == "first"
    source.forget()
    assert found(source)[0] == "second"


@pytest.mark.parametrize("bad", ["", "a b", "a\nb", "a\r\nX-Evil: 1", "ä", "\x00"])
def test_a_token_that_would_break_a_header_is_refused_unseen(bad: str) -> None:
    with pytest.raises(CortexUsageError) as caught:
        TokenSource(bad)
    assert not bad or bad not in str(caught.value)


def test_no_text_form_shows_the_token() -> None:
    token, source = Token(MARKER, "token="), TokenSource(MARKER)
    for thing in (token, source, [token], {"t": source}):
        assert MARKER not in f"{thing} {thing!r}"
        assert MARKER not in f"{thing!s}"


def test_pickling_drops_a_given_token_and_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    data = pickle.dumps(TokenSource(MARKER))
    assert MARKER.encode() not in data
    there = pickle.loads(data)
    assert there.find(SERVER) is None
    assert "does not travel" in there.describe(SERVER)
    assert "does not travel" in pickle.loads(pickle.dumps(there)).describe(SERVER)
    monkeypatch.setenv("CORTEXCLIENT_TOKEN", "workers-own")
    there.forget()
    assert found(there)[0] == "workers-own"


def test_a_token_itself_cannot_be_pickled_or_copied() -> None:
    token = Token(MARKER, "token=")
    for attempt in (pickle.dumps, copy.copy, copy.deepcopy):
        with pytest.raises(TypeError, match="never pickled"):
            attempt(token)


@pytest.mark.parametrize(
    ("url", "origin"),
    [
        ("https://A.org", "https://a.org"),
        ("https://a.org:443/x/y?z", "https://a.org"),
        ("http://a.org:80/", "http://a.org"),
        ("http://a.org:443", "http://a.org:443"),
        ("http://127.0.0.1:8000/path", "http://127.0.0.1:8000"),
        ("HTTPS://a.org@evil.org/", "https://a.org@evil.org"),
    ],
)
def test_origins_have_one_spelling(url: str, origin: str) -> None:
    assert origin_of(url) == origin


@pytest.mark.parametrize("url", ["a.org", "a.org:80", "", "/path"])
def test_an_address_needs_a_scheme(url: str) -> None:
    with pytest.raises(CortexUsageError):
        origin_of(url)


# -- saving ------------------------------------------------------------------------------------------------------------


def test_a_saved_token_is_found_by_us_and_by_caveclient(scratch_home: Path) -> None:
    path = save_token(f" {MARKER}\n", SERVER)
    assert path == scratch_home / ".cloudvolume" / "secrets" / "global.example.org-cave-secret.json"
    assert path.stat().st_mode & 0o777 == 0o600
    assert json.loads(path.read_text()) == {"token": MARKER}
    assert found(TokenSource()) == (MARKER, str(path))
    auth = pytest.importorskip("caveclient.auth", reason="caveclient is not installed")
    assert auth.server_token_filename(SERVER) == str(path)


def test_another_token_is_not_lost(scratch_home: Path) -> None:
    path = save(scratch_home, "global.example.org-cave-secret.json", {"token": "old", "api_key": "kept"})
    with pytest.raises(CortexUsageError, match="overwrite") as caught:
        save_token(MARKER, SERVER)
    assert "old" not in str(caught.value).split()
    assert found(TokenSource())[0] == "old"
    save_token(MARKER, SERVER, overwrite=True)
    assert json.loads(path.read_text()) == {"token": MARKER, "api_key": "kept"}
    save_token(MARKER, SERVER)
    assert [file.name for file in path.parent.iterdir()] == [path.name]


@pytest.mark.parametrize("token", ["", "  ", "two words", "tab\tbed", "nötig"])
def test_what_is_no_token_is_not_saved(scratch_home: Path, token: str) -> None:
    with pytest.raises(CortexUsageError):
        save_token(token, SERVER)
    assert not secret_path(SERVER).exists()


def test_a_broken_file_is_told_and_kept(scratch_home: Path) -> None:
    path = save(scratch_home, "global.example.org-cave-secret.json", f"{{{MARKER}")
    with pytest.raises(MissingToken) as caught:
        save_token("new", SERVER, overwrite=True)
    assert MARKER not in str(caught.value)
    assert path.read_text() == f"{{{MARKER}"


def test_the_status_says_where_and_never_what(scratch_home: Path) -> None:
    status = auth_status(SERVER)
    assert (status.found, status.source) == (False, "nowhere")
    assert status.page == "https://global.example.org/sticky_auth/settings/tokens"
    path = save_token(MARKER, SERVER)
    status = auth_status(SERVER)
    assert (status.found, status.source, status.path) == (True, str(path), path)
    assert MARKER not in repr(status)
