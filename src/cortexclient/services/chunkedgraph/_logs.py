"""Who changed what: the log of edits."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from ..._fanout import running
from ..._types import IdArray, Ids, When
from ..._wire import endpoints, json
from ..._wire.endpoints import Endpoint
from ...errors import NotFoundError, ServerError
from ...ids import as_ids, unique_ids
from ...progress import ProgressLike
from .._base import check_aware, epoch
from ._lookups import Lookups

if TYPE_CHECKING:
    import pandas as pd

LOG_COLUMNS = ("operation_id", "timestamp", "user_id", "before_root_ids", "after_root_ids", "is_merge")


class Logs(Lookups):
    """Edits of roots, of times and of users."""

    async def get_change_log(
        self, root_id: int, filtered: bool = True, *, timeout: float | None = None
    ) -> dict[str, Any]:
        """Sum up the edits in the history of a root.

        Parameters
        ----------
        root_id
            A root, retired or not.
        filtered
            Leave out edits that concern only what was split off later.

        Returns
        -------
        dict
            ``n_mergers``, ``n_splits``, ``operations_ids``, ``past_ids``, ``user_info`` (counts by user id).

        Raises
        ------
        NotFoundError
            If there is no such root.

        Examples
        --------
        >>> log = await client.chunkedgraph.get_change_log(864691134885645050)
        >>> log["n_mergers"], log["n_splits"]
        (4, 5)
        """
        with running(timeout, None, None):
            return dict(await self._of_root(endpoints.CHANGE_LOG, root_id, {"filtered": str(filtered)}))

    async def get_merge_log(self, root_id: int, *, timeout: float | None = None) -> dict[str, Any]:
        """List the merges in the history of a root.

        Returns
        -------
        dict
            ``merge_edges`` (pairs of supervoxels) and ``merge_edge_coords`` (voxels), one entry for each merge.

        Examples
        --------
        >>> log = await client.chunkedgraph.get_merge_log(864691134885645050)
        >>> len(log["merge_edges"])
        6
        """
        with running(timeout, None, None):
            return dict(await self._of_root(endpoints.MERGE_LOG, root_id, {}))

    async def get_tabular_change_log(
        self,
        root_ids: Ids,
        filtered: bool = True,
        *,
        progress: ProgressLike = None,
        timeout: float | None = None,
    ) -> dict[int, pd.DataFrame]:
        """List the edits in the history of each root; ``filtered`` as in :meth:`get_change_log`.

        Returns
        -------
        dict of DataFrame
            One entry for each distinct id, in the order of the input. Columns ``operation_id`` (int64), ``timestamp``
            (UTC), ``user_id`` (string), ``before_root_ids``, ``after_root_ids`` (lists of int), ``is_merge`` (bool),
            and
            ``user_name``, ``user_affiliation`` where the server tells them; by operation id. Without edits: no rows.

        Examples
        --------
        >>> logs = await client.chunkedgraph.get_tabular_change_log([864691134885645050])
        >>> logs[864691134885645050][["operation_id", "is_merge"]].head(2)
           operation_id  is_merge
        0           309     False
        1           310     False
        """
        asked = as_ids(root_ids, "root_ids")
        unique, _ = unique_ids(asked)
        with running(timeout, progress, len(unique)) as reporter:

            async def call(chunk: IdArray) -> dict[int, pd.DataFrame]:
                body = json.encode({"root_ids": chunk})
                query = {"filtered": str(filtered)}
                reply = await self._session.send(endpoints.TABULAR_CHANGE_LOG, query=query, body=body, ids=chunk)
                return {
                    int(key): _log_frame(json.decode(text.encode())) for key, text in json.decode(reply.body).items()
                }

            return await self._each(endpoints.TABULAR_CHANGE_LOG, asked, call, reporter)

    async def get_operation_details(
        self, operation_ids: Ids, *, progress: ProgressLike = None, timeout: float | None = None
    ) -> dict[int, dict[str, Any]]:
        """Describe edits by their operation ids.

        Returns
        -------
        dict of dict
            One entry for each distinct operation that exists, in the order of the input: ``user``, ``timestamp``,
            ``roots`` (made by it), ``added_edges`` or ``removed_edges`` (supervoxels), ``source_coords``,
            ``sink_coords`` (voxels),
            ``operation_status`` (0: done) and so on, as recorded.

        Examples
        --------
        >>> details = await client.chunkedgraph.get_operation_details([309])
        >>> details[309]["roots"]
        [864691132590357936, 864691132443722254]
        """
        asked = as_ids(operation_ids, "operation_ids")
        unique, _ = unique_ids(asked)
        with running(timeout, progress, len(unique)) as reporter:

            async def call(chunk: IdArray) -> dict[int, dict[str, Any]]:
                # the list travels in the URL, so that its length is bounded by the proxy's header buffer
                query = {"operation_ids": str(chunk.tolist())}
                reply = await self._session.send(endpoints.OPERATION_DETAILS, query=query, ids=chunk)
                return {int(key): details for key, details in json.decode(reply.body).items()}

            return await self._each(endpoints.OPERATION_DETAILS, asked, call, reporter)

    async def get_user_operations(
        self,
        user_id: int,
        timestamp_start: When,
        timestamp_end: When | None = None,
        *,
        timeout: float | None = None,
    ) -> pd.DataFrame:
        """List the edits of a user in a time (needs the permission ``admin_view``).

        Parameters
        ----------
        user_id
            0: everybody, where the server allows that.
        timestamp_end
            Default: the client's pinned instant, else now.

        Returns
        -------
        DataFrame
            ``operation_id`` (int64), ``timestamp`` (UTC).

        Examples
        --------
        >>> since = await client.version_timestamp(1412)
        >>> edits = await client.chunkedgraph.get_user_operations(161, since)
        >>> edits.columns.to_list()
        ['operation_id', 'timestamp']
        """
        import pandas as pd

        with running(timeout, None, None):
            # the server refuses a missing end_time, whatever its documentation says (PyChunkedGraph 2.21)
            end = (await self._session.snapshot(timestamp_end)).timestamp
            query = {
                "start_time": epoch(check_aware(timestamp_start, "timestamp_start")),
                "end_time": epoch(end),
            }
            if user_id:
                query["user_id"] = str(int(user_id))
            reply = await self._session.send(endpoints.USER_OPERATIONS, query=query)
        frame = pd.DataFrame(json.decode(reply.body))
        times = pd.to_datetime(frame.get("timestamp", pd.Series(dtype="int64")), unit="ms", utc=True)
        ids = frame.get("operation_id", pd.Series(dtype="int64")).astype("int64")
        return pd.DataFrame({"operation_id": ids, "timestamp": times}).reset_index(drop=True)

    async def get_delta_roots(
        self, timestamp_past: When, timestamp_future: When | None = None, *, timeout: float | None = None
    ) -> tuple[IdArray, IdArray]:
        """List the roots that ended and that began between two instants (inclusive).

        Returns
        -------
        expired, created
            (n,), (m,) int64, sorted. Roots that both began and ended in between are in neither: this is the net change.

        Examples
        --------
        >>> since = await client.version_timestamp(1412)
        >>> ended, began = await client.chunkedgraph.get_delta_roots(since)
        >>> len(ended), len(began)
        (120, 139)
        """
        with running(timeout, None, None):
            future = (await self._session.snapshot(timestamp_future)).timestamp
            past = check_aware(timestamp_past, "timestamp_past")
            query = {"timestamp_past": epoch(past), "timestamp_future": epoch(future)}
            reply = await self._session.send(endpoints.DELTA_ROOTS, query=query)
        old = json.decode_id_list(reply.body, "old_roots")
        new = json.decode_id_list(reply.body, "new_roots")
        # the service lists every root of every edit, those of a moment too, some of them twice
        return np.setdiff1d(old, new), np.setdiff1d(new, old)

    async def _of_root(self, endpoint: Endpoint, root_id: int, query: dict[str, str]) -> Any:
        one = as_ids(root_id, "root_id")
        try:
            reply = await self._session.send(endpoint, {"id": int(one[0])}, query=query, ids=one)
        except (ServerError, NotFoundError) as error:
            if unknown := await self._unknown_among(one, endpoint):
                raise unknown from error
            raise
        return json.decode(reply.body)


def _log_frame(columns: dict[str, dict[str, Any]]) -> pd.DataFrame:
    """One root's log: column-oriented JSON, its rows numbered with gaps where filtered."""
    import pandas as pd

    frame = pd.DataFrame({name: list(values.values()) for name, values in columns.items()}, dtype=object)
    for name in LOG_COLUMNS:
        if name not in frame:
            frame[name] = pd.Series(dtype=object)
    frame["operation_id"] = frame["operation_id"].astype("int64")
    frame["timestamp"] = pd.to_datetime(frame["timestamp"].astype("int64"), unit="ms", utc=True)
    frame["is_merge"] = frame["is_merge"].astype(bool)
    return frame.sort_values("operation_id", ignore_index=True)
