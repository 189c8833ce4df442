"""The part of the client that looks ahead: what a call will cost, and whether the services are well."""

from __future__ import annotations

from ._costs import CostEstimate
from ._plan import Planner
from ._types import Ids, When
from .diagnosis import Diagnosis, diagnose
from .ids import as_ids
from .services._base import Session, check_aware


class OutlookCalls:
    """Estimates and diagnoses."""

    _session: Session

    def plan(self, call: str, ids: Ids, *, timestamp: When | None = None, live: bool = False) -> CostEstimate:
        """Estimate what a call will cost; nothing is sent. Queries have a ``plan()`` of their own, which counts rows.

        Parameters
        ----------
        call
            Name of a method: ``get_roots``, ``get_root_timestamps``, ``is_latest_roots``, ``is_valid_nodes``,
            ``root_id_to_cell_id`` or ``cell_id_to_root_id``.
        ids
            What it would be called with.
        timestamp, live
            As in the call, where they change what is asked.

        Returns
        -------
        CostEstimate
            Shows itself as a table: requests, bytes and seconds for each step, and which limit binds. ``least`` sums up
            the steps that are sent in any case, ``most`` all of them.

        Examples
        --------
        >>> client.plan("get_roots", [89529934389098311, 89529934389098312]).bound_by
        'the latency of one request'
        """
        when = None if timestamp is None else check_aware(timestamp)
        return Planner(self._session).estimate(call, as_ids(ids), timestamp=when, live=live)

    async def diagnose(self, *, timeout: float = 10.0) -> Diagnosis:
        """Ask every service how it is; a failing one is reported, not raised.

        Parameters
        ----------
        timeout
            Seconds for each service; they are asked at the same time.

        Returns
        -------
        Diagnosis
            Shows itself as a table: for each service whether it is reachable, its version and latency, whether it
            takes the token, and what the problem is. ``ok`` sums it up, ``to_frame()`` makes a DataFrame.

        Examples
        --------
        >>> found = await client.diagnose()
        >>> found.ok, found["chunkedgraph"].token
        (True, 'accepted')
        """
        return await diagnose(self._session, timeout)
