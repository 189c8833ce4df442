"""What a job is: frozen when it is created, so that whoever resumes it answers the same question."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, fields
from datetime import datetime
from typing import Any, Self

from ..datasets.spec import DatasetSpec
from ..errors import CortexError, CortexUsageError
from ..services._base import internal

FORMAT = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class JobSpec:
    """The contents of ``job.json``.

    Examples
    --------
    >>> created = BulkJob("root_id_to_cell_id", roots, folder, client="minnie_public").create()
    >>> spec = BulkJob.open(folder).spec
    >>> spec.count, spec.parts, spec.version
    (3, 1, 1484)
    """

    task: str
    options: Mapping[str, Any]
    sink: str
    part_size: int
    dataset: DatasetSpec
    server: str | None
    """The one that plays all services, if the client was given one."""
    version: int | None
    timestamp: datetime | None
    """The instant that is answered for; of a version it is the version's."""
    count: int
    digest: str
    """Number and SHA-256 of the ids."""

    @property
    def parts(self) -> int:
        """How many parts there are.

        Examples
        --------
        >>> created = BulkJob("root_id_to_cell_id", roots, folder, client="minnie_public", part_size=2).create()
        >>> BulkJob.open(folder).spec.parts
        2
        """
        return -(-self.count // self.part_size)

    @internal
    def to_json(self) -> str:
        """The text of ``job.json``."""
        content = self._content()
        return json.dumps({"format": FORMAT, "hash": _hash(content), **content}, indent=1) + "\n"

    def _content(self) -> dict[str, Any]:
        content = {field.name: getattr(self, field.name) for field in fields(self)}
        when = self.timestamp.isoformat() if self.timestamp else None
        return content | {"options": dict(self.options), "timestamp": when, "dataset": self.dataset.to_json()}

    @classmethod
    @internal
    def from_json(cls, text: str, where: str) -> Self:
        """Read what `to_json` wrote.

        Raises
        ------
        CortexError
            If it was damaged, or written by a newer version of this package.
        """
        try:
            content = json.loads(text)
            written, known = content.pop("format"), content.pop("hash")
            right = known == _hash(content)
        except (ValueError, KeyError, AttributeError) as error:
            raise CortexError(f"{where} is damaged ({error!r}): the job must be created again") from error
        if written != FORMAT:
            raise CortexError(f"{where} has format {written}, this version of cortexclient writes {FORMAT}")
        if not right:
            raise CortexError(f"{where} was changed by somebody: its hash is not that of its contents")
        when, dataset = content.pop("timestamp"), DatasetSpec.from_json(content.pop("dataset"))
        return cls(**content, timestamp=datetime.fromisoformat(when) if when else None, dataset=dataset)

    @internal
    def refuse_other(self, asked: Mapping[str, Any], where: str) -> None:
        """Raise if a job with these properties is another one than this."""
        mine = {name: getattr(self, name) for name in asked}
        if "dataset" in asked:  # the same data may be served from another address
            mine["dataset"], asked = self.dataset.datastack, {**asked, "dataset": asked["dataset"].datastack}
        differ = [f"{name} {mine[name]!r}, not {value!r}" for name, value in asked.items() if mine[name] != value]
        if differ:
            raise CortexUsageError(
                f"{where} holds another job ({'; '.join(differ)}): choose another folder, or ask for what it holds"
            )


def _hash(content: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
