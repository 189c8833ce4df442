"""The tables and views of a client, by name."""

from __future__ import annotations

import html
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from .._fanout import running
from .._html import table
from .._types import When
from ..errors import CortexUsageError
from ..progress import ProgressLike
from ._fields import Field, Info, fields_of
from ._query import AsyncTableQuery, AsyncViewQuery
from ._register import Register

if TYPE_CHECKING:
    import pandas as pd


class Listing:
    """Names, and what stands behind each. Showing it sends nothing; ``load()`` fetches it."""

    def __init__(self, register: Register) -> None:
        self._register = register

    async def load(self, *, timeout: float | None = None) -> list[str]:
        """Fetch what there is (two requests, kept for some minutes); the names, sorted.

        Examples
        --------
        >>> await client.tables.load()
        ['aibs_metamodel_celltypes_v661', 'nucleus_alternative_points', 'nucleus_detection_v0', ...]
        """
        with running(timeout, None, None):
            return sorted(await self._register.load())

    def find(self, text: str) -> list[str]:
        """The names that hold ``text``, whatever its case, among those that are loaded.

        Examples
        --------
        >>> names = await client.tables.load()
        >>> client.tables.find("Nucleus")
        ['nucleus_alternative_points', 'nucleus_detection_v0']
        """
        return [name for name in self.names() if text.lower() in name.lower()]

    def names(self) -> list[str]:
        """The names that are loaded, sorted; none before ``load()``.

        Examples
        --------
        >>> await client.views.load()
        ['nucleus_detection_lookup_v1']
        >>> client.views.names()
        ['nucleus_detection_lookup_v1']
        """
        return sorted(self._register.known or ())

    def _loaded(self) -> Mapping[str, Info]:
        if self._register.known is None:
            raise CortexUsageError(f"client.{self._register.what} is not loaded: client.{self._register.what}.load()")
        return self._register.known

    def __contains__(self, name: object) -> bool:
        return name in self._loaded()

    def __iter__(self) -> Iterator[str]:
        return iter(sorted(self._loaded()))

    def __len__(self) -> int:
        return len(self._loaded())

    def __dir__(self) -> list[str]:
        return [*object.__dir__(self), *self.names()]

    def __repr__(self) -> str:
        datastack = self._register.session.spec.datastack
        if self._register.known is None:
            text = f"not loaded: client.{self._register.what}.load() lists them"
        else:
            text = ", ".join(self.names()) or "none"
        return f"<{type(self).__name__} of {datastack}: {text}>"

    def _repr_html_(self) -> str:
        if self._register.known is None:
            return html.escape(repr(self))
        title = f"{len(self._register.known):,} {self._register.what} of {self._register.session.spec.datastack}"
        rows = ((name, info.description) for name, info in sorted(self._register.known.items()))
        return table(title, rows, ("name", "description"))


class AsyncTables(Listing):
    """The tables of a client's version.

    ``await client.tables.nucleus_detection_v0(id=[1, 2], volume={">": 100}).query()``: the filters are keyword
    arguments, named as in caveclient. A value must be equal, a list holds what is allowed (an empty one: nothing), a
    dictionary compares with ``>``, ``<``, ``>=``, ``<=``, and ``pt_position_bbox=[[x, y, z], [x, y, z]]`` is a box in
    voxels of the table. A reference table is joined with the table that it refers to, whose columns keep their names;
    its own get ``_ref`` where both have them.
    """

    def __getattr__(self, name: str) -> AsyncTable:
        """The table of that name, whether or not there is one: nothing is sent."""
        if name.startswith("_"):
            raise AttributeError(name)
        return AsyncTable(self._register, name)

    def __getitem__(self, name: str) -> AsyncTable:
        """The table of that name, also one that is no identifier."""
        return AsyncTable(self._register, name)


class AsyncViews(Listing):
    """The views of a client's version: used as the tables are, at versions only."""

    def __getattr__(self, name: str) -> AsyncView:
        """The view of that name, whether or not there is one: nothing is sent."""
        if name.startswith("_"):
            raise AttributeError(name)
        return AsyncView(self._register, name)

    def __getitem__(self, name: str) -> AsyncView:
        """The view of that name, also one that is no identifier."""
        return AsyncView(self._register, name)


