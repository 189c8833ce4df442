"""The state service: Neuroglancer states by number."""

from __future__ import annotations

import re
from typing import Any

from .._fanout import running
from .._wire import endpoints, json
from ..errors import DecodeError
from ._base import Service


class AsyncStates(Service):
    """Neuroglancer states on the server, with caveclient's method names (``JSONService``)."""

    async def get_state_json(self, state_id: int, *, timeout: float | None = None) -> dict[str, Any]:
        """Fetch a state.

        Parameters
        ----------
        state_id
            The number at the end of a short link.

        Examples
        --------
        >>> number = await client.state.upload_state_json({"layers": [], "showSlices": False})
        >>> (await client.state.get_state_json(number))["showSlices"]
        False
        """
        with running(timeout, None, None):
            reply = await self._session.send(endpoints.STATE, {"id": int(state_id)})
        return json.decode_as(reply.body, dict)

    async def upload_state_json(self, state: dict[str, Any], *, timeout: float | None = None) -> int:
        """Store a state.

        Returns
        -------
        int
            Its number. A failed upload is not tried again: it may have arrived.

        Examples
        --------
        >>> number = await client.state.upload_state_json({"layers": []})
        >>> await client.state.get_state_json(number)
        {'layers': []}
        """
        with running(timeout, None, None):
            reply = await self._session.send(endpoints.STATE_POST, body=json.encode(state))
        numbers = re.findall(rb"/(\d+)", reply.body)
        if not numbers:
            raise DecodeError(f"the address of a state was promised: {reply.body[:80]!r}")
        return int(numbers[-1])
