"""One command for all figures of a part: ``python -m benchmarks PART [--rounds N]``.

``all`` measures every part, one after the other; ``report`` prints what is kept.
"""

from __future__ import annotations

import argparse

from . import (
    bulk,
    exports,
    graph,
    growth,
    imports,
    index,
    limits,
    mapping,
    meshes,
    meshworks,
    report,
    sandbox_server,
    skeletons,
    tables,
    transport,
)

PARTS = {
    "exports": (exports.run,),
    "foundation": (transport.run, imports.run, sandbox_server.run, mapping.run),
    "bulk": (bulk.run,),
    "graph": (graph.run,),
    "growth": (growth.run,),
    "index": (index.run,),
    "limits": (limits.run,),
    "meshes": (meshes.run,),
    "skeletons": (skeletons.run, meshworks.run),
    "tables": (tables.run,),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("part", choices=[*PARTS, "all", "report"])
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    if options.part == "report":
        report.show_all()
    for part, runs in PARTS.items():
        if options.part in (part, "all"):
            for run in runs:
                run(rounds=options.rounds)


if __name__ == "__main__":
    main()
