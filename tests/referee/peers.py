"""The unmodified peers, pointed at a sandbox."""

from __future__ import annotations

import io
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from typing import Any

import pytest

from cortexclient.datasets.spec import DatasetSpec

from .facts import Facts


def imported(name: str) -> Any:
    """A peer's module; skips where the peer is not installed. What it warns of at import is not ours to mend."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return pytest.importorskip(name, reason=f"{name.partition('.')[0]} is the referee of these tests")


class Peers:
    """caveclient and cortical-tools for one sandbox, one client for each version they are pinned to."""

    def __init__(self, spec: DatasetSpec, token: str, facts: Facts) -> None:
        self.facts = facts
        self._spec = spec
        self._token = token
        self._caves: dict[int | None, Any] = {}
        self._exports: Any = None
        # caveclient keeps these records by datastack and version alone, whatever server they came from
        materialize = imported("caveclient.materializationengine").MaterializationClient
        materialize.get_tables_metadata.__wrapped__.cache.clear()

    def cave(self, version: int | None = None) -> Any:
        """A CAVEclient."""
        if version not in self._caves:
            caveclient = imported("caveclient")
            self._caves[version] = caveclient.CAVEclient(
                self._spec.datastack,
                server_address=self._spec.server,
                auth_token=self._token,
                version=version,
                write_server_cache=False,
            )
        return self._caves[version]

    @contextmanager
    def exports(self) -> Iterator[Any]:
        """The exports of cortical-tools, pointed at the dumps of this sandbox."""
        files = imported("cortical_tools.files")
        with pytest.MonkeyPatch.context() as patch, redirect_stdout(io.StringIO()):
            patch.setenv("STORAGE_EMULATOR_HOST", self._spec.server)
            if self._exports is None:
                # connections are kept by bucket, whatever server they lead to
                imported("cloudfiles.interfaces").reset_connection_pools()
                self._exports = files.TableExportClient(self._spec.export_paths[0])
            yield self._exports

    def cortical(self, version: int | None = None) -> Any:
        """A DatasetClient of cortical-tools."""
        common = imported("cortical_tools.common")
        return common.DatasetClient(
            caveclient=self.cave(version),
            cell_id_lookup_view=self._spec.cell_id_view,
            root_id_lookup_main_table=self._spec.nucleus_table,
            root_id_lookup_alt_tables=list(self._spec.backup_tables),
        )
