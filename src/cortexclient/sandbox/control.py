"""The routes by which another process reads a sandbox's counters and makes its weather.

They are open to all, not counted, and no fault ever hits them.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Final

from .calls import Call, Handler, Reply, Route, RouteTable
from .faults import Faults

if TYPE_CHECKING:
    from .app import App
    from .world import World

SERVICE: Final = "sandbox"


def table(app: App) -> RouteTable:
    """``/sandbox/counters`` (POST resets), ``/sandbox/faults`` (POST replaces), ``/sandbox/token`` (POST)."""

    def counters(_: World, call: Call) -> Reply:
        if call.method == "POST":
            app.counters.reset()
        return _json(app.counters.snapshot().to_json())

    def faults(_: World, call: Call) -> Reply:
        if call.method == "POST":
            try:
                app.faults = Faults(**call.json())
            except (TypeError, ValueError) as error:
                return _json({"message": str(error)}, 400)
        return _json(app.faults.settings())

    def token(_: World, call: Call) -> Reply:
        order = call.json()
        if "expire" in order:
            app.accounts.expire(order["expire"])
            return _json({})
        return _json({"token": app.accounts.issue()})

    def route(name: str, methods: tuple[str, ...], handler: Handler) -> Route:
        return Route(methods, f"/sandbox/{name}", handler, permission=None)

    both = ("GET", "POST")
    return RouteTable(
        SERVICE, (route("counters", both, counters), route("faults", both, faults), route("token", ("POST",), token))
    )


def _json(value: object, status: int = 200) -> Reply:
    return Reply(json.dumps(value).encode(), status)
