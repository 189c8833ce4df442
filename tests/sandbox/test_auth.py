"""The login layer answers as middle_auth_client does, to the byte."""

from __future__ import annotations

import httpx
import pytest

VIEW = "/echo/table/toy_v1/view"


def ask(sandbox, path=VIEW, *, token=None, method="GET", **headers):
    if token is not None:
        headers["Authorization"] = f"Bearer {token}"
    with httpx.Client() as client:
        return client.request(method, sandbox.url + path, headers={k.replace("_", "-"): v for k, v in headers.items()})


@pytest.fixture
def strict(serve):
    return serve(strict=True)


def realm(sandbox):
    return f'Bearer realm="{sandbox.url.replace("http:", "https:")}/auth/api/v1/authorize"'


@pytest.mark.parametrize("token", ["good-token", "0123456789abcdef0123456789abcdef", "view-token"])
def test_good_tokens_may_read(serve, token):
    assert ask(serve(), token=token).status_code == 200


def test_an_unknown_token(strict):
    answer = ask(strict, token="bad-token")
    assert answer.status_code == 401
    assert answer.content == b'{"error":"invalid_token","message":"Unauthorized - Token is Invalid or Expired"}\n'
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["www-authenticate"] == (
        f'{realm(strict)}, error="invalid_token", error_description="Invalid/Expired Token"'
    )


@pytest.mark.parametrize("header", ["X_Requested_With", "Origin"])
def test_no_token_from_a_program(strict, header):
    answer = ask(strict, **{header: "x"})
    assert answer.status_code == 401
    assert answer.content == b'{"error":"no_token","message":"Unauthorized - No Token Provided"}\n'
    assert answer.headers["www-authenticate"] == realm(strict)


def test_another_scheme(strict):
    answer = ask(strict, Authorization="Basic abc")
    assert answer.status_code == 400
    assert (
        answer.content == b'{"error":"bad_auth_header","message":"Authorization header must begin with \'Bearer\'"}\n'
    )
    assert answer.headers["www-authenticate"] == (
        f'{realm(strict)}, error="invalid_request", error_description="Header must begin with \'Bearer\'"'
    )


def test_a_browser_without_a_token_is_sent_to_the_login_page(strict):
    answer = ask(strict, f"{VIEW}?a=1")
    page = strict.url.replace("http:", "https:") + "/auth/api/v1/authorize"
    here = strict.url.removeprefix("http://").replace(":", "%3A")
    location = f"{page}?redirect=http%3A//{here}{VIEW}%3Fa%3D1"
    assert answer.status_code == 302
    assert answer.headers["location"] == location
    assert answer.text == (
        "<!doctype html>\n<html lang=en>\n<title>Redirecting...</title>\n<h1>Redirecting...</h1>\n<p>You should be "
        f'redirected automatically to the target URL: <a href="{location}">{location}</a>. If not, click the link.\n'
    )


def test_the_login_page_can_be_followed_unless_strict(serve):
    sandbox = serve()
    with httpx.Client(follow_redirects=True) as client:
        answer = client.get(sandbox.url + VIEW)
    assert answer.status_code == 200
    assert answer.history
    assert "Log in" in answer.text


def test_a_bad_cookie_is_a_browsers_bad_token(serve):
    assert ask(serve(), Cookie="middle_auth_token=nonsense").status_code == 302
    refused = ask(serve(), Cookie="middle_auth_token=nonsense", X_Requested_With="x")
    assert (refused.status_code, refused.json()["error"]) == (401, "invalid_token")


def test_cookie_and_query_carry_a_token_too(serve):
    sandbox = serve()
    assert ask(sandbox, Cookie="a=b; middle_auth_token=view-token").json()["user_id"] == 102
    assert ask(sandbox, f"{VIEW}?middle_auth_token=view-token", Origin="x").json()["user_id"] == 102
    assert ask(sandbox, f"{VIEW}?middle_auth_token=view-token", token="good-token").json()["user_id"] == 101
    moved = ask(sandbox, f"{VIEW}?middle_auth_token=view-token&a=1")
    assert moved.status_code == 302
    assert moved.headers["location"] == f"{sandbox.url}{VIEW}?a=1"
    assert moved.headers["set-cookie"] == "middle_auth_token=view-token; Secure; HttpOnly; Path=/"


