"""From statuses and exceptions to errors: which, whether again, and in what words."""

from __future__ import annotations

import json
import pickle
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import aiohttp
import httpcore
import httpx
import pytest

from cortexclient import errors
from cortexclient._transport.auth import Token
from cortexclient._transport.failures import Asked, Failure, from_exception, from_status, retry_after
from cortexclient._wire.endpoints import Endpoint

READ = Endpoint(service="chunkedgraph", name="read", method="POST", path="/read")
WRITE = Endpoint(service="state", name="write", method="POST", path="/write", idempotent=False)
SERVER = "https://cave.example.org"
POLICY = None
"""As many tries as the policy grants."""


def asked(endpoint: Endpoint = READ, ids: tuple[int, ...] = (5,)) -> Asked:
    return Asked(endpoint, SERVER, "token=", Token("topsecret", "token="), ids)


def status(code: int, body: object = "", endpoint: Endpoint = READ, **headers: str) -> Failure:
    raw = body.encode() if isinstance(body, str) else json.dumps(body).encode()
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return from_status(asked(endpoint), code, named, raw, 2)


@pytest.mark.parametrize(
    ("code", "body", "kind", "tries"),
    [
        (401, {"error": "no_token", "message": "-"}, errors.MissingToken, 1),
        (401, {"error": "invalid_token", "message": "-"}, errors.InvalidToken, 1),
        (401, {"message": "[401]: root_id not valid at timestamp", "code": 401}, errors.ServerRefusedError, 1),
        (401, "plain", errors.ServerRefusedError, 1),
        (403, {"error": "missing_permission", "message": "view"}, errors.MissingPermission, 1),
        (403, {"error": "missing_role", "message": "admin"}, errors.MissingPermission, 1),
        (403, "Requires superadmin privilege.", errors.ServerRefusedError, 1),
        (400, {"code": 400, "message": "[400]: no"}, errors.ServerRefusedError, 1),
        (404, '"No version found"', errors.NotFoundError, 1),
        (404, "null", errors.NotFoundError, 1),
        (405, "<html>", errors.ServerRefusedError, 1),
        (429, "", errors.RateLimited, POLICY),
        (502, "", errors.ServerError, POLICY),
        (503, "", errors.ServerError, POLICY),
        (504, "", errors.ServerError, POLICY),
        (501, "", errors.ServerError, 1),
        (500, "", errors.ServerError, 2),
        (500, {"message": "Internal Server Error"}, errors.ServerError, 2),
        (500, {"code": 500, "message": "864691135000000000", "traceback": []}, errors.ServerError, 1),
        (500, {"code": 500, "message": "Cannot find root id 5", "traceback": []}, errors.ServerError, 1),
        (500, {"code": 500, "message": "pop from an empty deque", "traceback": []}, errors.ServerError, 1),
        (500, {"code": 500, "message": "Execution failed on sql 'SELECT 1':\n no"}, errors.ServerError, 1),
        (500, {"code": 500, "message": "'nope'"}, errors.ServerError, 1),
        (500, {"message": "404 Not Found: version 99 not found in toy"}, errors.NotFoundError, 1),
        (500, {"message": "401 Unauthorized: only its owner"}, errors.ServerRefusedError, 1),
        (500, {"message": "406 Not Acceptable: x"}, errors.ServerRefusedError, 1),
        (500, {"message": "429 Too Many Requests"}, errors.RateLimited, POLICY),
        (500, {"schema_errors": {"foo": ["Unknown field."]}}, errors.ServerRefusedError, 1),
        (500, {"errors": {"a": "b"}, "message": "Input payload validation failed"}, errors.ServerRefusedError, 1),
    ],
)
def test_a_status_becomes_its_error(code: int, body: object, kind: type[errors.CortexError], tries: int | None) -> None:
    failure = status(code, body)
    assert type(failure.error) is kind
    assert failure.tries == tries
    assert failure.error.endpoint == "chunkedgraph/read"
    assert failure.error.ids == (5,)
    assert SERVER in str(failure.error)


@pytest.mark.parametrize("code", [429, 500, 502, 503, 504])
def test_a_write_is_never_tried_again_once_it_may_have_been_seen(code: int) -> None:
    assert status(code, "", WRITE).tries == 1


@pytest.mark.parametrize(
    ("code", "body", "true_status"),
    [
        (500, {"message": "404 Not Found: x"}, None),
        (500, {"message": "406 Not Acceptable: x"}, 406),
        (500, {"schema_errors": {}}, 400),
        (401, {"message": "root_id not valid at timestamp"}, 401),
    ],
)
def test_a_wrapped_status_counts_as_the_status(code: int, body: object, true_status: int | None) -> None:
    assert getattr(status(code, body).error, "status", None) == true_status


def test_terms_of_service_come_with_their_address() -> None:
    data = {"tos_form_url": "https://x/api/v1/tos/3/accept", "tos_id": 3}
    error = status(403, {"error": "missing_tos", "message": "-", "data": data}).error
    assert isinstance(error, errors.TermsNotAccepted)
    assert error.url == "https://x/api/v1/tos/3/accept"
    assert error.url in str(error)


