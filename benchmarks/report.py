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


def stored() -> dict[str, dict[str, Any]]:
    """All figures that are kept: by part, by benchmark."""
    return {path.stem: json.loads(path.read_text()) for path in sorted(RESULTS.glob("*.json"))}


def show_all() -> None:
    """Print all figures that are kept."""
    for part, benchmarks in stored().items():
        for name, kept in benchmarks.items():
            show(f"{part}: {name}", kept["setting"] | {"load": kept["machine"]["load"]}, kept["rows"])


def as_markdown(part: str) -> str:
    """The kept figures of a part as tables, what they were taken with below each; none if nothing is kept."""
    if part not in stored():
        return "*Not measured yet.*"
    return "\n\n".join(_table(name, kept) for name, kept in stored()[part].items())


def _table(name: str, kept: dict[str, Any]) -> str:
    rows, told = kept["rows"], kept["machine"]
    # what a row is about comes first, then what was counted, then what was measured
    first = first_values(rows)
    columns = sorted(first, key=lambda column: _rank(first[column]))
    lines = [
        [column.replace("_", " ") for column in columns],
        ["---:" if _rank(first[column]) else "---" for column in columns],
        *([_cell(row.get(column, "")) for column in columns] for row in rows),
    ]
    table = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    packages = ", ".join(f"{package} {number}" for package, number in told["packages"].items())
    place = f"{told['cores']} cores ({told['platform']}), load {told['load']} when done, Python {told['python']}"
    return f"**{name}**\n\n{table}\n\n<small>{_setting(kept['setting'])}. {place}, {packages}.</small>"


def first_values(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """All columns, be they of one row alone, and the first value of each."""
    return {column: value for row in reversed(rows) for column, value in row.items()}


def _rank(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return 0
    return 1 + isinstance(value, float)


def _setting(setting: dict[str, Any]) -> str:
    flat = {
        f"{key} of {outer}": value
        for outer, group in setting.items()
        if isinstance(group, dict)
        for key, value in group.items()
    }
    plain = {key: value for key, value in setting.items() if not isinstance(value, dict)}
    return ", ".join(f"{key.replace('_', ' ')} {value}" for key, value in (plain | flat).items())


def _cell(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)


def show(title: str, setting: dict[str, Any], rows: list[dict[str, Any]]) -> None:
    """Print figures as a table, the setting below it."""
    table = Table(title=title, caption=_setting(setting))
    columns = first_values(rows)
    for column in columns:
        table.add_column(column.replace("_", " "), justify="right")
    for row in rows:
        values = (row.get(column, "") for column in columns)
        table.add_row(*(f"{value:,.4g}" if isinstance(value, float) else str(value) for value in values))
    Console(width=160).print(table)
