"""What a job can ask: each task is a call of the client, named like it, and how its answers become rows or files."""

from __future__ import annotations

import difflib
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from .._client import AsyncCortexClient
from .._fanout import fan_out, together
from .._types import IdArray
from ..errors import CortexUsageError
from ..ids import layer_of
from ..results import Stream

LOOK_UPS, OBJECTS, BULKY = 50_000, 500, 100
"""Ids of a part by default: of look-ups, of skeletons and meshes, of what has thousands of rows for each id."""


@dataclass(frozen=True, slots=True)
class Context:
    """What a task needs beside the ids of a part."""

    client: AsyncCortexClient
    """A view at the job's instant."""
    options: Mapping[str, Any]
    all_ids: Callable[[], IdArray]
    """All ids of the job."""


Ask = Callable[[Context, IdArray], Awaitable[pa.Table]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """A call of the client for any number of ids."""

    call: str
    given: str
    """What a column of its ids is called."""
    ask: Ask | None = None
    """Gives a table of rows about some ids."""
    stream: Callable[[Context, IdArray], Stream[Any]] | None = None
    """Or gives an object for each."""
    found_in: tuple[str, ...] = ()
    """Columns of which one holds the id that a row is about."""
    one_row_each: bool = False
    """Every id has one row, and rows stand in the order of the ids."""
    at: Literal["version", "instant"] | None = None
    """What the answers depend on; None: they cannot change."""
    part_size: int = LOOK_UPS
    sinks: tuple[str, ...] = ("parquet",)
    """The first one is the default."""
    options: frozenset[str] = field(default=frozenset())
    """Arguments of the call that a job may fix."""


# -- one row for each id ---------------------------------------------------------------------------------------------


async def _cells_of_roots(context: Context, ids: IdArray) -> pa.Table:
    return _rows(await context.client.root_id_to_cell_id(ids, detail=True))


async def _roots_of_cells(context: Context, ids: IdArray) -> pa.Table:
    return _rows(await context.client.cell_id_to_root_id(ids, detail=True))


async def _roots(context: Context, ids: IdArray) -> pa.Table:
    roots = await context.client.get_roots(ids, **context.options)
    return pa.table([pa.array(ids), pa.array(roots)], names=["supervoxel_id", "root_id"])


async def _lifetimes(context: Context, ids: IdArray) -> pa.Table:
    return _rows(await context.client.root_lifetimes(ids))


async def _current_roots(context: Context, ids: IdArray) -> pa.Table:
    rows = _rows(await context.client.update_roots(ids))
    alternatives = rows.column("alternatives").cast(pa.list_(pa.int64()))  # of no type where all are empty
    return rows.set_column(rows.schema.get_field_index("alternatives"), "alternatives", alternatives)


def _rows(frame: Any) -> pa.Table:
    """A frame as a table; when an answer was seen is left out: it differs from run to run, the answer does not."""
    table = pa.Table.from_pandas(frame.reset_index(), preserve_index=False).replace_schema_metadata(None)
    names = [name for name in table.column_names if name != "timestamp"]
    text: dict[str, pa.DataType] = {name: pa.string() for name in ("status", "source") if name in names}
    return table.select(names).cast(
        pa.schema([(name, text.get(name, table.schema.field(name).type)) for name in names])
    )


# -- any number of rows for each id ----------------------------------------------------------------------------------


async def _l2data(context: Context, ids: IdArray) -> pa.Table:
    """Measures of the level-2 chunks of roots; ids of level 2 stand for themselves."""
    client, is_chunk = context.client, layer_of(ids) == 2

    async def chunks_of(root: int) -> IdArray:
        return await client.get_l2_ids(root)

    roots = ids[~is_chunk]
    found = await fan_out(roots.tolist(), chunks_of, workers=16)
    owner = np.concatenate([ids[is_chunk], np.repeat(roots, [len(chunks) for chunks in found])])
    chunks = np.concatenate([ids[is_chunk], *found])
    measures = await client.get_l2data(chunks, **context.options)
    table = pa.Table.from_pandas(measures.loc[chunks].reset_index(), preserve_index=False)
    return table.replace_schema_metadata(None).add_column(0, "id", pa.array(owner, pa.int64()))


PRE, POST = "pre_pt_root_id", "post_pt_root_id"


async def _synapses(context: Context, ids: IdArray) -> pa.Table:
    return await _both_sides(context, ids, context.client.query_synapses)


async def _edges(context: Context, ids: IdArray) -> pa.Table:
    return await _both_sides(context, ids, context.client.synapse_edges)


async def _both_sides(context: Context, ids: IdArray, call: Callable[..., Awaitable[Any]]) -> pa.Table:
    """Each synapse once in the whole job: one between two of its ids belongs to the part of the one that makes it."""
    options = dict(context.options)
    sides = [side for side in ("pre", "post") if options.pop(side, True)]

    async def of(side: str) -> pa.Table:
        frame = await call(ids, pre=side == "pre", post=side == "post", **options)
        rows = pa.Table.from_pandas(frame, preserve_index=False).replace_schema_metadata(None)
        if side == "pre" or "pre" not in sides:
            return rows
        return rows.filter(pc.invert(pc.is_in(rows.column(PRE), pa.array(context.all_ids()))))

    found = await together(*(lambda side=side: of(side) for side in sides))
    return pa.concat_tables(found, promote_options="permissive")


# -- objects ---------------------------------------------------------------------------------------------------------


def _skeletons(context: Context, ids: IdArray) -> Stream[Any]:
    return context.client.skeleton.stream_skeletons(ids, **context.options)


def _meshes(context: Context, ids: IdArray) -> Stream[Any]:
    return context.client.mesh.stream_meshes(ids, **context.options)


_SYNAPSES: Final[Mapping[str, Any]] = {
    "given": "root_id",
    "found_in": (PRE, POST),
    "at": "version",
    "part_size": BULKY,
}
_SIDES = frozenset({"pre", "post", "remove_autapses", "synapse_table"})

TASKS: Final[Mapping[str, Task]] = {
    task.call: task
    for task in (
        Task(
            call="root_id_to_cell_id",
            given="root_id",
            ask=_cells_of_roots,
            found_in=("root_id",),
            one_row_each=True,
            at="version",
        ),
        Task(
            call="cell_id_to_root_id",
            given="cell_id",
            ask=_roots_of_cells,
            found_in=("cell_id",),
            one_row_each=True,
            at="version",
        ),
        Task(
            call="get_roots",
            given="supervoxel_id",
            ask=_roots,
            found_in=("supervoxel_id",),
            one_row_each=True,
            at="instant",
            options=frozenset({"stop_layer"}),
        ),
        Task(
            call="root_lifetimes",
            given="root_id",
            ask=_lifetimes,
            found_in=("root_id",),
            one_row_each=True,
            at="instant",
        ),
        Task(
            call="update_roots",
            given="root_id",
            ask=_current_roots,
            found_in=("root_id",),
            one_row_each=True,
            at="instant",
            part_size=10_000,
        ),
        Task(
            call="get_l2data",
            given="root_id",
            ask=_l2data,
            found_in=("id",),
            part_size=BULKY,
            options=frozenset({"attributes"}),
        ),
        Task(
            call="query_synapses",
            ask=_synapses,
            options=_SIDES | {"desired_resolution"},
            **_SYNAPSES,
        ),
        Task(call="synapse_edges", ask=_edges, options=_SIDES, **_SYNAPSES),
        Task(
            call="get_skeletons",
            given="root_id",
            stream=_skeletons,
            found_in=("root_id",),
            part_size=OBJECTS,
            sinks=("swc", "parquet"),
            options=frozenset({"generate", "timeout"}),
        ),
        Task(
            call="get_meshes",
            given="root_id",
            stream=_meshes,
            found_in=("root_id",),
            part_size=OBJECTS,
            sinks=("draco",),
            options=frozenset({"max_bytes", "allow_missing", "timeout"}),
        ),
    )
}


def find_task(name: str, options: Mapping[str, Any], sink: str | None) -> Task:
    """The task of that name, if it takes these options and can write to that sink.

    Raises
    ------
    CortexUsageError
        Naming what there is instead.
    """
    task = TASKS.get(name)
    if task is None:
        near = difflib.get_close_matches(name, TASKS, n=1, cutoff=0.4)
        hint = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(sorted(TASKS))}"
        raise CortexUsageError(f"there is no bulk task {name!r}: {hint}")
    if unknown := set(options) - task.options:
        takes = ", ".join(sorted(task.options)) or "none (its instant is that of the client)"
        raise CortexUsageError(f"{name} takes no {', '.join(sorted(unknown))} in bulk; its options: {takes}")
    if sink is not None and sink not in task.sinks:
        raise CortexUsageError(f"{name} cannot be written as {sink!r}: choose of {', '.join(task.sinks)}")
    return task
