"""What the columns of a dump are: read from the file beside it, never guessed."""

from __future__ import annotations

import csv
import io
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Final

from ..errors import DecodeError

if TYPE_CHECKING:
    import pyarrow as pa

GEOMETRY: Final = "USER-DEFINED"
TIMES: Final = ("timestamp without time zone", "timestamp with time zone")


@dataclass(frozen=True, slots=True)
class Column:
    """A column of a dump and its type in the database."""

    name: str
    sql: str

    @property
    def is_text(self) -> bool:
        """Whether a value may hold anything, line breaks too."""
        return self.sql not in (GEOMETRY, "date", "boolean", *TIMES) and self.sql not in _numbers()

    def arrow(self) -> pa.DataType:
        """How its values are parsed. Types that Arrow has no match for stay text (``numeric``, arrays)."""
        import pyarrow as pa

        kinds: dict[str, pa.DataType] = {
            GEOMETRY: pa.binary(),  # hex EWKB
            "boolean": pa.bool_(),
            "date": pa.date32(),
            TIMES[0]: pa.timestamp("us"),
            TIMES[1]: pa.timestamp("us", "UTC"),
        }
        return kinds.get(self.sql) or _numbers().get(self.sql) or pa.string()


def _numbers() -> dict[str, pa.DataType]:
    import pyarrow as pa

    return {
        "bigint": pa.int64(),
        "integer": pa.int32(),
        "smallint": pa.int16(),
        "double precision": pa.float64(),
        "real": pa.float32(),
    }


def read_columns(text: bytes, url: str) -> list[Column]:
    """Read the header of a dump: a line ``name,SQL type`` for each of its columns (MaterializationEngine 5.26).

    Raises
    ------
    DecodeError
        There are no lines, lines that are no pairs, or the same column twice.
    """
    lines = [line for line in csv.reader(io.StringIO(text.decode())) if line]
    names = [line[0] for line in lines]
    if not lines or any(len(line) != 2 for line in lines) or len(set(names)) < len(names):
        raise DecodeError(
            f"{url} should have one line 'column,type' for each column, each once, but "
            f"{f'begins {text[:200]!r}' if text else 'is empty or not there'}; "
            "without it no type is known: ask the administrator of the bucket to export the table again"
        )
    return [Column(name, sql) for name, sql in lines]


def has_header_row(start: str, columns: list[Column], url: str) -> bool:
    """Whether a dump begins with the names of its columns; usually it begins with its first row.

    Parameters
    ----------
    start
        The beginning of the data, at least one record.

    Raises
    ------
    DecodeError
        It has another number of columns than its header.
    """
    first = next(iter(islice(csv.reader(io.StringIO(start)), 1)), [])
    names = [column.name for column in columns]
    if first and len(first) != len(names):
        raise DecodeError(
            f"{url} begins with {len(first)} fields ({','.join(first)[:200]}), its header names {len(names)} "
            f"({','.join(names)[:200]})"
        )
    return first == names
