"""Who is asking, and what may they do: the accounts of a sandbox and the answers of CAVE's login layer.

The bodies and headers are those of middle_auth_client 3.16, which guards every CAVE service. A request is
*programmatic* if it has an Authorization, X-Requested-With or Origin header; only those are refused with a status, the
others are sent to the login page.
"""

from __future__ import annotations

import html
import json
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final
from urllib.parse import quote, urlencode

from .calls import Call, Reply, Route

if TYPE_CHECKING:
    from .world import World

COOKIE: Final = "middle_auth_token"
HTML: Final = "text/html; charset=utf-8"
NAMESPACES: Final = {"table": "pychunkedgraph", "datastack": "datastack", "aligned_volume": "aligned_volume"}
"""Path parameter -> the name space in which the auth service knows its value."""
ALL_PERMISSIONS: Final = frozenset({"view", "edit", "admin_view", "admin"})
WITHOUT_GRAPH: Final = ("nonexistent_v1", "minnie65_public_v117")
"""Tables that the auth service maps to a dataset although no server has them (so in the recordings)."""
TERMS_ID: Final = 3
TERMS_NAME: Final = "Toy terms"


@dataclass(frozen=True, slots=True)
class User:
    """Somebody known to the auth service. ``after_terms`` are the permissions that accepting the terms would give."""

    id: int
    name: str
    permissions: frozenset[str] = frozenset()
    after_terms: frozenset[str] = frozenset()
    affiliation: str = "Lab One"

    @property
    def email(self) -> str:
        """An address that nobody owns."""
        return f"{self.name.lower().replace(' ', '.')}@example.org"


OWNER: Final = User(101, "Ada Proofreader", ALL_PERMISSIONS)
GOOD_TOKEN: Final = "0123456789abcdef0123456789abcdef"  # noqa: S105 - opens nothing but a sandbox
"""The default token. 32 hexadecimal digits: cloud-volume takes no other shape."""


def _standard_tokens() -> dict[str, User]:
    return {
        GOOD_TOKEN: OWNER,
        "good-token": OWNER,
        "view-token": User(102, "Bo Splitter", frozenset({"view"})),
        "noperm-token": User(103, "Cy Merger", affiliation="Lab Two"),
        "tos-token": User(107, "Di Longchain", after_terms=ALL_PERMISSIONS, affiliation="Lab Two"),
    }


@dataclass
class Accounts:
    """Tokens and the users they stand for; tokens can expire and be issued while the server runs."""

    tokens: dict[str, User] = field(default_factory=_standard_tokens)

    @property
    def users(self) -> dict[int, User]:
        """Everybody who has a token, by id."""
        return {user.id: user for user in self.tokens.values()}

    def issue(self, user: User = OWNER) -> str:
        """Make a new token for ``user``."""
        token = secrets.token_hex(16)
        self.tokens[token] = user
        return token

    def expire(self, token: str) -> None:
        """Forget ``token``; from now on it is answered with 401 ``invalid_token``."""
        self.tokens.pop(token, None)

    def accept_terms(self, user: User) -> None:
        """Give ``user`` what the accepted terms of service promise."""
        accepted = User(user.id, user.name, user.permissions | user.after_terms, affiliation=user.affiliation)
        self.tokens = {token: accepted if owner == user else owner for token, owner in self.tokens.items()}

    def identify(self, call: Call) -> User | Reply:
        """The user whose token the call carries, or the answer that refuses it.

        The Authorization header overrides the cookie, and the query overrides it too.
        """
        header = call.headers.get("authorization")
        if header is not None:
            user = self.tokens.get(header[7:]) if header.startswith("Bearer ") else None
            return user or (_invalid_token(call) if header.startswith("Bearer ") else _bad_header(call))
        programmatic = is_programmatic(call)
        in_query = call.query.get(COOKIE)
        if in_query is not None and not programmatic:
            return _token_to_cookie(call, in_query)
        token = in_query or _cookie(call.headers.get("cookie", ""))
        user = self.tokens.get(token) if token else None
        if user is not None:
            return user
        if not programmatic:
            return redirect(f"{login_page(call)}?redirect={quote(url_of(call))}")
        return _invalid_token(call) if token else _no_token(call)


def permit(world: World, user: User, route: Route, call: Call) -> Reply | None:
    """None if ``user`` may use ``route``, else the refusal."""
    if route.resource is None:
        return None
    dataset = dataset_of(world, route.resource, call.params[route.resource])
    if dataset is None:
        return _unknown_resource(route.resource, call.params[route.resource])
    wanted = route.permission or "view"
    if wanted in user.permissions:
        return None
    if wanted in user.after_terms:
        return _terms_not_accepted(call)
    return _refusal(
        403,
        "missing_permission",
        f"Missing permission: {wanted} for dataset {dataset}",
        data={"required_permission": wanted, "auth_dataset": dataset},
    )


