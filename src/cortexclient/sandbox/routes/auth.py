"""The auth service: own tokens, users, and the pages that a browser would show (middle_auth 2.30)."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from ..auth import HTML, Accounts, User, redirect
from ..calls import Call, Reply, Route, RouteTable

if TYPE_CHECKING:
    from ..world import World

ISSUED = "Thu, 01 Jan 2026 00:00:00 GMT"


def table(accounts: Accounts) -> RouteTable:
    """The routes of the auth service over these accounts."""

    def asking(call: Call) -> User:
        return accounts.users[call.user_id]

    def own_tokens(_: World, call: Call) -> Reply:
        own = [token for token, user in accounts.tokens.items() if user.id == call.user_id]
        return _json([_token(number, call.user_id, token) for number, token in enumerate(own, start=1)])

    def users(_: World, call: Call) -> Reply:
        if "admin" not in asking(call).permissions:
            return Reply(b"Requires superadmin privilege.", 403, HTML)
        wanted = [int(item) for item in call.query.get("id", "").split(",") if item.isdecimal()]
        found = [accounts.users[number] for number in wanted if number in accounts.users]
        return _json([_user(user) for user in found])

    def whoami(world: World, call: Call) -> Reply:
        return _json(_permissions(asking(call), world.name))

    def accept_terms(_: World, call: Call) -> Reply:
        accounts.accept_terms(asking(call))
        target = call.query.get("redirect")
        return redirect(target) if target else _page("The terms of service are accepted.")

    root = "/auth/api/v1"
    get = ("GET",)
    return RouteTable(
        "auth",
        (
            Route(get, f"{root}/user/token", own_tokens),
            Route(get, f"{root}/user", users),
            Route(get, f"{root}/user/cache", whoami),
            Route(("GET", "POST"), f"{root}/tos/{{id:int}}/accept", accept_terms),
            Route(get, f"{root}/authorize", _login, permission=None),
            Route(get, f"{root}/create_token", _login, permission=None),
            Route(get, "/sticky_auth/settings/tokens", _login, permission=None),
        ),
    )


def _login(_: World, call: Call) -> Reply:  # noqa: ARG001 - handlers share one signature
    """Where a caller without a token ends up: a page, status 200, as Google's login is."""
    return _page("Log in. This is a sandbox: it knows only the tokens that it printed.")


def _page(text: str) -> Reply:
    return Reply(f"<!doctype html>\n<html lang=en>\n<title>Sandbox</title>\n<p>{text}</p>\n".encode(), 200, HTML)


def _json(value: object) -> Reply:
    return Reply(json.dumps(value).encode() + b"\n")


def _token(number: int, user_id: int, token: str) -> dict[str, Any]:
    return {
        "id": number,
        "user_id": user_id,
        "token": token,
        "description": "sandbox",
        "created": ISSUED,
        "updated": ISSUED,
        "last_used": ISSUED,
    }


def _user(user: User) -> dict[str, Any]:
    return {
        "id": user.id,
        "service_account": False,
        "name": user.name,
        "created": ISSUED,
        "pi": "",
        "affiliations": [{"name": user.affiliation, "start": None, "end": None}],
        "gdpr_consent": True,
        "admin": "admin" in user.permissions,
        "email": user.email,
    }


def _permissions(user: User, dataset: str) -> dict[str, Any]:
    """The record by which services ask the auth service who somebody is."""
    granted, promised = sorted(user.permissions), sorted(user.permissions | user.after_terms)
    level = 2 if "edit" in user.permissions else 1 if "view" in user.permissions else 0
    return {
        **_user(user),
        "parent_id": None,
        "groups": [],
        "permissions": {dataset: level},
        "permissions_v2": {dataset: granted},
        "permissions_v2_ignore_tos": {dataset: promised},
        "missing_tos": [],
        "datasets_admin": [dataset] if "admin" in user.permissions else [],
        "groups_admin": [],
    }
