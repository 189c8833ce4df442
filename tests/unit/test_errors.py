"""The exception tree: as drawn, picklable, and brief about many ids."""

from __future__ import annotations

import copy
import inspect
import pickle
import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from cortexclient import errors
from cortexclient.errors import CortexError, CortexUsageError, shorten_ids
from cortexclient.results import Outcome, Results

IDS = [864691135858491438 + i for i in range(12)]

EXAMPLES: dict[str, CortexError] = {
    "CortexError": CortexError("it failed", ids=IDS, endpoint="chunkedgraph/roots"),
    "CortexUsageError": CortexUsageError("float ids", ids=IDS),
    "AuthError": errors.AuthError("no", endpoint="info/datastack"),
    "MissingToken": errors.MissingToken("none found"),
    "InvalidToken": errors.InvalidToken("expired"),
    "MissingPermission": errors.MissingPermission("not yours"),
    "TermsNotAccepted": errors.TermsNotAccepted("accept first", url="https://example.org/tos", endpoint="a/b"),
    "NotFoundError": errors.NotFoundError("no table x", nearest=["y", "z"], ids=IDS),
    "ServerRefusedError": errors.ServerRefusedError("refused", status=422, detail="why", ids=IDS),
    "UnavailableError": errors.UnavailableError("spent"),
    "RateLimited": errors.RateLimited("patience", retry_after=2.5, endpoint="a/b"),
    "ServerError": errors.ServerError("broken", status=503, detail="busy"),
    "ConnectError": errors.ConnectError("reset", sent=True),
    "DeadlineExceeded": errors.DeadlineExceeded("too late"),
    "DecodeError": errors.DecodeError("cut short"),
    "IncompatibleServerError": errors.IncompatibleServerError("needs 3.0, is 2.1"),
    "TruncatedResult": errors.TruncatedResult("500,000 rows"),
    "TooLarge": errors.TooLarge("8,000 fragments", ids=IDS[:1]),
    "MissingDependency": errors.MissingDependency("caveclient", "cave", "client.cave"),
    "PartialFailure": errors.PartialFailure(
        "1 of 2", results=Results([Outcome(IDS[0], "value")]), errors={IDS[1]: errors.DecodeError("cut", ids=[IDS[1]])}
    ),
}

COPIES: dict[str, Callable[[CortexError], Any]] = {
    "pickle": lambda error: pickle.loads(pickle.dumps(error)),
    "copy": copy.copy,
    "deepcopy": copy.deepcopy,
}


def test_every_class_has_an_example_here() -> None:
    assert sorted(EXAMPLES) == errors.__all__
    defined = {name for name, value in vars(errors).items() if inspect.isclass(value) and issubclass(value, Exception)}
    assert {name for name in defined if not name.startswith("_")} == set(EXAMPLES)


def test_the_drawn_tree_is_the_real_one() -> None:
    path: list[str] = []
    parents: dict[str, str] = {}
    for branch, name, rest in re.findall(r"^    ([│├└─ ]*)([A-Z]\w+)(.*)$", errors.__doc__ or "", re.MULTILINE):
        path[len(branch) // 4 :] = [name]
        parents |= dict.fromkeys(set(re.findall(r"[A-Z]\w+", rest)) & set(errors.__all__), name)
        parents[name] = path[-2] if len(path) > 1 else "Exception"
    assert sorted(parents) == errors.__all__
    for name, parent in parents.items():
        assert parent in {base.__name__ for base in getattr(errors, name).__mro__}, f"{name} is drawn under {parent}"


@pytest.mark.parametrize("name", EXAMPLES)
@pytest.mark.parametrize("copied", COPIES)
def test_errors_travel_with_all_their_fields(name: str, copied: str) -> None:
    original = EXAMPLES[name]
    original.add_note("while writing part 3")
    original.partial = [1, 2]
    twin = COPIES[copied](original)
    del original.__notes__, original.partial
    assert type(twin) is type(original)
    assert str(twin) == str(original)
    assert twin.__notes__ == ["while writing part 3"]
    assert twin.partial == [1, 2]
    for field, value in vars(original).items():
        if field not in ("results", "errors"):
            assert getattr(twin, field) == value
    if isinstance(original, errors.PartialFailure):
        assert dict(twin.results) == dict(original.results)
        assert {i: str(error) for i, error in twin.errors.items()} == {IDS[1]: str(original.errors[IDS[1]])}


def test_the_message_names_five_ids_and_the_endpoint_but_all_ids_are_kept() -> None:
    error = CortexError("it failed", ids=np.array(IDS), endpoint="chunkedgraph/roots")
    shown = ", ".join(map(str, IDS[:5]))
    assert str(error) == f"it failed [chunkedgraph/roots] (ids: {shown} and 7 more)"
    assert error.ids == tuple(IDS)
    assert {type(i) for i in error.ids} == {int}
    assert shorten_ids(IDS[:5]) == shown
    assert shorten_ids(range(5_000)) == "0, 1, 2, 3, 4 and 4,995 more"


def test_errors_are_caught_as_what_python_calls_them() -> None:
    assert isinstance(EXAMPLES["CortexUsageError"], ValueError)
    assert isinstance(EXAMPLES["MissingDependency"], ImportError)
    assert isinstance(EXAMPLES["DeadlineExceeded"], TimeoutError)
    assert all(isinstance(error, CortexError) for error in EXAMPLES.values())


def test_a_missing_dependency_names_the_pip_line() -> None:
    assert 'pip install "cortexclient[cave]"' in str(EXAMPLES["MissingDependency"])