@pytest.mark.parametrize(
    ("location", "kind"),
    [
        ("https://a.org/sticky_auth/api/v1/authorize?redirect=https%3A%2F%2Fb", errors.MissingToken),
        ("https://accounts.google.com/o/oauth2", errors.MissingToken),
        ("https://other.example.org/elsewhere?x=1", errors.ServerRefusedError),
    ],
)
def test_a_redirect_to_a_login_page_wants_a_token(location: str, kind: type[errors.CortexError]) -> None:
    error = status(302, "", location=location).error
    assert type(error) is kind
    assert "?" not in str(error).replace("is the address right?", "")


def test_messages_are_bounded_on_one_line_and_without_the_token() -> None:
    error = status(400, {"message": "Bearer topsecret\n" + "x" * 5000}).error
    assert isinstance(error, errors.ServerRefusedError)
    assert len(error.detail) == 500
    assert error.detail.startswith("Bearer <token> xxx")
    assert "\n" not in str(error)


def test_an_auth_error_names_the_source_of_the_token_and_the_remedy() -> None:
    text = str(status(401, {"error": "invalid_token"}).error)
    assert "token=" in text
    assert "CORTEXCLIENT_TOKEN" in text
    assert "topsecret" not in text


def test_errors_survive_pickling_whole() -> None:
    for code in (401, 404, 429, 500, 503):
        error = status(code, {"error": "no_token", "message": "words"}).error
        copy = pickle.loads(pickle.dumps(error))
        assert type(copy) is type(error)
        assert str(copy) == str(error)
        assert copy.__dict__ == error.__dict__


def chained(error: Exception, cause: BaseException | None) -> Exception:
    error.__cause__ = cause
    return error


KEY = aiohttp.client_reqrep.ConnectionKey("h", 1, False, True, None, None, None)
REFUSED = aiohttp.ClientConnectorError(KEY, OSError(111, "refused"))


@pytest.mark.parametrize(
    ("error", "kind", "sent"),
    [
        # the aiohttp transport calls all of these ConnectTimeout
        (
            chained(httpx.ConnectTimeout(""), REFUSED),
            "ConnectError",
            False,
        ),
        (chained(httpx.ConnectTimeout(""), aiohttp.ConnectionTimeoutError("slow")), "ConnectError", False),
        (chained(httpx.ConnectTimeout(""), aiohttp.ServerDisconnectedError()), "ConnectError", True),
        (chained(httpx.ConnectTimeout(""), aiohttp.ClientOSError(104, "reset")), "ConnectError", True),
        (chained(httpx.ReadError(""), aiohttp.ClientPayloadError("short")), "ConnectError", True),
        (chained(httpx.ReadTimeout(""), aiohttp.SocketTimeoutError()), "DeadlineExceeded", None),
        (chained(httpx.ConnectError(""), httpcore.ConnectError()), "ConnectError", False),
        (chained(httpx.ConnectTimeout(""), httpcore.ConnectTimeout()), "ConnectError", False),
        (chained(httpx.ReadError(""), httpcore.ReadError()), "ConnectError", True),
        (chained(httpx.RemoteProtocolError(""), httpcore.RemoteProtocolError()), "ConnectError", True),
        (chained(httpx.ReadTimeout(""), httpcore.ReadTimeout()), "DeadlineExceeded", None),
        (httpx.ConnectError("mocked"), "ConnectError", False),
        (httpx.ReadError("mocked"), "ConnectError", True),
        (httpx.ReadTimeout("mocked"), "DeadlineExceeded", None),
        (chained(httpx.UnsupportedProtocol(""), aiohttp.NonHttpUrlClientError("gs://x")), "CortexUsageError", None),
        (httpx.InvalidURL("no"), "CortexUsageError", None),
    ],
)
def test_an_exception_is_judged_by_its_cause(error: Exception, kind: str, sent: bool | None) -> None:
    for endpoint in (READ, WRITE):
        failure = from_exception(asked(endpoint), error)
        assert failure is not None
        assert type(failure.error).__name__ == kind
        assert getattr(failure.error, "sent", None) == sent
        never_sent = sent is False
        read_again = endpoint.idempotent and kind != "CortexUsageError"
        assert failure.tries == (POLICY if never_sent or read_again else 1)


def test_what_is_not_the_http_librarys_is_a_bug_and_goes_on() -> None:
    assert from_exception(asked(), ZeroDivisionError()) is None
    assert from_exception(asked(), RuntimeError("no loop")) is None


def test_retry_after_is_read_as_seconds_or_as_a_date() -> None:
    later = format_datetime(datetime.now(UTC) + timedelta(seconds=30), usegmt=True)
    assert retry_after({"retry-after": "7"}) == 7.0
    assert retry_after({"retry-after": later}) == pytest.approx(30, abs=2)
    assert retry_after({"retry-after": "Wed, 21 Oct 2015 07:28:00 GMT"}) == 0.0
    assert retry_after({"retry-after": "soon"}) is None
    assert retry_after({"retry-after": "-3"}) == 0.0
    assert retry_after({}) is None
    assert status(429, "", retry_after="7").after == 7.0
    assert status(503, "", retry_after="7").after == 7.0
