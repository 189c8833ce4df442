"""Arrow IPC streams of the materialization service.

The server names the type ``data.arrow`` and makes the stream from a pandas frame. A frame that it cut after filtering
carries its index as a column of its own (``__index_level_0__``), which is no column of the table and is dropped here.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from ..errors import DecodeError

if TYPE_CHECKING:
    import pyarrow as pa

_INDEX = re.compile(r"__index_level_\d+__")


def decode_table(body: bytes) -> pa.Table:
    """One IPC stream to one table; columns as on the wire, without the index of the server's frame.

    Raises
    ------
    DecodeError
        If it is no stream, or cut short.
    """
    import pyarrow as pa

    # an Arrow stream without its end mark still parses: a body that was cut between two messages must not pass as whole
    if not body.endswith(b"\xff\xff\xff\xff\x00\x00\x00\x00"):
        raise DecodeError(f"the Arrow stream of {len(body)} bytes has no end mark: it was cut short")
    try:
        table = pa.ipc.open_stream(pa.py_buffer(body)).read_all()
    except (pa.ArrowException, OSError) as error:
        raise DecodeError(f"the reply is not an Arrow stream ({error})") from error
    extra = [name for name in table.column_names if _INDEX.fullmatch(name)]
    return table.drop_columns(extra).replace_schema_metadata(None)
