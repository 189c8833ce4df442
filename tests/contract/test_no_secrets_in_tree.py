"""Nothing in the tree is a secret, or knows the machine it was written on."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

SECRETS = {
    "a CAVE token": rb"(?i)token\W{1,5}(?!0123456789abcdef|(.)\1{5})[0-9a-f]{32}\b",
    "a private key": rb"-----BEGIN [A-Z ]*PRIVATE KEY",
    "a cloud key": rb"\b(?:AKIA|ASIA)[0-9A-Z]{16}\b|\bAIza[0-9A-Za-z_-]{35}\b",
    "a forge's token": rb"\bgh[pousr]_[0-9A-Za-z]{36}\b|\bgithub_pat_\w{40,}",
    "a service account": rb'"private_key_id" *:',
    "somebody's home": rb"/(?:home|Users)/(?!you\b|me\b)[a-z]\w*/",
    "the folder of this checkout": re.escape(str(ROOT).encode()) + rb"/",
}


@pytest.fixture(scope="module")
def files() -> dict[str, bytes]:
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=False)
    if listed.returncode:
        pytest.skip("not a git checkout: which files belong to the project is not known")
    paths = [ROOT / name for name in listed.stdout.decode().split("\0") if name]
    return {str(path.relative_to(ROOT)): path.read_bytes() for path in paths if path.is_file()}


@pytest.mark.parametrize("kind", SECRETS)
def test_no_file_holds(kind: str, files: dict[str, bytes]) -> None:
    found = {name: match[0] for name, body in files.items() if (match := re.search(SECRETS[kind], body))}
    assert found == {}


def test_the_patterns_find_what_they_are_for() -> None:
    examples = {
        "a CAVE token": b'{"token": "' + b"0badc0de" * 4 + b'"}',
        "a private key": b"-----BEGIN RSA " + b"PRIVATE KEY-----",
        "a cloud key": b"AKIA" + b"ABCDEFGHIJKLMNOP",
        "a forge's token": b"ghp_" + b"a" * 36,
        "a service account": b'{"private_key_id"' + b": 1}",
        "somebody's home": b"/home" + b"/alice/data",
    }
    for kind, example in examples.items():
        assert re.search(SECRETS[kind], example), kind


def test_no_file_is_large(files: dict[str, bytes]) -> None:
    assert {name: len(body) for name, body in files.items() if len(body) > 1_000_000} == {}
