"""When two answers are the same.

Everything that is *not* compared is named here, and nothing else is let go:

- ids: the peers give uint64, lists, or Python integers, this package int64. Both are made int64, exactly.
- order: where a docstring promises the order of the input, it is compared. Elsewhere (leaves, children, lineages,
  names, rows of a table) both sides are sorted first.
- times: arrays of datetimes, datetimes with pytz's UTC and a DatetimeIndex are made int64 microseconds. Lifetimes are
  kept in whole milliseconds here, as on the servers; the end of a current root is the instant of asking, and caveclient
  keeps its microseconds.
- frames: an Arrow column is nullable in the peers' frames (``Int64``, ``boolean``, ``string``) and plain here where
  nothing is missing: values and gaps are compared. The peers give the columns that a route happens to have, in its
  order; here the bookkeeping columns are always there. So columns are compared by name, and one that only one side
  has must be bookkeeping, or the supervoxel that the server adds to a selected root. Times of views lack their zone
  in the peers' frames.
- points: the servers cut fractions of a unit off, this package keeps them: cut off here, they are the same.
- a version that never expires: caveclient writes the last instant that pandas knows, this package None.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd


def ids(values: Any) -> npt.NDArray[np.int64]:
    """int64, without ever passing through floats."""
    array = np.atleast_1d(np.asarray(values))
    if array.size == 0:
        return np.empty(0, np.int64)
    assert array.dtype.kind in "iu", f"ids of type {array.dtype}"
    return array.astype(np.int64)


def microseconds(values: Any) -> npt.NDArray[np.int64]:
    index = pd.DatetimeIndex(pd.to_datetime(np.atleast_1d(np.asarray(values, dtype=object)), utc=True))
    return index.as_unit("us").asi8


def same(ours: Any, theirs: Any) -> None:
    """Equal as they are; arrays and tuples count as lists."""
    assert _plain(ours) == _plain(theirs)


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, np.ndarray | np.generic):
        return value.tolist()
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value


def same_ids(ours: Any, theirs: Any) -> None:
    """The same ids in the same order."""
    assert np.asarray(ours).dtype == np.int64 or isinstance(ours, int)
    assert ids(ours).tolist() == ids(theirs).tolist()


def same_id_set(ours: Any, theirs: Any) -> None:
    """The same ids, each as often; in any order."""
    assert np.asarray(ours).dtype == np.int64
    assert sorted(ids(ours).tolist()) == sorted(ids(theirs).tolist())


def same_id_sets(ours: Mapping[int, Any], theirs: Mapping[int, Any]) -> None:
    """The same sets of ids under the same ids."""
    assert _sets(ours) == _sets(theirs)


def _sets(lists: Mapping[int, Any]) -> dict[int, list[int]]:
    return {int(key): sorted(ids(values).tolist()) for key, values in lists.items()}


def same_flags(ours: Any, theirs: Any) -> None:
    assert ours.dtype == np.bool_
    assert ours.tolist() == np.asarray(theirs, bool).tolist()


def same_times(ours: Any, theirs: Any) -> None:
    assert microseconds(ours).tolist() == microseconds(theirs).tolist()


def same_times_but_now(ours: Any, theirs: Any) -> None:
    """What is current is so until now, and the two were not asked at the same moment."""
    apart = np.abs(microseconds(ours) - microseconds(theirs))
    since = microseconds([datetime.now().astimezone()]) - microseconds(ours)
    assert ((apart < 1000) | ((apart < 60e6) & (since < 120e6))).all()


def same_lifetimes(ours: pd.DataFrame, theirs: Mapping[str, Any]) -> None:
    """``theirs``: start and end of each root, end None where it is current."""
    assert microseconds(ours["start"]).tolist() == microseconds(theirs["start"]).tolist()
    ends = [None if pd.isna(end) else int(microseconds([end])[0]) for end in ours["end"]]
    assert ends == [None if end is None else int(microseconds([end])[0]) for end in theirs["end"]]
    assert ours["is_latest"].to_list() == [end is None for end in ends]


def same_lineage(ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> None:
    """The same nodes with all their attributes, and the same links."""
    assert {node["id"]: node for node in ours["nodes"]} == {node["id"]: node for node in theirs["nodes"]}
    assert _links(ours) == _links(theirs)
    assert {key: ours[key] for key in ("directed", "multigraph", "graph")} == {
        key: theirs[key] for key in ("directed", "multigraph", "graph")
    }


def _links(graph: Mapping[str, Any]) -> list[tuple[int, int]]:
    return sorted({(link["source"], link["target"]) for link in graph["links"]})


def same_shares(ours: pd.DataFrame, theirs: Mapping[int, float]) -> None:
    """The same roots with the same shares, largest first."""
    found = ours["fraction"].to_dict()
    assert found == pytest_approx(theirs)
    assert ours["fraction"].is_monotonic_decreasing
    assert ours.index.dtype == np.int64


def pytest_approx(shares: Mapping[int, float]) -> Any:
    import pytest

    return pytest.approx({int(root): float(share) for root, share in shares.items()})


def same_names(ours: list[str], theirs: Any) -> None:
    """``theirs`` in any order, or as the keys of a mapping."""
    assert ours == sorted(theirs)


def same_values(ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> None:
    """Lists under names, in any order; nulls count."""
    assert {key: sorted(map(str, values)) for key, values in ours.items()} == {
        key: sorted(map(str, values)) for key, values in theirs.items()
    }


def same_record(ours: Any, theirs: Any) -> None:
    """One record, or a list of them in any order: times by instant, resolutions as one list."""
    if isinstance(ours, list):
        assert sorted(map(_record, ours), key=repr) == sorted(map(_record, theirs), key=repr)
    else:
        assert _record(ours) == _record(theirs)


def _record(record: Mapping[str, Any]) -> dict[str, Any]:
    flat = {key: _instant(value) for key, value in record.items()}
    axes = [flat.pop(f"voxel_resolution_{axis}", None) for axis in "xyz"]
    flat.setdefault("voxel_resolution", axes)
    if flat["voxel_resolution"] == [None, None, None]:
        del flat["voxel_resolution"]
    return dict(sorted(flat.items()))


def _instant(value: Any) -> Any:
    if not isinstance(value, datetime):
        return value
    return None if value.year == pd.Timestamp.max.year else int(microseconds([value])[0])


BOOKKEEPING = ("created", "superceded_id", "valid")


@dataclass(frozen=True)
class AnyOf:
    """A truth: so many of these rows, whichever."""

    rows: list[dict[str, Any]]
    n: int


def same_rows(ours: pd.DataFrame, theirs: Any) -> None:
    """The same columns, and the same rows in any order; ``theirs`` perhaps as dicts of the truth."""
    if isinstance(theirs, AnyOf):
        assert len(ours) == min(theirs.n, len(theirs.rows))
        theirs = [row for row in theirs.rows if row["id"] in set(ours["id"])]
    if isinstance(theirs, list):
        told = {key for row in theirs for key in row} if theirs else set(ours.columns)
        ends = ("_root_id", "_supervoxel_id", "target_id")
        names = [name for name in ours.columns if name in told and (name == "id" or name.endswith(ends))]
        assert len(ours) == len(theirs)
        assert not names or sorted(_rows(ours[names])) == sorted(tuple(row[n] or 0 for n in names) for row in theirs)
        return
    only_ours = [name for name in ours.columns if name not in theirs.columns]
    only_theirs = [name for name in theirs.columns if name not in ours.columns]
    assert all(name.startswith(BOOKKEEPING) for name in only_ours), only_ours
    assert all(
        name.endswith("_supervoxel_id") or (name.startswith("deleted") and theirs[name].isna().all())
        for name in only_theirs
    ), only_theirs
    shared = [name for name in theirs.columns if name in ours.columns]
    assert _rows(_cut_off(ours[shared], theirs)) == _rows(theirs[shared])
    unit = theirs.attrs.get("dataframe_resolution")
    if unit is not None:
        told = unit.split(",") if isinstance(unit, str) else unit
        assert ours.attrs["dataframe_resolution"] == [float(value) for value in told]


def _cut_off(ours: pd.DataFrame, theirs: pd.DataFrame) -> pd.DataFrame:
    """Points in whole units, towards zero, where theirs are."""
    return ours.assign(
        **{name: [_whole(value) for value in ours[name]] for name in ours.columns if _is_whole(theirs[name])}
    )


def _is_whole(column: pd.Series) -> bool:
    """Whether a column holds points, or parts of points, in whole units."""
    if "_position" not in str(column.name) or column.dtype.kind in "iu":
        return "_position" in str(column.name)
    parts = [part for value in column for part in np.atleast_1d(_cell(value)) if part is not None]
    return all(float(part).is_integer() for part in parts if part == part)


def _whole(value: Any) -> Any:
    cut = np.trunc(np.round(np.array(_cell(value), np.float64), 6))
    return cut if np.isnan(cut).any() else cut.astype(np.int64)


def _rows(frame: pd.DataFrame) -> list[tuple[Any, ...]]:
    """Plain values, gaps as None, in an order that follows from the rows."""
    rows = list(zip(*(_values(frame[name]) for name in frame.columns), strict=True))
    names = list(frame.columns)
    if "id" in names and frame["id"].is_unique:
        return sorted(rows, key=lambda row: row[names.index("id")])
    return sorted(rows, key=repr)


def _values(column: pd.Series) -> list[Any]:
    if isinstance(column.dtype, pd.DatetimeTZDtype) or column.dtype.kind == "M":
        times = pd.to_datetime(column, utc=True).dt.as_unit("us")
        return times.astype("int64").astype(object).where(times.notna(), None).tolist()
    if column.dtype == object:
        return [_cell(value) for value in column]
    return column.astype(object).where(column.notna(), None).tolist()


def _cell(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        return tuple(map(_cell, value.tolist())) if value.ndim else _cell(value.item())
    if isinstance(value, datetime):
        return None if pd.isna(value) else int(microseconds([value])[0])
    if value is None or value is pd.NA or value is pd.NaT or value != value:
        return None
    return value.item() if isinstance(value, np.generic) else value


def same_selection(ours: Any, theirs: Any) -> None:
    """An Arrow table against a frame with at least its columns, or dicts of the truth."""
    frame = ours.to_pandas(ignore_metadata=True)
    if isinstance(theirs, list):
        truth = [tuple(_single(_cell(row[name])) for name in frame.columns) for row in theirs]
        assert _rows(frame) == sorted(truth, key=lambda row: row[0])
        return
    assert _rows(frame) == _rows(theirs[list(frame.columns)])


def _single(value: Any) -> Any:
    """A float as the tables hold it."""
    return float(np.float32(value)) if isinstance(value, float) else value


def same_count(ours: int, theirs: Any) -> None:
    """``theirs`` perhaps as a frame of one number."""
    assert ours == (int(theirs["count"].iloc[0]) if isinstance(theirs, pd.DataFrame) else int(theirs))


def same_translation(ours: pd.DataFrame, theirs: Mapping[int, int]) -> None:
    """Ids to ids: ``theirs`` may lack ids, of which nothing is then said."""
    (column,) = ours.columns
    assert ours[column].dtype == np.int64
    found = dict(zip(ours.index.tolist(), ours[column].tolist(), strict=True))
    assert {key: found[key] for key in theirs} == dict(theirs)


def same_pair_of_id_sets(ours: Any, theirs: Any) -> None:
    """Two lists of ids, each as a set."""
    for mine, other in zip(ours, theirs, strict=True):
        assert mine.dtype == np.int64
        assert sorted(ids(mine).tolist()) == sorted(set(ids(other).tolist()))


def same_log_frames(ours: Mapping[int, pd.DataFrame], theirs: Mapping[int, pd.DataFrame]) -> None:
    """The same edits of the same roots, by operation id; caveclient's times are milliseconds."""
    assert set(ours) == set(theirs)
    for root, log in ours.items():
        assert _log(log, microseconds(log["timestamp"]) // 1000) == _log(
            theirs[root], theirs[root].get("timestamp", pd.Series(dtype=object))
        )


