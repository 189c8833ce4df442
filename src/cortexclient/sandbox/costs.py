"""What calls cost the real servers, in seconds: every price of the sandbox in one place.

Prices are charged as time (a sleep while a worker is held), never as CPU. Those of the graph were measured on the real
chunkedgraph service (PyChunkedGraph 2.21.1): 0.3-0.4 ms of server time for each *distinct* id whose root is looked up,
about 0.15 ms for each id whose timestamps are read, and nothing for a repeated id. What is an assumption is marked.
"""

from __future__ import annotations

from typing import Final

REQUEST: Final = 0.003
"""The least that any authenticated request costs: parsing and the look-up of the token."""

ROOT_LOOKUP_PER_ID: Final = 0.00035
"""Supervoxel to root, for each distinct id."""

NODE_READ_PER_ID: Final = 0.00015
"""Timestamps, existence and latest-ness, for each distinct id."""

LINEAGE_PER_NODE: Final = 0.0012
"""Lineage: two reads for each generation of each root."""

LOG_PER_EDIT: Final = 0.012
"""Change logs: for each edit in the history of a root."""

SUBGRAPH_PER_LEAF: Final = 0.008
"""Supervoxel edges (the service reads edge files), for each supervoxel; for paths for each node of the path."""

EDIT: Final = 0.5
"""A merge, split, undo or redo (assumption); until it is through no other edit can touch the same objects."""

ROOT_NOT_FOUND: Final = 0.5
"""The root of a single id that has none: the service waits and tries again."""

LEAVES_PER_ROOT: Final = 0.004
"""Leaves, for each root asked."""

LEAVES_PER_LEAF: Final = 0.00003
"""Leaves, for each leaf found (a row read is 0.07 ms, and a row holds a few leaves)."""

TABLE_QUERY: Final = 0.020
TABLE_QUERY_PER_ROW: Final = 5e-6
"""A frozen query, and for each row returned (assumption)."""

LIVE_QUERY: Final = 0.200
LIVE_QUERY_PER_ROW: Final = 5e-6
"""A live query, and for each row scanned; root look-ups that it needs are charged on top (assumption)."""

LEVEL2_PER_ID: Final = 0.00015
"""A record of the level-2 cache, for each distinct id (assumption: one row read, as in the graph)."""

SKELETON_READ: Final = 0.020
"""A skeleton from the service's bucket, and the list of refused roots with it, for each id (assumption)."""

SKELETON_EXISTS: Final = 0.002
"""Whether the bucket holds a skeleton, for each id (assumption)."""

BUCKET_TOKEN: Final = 0.2
"""A token to the service's bucket: two questions to Google (assumption)."""

SKELETON_MADE: Final = 60.0
"""From the queue to the bucket: what the service itself estimates."""

PROXY_PATIENCE: Final = 300.0
"""After so long the proxy in front of a service gives up on it and answers 504."""

MANIFEST_PER_NODE: Final = 0.0004
"""A mesh manifest, for each fragment in it: the service reads the node, and looks its fragment up (assumption)."""