class _Named:
    """One table or view."""

    def __init__(self, register: Register, name: str) -> None:
        self._register = register
        self._name = name

    @property
    def name(self) -> str:
        """Its name.

        Examples
        --------
        >>> client.tables.nucleus_detection_v0.name
        'nucleus_detection_v0'
        """
        return self._name

    @property
    def description(self) -> str:
        """What its owner says of it; empty before ``load()``.

        Examples
        --------
        >>> names = await client.tables.load()
        >>> client.tables.nucleus_detection_v0.description
        'Synthetic rows in the form of nucleus_detection_v0.'
        """
        info = (self._register.known or {}).get(self._name)
        return "" if info is None else info.description

    @property
    def fields(self) -> list[str]:
        """The filters that it takes; empty before ``load()``.

        Examples
        --------
        >>> names = await client.tables.load()
        >>> client.tables.nucleus_detection_v0.fields[:4]
        ['id', 'created', 'valid', 'bb_end_position_bbox']
        """
        return list(self._fields())

    @property
    def numeric_fields(self) -> list[str]:
        """Those that can be compared with ``>``, ``<``, ``>=``, ``<=``; empty before ``load()``.

        Examples
        --------
        >>> names = await client.tables.load()
        >>> client.tables.nucleus_detection_v0.numeric_fields
        ['id', 'created', 'pt_root_id', 'pt_supervoxel_id', 'volume']
        """
        return [name for name, field in self._fields().items() if field.kind in ("integer", "float", "time")]

    @property
    def spatial_fields(self) -> list[str]:
        """Those that are boxes; empty before ``load()``.

        Examples
        --------
        >>> names = await client.tables.load()
        >>> client.tables.nucleus_detection_v0.spatial_fields
        ['bb_end_position_bbox', 'bb_start_position_bbox', 'pt_position_bbox']
        """
        return [name for name, field in self._fields().items() if field.kind == "point"]

    def _fields(self) -> Mapping[str, Field]:
        known = self._register.known or {}
        info = known.get(self._name)
        if info is None:
            return {}
        base = info.reference_table
        return fields_of(info, None if base is None else known.get(base, Info(base))) or {}

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self._name}({', '.join(self.fields) or '...'})>"


class AsyncTable(_Named):
    """One table: call it with filters, then query."""

    def __call__(self, *, merge_reference: bool = True, **filters: Any) -> AsyncTableQuery:
        """Say which rows.

        Parameters
        ----------
        merge_reference
            Join a reference table with the table that it refers to; False: its own columns only, under their own names.
        **filters
            See :attr:`fields` and :class:`AsyncTables`.
        """
        return AsyncTableQuery(self._register, self._name, merge_reference, filters)

    async def get_all(
        self,
        desired_resolution: Sequence[float] | None = None,
        split_positions: bool = False,
        *,
        version: int | None = None,
        timestamp: When | None = None,
        progress: ProgressLike = None,
        timeout: float | None = None,
    ) -> pd.DataFrame:
        """Fetch the whole table, however large; see :meth:`AsyncTableQuery.query`.

        Examples
        --------
        >>> nuclei = await client.tables.nucleus_detection_v0.get_all(split_positions=True)
        >>> len(nuclei)
        1994
        """
        return await self().query(
            desired_resolution=desired_resolution,
            split_positions=split_positions,
            version=version,
            timestamp=timestamp,
            progress=progress,
            timeout=timeout,
        )


class AsyncView(_Named):
    """One view: call it with filters, then query."""

    def __call__(self, **filters: Any) -> AsyncViewQuery:
        """Say which rows; see :attr:`fields` and :class:`AsyncTables`."""
        return AsyncViewQuery(self._register, self._name, merge_reference=False, arguments=filters)

    async def get_all(
        self,
        desired_resolution: Sequence[float] | None = None,
        split_positions: bool = False,
        *,
        version: int | None = None,
        progress: ProgressLike = None,
        timeout: float | None = None,
    ) -> pd.DataFrame:
        """Fetch the whole view, however large; see :meth:`AsyncViewQuery.query`.

        Examples
        --------
        >>> cells = await client.views.nucleus_detection_lookup_v1.get_all()
        >>> len(cells)
        2000
        """
        return await self().query(
            desired_resolution=desired_resolution,
            split_positions=split_positions,
            version=version,
            progress=progress,
            timeout=timeout,
        )
