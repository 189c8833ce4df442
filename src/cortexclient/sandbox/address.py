"""Where a running sandbox is, and how a program is pointed at it."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from .exports import export_urls

if TYPE_CHECKING:
    from ..datasets.spec import DatasetSpec
    from .limits import RateLimits
    from .world import World

SERVER_VARIABLE: Final = "CORTEXCLIENT_SERVER"
TOKEN_VARIABLE: Final = "CORTEXCLIENT_TOKEN"  # noqa: S105 - the name of a variable


class Address(ABC):
    """What every kind of running sandbox has in common.

    Attributes
    ----------
    token
        A token that may do everything, until it expires.
    """

    token: str

    @property
    @abstractmethod
    def url(self) -> str:
        """Scheme, host and port: the base of all services. Known once the sandbox has started."""

    @property
    @abstractmethod
    def spec(self) -> DatasetSpec:
        """The dataset for a client of this package: the world's first datastack at this address."""

    @contextmanager
    def env(self) -> Iterator[None]:
        """Point everything that reads the environment at this sandbox, for the time of a ``with`` block.

        Sets ``CORTEXCLIENT_SERVER`` and ``CORTEXCLIENT_TOKEN``, and puts back what was there.

        Examples
        --------
        >>> with sandbox.env(), CortexClient("minnie_public") as client:
        ...     client.server_address == sandbox.url
        True
        """
        wanted = {SERVER_VARIABLE: self.url, TOKEN_VARIABLE: self.token}
        before = {name: os.environ.get(name) for name in wanted}
        os.environ.update(wanted)
        try:
            yield
        finally:
            for name, value in before.items():
                if value is None:
                    os.environ.pop(name, None)
                else:
                    os.environ[name] = value


def dataset_spec(world: World, url: str, datastack: str | None = None, limits: RateLimits | None = None) -> DatasetSpec:
    """How a client should see a world that is served at ``url``.

    A datastack that a preset describes (``minnie65_public`` ...) keeps the preset's names. Of any other one the table
    of cells is its soma table, and the backups are the reference tables on it that carry points of their own.

    Parameters
    ----------
    datastack
        Which one; the world's first if none is named.
    limits
        The server's own rate limits: a client keeps to half of them, as to those of the real ones.
    """
    from ..config import Limits
    from ..datasets.spec import DatasetSpec, known_specs, polite

    stack = world.datastacks[datastack] if datastack else next(iter(world.datastacks.values()))
    storage, rates = f"{url}/storage", polite(limits.scale) if limits else Limits()
    static = tuple(f"gs://{path}" for path in stack.flat_segmentations)
    presets = known_specs()
    for preset in presets:
        if preset.datastack == stack.name:
            exports = preset.exports_url or export_urls(stack.name)
            at_home = replace(preset, server=url, storage_url=storage, limits=rates)
            return replace(at_home, exports_url=exports, static_meshes=static)
    backups = (
        table.name
        for table in world.tables.values()
        if table.reference_table == stack.soma_table is not None and "pt_supervoxel_id" in table.rows.columns
    )
    return DatasetSpec(
        name=stack.name,
        datastack=stack.name,
        server=url,
        nucleus_table=stack.soma_table,
        backup_tables=tuple(backups),
        cell_id_view=next((preset.cell_id_view for preset in presets if preset.cell_id_view in world.views), None),
        exports_url=export_urls(stack.name),
        storage_url=storage,
        limits=rates,
        static_meshes=static,
    )
