"""Rows of the bulk exports: the unmodified cortical-tools reads the same bucket."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import polars as pl
from polars.testing import assert_frame_equal

from cortexclient.sandbox.exports import CONNECTIONS, exported

from .facts import Facts
from .peers import Peers
from .rows import Ask, Defect, Row, ask, once, same

LOSES_A_ROW = Defect(
    "cortical-tools takes the first record of a dump for a header row, and replaces it by the names",
    lambda facts, asked: true_rows(facts, asked) is not None,
)


def datastack(facts: Facts) -> str:
    """The one that the bench's client is about."""
    return "v1dd" if "v1dd" in facts.world.datastacks else next(iter(facts.world.datastacks))


def versions(facts: Facts) -> list[int]:
    return [v.version for v in facts.world.versions if v.datastack == datastack(facts) and v.valid]


def names(facts: Facts) -> list[str]:
    return sorted(exported(facts.world, datastack(facts), facts.world.version(None, datastack(facts))))


def true_rows(facts: Facts, asked: Ask) -> pl.DataFrame | None:
    """What was exported, points split; None where nothing of that name was."""
    world, name = facts.world, asked["table_name"]
    version = next(
        (v for v in world.versions if (v.version, v.datastack) == (asked["version"], datastack(facts))), None
    )
    if version is None or not version.valid:
        return None
    if name in version.tables:
        rows, table = world.annotations.frozen(name, version), world.tables[name]
        if version.is_merged:
            return rows
        bound = [f"{point}_{kind}_id" for point in table.bound_points for kind in ("supervoxel", "root")]
        return rows.drop(bound).with_columns(pl.lit(None, pl.Datetime("us")).alias("deleted"))
    if name in world.views:
        return world.annotations.view(name, version)
    return exported(world, datastack(facts), version).get(name)


def tables(facts: Facts) -> list[Ask]:
    wanted = [ask(table_name=name, version=version) for version in versions(facts)[-2:] for name in names(facts)]
    unknown = [ask(table_name="nope", version=versions(facts)[0]), ask(table_name=names(facts)[0], version=9999)]
    return [*wanted, *unknown, *(ask(table_name=name, version=0) for name in names(facts)[:4])]


def unknown_too(facts: Facts) -> list[Ask]:
    asked = [
        *names(facts),
        CONNECTIONS,
        "nope",
        "",
        "synapses",
        "v117",
        "nucleus_detection_v0.csv.gz",
        *facts.world.tables,
    ]
    return [ask(table_name=name) for name in asked]


def same_table(ours: Any, theirs: Any) -> None:
    """The same rows in the same order, types and all; ``theirs`` as polars keeps them."""
    truth = theirs if isinstance(theirs, pl.DataFrame) else pl.from_pandas(theirs)
    found = pl.from_pandas(ours)
    times = [pl.col(name).dt.replace_time_zone(None) for name, kind in found.schema.items() if kind == pl.Datetime]
    assert_frame_equal(found.with_columns(times).select(truth.columns).cast(dict(truth.schema)), truth)


def peer(call: Callable[[Any, Ask], Any]) -> Callable[[Peers, Ask], Any]:
    def theirs(peers: Peers, asked: Ask) -> Any:
        with peers.exports() as exports:
            return call(exports, asked)

    return theirs


async def dumps(client: Any, _: Ask) -> Any:
    """Only the peer's kind."""
    files = await client.exports.available_files()
    return [(one.name, one.version, one.bytes) for one in files if one.kind == "csv"]


async def sizes(client: Any, _: Ask) -> Any:
    frame = await client.exports.available_data_df()
    return frame[frame["kind"] == "csv"][["name", "version", "size"]].to_dict("list")


ROWS: list[Row] = [
    Row(
        "exports.available_files",
        once,
        peer(lambda exports, _: sorted((one.name, one.version, one.size) for one in exports.available_files)),
        dumps,
    ),
    Row("exports.available_tables", once, peer(lambda exports, _: exports.available_tables), same=same),
    Row(
        "exports.available_versions",
        unknown_too,
        peer(lambda exports, asked: exports.available_versions(**asked.arguments)),
    ),
    Row("exports.available_data_df", once, peer(lambda exports, _: exports.available_data_df().to_dict("list")), sizes),
    Row(
        "exports.get_table",
        tables,
        peer(lambda exports, asked: exports.get_table(**asked.arguments)),
        same=same_table,
        known_defects=(LOSES_A_ROW,),
        truth=true_rows,
    ),
]
