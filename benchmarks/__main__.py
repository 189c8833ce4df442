"""One command for all figures of a part: ``python -m benchmarks PART [--rounds N]``.

``all`` measures every part, one after the other; ``report`` prints what is kept.
"""

from __future__ import annotations

import argparse
from importlib import import_module

from . import report

PARTS = {
    "exports": ("exports",),
    "foundation": ("transport", "imports", "sandbox_server", "mapping"),
    "bulk": ("bulk",),
    "graph": ("graph",),
    "growth": ("growth",),
    "index": ("index",),
    "labels": ("labels",),
    "limits": ("limits",),
    "meshes": ("meshes",),
    "skeletons": ("skeletons", "meshworks"),
    "tables": ("tables",),
}
"""The modules of each part; each has a ``run``."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("part", choices=[*PARTS, "all", "report"])
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    if options.part == "report":
        report.show_all()
    for part, modules in PARTS.items():
        if options.part in (part, "all"):
            for module in modules:
                import_module(f"benchmarks.{module}").run(rounds=options.rounds)


if __name__ == "__main__":
    main()
