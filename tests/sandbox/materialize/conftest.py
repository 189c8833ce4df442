"""A world of six nuclei whose every root id at every time can be told by hand, and a way to ask its handlers."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pytest

from cortexclient.sandbox.calls import Call, Reply
from cortexclient.sandbox.graph import Cells, Graph, Layout, Lineage, Operation
from cortexclient.sandbox.router import Match, Router
from cortexclient.sandbox.routes import materialize, schema
from cortexclient.sandbox.tables import Table, Version, View, to_us
from cortexclient.sandbox.world import Datastack, World

START = datetime(2026, 1, 1)  # noqa: DTZ001 - naive UTC, as in the tables
START_MS = to_us(START) // 1000

LAYOUT = Layout(
    n_layers=3,
    spatial_bits={1: 4, 2: 4, 3: 1},
    chunk_size=(64, 64, 64),
    resolution=(4, 4, 40),
    voxel_offset=(0, 0, 0),
    volume_size=(1024, 1024, 1024),
)
SV = {n: int(LAYOUT.make(1, [n, 0, 0], 1)) for n in (1, 2, 3, 4)}
L2 = {n: int(LAYOUT.make(2, [n, 0, 0], 1)) for n in SV}
ROOT = {name: int(LAYOUT.make(3, [0, 0, 0], k)) for k, name in enumerate("ABCDE", start=1)}
SPLIT, MERGE = 50, 80
"""Days: A (supervoxels 1, 2) is split into B (1) and C (2); then C and D (supervoxel 3) are merged to E. 4 is F."""
ROOT["F"] = int(LAYOUT.make(3, [0, 0, 0], 9))
CAP = 100


def day(n: float) -> datetime:
    return START + timedelta(days=n)


def iso(n: float) -> str:
    return day(n).isoformat() + "+00:00"


def root_of(supervoxel: int | None, n: float) -> int | None:
    """The root at day ``n``, told by hand."""
    if not supervoxel:
        return supervoxel
    number = next(k for k, v in SV.items() if v == supervoxel)
    if number == 4:
        return ROOT["F"]
    if number == 1:
        return ROOT["A"] if n < SPLIT else ROOT["B"]
    if number == 2:
        return ROOT["A"] if n < SPLIT else ROOT["C"] if n < MERGE else ROOT["E"]
    return ROOT["D"] if n < MERGE else ROOT["E"]


def _graph() -> Graph:
    def ms(n: float) -> int:
        return START_MS + int(n * 86_400_000)

    cells = [(SV[n], L2[n], ms(0)) for n in SV]
    cells += [
        (L2[1], ROOT["A"], ms(0)),
        (L2[2], ROOT["A"], ms(0)),
        (L2[3], ROOT["D"], ms(0)),
        (L2[4], ROOT["F"], ms(0)),
    ]
    cells += [(L2[1], ROOT["B"], ms(SPLIT)), (L2[2], ROOT["C"], ms(SPLIT))]
    cells += [(L2[2], ROOT["E"], ms(MERGE)), (L2[3], ROOT["E"], ms(MERGE))]
    lineage = [
        (ROOT["A"], ROOT["B"], 1),
        (ROOT["A"], ROOT["C"], 1),
        (ROOT["C"], ROOT["E"], 2),
        (ROOT["D"], ROOT["E"], 2),
    ]
    return Graph(
        LAYOUT,
        table="small_v1",
        created_ms=ms(0),
        cells=Cells(*np.array(cells, np.int64).T.copy()),
        lineage=Lineage(*np.array(lineage, np.int64).T.copy()),
        operations=[
            Operation(1, ms(SPLIT), "1", "split", roots=(ROOT["B"], ROOT["C"])),
            Operation(2, ms(MERGE), "1", "merge", roots=(ROOT["E"],)),
        ],
    )


NUCLEI = [
    # id, created, deleted, volume, x, supervoxel
    (11, 1, None, 300.5, 70, SV[1]),
    (12, 1, None, None, 140, SV[2]),
    (13, 1, 60, 100.0, 200, SV[3]),
    (14, 2, None, 213.37, 270, SV[4]),
    (15, 30, None, 50.0, 999, 0),
    (16, 70, None, 75.0, 201, SV[3]),
]


def _point(xs: list[int | None], name: str = "pt") -> dict[str, pl.Series]:
    return {
        f"{name}_position_x": pl.Series(xs, dtype=pl.Int32),
        f"{name}_position_y": pl.Series([None if x is None else 5 for x in xs], dtype=pl.Int32),
        f"{name}_position_z": pl.Series([None if x is None else 3 for x in xs], dtype=pl.Int32),
    }


def _nuclei() -> Table:
    ids, created, deleted, volumes, xs, supervoxels = zip(*NUCLEI, strict=True)
    rows = pl.DataFrame(
        {
            "id": ids,
            "created": pl.Series([day(n) for n in created], dtype=pl.Datetime("us")),
            "deleted": pl.Series([None if n is None else day(n) for n in deleted], dtype=pl.Datetime("us")),
            "superceded_id": pl.Series([None] * 6, dtype=pl.Int64),
            "valid": [n is None for n in deleted],
            "volume": volumes,
            **_point(list(xs)),
            "pt_supervoxel_id": supervoxels,
            **_point([None, 10, 20, 30, 40, 50], "bb_start"),
        }
    )
    return Table("nuclei", "nucleus_detection", (4.0, 4.0, 40.0), rows, description="Six nuclei.", id=1)


def _types() -> Table:
    rows = pl.DataFrame(
        {
            "id": [1, 2, 3, 4],
            "created": [day(3)] * 3 + [day(75)],
            "target_id": [11, 12, 13, 99],
            "classification_system": ["exc", "exc", "inh", "inh"],
            "cell_type": ["L2/3 PC", "L4 PC", "Basket", "Basket"],
        }
    )
    notice = "Cite the\npaper."
    table = ("types", "cell_type_reference", (4.0, 4.0, 40.0), rows)
    return Table(*table, reference_table="nuclei", notice_text=notice, user_id="2", id=2)


def _notes(name: str, supervoxels: list[int | None], created: float = 1, **metadata: Any) -> Table:
    n = len(supervoxels)
    columns = {"id": list(range(1, n + 1)), "created": [day(created)] * n, **_point([1] * n)}
    rows = pl.DataFrame({**columns, "pt_supervoxel_id": pl.Series(supervoxels, dtype=pl.Int64), "tag": ["note"] * n})
    return Table(name, "bound_tag", (4.0, 4.0, 40.0), rows, **metadata)


def _many() -> Table:
    n = 3 * CAP
    rows = pl.DataFrame(
        {"id": range(n), "created": [day(1)] * n, "target_id": [11] * n, "value": [float(k) for k in range(n)]}
    )
    return Table("many", "reference_tag_float", (8.0, 8.0, 40.0), rows, reference_table="nuclei")


@pytest.fixture(scope="session")
def world() -> World:
    """Two split versions around the split, one merged after the merge, one expired; a public datastack shows one."""
    tables = [
        _nuclei(),
        _types(),
        _many(),
        _notes("private", [SV[1]], read_permission="PRIVATE", user_id="999"),
        _notes("marks", [SV[1], SV[4], SV[4]]),
        _notes("waiting", [SV[1], None], created=88),
    ]
    names = ("nuclei", "types", "many", "private", "marks")
    view = View(
        "typed",
        "SELECT n.id, n.volume, n.pt_position_x, n.pt_position_y, n.pt_position_z, n.pt_supervoxel_id, n.pt_root_id, "
        "t.cell_type FROM nuclei AS n LEFT JOIN types AS t ON t.target_id = n.id",
        (4.0, 4.0, 40.0),
        notice_text="A view.",
        id=1,
    )
    versions = [
        Version(1, "small", to_us(day(5)), names, id=1, valid=False, status="EXPIRED"),
        Version(2, "small", to_us(day(40)) + 123_456, names, id=2, first_table_id=10, expires_on=day(400)),
        Version(3, "small", to_us(day(65)) + 654_321, names, id=3, first_table_id=20),
        Version(4, "small", to_us(day(85)), names, id=4, first_table_id=30, is_merged=True),
        Version(3, "small_public", to_us(day(65)) + 654_321, ("nuclei",), id=5, first_table_id=40, parent=3),
    ]
    stacks = {name: Datastack(name, "small_vol", "small_v1") for name in ("small", "small_public")}
    by_name = {table.name: table for table in tables}
    return World("small", 7, _graph(), by_name, {"typed": view}, versions, stacks, row_cap=CAP)


@dataclass(frozen=True)
class Answer:
    """A reply, decoded."""

    reply: Reply
    body: bytes

    @property
    def status(self) -> int:
        return self.reply.status

    def json(self) -> Any:
        return json.loads(self.body)

    def table(self) -> pa.Table:
        assert self.reply.status == 200, self.body
        assert self.reply.content_type == "data.arrow"
        return pa.ipc.open_stream(self.body).read_all()

    def column(self, name: str) -> list[Any]:
        values: list[Any] = self.table().column(name).to_pylist()
        return values

    def headers(self, name: str) -> list[str]:
        return [value for key, value in self.reply.headers if key == name]


Ask = Callable[..., Answer]
ROUTER = Router([materialize.TABLE, schema.TABLE])
QUERY = {"return_pyarrow": "True", "arrow_format": "True", "direct_sql_pandas": "True"}


@pytest.fixture
def ask(world: World) -> Ask:
    """Put a request to the handlers; a path without ``/`` in front is one of the datastack ``small``."""

    def asked(
        path: str,
        body: Any = None,
        *,
        method: str | None = None,
        query: Mapping[str, str] | None = None,
        accept: str = "zstd",
        strict: bool = False,
        now_ms: int = START_MS,
        content_type: str = "application/json",
    ) -> Answer:
        full = path if path.startswith("/") else f"/materialize/api/v3/datastack/small/{path}"
        method = method or ("GET" if body is None else "POST")
        match = ROUTER.find(method, full)
        assert isinstance(match, Match), (method, full)
        call = Call(
            method,
            full,
            match.params,
            {**QUERY, **(query or {})},
            {"accept-encoding": accept, "content-type": content_type},
            body if isinstance(body, bytes) else json.dumps(body).encode() if body is not None else b"",
            now_ms,
            "http://sandbox",
            user_id=101,
            strict=strict,
        )
        try:
            reply = match.route.handler(world, call)
        except Exception as error:
            if match.table.on_error is None:
                raise
            reply = match.table.on_error(call, error)
        coded = dict(reply.headers).get("Content-Encoding") == "gzip"
        return Answer(reply, gzip.decompress(reply.body) if coded else reply.body)

    return asked


@dataclass(frozen=True)
class Known:
    """What the tests know about the world."""

    root: Mapping[str, int]
    root_of: Callable[[int | None, float], int | None]
    nuclei: list[tuple[Any, ...]]
    day: Callable[[float], datetime]
    iso: Callable[[float], str]

    def alive(self, n: float) -> dict[int, int | None]:
        """Ids of the nuclei that are there at day ``n``, with their root ids."""
        rows = [row for row in self.nuclei if row[1] <= n and (row[2] is None or n < row[2])]
        return {row[0]: self.root_of(row[5], n) for row in rows}


@pytest.fixture(scope="session")
def known() -> Known:
    """Told by hand."""
    return Known(ROOT, root_of, NUCLEI, day, iso)
