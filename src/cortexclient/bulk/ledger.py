"""The folder of a job is its own ledger: a part is done if, and only if, its file is there.

::

    job.json              what is asked, frozen
    ids.parquet           the ids; row group K is part K
    part-000017.parquet   the answers of a part
    part-000017.json      its counts, and size and CRC-32 of its files
    failed-000017.parquet the ids of it that failed, if any did
    swc/ or draco/        one file for each neuron

Every file is written under a temporary name, synced and renamed; the ``part-K.parquet`` last. What is lost with a
process, or with the machine, is what was in its hands.
"""

from __future__ import annotations

import contextlib
import json
import os
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import IO, Final

import pyarrow as pa
from pyarrow import parquet

from .._types import IdArray
from ..errors import CortexError, CortexUsageError
from .locks import locked
from .sources import digest_of
from .spec import JobSpec

_COLUMNS: Final[Mapping[str, pa.DataType]] = {
    "id": pa.int64(),
    "error": pa.string(),
    "status": pa.int32(),
    "message": pa.string(),
    "attempts": pa.int32(),
}
FAILED: Final = pa.schema(_COLUMNS)
"""``error`` is the class in `cortexclient.errors`, ``status`` the HTTP status if there was one."""

Stamp = tuple[int, int]
"""Size and CRC-32 of a file."""
Write = Callable[[IO[bytes]], object]
CHUNK = 1 << 20


@dataclass(frozen=True, slots=True)
class Manifest:
    """What is in a part. ``ok + failed`` is the number of its ids.

    Examples
    --------
    >>> job = BulkJob("root_id_to_cell_id", roots, folder, client="minnie_public")
    >>> created = job.create()
    >>> done = job.run_part(0)
    >>> done.ok, done.failed, done.rows
    (3, 0, 3)
    """

    ok: int
    failed: int
    rows: int
    files: dict[str, Stamp] = field(default_factory=dict)


