"""What every benchmark says about itself, and where its figures are kept."""

from __future__ import annotations

import json
import os
import platform
from importlib.metadata import version
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

RESULTS = Path(__file__).parent / "results"
PACKAGES = ("cortexclient", "httpx", "aiohttp", "numpy", "pandas", "polars", "pyarrow", "caveclient", "cortical-tools")


def machine() -> dict[str, Any]:
    """The machine and the packages that the figures were taken with."""
    return {
        "cores": os.cpu_count(),
        "load": round(os.getloadavg()[0], 1),
        "python": platform.python_version(),
        "platform": platform.machine(),
        "packages": {name: version(name) for name in PACKAGES},
    }


def keep(part: str, name: str, setting: dict[str, Any], rows: list[dict[str, Any]]) -> None:
    """Store one benchmark's figures in ``results/<part>.json`` and print them as a table."""
    path = RESULTS / f"{part}.json"
    stored = json.loads(path.read_text()) if path.exists() else {}
    stored[name] = {"setting": setting, "machine": machine(), "rows": rows}
    RESULTS.mkdir(exist_ok=True)
    path.write_text(json.dumps(stored, indent=1, sort_keys=True) + "\n")
    show(f"{part}: {name}", setting, rows)


def show(title: str, setting: dict[str, Any], rows: list[dict[str, Any]]) -> None:
    """Print figures as a table, the setting below it."""
    table = Table(title=title, caption=", ".join(f"{key} {value}" for key, value in setting.items()))
    for column in rows[0]:
        table.add_column(column.replace("_", " "), justify="right")
    for row in rows:
        table.add_row(*(f"{value:,.4g}" if isinstance(value, float) else str(value) for value in row.values()))
    Console(width=160).print(table)
