"""The unmodified cortical-tools on the sandbox's bucket: what it gives, and what it loses."""

from __future__ import annotations

import pandas as pd

from .conftest import Bench
from .rows import quiet
from .rows_exports import names, versions


def test_the_peer_loses_the_first_record_of_each_table(bench: Bench) -> None:
    """Dumps have no header row; cortical-tools 1.1 reads them as if they had one."""
    version = versions(bench.facts)[-1]
    for name in names(bench.facts):
        with quiet(), bench.peers.exports() as exports:
            theirs = exports.get_table(name, version)
        ours = bench.runner.run(bench.client.exports.get_table(name, version))
        assert len(theirs) == max(len(ours) - 1, 0), name
        numbers = [column for column in theirs if column in ours and theirs[column].dtype == "int64"]
        pd.testing.assert_frame_equal(
            theirs[numbers], ours[numbers].iloc[1:].reset_index(drop=True), check_dtype=False, obj=name
        )


def test_the_peer_leaves_values_as_text_that_are_typed_here(bench: Bench) -> None:
    version, name = versions(bench.facts)[-1], bench.peers._spec.nucleus_table
    with quiet(), bench.peers.exports() as exports:
        theirs = exports.get_table(name, version)
    ours = bench.runner.run(bench.client.exports.get_table(name, version))
    assert set(theirs["valid"].unique()) == {"t"}
    assert ours["valid"].dtype == bool
    if "pt_position" in theirs:
        assert theirs["pt_position"].str.startswith("0101000080").all()
    assert {"pt_position_x", "pt_position_y", "pt_position_z"} <= set(ours)