class Ledger:
    """The folder of one job."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._job = path / "job.json"
        self._ids = path / "ids.parquet"

    def part(self, k: int) -> Path:
        """Where the answers of a part are."""
        return self.path / f"part-{k:06d}.parquet"

    def failed(self, k: int) -> Path:
        """Where its failures are."""
        return self.path / f"failed-{k:06d}.parquet"

    def _manifest(self, k: int) -> Path:
        return self.path / f"part-{k:06d}.json"

    # -- the job -----------------------------------------------------------------------------------------------------

    @property
    def exists(self) -> bool:
        """Whether there is a job in the folder."""
        return self._job.exists()

    def spec(self) -> JobSpec:
        """Read what the job is.

        Raises
        ------
        CortexUsageError
            If there is none.
        """
        if not self.exists:
            raise CortexUsageError(f"{self.path} holds no job: there is no job.json in it")
        return JobSpec.from_json(self._job.read_text(), str(self._job))

    def create(self, ids: IdArray, spec: JobSpec) -> None:
        """Write the ids, then what the job is: from then on it exists."""

        def write(file: IO[bytes]) -> None:
            table = pa.table([pa.array(ids, pa.int64())], names=["id"])
            parquet.write_table(table, file, row_group_size=spec.part_size, compression="zstd", use_dictionary=False)

        write_file(self._ids, write)
        write_file(self._job, lambda file: file.write(spec.to_json().encode()))

    def ids(self, k: int) -> IdArray:
        """(n,) int64: the ids of a part, ascending."""
        with parquet.ParquetFile(self._ids) as file:
            ids: IdArray = file.read_row_group(k).column("id").to_numpy()
        return ids

    def all_ids(self) -> IdArray:
        """(n,) int64: all ids, ascending (8 bytes each)."""
        ids: IdArray = parquet.read_table(self._ids).column("id").to_numpy()
        return ids

    def check_ids(self) -> None:
        """Raise if the ids are not those that the job was created with.

        Raises
        ------
        CortexError
            If they were changed, or cannot be read.
        """
        cause: Exception | None = None
        try:
            if digest_of(self.all_ids()) == self.spec().digest:
                return
        except (OSError, pa.ArrowException) as error:
            cause = error
        raise CortexError(f"{self._ids} is damaged: create the job again, in another folder") from cause

    # -- parts -------------------------------------------------------------------------------------------------------

    def is_done(self, k: int) -> bool:
        """Whether a part is there, damaged or not."""
        return self.part(k).exists()

    def manifest(self, k: int) -> Manifest | None:
        """What is in a part; None if that cannot be told."""
        try:
            content = json.loads(self._manifest(k).read_bytes())
            files = {name: (int(size), int(crc)) for name, (size, crc) in content.pop("files").items()}
            return Manifest(**content, files=files)
        except (OSError, ValueError, TypeError, KeyError, AttributeError):
            return None

    def damage(self, k: int) -> str | None:
        """What is wrong with the files of a part that is done; None if all is well."""
        manifest = self.manifest(k)
        if manifest is None:
            return f"{self._manifest(k).name} is missing or damaged"
        for name, stamp in manifest.files.items():
            try:
                found = stamp_of(self.path / name)
            except FileNotFoundError:
                return f"{name} is missing"
            if found != stamp:
                return (
                    f"{name} is damaged: {found[0]:,} bytes with CRC {found[1]:08x}, not {stamp[0]:,}, {stamp[1]:08x}"
                )
        if self.failed(k).exists() != bool(manifest.failed):
            return f"{self.failed(k).name} does not belong to it"
        return None

    def commit(self, k: int, rows: pa.Table, failures: pa.Table, made: Manifest) -> None:
        """Write a part whole or not at all; ``made`` counts it, and lists the files that were written for it before."""
        drafts = {self.part(k): rows} | ({self.failed(k): failures} if failures.num_rows else {})
        stamps = {path.name: _draft(path, _parquet(table)) for path, table in drafts.items()}
        manifest = replace(made, files={**made.files, **stamps})
        _draft(self._manifest(k), lambda file: file.write(json.dumps(asdict(manifest)).encode()))
        if failures.num_rows:
            _publish(self.failed(k))
        else:
            self.failed(k).unlink(missing_ok=True)
        _publish(self._manifest(k))
        _publish(self.part(k))
        _sync_folder(self.path)

    def failures(self, k: int) -> pa.Table:
        """The failures of a part."""
        path = self.failed(k)
        return parquet.read_table(path) if path.exists() else FAILED.empty_table()

    # -- who writes --------------------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def written_alone(self) -> Iterator[None]:
        """Keep everybody else out, and sweep up what a killed process left."""
        with self.led(), locked(self.path / ".lock"):
            for folder in (self.path, *(path for path in self.path.iterdir() if path.is_dir())):
                for left in (*folder.glob(".*.tmp"), *folder.glob(".part-*.lock")):
                    left.unlink()
            yield

    @contextlib.contextmanager
    def led(self) -> Iterator[None]:
        """Keep out whoever else would hand out the parts; workers on single parts may come in."""
        self.path.mkdir(parents=True, exist_ok=True)
        with locked(self.path / ".lead.lock"):
            yield

    @contextlib.contextmanager
    def part_written(self, k: int) -> Iterator[None]:
        """Keep others away from one part, and a leader who wants to be alone away from the folder."""
        path = self.path / f".part-{k:06d}.lock"
        with locked(self.path / ".lock", shared=True), locked(path):
            yield
            with contextlib.suppress(PermissionError):  # Windows keeps what is open: the next leader sweeps it up
                path.unlink(missing_ok=True)


def write_file(path: Path, write: Write) -> Stamp:
    """Write a file whole or not at all; size and CRC-32 of it."""
    stamp = _draft(path, write)
    _publish(path)
    _sync_folder(path.parent)
    return stamp


def stamp_of(path: Path) -> Stamp:
    """Size and CRC-32 of a file."""
    size, crc = 0, 0
    with path.open("rb") as file:
        while chunk := file.read(CHUNK):
            size, crc = size + len(chunk), zlib.crc32(chunk, crc)
    return size, crc


def _draft(path: Path, write: Write) -> Stamp:
    draft = _draft_of(path)
    try:
        with draft.open("wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        return stamp_of(draft)
    except OSError as error:
        with contextlib.suppress(OSError):
            draft.unlink(missing_ok=True)
        raise CortexError(
            f"{path} cannot be written: {error.strerror or error}. What is done stays; mend that, then resume"
        ) from error


def _draft_of(path: Path) -> Path:
    return path.with_name(f".{path.name}.tmp")


def _publish(path: Path) -> None:
    _draft_of(path).replace(path)


def _parquet(table: pa.Table) -> Write:
    return lambda file: parquet.write_table(table, file, compression="zstd")


def _sync_folder(path: Path) -> None:
    """Have renames outlive the machine too, where folders can be synced."""
    with contextlib.suppress(OSError):
        handle = os.open(path, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
