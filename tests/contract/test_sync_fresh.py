"""The blocking twin is what the generator writes, and the generator refuses what it does not understand."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[2]
TOOL = ROOT / "tools" / "make_sync.py"

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("ruff") is None, reason="needs ruff, which formats what is generated; tox -e lint has it"
)


@pytest.fixture
def tool(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The generator, for a package in a scratch folder that holds nothing but ``_client.py``."""
    spec = importlib.util.spec_from_file_location("make_sync", TOOL)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "make_sync", module)
    spec.loader.exec_module(module)
    monkeypatch.setattr(module, "SOURCE", tmp_path)
    monkeypatch.setattr(module, "TARGET", tmp_path / "cortexclient" / "_sync")
    (tmp_path / "cortexclient").mkdir()
    return module


def write(tool: ModuleType, body: str, head: str = "") -> dict[str, str]:
    """Generate from a client with these members."""
    lines = "\n".join(f"    {line}" for line in body.strip().splitlines())
    text = f"from __future__ import annotations\n{head}\nclass AsyncCortexClient:\n    '''Doc.'''\n{lines}\n"
    (tool.SOURCE / "cortexclient" / "_client.py").write_text(text)
    files: dict[str, str] = tool.Writer().files()
    return files


def test_it_is_fresh() -> None:
    done = subprocess.run([sys.executable, str(TOOL), "--check"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_check_sees_every_difference(tool: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    write(tool, "def spec(self) -> str: ...")
    assert tool.main([]) == 0
    assert tool.main(["--check"]) == 0
    client = tool.TARGET / "client.py"
    client.write_text(client.read_text() + "\n")
    (tool.TARGET / "left_over.py").write_text("")
    (tool.TARGET / "__init__.py").unlink()
    capsys.readouterr()
    assert tool.main(["--check"]) == 1
    assert [Path(line.split()[0]).name for line in capsys.readouterr().out.splitlines()] == [
        "__init__.py",
        "client.py",
        "left_over.py",
    ]
    assert tool.main([]) == 0
    assert tool.main(["--check"]) == 0


def test_what_each_kind_of_member_becomes(tool: ModuleType) -> None:
    head = """
from .results import Stream
class AsyncThing:
    '''A thing.'''
    async def look(self, a: int, /, b: str = 'x', *r: int, c: float = 0.5, **m: int) -> int:
        '''See ``await AsyncThing.look``.

        An await in prose stays.

        Examples
        --------
        >>> async with AsyncCortexClient("x") as client:
        ...     await client.thing.look(1)
        '''
"""
    body = """
@property
def thing(self) -> AsyncThing: ...
@staticmethod
def now() -> float: ...
def at(self, version: int) -> Self: ...
def stream_all(self, n: int) -> Stream[int]: ...
async def aclose(self) -> None: ...
def __len__(self) -> int: ...
async def _hidden(self) -> None: ...
@internal
async def hidden_too(self, call: Awaitable[int]) -> None: ...
"""
    text = write(tool, body, head)["client.py"]
    assert 'def look(self, a: int, /, b: str = "x", *r: int, c: float = 0.5, **m: int) -> int:' in text
    assert "return _portal.run(self._inner.look, a, b, *r, c=c, **m)" in text
    assert "See ``Thing.look``." in text
    assert "An await in prose stays." in text
    assert '>>> with CortexClient("x") as client:\n        ...     client.thing.look(1)' in text
    assert "def thing(self) -> Thing:\n        return Thing._of(lambda: self._inner.thing)" in text
    assert "return AsyncCortexClient.now()" in text
    assert "return type(self)._of(lambda: self._inner.at(version))" in text
    assert "-> SyncStream[int]:\n        return SyncStream(self._inner.stream_all(n), self)" in text
    assert "def __len__(self) -> int:\n        return self._inner.__len__()" in text
    assert "aclose" not in text
    assert "hidden" not in text


@pytest.mark.parametrize(
    ("body", "why"),
    [
        ("@overload\ndef f(self) -> int: ...", "decorators of f"),
        ("@classmethod\ndef f(cls) -> int: ...", "decorators of f"),
        ("@f.setter\ndef f(self, value: int) -> None: ...", "decorators of f"),
        ("async def f(self) -> Self: ...", "Self in the signature of f"),
        ("async def f(self) -> AsyncIterator[int]: ...", "AsyncIterator in the signature of f"),
        ("async def f(self) -> Stream[int]: ...", "Stream in the signature of f"),
        ("def f(self) -> list[Stream[int]]: ...", "Stream in the signature of f"),
        ("def f(self) -> dict[str, AsyncCortexClient]: ...", "AsyncCortexClient in the signature of f"),
        ("async def f(self, other: AsyncCortexClient) -> int: ...", "AsyncCortexClient in the signature of f"),
        ("def f(self): ...", "f lacks a hint"),
        ("async def f(self, a) -> int: ...", "f lacks a hint"),
        ("x: int = 1", "x is public"),
        ("def __eq__(self, other: object) -> bool: ...", "no rule for __eq__"),
    ],
)
def test_it_refuses_what_it_does_not_understand(tool: ModuleType, body: str, why: str) -> None:
    with pytest.raises(SystemExit, match=why) as caught:
        write(tool, body)
    place = str(caught.value).split(": ")[0]
    assert place.startswith(str(tool.SOURCE / "cortexclient" / "_client.py:"))


def test_it_refuses_a_name_with_two_meanings(tool: ModuleType) -> None:
    (tool.SOURCE / "cortexclient" / "other.py").write_text(
        "from datetime import time as When\nclass Base:\n    '''B.'''\n    async def g(self, when: When) -> int: ...\n"
    )
    text = "from datetime import date as When\nfrom .other import Base\nclass AsyncCortexClient(Base):\n"
    (tool.SOURCE / "cortexclient" / "_client.py").write_text(f"{text}    async def f(self, when: When) -> int: ...\n")
    with pytest.raises(SystemExit, match="When means two things"):
        tool.Writer().files()


def test_a_name_is_imported_at_run_time_if_anybody_does(tool: ModuleType) -> None:
    (tool.SOURCE / "cortexclient" / "other.py").write_text(
        "from datetime import date\nclass Base:\n    async def g(self, when: date) -> int: ...\n"
    )
    head = (
        "from typing import TYPE_CHECKING\nfrom .other import Base\nif TYPE_CHECKING:\n    from datetime import date\n"
    )
    body = "class AsyncCortexClient(Base):\n    async def f(self, when: date) -> int: ...\n"
    (tool.SOURCE / "cortexclient" / "_client.py").write_text(head + body)
    text = tool.Writer().files()["client.py"]
    assert "\nfrom datetime import date\n" in text
    assert "TYPE_CHECKING" not in text
