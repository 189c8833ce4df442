"""A notebook in a real kernel: its event loop runs while cells do, which is where blocking clients tend to fail."""

from __future__ import annotations

import asyncio
import warnings

import pytest
from tests.patience import HANG

from cortexclient.sandbox import Sandbox

pytest.importorskip("ipykernel", reason="the kernel is a test dependency: pip install --group test .")
with warnings.catch_warnings():
    warnings.simplefilter("ignore", DeprecationWarning)
    import nbformat
    from nbclient import NotebookClient
    from nbclient.exceptions import CellExecutionError


SETUP = """
import asyncio, threading, time
from cortexclient import AsyncCortexClient, CortexClient
client = CortexClient("minnie_public")
client
"""


PATIENT = f"from cortexclient import CortexClient, _twin\n_twin.LOOK_SECONDS = {HANG}\n"
"""A list of tables is looked for however long it takes: how long else is not what these tests are about."""


def run(*cells: str) -> list[str]:
    """What each cell shows: printed text, then the value of its last line."""
    book = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(text) for text in cells])
    NotebookClient(book, timeout=int(HANG), kernel_name="python3").execute()
    return ["".join(shown(output) for output in cell.outputs) for cell in book.cells]


def shown(output: nbformat.NotebookNode) -> str:
    return str(output.text if output.output_type == "stream" else output.data["text/plain"])


def test_calls_block_while_the_kernels_loop_runs(sandbox: Sandbox) -> None:
    with sandbox.env():
        texts = run(
            SETUP,
            "await asyncio.sleep(0)\nasyncio.get_running_loop().is_running(), client.materialize.get_versions()",
            "ticks = []\n"
            "async def tick():\n    while True:\n        ticks.append(1)\n        await asyncio.sleep(0.01)\n"
            "task = asyncio.create_task(tick())",
            "def inside():\n    return client.info.get_datastacks()\nawait asyncio.to_thread(inside) == inside()",
            "async with AsyncCortexClient('minnie_public') as other:\n"
            "    versions = await other.materialize.get_versions()\n"
            "versions == client.materialize.get_versions()",
            "len([t for t in threading.enumerate() if t.name == 'cortexclient'])",
        )
    assert texts[0] == "CortexClient('minnie_public', datastack='minnie65_public')"
    assert texts[1] == "(True, [117, 661, 1412, 1484])"
    assert texts[3:] == ["True", "True", "1"]


def test_progress_lands_in_the_cell_that_asks(sandbox: Sandbox) -> None:
    roots = sandbox.world.graph.root_ids()[:50].tolist()
    with sandbox.env():
        texts = run(
            SETUP,
            f"roots = {roots}",
            "found = client.chunkedgraph.is_latest_roots(roots, progress=lambda p: print('seen', p.done))",
            "len(found)",
        )
    assert texts[2].splitlines()[-1] == "seen 50"
    assert texts[3] == "50"


def test_interrupting_the_kernel_ends_the_call(sandbox: Sandbox) -> None:
    book = nbformat.v4.new_notebook(
        cells=[
            nbformat.v4.new_code_cell(text)
            for text in (
                SETUP,
                "client.info.get_datastacks()[0]",
                "client.info.get_aligned_volumes()",
                "client.info.get_datastacks()[0]",
            )
        ]
    )
    notebook = NotebookClient(book, timeout=int(HANG), kernel_name="python3")

    async def play() -> tuple[str, float]:
        async with notebook.async_setup_kernel():
            for index in (0, 1):
                await notebook.async_execute_cell(book.cells[index], index)
            sandbox.weather.latency = HANG
            before = sandbox.counters.snapshot().total.requests
            slow = asyncio.ensure_future(notebook.async_execute_cell(book.cells[2], 2))
            while sandbox.counters.snapshot().total.requests == before:
                await asyncio.sleep(0.02)
            start = asyncio.get_running_loop().time()
            await notebook.km.interrupt_kernel()
            with pytest.raises(CellExecutionError) as caught:
                await slow
            took = asyncio.get_running_loop().time() - start
            sandbox.weather.latency = 0.0
            await notebook.async_execute_cell(book.cells[3], 3)
            return str(caught.value.ename), took

    with sandbox.env():
        ended_by, took = asyncio.run(play())
    assert ended_by == "KeyboardInterrupt"
    assert took < HANG
    assert shown(book.cells[3].outputs[0]) == shown(book.cells[1].outputs[0])


def test_things_show_themselves_in_html_and_a_bar_has_rate_and_end(sandbox: Sandbox) -> None:
    roots = sandbox.world.graph.root_ids()[:30].tolist()
    cells = (
        f"{PATIENT}client = CortexClient('minnie_public', version=1412)\nclient",
        "client.tables",
        "client.diagnose()",
        f"client.plan('root_id_to_cell_id', {roots})",
        f"client.skeleton.get_skeletons([*{roots[-2:]}, 5], generate=False)",
        f"_ = client.get_roots({roots}, progress=True)",
    )
    book = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(text) for text in cells])
    with sandbox.env():
        NotebookClient(book, timeout=int(HANG), kernel_name="python3").execute()
    html = [
        next((o.data["text/html"] for o in cell.outputs if "text/html" in o.get("data", {})), "") for cell in book.cells
    ]
    assert "version 1412" in html[0]
    assert "nucleus_detection_v0" in html[1]
    assert "token" in html[2]
    assert "the graph's description" in html[3].replace("&#x27;", "'")
    assert "NotFoundError" in html[4]
    bar = "".join(output.text for output in book.cells[5].outputs if output.output_type == "stream")
    assert "100%" in bar
    assert "ids/s" in bar


def test_names_of_tables_are_completed(sandbox: Sandbox) -> None:
    """As the Tab key asks: by a message to the kernel, which runs no property to find out."""
    setup = f"{PATIENT}client = CortexClient('minnie_public')\nview = client.at(version=1412)"
    book = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(setup)])
    notebook = NotebookClient(book, timeout=int(HANG), kernel_name="python3")
    asked = "client.root_id_to", "client.tables.nucleus_d", "view.tables.nucleus_d", "client.views.nucleus_detection_l"

    async def complete(code: str) -> list[str]:
        number = notebook.kc.complete(code, len(code))
        while (reply := await notebook.kc.get_shell_msg(timeout=HANG))["parent_header"].get("msg_id") != number:
            pass
        return list(reply["content"]["matches"])

    async def play() -> list[list[str]]:
        async with notebook.async_setup_kernel():
            await notebook.async_execute_cell(book.cells[0], 0)
            return [await complete(code) for code in asked]

    with sandbox.env():
        found = asyncio.run(play())
    table, view = "nucleus_detection_v0", "nucleus_detection_lookup_v1"
    assert found == [["root_id_to_cell_id"], [table], [table], [view]]