def dataset_of(world: World, resource: str, name: str) -> str | None:
    """The dataset that guards a table, datastack or aligned volume; None if the auth service has never heard of it."""
    stacks = world.datastacks
    known = {
        "datastack": name in stacks,
        "table": name in {world.graph.table, *WITHOUT_GRAPH, *(stack.segmentation for stack in stacks.values())},
        "aligned_volume": any(name == stack.aligned_volume for stack in stacks.values()),
    }
    return world.name if known[resource] else None


def is_programmatic(call: Call) -> bool:
    """Whether the login layer takes the caller for a program (and so does not send it to a login page)."""
    return not call.headers.keys().isdisjoint({"authorization", "x-requested-with", "origin"})


def url_of(call: Call, *, without: tuple[str, ...] = ()) -> str:
    """The URL of the request, with the query parameters ``without`` left out."""
    query = {name: value for name, value in call.query.items() if name not in without}
    return call.origin + quote(call.path) + (f"?{urlencode(query)}" if query else "")


def auth_root(call: Call) -> str:
    """Base URL of the auth service.

    The real login layer always says https; a sandbox speaks plain http, so only a strict one says so too.
    """
    return (call.origin.replace("http://", "https://", 1) if call.strict else call.origin) + "/auth"


def login_page(call: Call) -> str:
    """Where a browser without a token is sent."""
    return f"{auth_root(call)}/api/v1/authorize"


def redirect(url: str, *headers: tuple[str, str]) -> Reply:
    """A 302 with Werkzeug's page."""
    shown = html.escape(url)
    page = (
        "<!doctype html>\n<html lang=en>\n<title>Redirecting...</title>\n<h1>Redirecting...</h1>\n"
        "<p>You should be redirected automatically to the target URL: "
        f'<a href="{shown}">{shown}</a>. If not, click the link.\n'
    )
    return Reply(page.encode(), 302, HTML, (("Location", url), *headers))


def _cookie(header: str) -> str | None:
    for part in header.split(";"):
        name, _, value = part.strip().partition("=")
        if name == COOKIE:
            return value
    return None


def _refusal(
    status: int, error: str, message: str, *, data: Mapping[str, object] | None = None, challenge: str | None = None
) -> Reply:
    body: dict[str, object] = {"error": error, "message": message}
    if data is not None:
        body["data"] = data
    text = json.dumps(body, separators=(",", ":"), sort_keys=True) + "\n"
    return Reply(text.encode(), status, headers=(("WWW-Authenticate", challenge),) if challenge else ())


def _challenge(call: Call, *details: str) -> str:
    return ", ".join((f'Bearer realm="{login_page(call)}"', *details))


def _bad_header(call: Call) -> Reply:
    challenge = _challenge(call, 'error="invalid_request"', "error_description=\"Header must begin with 'Bearer'\"")
    return _refusal(400, "bad_auth_header", "Authorization header must begin with 'Bearer'", challenge=challenge)


def _no_token(call: Call) -> Reply:
    return _refusal(401, "no_token", "Unauthorized - No Token Provided", challenge=_challenge(call))


def _invalid_token(call: Call) -> Reply:
    challenge = _challenge(call, 'error="invalid_token"', 'error_description="Invalid/Expired Token"')
    return _refusal(401, "invalid_token", "Unauthorized - Token is Invalid or Expired", challenge=challenge)


def _token_to_cookie(call: Call, token: str) -> Reply:
    cookie = f"{COOKIE}={token}; Secure; HttpOnly; Path=/"
    return redirect(url_of(call, without=(COOKIE, "token")), ("Set-Cookie", cookie))


def _terms_not_accepted(call: Call) -> Reply:
    form = f"{auth_root(call)}/api/v1/tos/{TERMS_ID}/accept"
    if not is_programmatic(call):
        return redirect(f"{form}?redirect={quote(url_of(call))}")
    return _refusal(
        403,
        "missing_tos",
        "Need to accept Terms of Service to access resource.",
        data={"tos_form_url": form, "tos_id": TERMS_ID, "tos_name": TERMS_NAME},
    )


def _unknown_resource(resource: str, name: str) -> Reply:
    data: dict[str, object] = {"resource_namespace": NAMESPACES[resource], "table_id": name}
    if resource == "table":
        data["auth_dataset"] = None  # (PyChunkedGraph 2.21 passes it; the datastack services do not)
    return _refusal(400, "invalid_table_id", "Invalid table_id for service", data=data)