def _log(frame: pd.DataFrame, times_ms: Any) -> list[dict[str, Any]]:
    plain = frame.assign(timestamp=np.asarray(times_ms, np.int64)).to_dict("records") if len(frame) else []
    return sorted(plain, key=lambda row: row["operation_id"])


def same_details(ours: Mapping[int, Any], theirs: Mapping[str, Any]) -> None:
    assert ours == {int(key): value for key, value in theirs.items()}


def same_operations(ours: pd.DataFrame, theirs: Any) -> None:
    """Operation ids and their times; ``theirs`` perhaps as a dict of milliseconds."""
    if isinstance(theirs, pd.DataFrame):
        theirs = dict(zip(theirs["operation_id"], microseconds(theirs["timestamp"]) // 1000, strict=True))
    assert dict(zip(ours["operation_id"], microseconds(ours["timestamp"]) // 1000, strict=True)) == theirs


def same_edges(ours: Any, theirs: Any) -> None:
    assert ours.dtype == np.int64
    assert ours.shape[1] == 2
    assert sorted(map(tuple, ours.tolist())) == sorted(map(tuple, theirs))


def same_subgraph(ours: Any, theirs: Any) -> None:
    """Edges with their affinities and areas."""
    assert [array.dtype for array in ours] == [np.int64, np.float64, np.int32]
    rows = [
        sorted(zip(map(tuple, edges.tolist()), *(a.tolist() for a in rest), strict=True))
        for edges, *rest in (ours, theirs)
    ]
    assert rows[0] == rows[1]


def same_path(ours: Any, theirs: Any) -> None:
    """Centroids, level-2 ids, failed ids; in the order of the path."""
    assert np.asarray(ours[0]).ravel().tolist() == np.asarray(theirs[0]).ravel().tolist()
    for mine, other in zip(ours[1:], theirs[1:], strict=True):
        same_ids(mine, other)
