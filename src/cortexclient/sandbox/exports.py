"""Bulk exports: the files that CAVE writes of whole tables to a bucket, made when somebody asks for them.

Two kinds, as MaterializationEngine 5.26 writes them. Static dumps are ``v{version}/{name}.csv.gz``, without a header
row, beside ``{name}_header.csv`` with a line ``column,SQL type`` for each column: of a table itself (points as hex
EWKB), of its segmentation half (``{name}__{graph}``), of both joined (``{name}_merged``), and of views. Delta Lakes are
folders ``v{version}/{table}/{ordering}/``; here there are those of the synapses at the newest version.
"""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np
import polars as pl
from isal import igzip

if TYPE_CHECKING:
    from .tables import Version
    from .world import World

BUCKET: Final = "mat_dbs/public"
"""Where the datasets' real exports are."""
GATED_BUCKET: Final = "mat_dbs_gated"
"""The same objects again, for who shows a token."""
EXAMPLES: Final = "my-bucket/exports"
"""Where the documentation looks: the exports of the first datastack."""
PARENTS: Final = {"minnie65_public": "minnie65_phase3_v1"}
"""Public datastacks, and the one under whose name their exports are."""
LAKES: Final = f"{BUCKET}/deltalake_exports"
PARTITIONS: Final = 4
AXES: Final = ("_x", "_y", "_z")
CONNECTIONS: Final = "connections_with_nuclei"
SQL_TYPES: Final[tuple[tuple[pl.DataType | type[pl.DataType], str], ...]] = (
    (pl.Int64, "bigint"),
    (pl.Int32, "integer"),
    (pl.Float32, "double precision"),
    (pl.Float64, "double precision"),
    (pl.Boolean, "boolean"),
    (pl.String, "character varying"),
    (pl.Datetime, "timestamp without time zone"),
    (pl.Decimal, "numeric"),
    (pl.Binary, "USER-DEFINED"),
)


def export_urls(datastack: str) -> tuple[str, str]:
    """Where the dumps and the lakes of a datastack are."""
    return f"gs://{BUCKET}/{datastack}", f"gs://{LAKES}/{datastack}"


class Listing(NamedTuple):
    """Objects below a prefix, in the order of their names, and what stands for those behind the next slash."""

    objects: list[tuple[str, bytes]]
    prefixes: list[str]


@dataclass(eq=False)
class Exports:
    """The objects of all buckets but the meshes; those of the exports are made at their first use."""

    world: World
    _folders: dict[str, dict[str, bytes]] = field(default_factory=dict, init=False, repr=False)
    _digests: dict[str, tuple[bytes, bytes]] = field(default_factory=dict, init=False, repr=False)

    def read(self, path: str) -> bytes | None:
        """One object, by ``bucket/name``."""
        path = _ungated(path)
        if path in self.world.files:
            return self.world.files[path]
        folder = next((folder for folder in self._known() if path.startswith(folder)), None)
        return None if folder is None else self._made(folder).get(path.removeprefix(folder))

    def list(self, bucket: str, prefix: str, delimiter: str) -> Listing:
        """What a bucket holds below a prefix; with a delimiter only as far as the next one."""
        place = f"{_ungated(bucket)}/"
        start = place + prefix

        def shown(path: str) -> str:
            """The path as far as the next delimiter."""
            head, found, _ = path.removeprefix(start).partition(delimiter) if delimiter else (path, "", "")
            return start + head + found if found else path

        objects: dict[str, bytes] = {}
        prefixes: set[str] = set()
        for folder in self._known():
            if folder.startswith(start) and shown(folder) != folder:
                prefixes.add(shown(folder))
            elif folder.startswith(start) or start.startswith(folder):
                objects |= {folder + name: data for name, data in self._made(folder).items()}
        there = {path: data for path, data in (objects | self.world.files).items() if path.startswith(start)}
        prefixes |= {shown(path) for path in there if shown(path) != path}
        return Listing(
            [(path.removeprefix(place), there[path]) for path in sorted(there) if shown(path) == path],
            [path.removeprefix(place) for path in sorted(prefixes)],
        )

    def md5(self, path: str, data: bytes) -> bytes:
        """Digest of an object, kept for the next time."""
        kept = self._digests.get(path)
        if kept is None or kept[0] is not data:
            kept = self._digests[path] = data, hashlib.md5(data, usedforsecurity=False).digest()
        return kept[1]

    def _known(self) -> dict[str, tuple[str, Version]]:
        """Every folder of exports: its path, the datastack, the version."""
        folders: dict[str, tuple[str, Version]] = {}
        for number, stack in enumerate(self.world.datastacks):
            for name in dict.fromkeys((stack, PARENTS.get(stack, stack))):
                roots = [f"{BUCKET}/{name}", *([EXAMPLES] if number == 0 else [])]
                valid = [v for v in self.world.versions if v.datastack == stack and v.valid]
                for version in valid:
                    folders |= {f"{root}/v{version.version}/": (stack, version) for root in roots}
                if valid:
                    newest = max(valid, key=lambda v: v.time_us)
                    folders[f"{LAKES}/{name}/v{newest.version}/"] = stack, newest
        return folders

    def _made(self, folder: str) -> dict[str, bytes]:
        if folder not in self._folders:
            stack, version = self._known()[folder]
            make = lakes if folder.startswith(LAKES) else dumps
            self._folders[folder] = make(self.world, stack, version)
        return self._folders[folder]


