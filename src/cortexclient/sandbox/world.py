"""A world: everything a sandbox serves, with its whole history."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from datetime import datetime
from pathlib import Path
from typing import Any, Final, Self

import polars as pl

from .exports import Exports
from .graph import Cells, Edges, Graph, Layout, Lineage, Operation
from .level2 import Level2Cache
from .meshes import Meshes
from .once import made_once
from .skeletons import Shapes, Skeletons
from .states import States
from .tables import Table, Tables, Version, View

FORMAT: Final = 3
"""Of the files that `World.save` writes; another number is refused."""


@dataclass(frozen=True)
class Datastack:
    """One datastack, as the info service describes it.

    Parameters
    ----------
    name
        ``minnie65_public`` for example.
    aligned_volume
        Name of the aligned volume; datastacks of one world may share it.
    segmentation
        Name of the segmentation table that clients of this datastack use.
    ceiling_ms
        For public (virtual) segmentations: nothing after this time is shown. None: no limit.
    synapse_table, soma_table
        Names of tables; None where the datastack has none.
    viewer_resolution
        Nanometres per voxel in the viewer.
    viewer_site, description, image_source
        As published.
    flat_segmentations
        ``bucket/path`` of volumes in the world's files that hold static meshes; told to clients in their spec, as no
        service does.

    Examples
    --------
    >>> list(world.datastacks)
    ['minnie65_public', 'minnie65_phase3_v1']
    """

    name: str
    aligned_volume: str
    segmentation: str
    synapse_table: str | None = None
    soma_table: str | None = None
    viewer_resolution: tuple[float, float, float] = (4.0, 4.0, 40.0)
    viewer_site: str = "https://spelunker.cave-explorer.org/"
    description: str = ""
    image_source: str = ""
    ceiling_ms: int | None = None
    flat_segmentations: tuple[str, ...] = ()


@dataclass
class World:
    """A graph, the annotation tables on it, their versions, and the datastacks that show them.

    Build one with `default`, `synthesize`, `from_toy`, `from_minnie65` or `load`.

    Parameters
    ----------
    name
        Short name; also the name of the dataset that guards it.
    seed
        What it was made from; 0 for recorded worlds.
    graph
        The chunkedgraph with all its edits.
    tables, views, datastacks
        By name.
    versions
        Of all datastacks, in the order the server lists them.
    notes
        What a user should know about the data: what is real, what is synthetic.
    row_cap
        The most rows that a table query answers with.
    shapes
        What is recorded of level-2 nodes and skeletons; for all others they are made when asked for.
    without_level2
        Segmentation tables that have no level-2 cache.
    files
        Objects that the object store holds beside the graph's meshes, by ``bucket/path``.

    Examples
    --------
    >>> world = World.synthesize(seed=7, nuclei=50, edits=20)
    >>> len(world.graph.operations) >= 20, world.version().valid
    (True, True)
    """

    name: str
    seed: int
    graph: Graph
    tables: dict[str, Table] = field(default_factory=dict)
    views: dict[str, View] = field(default_factory=dict)
    versions: list[Version] = field(default_factory=list)
    datastacks: dict[str, Datastack] = field(default_factory=dict)
    notes: dict[str, str] = field(default_factory=dict)
    row_cap: int = 500_000
    shapes: Shapes = field(default_factory=Shapes)
    without_level2: frozenset[str] = frozenset()
    files: dict[str, bytes] = field(default_factory=dict)

    @made_once
    def level2(self) -> Level2Cache:
        """Records of level-2 nodes.

        Examples
        --------
        >>> l2_ids = await client.get_l2_ids(864691134885645050)
        >>> world.level2.points(l2_ids).shape
        (6, 3)
        """
        return Level2Cache(self.graph, self.shapes.level2)

    @made_once
    def meshes(self) -> Meshes:
        """The fragments of all nodes; they are made when somebody asks for them.

        Examples
        --------
        >>> l2_ids = await client.get_l2_ids(864691134885645050)
        >>> world.meshes.fragment(l2_ids[0])[:5]
        b'DRACO'
        """
        return Meshes(self.graph, self.level2.points)

    @made_once
    def skeletons(self) -> Skeletons:
        """The skeletons that are there, and those that are being made.

        Examples
        --------
        >>> world.skeletons.get(864691134885645050).vertices.shape
        (6, 3)
        """
        newest = max((v.time_us for v in self.versions if v.valid), default=self.graph.created_ms * 1000)
        return Skeletons(self.graph, self.level2, self.shapes, newest // 1000)

    @made_once
    def exports(self) -> Exports:
        """The bulk exports of the tables, and `files`, as objects of a store.

        Examples
        --------
        >>> world.exports.read("no-such-bucket/file") is None
        True
        """
        return Exports(self)

    @made_once
    def states(self) -> States:
        """Neuroglancer states that clients have uploaded; they are not saved.

        Examples
        --------
        >>> number = world.states.put("json", b"{}")
        >>> world.states.get("json", number)
        b'{}'
        """
        return States()

    @made_once
    def annotations(self) -> Tables:
        """The tables at any version or time; frozen states are cached here.

        Examples
        --------
        >>> world.annotations.frozen("nucleus_detection_v0", world.version(661)).height
        1965
        """
        return Tables(self.graph, self.tables, self.views, self.versions)

    def version(self, number: int | None = None, datastack: str | None = None) -> Version:
        """A version by number, the newest valid one by default, of the first datastack if none is named.

        Raises
        ------
        LookupError
            There is none.

        Examples
        --------
        >>> world.version().version, world.version(661).version
        (1484, 661)
        """
        owner = datastack or next(iter(self.datastacks))
        rows = [v for v in self.versions if v.datastack == owner and (v.valid if number is None else True)]
        found = [v for v in rows if number is None or v.version == number]
        if not found:
            raise LookupError(f"no version {number} of {owner}; there are {sorted(v.version for v in rows)}")
        return max(found, key=lambda v: v.time_us)

    def describe(self) -> dict[str, Any]:
        """Sizes and names, for a person to read.

        Examples
        --------
        >>> world.describe()["versions"][-1]
        (1484, 'AVAILABLE')
        """
        return {
            "name": self.name,
            "seed": self.seed,
            "datastacks": list(self.datastacks),
            "versions": sorted({(v.version, v.status) for v in self.versions}),
            "parent cells": len(self.graph.cells.node),
            "roots": len(self.graph.root_ids()),
            "operations": len(self.graph.operations),
            "tables": {name: len(table.rows) for name, table in self.tables.items()},
            "views": list(self.views),
            "notes": self.notes,
        }

    @staticmethod
    def default() -> World:
        """The small synthetic world that a sandbox serves unless told otherwise.

        Examples
        --------
        >>> World.default().name
        'minnie65'
        """
        from .worlds.examples_page import default_world

        return default_world()

    @staticmethod
    def synthesize(seed: int = 0, **recipe: Any) -> World:
        """A synthetic world of any size; see `cortexclient.sandbox.worlds.synthetic.Recipe` for what can be set.

        Examples
        --------
        >>> world = World.synthesize(seed=7, nuclei=50, edits=20)
        >>> len(world.tables["nucleus_detection_v0"].rows)
        50
        """
        from .worlds.synthetic import Recipe, synthesize

        return synthesize(Recipe(seed=seed, **recipe))

    @staticmethod
    def from_toy(data: Path | str) -> World:
        """The small world recorded from real servers (``pcg_toy/`` and ``me_toy/`` below ``data``).

        Examples
        --------
        >>> World.from_toy("../shared/data").name                             # doctest: +SKIP
        'toy'
        """
        from .worlds.toy import toy_world

        return toy_world(Path(data))

    @staticmethod
    def from_minnie65(data: Path | str, seed: int = 0) -> World:
        """83 real neurons of minnie65 with synthetic edit histories (``neurons/`` ... below ``data``).

        Examples
        --------
        >>> World.from_minnie65("../shared/data").name                       # doctest: +SKIP
        'minnie65'
        """
        from .worlds.minnie65 import minnie65_world

        return minnie65_world(Path(data), seed)

    def save(self, folder: Path | str) -> None:
        """Write the world to a folder: Parquet for columns, ``world.json`` for the rest. Files there are replaced.

        Examples
        --------
        >>> World.synthesize(seed=7, nuclei=50, edits=20).save(folder)
        >>> sorted(path.name for path in folder.glob("*.json"))
        ['world.json']
        """
        target = Path(folder)
        (target / "tables").mkdir(parents=True, exist_ok=True)
        for name in ("cells", "lineage", "edges"):
            columns = getattr(self.graph, name)
            pl.DataFrame({f.name: getattr(columns, f.name) for f in fields(columns)}).write_parquet(
                target / f"{name}.parquet"
            )
        _operations_frame(self.graph.operations.values()).write_parquet(target / "operations.parquet")
        for name, table in self.tables.items():
            table.rows.write_parquet(target / "tables" / f"{name}.parquet")
        (target / "shapes").mkdir(exist_ok=True)
        for part in fields(Shapes):
            getattr(self.shapes, part.name).write_parquet(target / "shapes" / f"{part.name}.parquet")
        stored = {"path": list(self.files), "data": list(self.files.values())}
        pl.DataFrame(stored, schema={"path": pl.String, "data": pl.Binary}).write_parquet(target / "files.parquet")
        (target / "world.json").write_text(json.dumps(self._header(), indent=1, default=datetime.isoformat))

    def _header(self) -> dict[str, Any]:
        rows = {f.name for f in fields(Table)} - {"rows"}
        return {
            "format": FORMAT,
            "name": self.name,
            "seed": self.seed,
            "notes": self.notes,
            "row_cap": self.row_cap,
            "without_level2": sorted(self.without_level2),
            "graph": {"table": self.graph.table, "created_ms": self.graph.created_ms, "info": self.graph.info},
            "layout": asdict(self.graph.layout),
            "tables": [{name: getattr(table, name) for name in sorted(rows)} for table in self.tables.values()],
            "views": [asdict(view) for view in self.views.values()],
            "versions": [asdict(version) for version in self.versions],
            "datastacks": [asdict(stack) for stack in self.datastacks.values()],
        }

    @classmethod
    def load(cls, folder: Path | str) -> Self:
        """Read a world that `save` wrote.

        Raises
        ------
        ValueError
            The folder was written in another format.

        Examples
        --------
        >>> World.synthesize(seed=7, nuclei=50, edits=20).save(folder)
        >>> World.load(folder).seed
        7
        """
        source = Path(folder)
        header = json.loads((source / "world.json").read_text())
        if header["format"] != FORMAT:
            raise ValueError(f"{source} has format {header['format']}, this version reads {FORMAT}: make it anew")
        graph = Graph(
            _layout(header["layout"]),
            **header["graph"],
            cells=Cells(**_columns(source, "cells")),
            lineage=Lineage(**_columns(source, "lineage")),
            edges=Edges(**_columns(source, "edges")),
            operations=_operations(source),
        )
        tables = [
            Table(**_revived(record), rows=pl.read_parquet(source / "tables" / f"{record['name']}.parquet"))
            for record in header["tables"]
        ]
        return cls(
            name=header["name"],
            seed=header["seed"],
            graph=graph,
            tables={table.name: table for table in tables},
            views={record["name"]: View(**_revived(record)) for record in header["views"]},
            versions=[Version(**_revived(record)) for record in header["versions"]],
            datastacks={record["name"]: Datastack(**_revived(record)) for record in header["datastacks"]},
            notes=header["notes"],
            row_cap=header["row_cap"],
            shapes=Shapes(**{f.name: pl.read_parquet(source / "shapes" / f"{f.name}.parquet") for f in fields(Shapes)}),
            without_level2=frozenset(header["without_level2"]),
            files=dict(pl.read_parquet(source / "files.parquet").iter_rows()),
        )


_PAIRS = pl.List(pl.List(pl.Int64))
_OPERATION: Final[Mapping[str, Any]] = {
    "id": pl.Int64,
    "time_ms": pl.Int64,
    "user": pl.String,
    "kind": pl.String,
    "status": pl.Int64,
    "roots": pl.List(pl.Int64),
    "added_edges": _PAIRS,
    "removed_edges": _PAIRS,
    "source_ids": pl.List(pl.Int64),
    "sink_ids": pl.List(pl.Int64),
    "source_coords": _PAIRS,
    "sink_coords": _PAIRS,
    "bb_offset": pl.List(pl.Int64),
    "affinities": pl.List(pl.Float64),
    "undo_operation_id": pl.Int64,
    "redo_operation_id": pl.Int64,
    "exception": pl.String,
    "logged_ms": pl.Int64,
}


def _columns(folder: Path, name: str) -> dict[str, Any]:
    return {column.name: column.to_numpy() for column in pl.read_parquet(folder / f"{name}.parquet")}


def _operations_frame(operations: Any) -> pl.DataFrame:
    listed = list(operations)
    return pl.DataFrame({name: [getattr(o, name) for o in listed] for name in _OPERATION}, schema=_OPERATION)


def _operations(folder: Path) -> list[Operation]:
    rows = pl.read_parquet(folder / "operations.parquet").iter_rows(named=True)
    return [Operation(**{name: _tuples(value) for name, value in row.items()}) for row in rows]


def _layout(record: Mapping[str, Any]) -> Layout:
    bits = {int(layer): bits for layer, bits in record["spatial_bits"].items()}
    return Layout(**{name: _tuples(value) for name, value in record.items()} | {"spatial_bits": bits})


def _revived(record: Mapping[str, Any]) -> dict[str, Any]:
    """Undo what JSON did to datetimes and tuples."""
    times = {"created", "last_modified", "expires_on"}
    return {
        name: datetime.fromisoformat(value) if name in times and value else _tuples(value)
        for name, value in record.items()
    }


def _tuples(value: Any) -> Any:
    return tuple(_tuples(item) for item in value) if isinstance(value, list) else value
