"""The level-2 cache: measures of level-2 chunks, by the thousand."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from .._fanout import fan_out, running
from .._types import IdArray, Ids
from .._wire import endpoints, json
from ..errors import CortexUsageError, DecodeError, NotFoundError
from ..ids import as_ids, batches, layer_of, unique_ids
from ..progress import ProgressLike
from ._base import Service, segmentation_table

if TYPE_CHECKING:
    import pandas as pd

Record = dict[str, Any]

COLUMNS: dict[str, tuple[str, ...]] = {
    "rep_coord_nm": tuple(f"rep_coord_nm_{axis}" for axis in "xyz"),
    "pca": tuple(f"pca_{k}_{axis}" for k in range(3) for axis in "xyz"),
    "pca_val": tuple(f"pca_val_{k}" for k in range(3)),
    "chunk_intersect_count": tuple(
        f"chunk_intersect_count_{axis}_{end}" for end in ("bottom", "top") for axis in "xyz"
    ),
}
"""The columns of each attribute that is more than a number."""


class AsyncL2Cache(Service):
    """Size, area, thickness and a point inside, for each level-2 chunk of each cell."""

    async def attributes(self, *, timeout: float | None = None) -> tuple[str, ...]:
        """Names of what is measured (cached).

        Examples
        --------
        >>> await client.l2cache.attributes()
        ('area_nm2', 'chunk_intersect_count', 'max_dt_nm', 'mean_dt_nm', 'pca', 'pca_val', 'rep_coord_nm', 'size_nm3')
        """
        with running(timeout, None, None):
            return tuple(await self._once("l2cache attributes", endpoints.L2_METADATA, str))

    async def has_cache(self, *, timeout: float | None = None) -> bool:
        """Whether this datastack's segmentation has a cache; deployments too old to tell have none.

        Examples
        --------
        >>> await client.l2cache.has_cache()
        True
        """
        with running(timeout, None, None):
            try:
                tables = await self._once("l2cache tables", endpoints.L2_TABLES, dict)
            except NotFoundError:
                return False
            return segmentation_table(await self._session.record()) in tables

    async def get_l2data(
        self,
        l2_ids: Ids,
        attributes: Sequence[str] | None = None,
        *,
        progress: ProgressLike = None,
        timeout: float | None = None,
    ) -> dict[int, Record]:
        """Fetch the records of level-2 chunks.

        Parameters
        ----------
        l2_ids
            Ids of layer 2.
        attributes
            What to fetch: ``size_nm3``, ``area_nm2``, ``max_dt_nm``, ``mean_dt_nm``, ``rep_coord_nm``, ``pca``,
            ``pca_val``, ``chunk_intersect_count``. Default: all.

        Returns
        -------
        dict of dict
            One entry for each distinct id, in the order of the input; empty where nothing is computed yet (the server
            then does that: ask again in a few seconds). Chunks below 0.01 cubic micrometres have no ``pca``.

        Examples
        --------
        >>> l2_ids = await client.get_l2_ids(864691134885645050)
        >>> records = await client.l2cache.get_l2data(l2_ids, ["size_nm3", "rep_coord_nm"])
        >>> sorted(records[l2_ids[0]])
        ['rep_coord_nm', 'size_nm3']
        """
        asked = as_ids(l2_ids, "l2_ids")
        if (layer_of(asked) != 2).any():
            wrong = asked[layer_of(asked) != 2]
            raise CortexUsageError("these are not of layer 2: get_l2_ids(root_id) lists a root's", ids=wrong)
        names = self._names(attributes)
        unique, _ = unique_ids(asked)
        query = {"int64_as_str": "False"} | ({"attribute_names": ",".join(names)} if names else {})
        with running(timeout, progress, len(unique)) as reporter:

            async def one(chunk: IdArray) -> dict[int, Record]:
                body = json.encode({"l2_ids": chunk})
                reply = await self._session.send(endpoints.L2_ATTRIBUTES, query=query, body=body, ids=chunk)
                records = json.decode_records(reply.body)
                if records.keys() != set(chunk.tolist()):
                    raise DecodeError(f"{len(chunk)} records were asked, {len(records)} came back", ids=chunk)
                reporter.add(len(chunk))
                return records

            chunks = batches(unique, self._session.batch(endpoints.L2_ATTRIBUTES))
            parts = await fan_out(chunks, one, self._session.limits.of("l2cache"))
        found = {key: record for part in parts for key, record in part.items()}
        return {i: found[i] for i in dict.fromkeys(asked.tolist())}

    async def get_l2data_table(
        self,
        l2_ids: Ids,
        attributes: Sequence[str] | None = None,
        *,
        progress: ProgressLike = None,
        timeout: float | None = None,
    ) -> pd.DataFrame:
        """Fetch the records of level-2 chunks as a frame.

        Parameters
        ----------
        l2_ids, attributes, progress, timeout
            As for :meth:`get_l2data`.

        Returns
        -------
        DataFrame
            Index ``l2_id`` (distinct, in input order), float64 columns, NaN for what is not computed; vectors in
            columns of their own (``rep_coord_nm_x``, ``pca_0_x``, ``pca_val_0``, ``chunk_intersect_count_x_bottom``).

        Examples
        --------
        >>> l2_ids = await client.get_l2_ids(864691134885645050)
        >>> table = await client.l2cache.get_l2data_table(l2_ids, ["size_nm3", "rep_coord_nm"])
        >>> table.columns.to_list(), len(table)
        (['size_nm3', 'rep_coord_nm_x', 'rep_coord_nm_y', 'rep_coord_nm_z'], 6)
        """
        import pandas as pd

        records = await self.get_l2data(l2_ids, attributes, progress=progress, timeout=timeout)
        names = self._names(attributes) or sorted({name for record in records.values() for name in record})
        columns: dict[str, npt.NDArray[np.float64]] = {}
        for name in names:
            labels = COLUMNS.get(name, (name,))
            values = _matrix((record.get(name) for record in records.values()), len(records), len(labels))
            columns |= dict(zip(labels, values.T, strict=True))
        return pd.DataFrame(columns, index=pd.Index(list(records), dtype="int64", name="l2_id"))

    def _names(self, attributes: Sequence[str] | None) -> list[str]:
        if isinstance(attributes, str):
            raise CortexUsageError(f"attributes={attributes!r}: give a list of names")
        return list(attributes or ())

    async def _once(self, name: str, endpoint: endpoints.Endpoint, of: type) -> dict[str, Any]:
        async def load() -> dict[str, Any]:
            found = json.decode_as((await self._session.send(endpoint)).body, dict)
            if not all(isinstance(value, of) for value in found.values()):
                raise DecodeError(f"{name} were promised: {found!r:.60}", endpoint=str(endpoint))
            return found

        key = (name, self._session.server, self._session.spec.datastack)
        found: dict[str, Any] = await self._session.cache.get(key, load)
        return found


def _matrix(values: Iterable[Any], n: int, width: int) -> npt.NDArray[np.float64]:
    """(n, width), NaN where there is nothing."""
    matrix = np.full((n, width), np.nan)
    for row, value in enumerate(values):
        if value is not None:
            matrix[row] = np.ravel(value)
    return matrix
