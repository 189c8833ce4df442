"""What is wanted of a cell beside its skeleton."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from ..errors import CortexUsageError
from ..interop.meshparty import TABLES, ReferenceTables, Transform, check_meshparty


@dataclass(frozen=True, slots=True)
class Parts:
    """The wishes of one call; see :meth:`cortexclient.AsyncCortexClient.get_skeleton`."""

    synapses: bool = False
    transform: Transform | None = None
    restore_graph: bool = False
    restore_properties: bool = False
    references: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    @classmethod
    def checked(
        cls,
        *,
        synapses: bool,
        transform: Transform | None,
        restore_graph: bool,
        restore_properties: bool,
        synapse_reference_tables: ReferenceTables | None,
    ) -> Parts:
        """The wishes, if they can be met.

        Raises
        ------
        CortexUsageError
            There is no such transform or side, or there are tables about synapses that are not wanted.
        MissingDependency
            meshparty (or, for properties, pcg_skel) is not installed.
        """
        tables = dict(synapse_reference_tables or {})
        if tables and not synapses:
            raise CortexUsageError("synapse_reference_tables are about synapses: ask with synapses=True")
        if unknown := tables.keys() - TABLES.keys():
            raise CortexUsageError(f"synapse_reference_tables names {sorted(unknown)}: the sides are 'pre' and 'post'")
        if transform not in (None, "rigid", "streamline"):
            raise CortexUsageError(f"transform={transform!r}: give 'rigid', 'streamline' or None")
        check_meshparty(properties=restore_properties)
        references = {side: (names,) if isinstance(names, str) else tuple(names) for side, names in tables.items()}
        return cls(synapses, transform, restore_graph, restore_properties, references)

    @property
    def chunk_attributes(self) -> list[str]:
        """What is asked about the level-2 chunks."""
        return [*(["rep_coord_nm"] if self.restore_graph else []), *(VOLUME if self.restore_properties else [])]


VOLUME = ("area_nm2", "size_nm3", "mean_dt_nm", "max_dt_nm")
"""The measures of a Meshwork's table ``vol_prop`` (pcg_skel 1.3)."""