def _ungated(path: str) -> str:
    return "mat_dbs" + path.removeprefix(GATED_BUCKET) if path.startswith(GATED_BUCKET) else path


# -- static dumps ------------------------------------------------------------------------------------------------------


def dumps(world: World, datastack: str, version: Version) -> dict[str, bytes]:
    """The static dumps of a version with their headers, by file name."""
    files: dict[str, bytes] = {}
    for name, rows in exported(world, datastack, version).items():
        files[f"{name}.csv.gz"] = igzip.compress(csv(rows), 1, mtime=0)
        files[f"{name}_header.csv"] = header(rows)
    return files


def exported(world: World, datastack: str, version: Version) -> dict[str, pl.DataFrame]:
    """What is dumped of a version: points are binary EWKB where they are geometries in the database."""
    frames: dict[str, pl.DataFrame] = {}
    tables = world.annotations
    for name in version.tables:
        rows, table = tables.frozen(name, version), world.tables[name]
        bound = [f"{p}_{kind}_id" for p in table.bound_points for kind in ("supervoxel", "root")]
        if version.is_merged:
            frames[name] = with_geometries(rows, table.points)
            continue
        ends = rows.with_columns(pl.lit(None, pl.Datetime("us")).alias("deleted")).select(
            "id", "created", "deleted", pl.exclude("id", "created", "deleted", *bound)
        )
        frames[name] = with_geometries(ends, table.points)
        if bound:
            frames[f"{name}__{world.graph.table}"] = rows.select("id", *bound)
            frames[f"{name}_merged"] = rows
    frames |= {name: tables.view(name, version) for name in world.views}
    stack = world.datastacks[datastack]
    if {stack.synapse_table, stack.soma_table} <= set(version.tables):
        frames[CONNECTIONS] = connections(
            tables.frozen(str(stack.synapse_table), version), tables.frozen(str(stack.soma_table), version)
        )
    return frames


def connections(synapses: pl.DataFrame, nuclei: pl.DataFrame) -> pl.DataFrame:
    """The view of minnie65 that counts the synapses of each pair of roots with a single nucleus each."""
    alone = nuclei.filter(pl.col("pt_root_id") > 0).unique("pt_root_id", keep="none")
    sides = [
        alone.select(pl.col("pt_root_id").alias(f"{side}_pt_root_id"), pl.col("id").alias(f"{side}_nuc_id"))
        for side in ("pre", "post")
    ]
    roots = ["pre_pt_root_id", "post_pt_root_id"]
    counted = synapses.group_by(roots).agg(
        pl.len().cast(pl.Int64).alias("n_syn"), pl.col("size").cast(pl.Float64).sum().alias("sum_size")
    )
    found = counted.join(sides[0], on=roots[0]).join(sides[1], on=roots[1])
    return found.select(*roots, "pre_nuc_id", "post_nuc_id", "n_syn", "sum_size").sort(roots)


def with_geometries(rows: pl.DataFrame, points: list[str]) -> pl.DataFrame:
    """The same rows with points as PostGIS keeps them: ``{p}_position`` in place of its three coordinates."""
    columns: list[pl.Series] = []
    stems = {f"{point}_position" for point in points}
    for column in rows.iter_columns():
        stem, axis = column.name[:-2], column.name[-2:]
        if stem not in stems or axis not in AXES:
            columns.append(column)
        elif axis == AXES[0]:
            columns.append(ewkb(rows.select(stem + axis for axis in AXES)).alias(stem))
    return pl.DataFrame(columns)


