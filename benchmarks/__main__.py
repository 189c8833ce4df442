"""One command for all figures of a part: ``python -m benchmarks PART [--rounds N] [--quick]``."""

from __future__ import annotations

import argparse

from . import graph, imports, mapping, meshes, sandbox_server, skeletons, tables, transport

PARTS = {
    "foundation": (transport.run, imports.run, sandbox_server.run, mapping.run),
    "graph": (graph.run,),
    "meshes": (meshes.run,),
    "skeletons": (skeletons.run,),
    "tables": (tables.run,),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("part", choices=PARTS)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    for run in PARTS[options.part]:
        run(rounds=options.rounds)


if __name__ == "__main__":
    main()