def test_permissions(strict):
    assert ask(strict, "/echo/table/toy_v1/edit", method="POST", token="good-token").status_code == 200
    answer = ask(strict, "/echo/table/toy_v1/edit", method="POST", token="view-token")
    assert answer.status_code == 403
    assert answer.content == (
        b'{"data":{"auth_dataset":"toy","required_permission":"edit"},"error":"missing_permission",'
        b'"message":"Missing permission: edit for dataset toy"}\n'
    )
    assert ask(strict, token="noperm-token").json()["data"]["required_permission"] == "view"
    assert ask(strict, "/echo/login", token="noperm-token").status_code == 200


def test_terms_of_service(strict):
    answer = ask(strict, token="tos-token")
    assert answer.status_code == 403
    form = strict.url.replace("http:", "https:") + "/auth/api/v1/tos/3/accept"
    assert answer.text == (
        f'{{"data":{{"tos_form_url":"{form}","tos_id":3,"tos_name":"Toy terms"}},"error":"missing_tos",'
        '"message":"Need to accept Terms of Service to access resource."}\n'
    )
    assert ask(strict, Cookie="middle_auth_token=tos-token").headers["location"].startswith(f"{form}?redirect=http")


def test_accepted_terms_open_the_door(serve):
    sandbox = serve()
    form = ask(sandbox, token="tos-token").json()["data"]["tos_form_url"]
    assert ask(sandbox, form.removeprefix(sandbox.url), token="tos-token").status_code == 200
    assert ask(sandbox, token="tos-token").json()["user_id"] == 107


def test_unknown_resources(strict):
    table = ask(strict, "/echo/table/not_in_auth/view", token="good-token")
    assert table.status_code == 400
    assert table.content == (
        b'{"data":{"auth_dataset":null,"resource_namespace":"pychunkedgraph","table_id":"not_in_auth"},'
        b'"error":"invalid_table_id","message":"Invalid table_id for service"}\n'
    )
    stack = ask(strict, "/echo/stack/zzz/view", token="good-token")
    assert stack.json()["data"] == {"resource_namespace": "datastack", "table_id": "zzz"}


def test_errors_of_the_path_come_before_those_of_the_token(serve):
    sandbox = serve()
    assert ask(sandbox, "/nope").status_code == 404
    assert ask(sandbox, VIEW, method="PUT").status_code == 405


def test_tokens_expire_and_are_issued(serve):
    sandbox = serve()
    first = sandbox.token
    sandbox.expire_token()
    assert ask(sandbox, token=first).json()["error"] == "invalid_token"
    assert sandbox.issue_token() == sandbox.token != first
    assert ask(sandbox, token=sandbox.token).status_code == 200
    with httpx.Client(base_url=sandbox.url) as client:
        client.post("/sandbox/token", json={"expire": sandbox.token})
        assert ask(sandbox, token=sandbox.token).status_code == 401
        assert ask(sandbox, token=client.post("/sandbox/token", json={}).json()["token"]).status_code == 200


def test_the_auth_service(serve):
    sandbox = serve()
    own = ask(sandbox, "/auth/api/v1/user/token", token="view-token").json()
    assert [(row["user_id"], row["token"]) for row in own] == [(102, "view-token")]
    people = ask(sandbox, "/auth/api/v1/user?id=101,102,999", token="good-token").json()
    assert [(row["id"], row["name"]) for row in people] == [(101, "Ada Proofreader"), (102, "Bo Splitter")]
    refused = ask(sandbox, "/auth/api/v1/user?id=101", token="view-token")
    assert (refused.status_code, refused.text) == (403, "Requires superadmin privilege.")
    terms = ask(sandbox, "/auth/api/v1/user/cache", token="tos-token").json()
    assert terms["permissions_v2"] == {"toy": []}
    assert "view" in terms["permissions_v2_ignore_tos"]["toy"]
