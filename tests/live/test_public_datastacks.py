"""The page of examples, and what every datastack must do, on the real servers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tools.docs_blocks import execute

from cortexclient import CortexClient

PAGE = Path(__file__).parents[2] / "docs" / "examples.md"

pytestmark = [pytest.mark.live, pytest.mark.filterwarnings("ignore")]


@pytest.mark.parametrize("dataset", ["minnie_public"], indirect=True)
def test_the_page_of_examples(dataset: str) -> None:
    found: dict[str, Any] = {}
    for _ in execute(PAGE, PAGE.read_text(), found):
        pass
    assert found["client"].spec.name == dataset
    cells, roots = found["cell_id_df"], found["root_id_df"]
    assert (len(cells), len(roots)) == (3, 10)
    assert {cells["cell_id"].dtype, roots["root_id"].dtype} == {np.dtype(np.int64)}
    assert (cells["cell_id"] > 0).any()
    assert found["proof_df"]["status_axon"].all()
    depths = np.asarray(found["soma_depth"])
    assert len(depths) == len(found["proof_df"])
    assert (np.nanmedian(depths) > -200) & (np.nanmedian(depths) < 1500)
    assert len(found["mesh"].faces) > 0
    assert set(found["meshes"]) <= set(cells.index)
    assert len(found["nrn"].skeleton.vertices) > 1


def test_all_services_answer(dataset: str) -> None:
    with CortexClient(dataset) as client:
        assert client.diagnose().ok


def test_roots_of_the_newest_version_lead_to_their_cells_and_back(dataset: str) -> None:
    with CortexClient(dataset) as newest:
        client = newest.at(version=newest.most_recent_materialization_version())
        cells = client.tables[str(client.spec.nucleus_table)]().query()["id"].to_numpy()[:50]
        roots = client.cell_id_to_root_id(cells)["root_id"]
        roots = roots[roots > 0].drop_duplicates(keep=False)
        found = client.root_id_to_cell_id(roots, detail=True)
        one = found[found["status"] == "ok"]
        assert len(one) > 0
        assert (one["cell_id"].to_numpy() == roots.index[(found["status"] == "ok").to_numpy()]).all()
