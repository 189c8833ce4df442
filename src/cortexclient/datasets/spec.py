"""DatasetSpec: where a dataset lives and what its tables are called. Pure data; nothing here talks to a server."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from types import MappingProxyType
from typing import Any, Final, Self

from ..config import Limits
from ..errors import NotFoundError

GLOBAL_SERVER = "https://global.daf-apis.com"

CHARTS: Final = MappingProxyType(
    {
        "query": 300,
        "fast_query": 2000,
        "get_skeleton_that_exists": 1000,
        "get_skeleton_that_doesnt_exist": 10,
        "get_skeletons_bulk": 10,
        "get_skeletons_bulk_async": 10,
        "skeleton_exists": 100,
        "query_cache": 100,
        "get_refusal_list": 100,
    }
)
"""Requests a minute that the services allow each user, by category: ``limiter.categories`` as set by default in CAVE's
Helm charts for materialize (the first two) and skeletoncache. A deployment may differ; a category that is missing here
is not limited by a chart."""


def polite(scale: float = 1.0) -> Limits:
    """Half of what the charts allow: one minute's worth may leave at once, and still no minute sees more than that."""
    return Limits(per_minute={category: rate * scale / 2 for category, rate in CHARTS.items()})


@dataclass(frozen=True, slots=True, kw_only=True)
class DatasetSpec:
    """Where a dataset lives and what its tables are called.

    Only ``datastack`` is needed to talk to any CAVE datastack; the table names are needed to translate cell ids.

    Examples
    --------
    >>> DatasetSpec(name="fish", datastack="fish1_public", server="https://global.brain-wire-test.org")
    ... # doctest: +ELLIPSIS
    DatasetSpec(name='fish', datastack='fish1_public', ...)
    """

    name: str
    """How ``load_client`` calls it."""
    datastack: str
    """Name of the datastack on the info service."""
    server: str = GLOBAL_SERVER
    """The global server, with scheme. The environment's ``CORTEXCLIENT_SERVER`` stands in for that of a preset, which
    is also the default here; any other one counts for more than the environment."""
    nucleus_table: str | None = None
    """The table whose row ids are the cell ids."""
    backup_tables: tuple[str, ...] = ()
    """Reference tables with a better point for some cells (``target_id`` is the cell id)."""
    cell_id_view: str | None = None
    """The view that joins both, where there is one."""
    space: str | None = None
    """Name of the dataset object in :mod:`standard_transform` (``minnie_ds``, ``v1dd_ds``)."""
    exports_url: str | tuple[str, ...] | None = None
    """Bucket or folder of table exports, or several."""
    static_meshes: tuple[str, ...] = ()
    """Flat segmentations with static meshes (``gs://BUCKET/PATH`` of a precomputed volume), the preferred one first."""
    storage_url: str | None = None
    """Base URL that replaces ``gs://`` (``gs://B/p`` -> ``{storage_url}/B/p``); for mirrors and the sandbox."""
    limits: Limits = field(default=Limits(), compare=False)
    """What a client keeps to, unless it is told otherwise. The presets keep to half of the rates that the services'
    deployment charts allow."""

    @property
    def export_paths(self) -> tuple[str, ...]:
        """The places of `exports_url`, none or several.

        Examples
        --------
        >>> spec = DatasetSpec(name="mine", datastack="my_stack", exports_url="gs://my-bucket/exports")
        >>> spec.export_paths
        ('gs://my-bucket/exports',)
        """
        return (self.exports_url,) if isinstance(self.exports_url, str) else self.exports_url or ()

    def to_json(self) -> dict[str, Any]:
        """Write it down as what JSON knows. Of the limits the rates are kept, which belong to the dataset.

        Examples
        --------
        >>> get_spec("minnie_public").to_json()["datastack"]
        'minnie65_public'
        """
        rates = self.limits.per_minute
        values = {item.name: getattr(self, item.name) for item in fields(self)}
        values["limits"] = None if rates is None else dict(rates)
        return {name: list(value) if isinstance(value, tuple) else value for name, value in values.items()}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Self:
        """Read what :meth:`to_json` wrote.

        Examples
        --------
        >>> spec = get_spec("minnie_public")
        >>> DatasetSpec.from_json(spec.to_json()) == spec
        True
        """
        lists: dict[str, Any] = {name: tuple(value) for name, value in values.items() if isinstance(value, list)}
        return cls(**{**values, **lists, "limits": Limits(per_minute=values.get("limits"))})


_SPECS: dict[str, DatasetSpec] = {}


def register(spec: DatasetSpec) -> DatasetSpec:
    """Make ``spec`` known to :func:`get_spec` and ``load_client`` under its name.

    Examples
    --------
    >>> spec = register(DatasetSpec(name="fish", datastack="fish1_public", server="https://global.example.org"))
    >>> get_spec("fish") is spec
    True
    """
    _SPECS[spec.name] = spec
    return spec


def get_spec(dataset: str | DatasetSpec) -> DatasetSpec:
    """The spec itself, the registered one of that name, or the preset whose datastack is called so.

    Raises
    ------
    NotFoundError
        With the nearest names.

    Examples
    --------
    >>> get_spec("minnie65_public").name
    'minnie_public'
    """
    if isinstance(dataset, DatasetSpec):
        return dataset
    if spec := _SPECS.get(dataset):
        return spec
    for spec in [*_SPECS.values()]:  # a copy: another thread may register one
        if spec.datastack == dataset:
            return spec
    nearest = difflib.get_close_matches(dataset, _SPECS, n=3, cutoff=0.3)
    raise NotFoundError(
        f"no dataset called {dataset!r}; known are {', '.join(sorted(_SPECS))}. "
        "For any other datastack pass DatasetSpec(name=..., datastack=..., server=...)",
        nearest=nearest,
    )


def known_specs() -> tuple[DatasetSpec, ...]:
    """All registered specs, by name.

    Examples
    --------
    >>> [spec.name for spec in known_specs()]
    [...'minnie_prod', 'minnie_public', 'v1dd', 'v1dd_public'...]
    """
    return tuple(_SPECS[name] for name in sorted(_SPECS))


MINNIE_PUBLIC = register(
    DatasetSpec(
        name="minnie_public",
        datastack="minnie65_public",
        nucleus_table="nucleus_detection_v0",
        backup_tables=("nucleus_alternative_points",),
        cell_id_view="nucleus_detection_lookup_v1",
        space="minnie_ds",
        # one bucket for both datastacks, as the public one is a view of the other
        exports_url=(
            "gs://mat_dbs/public/minnie65_phase3_v1",
            "gs://mat_dbs/public/deltalake_exports/minnie65_phase3_v1",
        ),
        limits=polite(),
    )
)
MINNIE_PROD = register(replace(MINNIE_PUBLIC, name="minnie_prod", datastack="minnie65_phase3_v1"))
V1DD = register(
    DatasetSpec(
        name="v1dd",
        datastack="v1dd",
        server="https://global.em.brain.allentech.org",
        nucleus_table="nucleus_detection_v0",
        backup_tables=("nucleus_alternative_points",),
        cell_id_view="nucleus_alternative_lookup",
        space="v1dd_ds",
        limits=polite(),
    )
)
# where a public version does not hold the backups, they are left out
V1DD_PUBLIC = register(replace(V1DD, name="v1dd_public", datastack="v1dd_public"))

PRESET_SERVERS: Final = frozenset(spec.server for spec in _SPECS.values())
"""Where the environment's server may stand in; whoever names another one means it."""
