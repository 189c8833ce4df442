"""The node table of a chunkedgraph: who is whose parent, since when.

Everything the service answers follows from three append-only facts, the same that the real service keeps in Bigtable:

- **parent cells** ``(node, parent, time)``: from ``time`` on, ``parent`` is the parent of ``node``;
- **lineage** ``(former root, new root, operation)``: the operation that retired one root and made the other;
- **operations**: the log of edits.

A node's children are the nodes that ever pointed at it, its creation time is the time of those cells, a root is retired by
the operation that lists it as former. All times are UTC milliseconds since the epoch, all ids int64.
"""