def ewkb(points: pl.DataFrame) -> pl.Series:
    """Points as EWKB: little endian, type 1 with the flag for a third axis, no reference system."""
    written = np.zeros((len(points), 29), np.uint8)
    written[:, :5] = 1, 1, 0, 0, 0x80
    written[:, 5:] = np.ascontiguousarray(points.fill_null(0).to_numpy(), "<f8").view(np.uint8).reshape(-1, 24)
    gone = points.select(pl.any_horizontal(pl.all().is_null())).to_series().to_list()
    return pl.Series(
        [None if null else row.tobytes() for row, null in zip(written, gone, strict=True)], dtype=pl.Binary
    )


def csv(rows: pl.DataFrame) -> bytes:
    """As PostgreSQL copies rows out: no header row, nulls empty, ``t`` and ``f``, geometries in upper-case hex."""
    flags = pl.col(pl.Boolean).replace_strict({True: "t", False: "f"}, return_dtype=pl.String)
    text = rows.with_columns(flags, pl.col(pl.Binary).bin.encode("hex").str.to_uppercase())
    return text.write_csv(include_header=False, datetime_format="%Y-%m-%d %H:%M:%S%.6f").encode()


def header(rows: pl.DataFrame) -> bytes:
    """The file beside a dump: each column and its type in the database."""
    types = (next(sql for kind, sql in SQL_TYPES if dtype == kind) for dtype in rows.dtypes)
    return "".join(f"{name},{sql}\n" for name, sql in zip(rows.columns, types, strict=True)).encode()


# -- Delta Lakes -------------------------------------------------------------------------------------------------------


def lakes(world: World, datastack: str, version: Version) -> dict[str, bytes]:
    """The lakes of the synapses: one for each ordering, the centre as integers, the other points as EWKB."""
    name = world.datastacks[datastack].synapse_table
    if name not in version.tables:
        return {}
    table = world.tables[str(name)]
    rows = world.annotations.frozen(str(name), version).drop("created", "superceded_id", strict=False)
    spatial = next((p for prefix in ("ctr", "post", "pre", "pt") for p in table.points if p.startswith(prefix)), None)
    rows = with_geometries(rows, [point for point in table.points if point != spatial])
    orderings = ["id", *(f"{point}_root_id" for point in table.bound_points)]
    frames: Mapping[str, pl.DataFrame] = dict.fromkeys(orderings, rows)
    if spatial is not None:
        morton = f"{spatial}_position_morton"
        frames = {**frames, morton: rows.with_columns(_morton(rows, f"{spatial}_position").alias(morton))}
    files: dict[str, bytes] = {}
    for column, frame in frames.items():
        files |= {f"{name}/{column}/{path}": data for path, data in lake(frame, column).items()}
    return files


def _morton(rows: pl.DataFrame, stem: str) -> pl.Series:
    """Place on the Morton curve: 21 bits of each coordinate, those of x lowest."""
    place = np.zeros(len(rows), np.int64)
    for axis, name in enumerate("xyz"):
        values = rows[f"{stem}_{name}"].to_numpy().astype(np.int64)
        for bit in range(21):
            place |= ((values >> bit) & 1) << (3 * bit + axis)
    return pl.Series(place)


def lake(rows: pl.DataFrame, column: str) -> dict[str, bytes]:
    """A Delta Lake, partitioned by ranges of a column and sorted by it: written, optimized, vacuumed."""
    from deltalake import DeltaTable, write_deltalake

    ranks = rows[column].rank("max").to_numpy() - 1
    partition = pl.Series(f"{column}_partition", (ranks * PARTITIONS // max(len(rows), 1)).astype(np.int32))
    with tempfile.TemporaryDirectory(prefix="lake-") as folder:
        write_deltalake(folder, rows.with_columns(partition), partition_by=[partition.name])
        written = DeltaTable(folder)
        written.optimize.z_order([column])
        written.vacuum(retention_hours=0, enforce_retention_duration=False, dry_run=False)
        files = [path for path in Path(folder).rglob("*") if path.is_file()]
        return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}
