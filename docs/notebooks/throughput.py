# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
# ---

# %% [markdown]
# # A throughput experiment
#
# How many look-ups a second, with how many requests at once? The [sandbox](../sandbox.md) plays a service with 16
# workers that takes as long for each id as the real one was measured to take (0.35 ms), behind a network with 20 ms
# latency. It runs in a process of its own. This is an experiment for a notebook, in one round; the
# [benchmarks](../benchmarks.md) are measured with more care.

# %%
import time

import matplotlib.pyplot as plt
import numpy as np

from cortexclient import AsyncCortexClient, Limits
from cortexclient.sandbox import SandboxProcess, World

world = World.synthesize(seed=1, nuclei=2_000, edits=500, fragments=30_000)
nodes = world.graph.cells.node
supervoxels = np.unique(nodes[world.graph.layout.layer(nodes) == 1])[:32_000]
truth = world.graph.roots(supervoxels, world.graph.newest_ms)
len(supervoxels)

# %% [markdown]
# Every answer is compared with the truth of the world; a fast wrong answer would not count.


# %%
async def rate(in_flight: int, ids: np.ndarray) -> float:
    """Look-ups a second of a warm client."""
    limits = Limits(in_flight=in_flight, batch={"roots_binary": 500})
    async with AsyncCortexClient(sandbox.spec, token=sandbox.token, limits=limits) as client:
        await client.is_latest_roots(range(1, 20_000))  # opens connections, and the gate
        begun = time.perf_counter()
        found = await client.get_roots(ids)
        seconds = time.perf_counter() - begun
        assert np.array_equal(found, truth[: len(ids)])
        return len(ids) / seconds


with SandboxProcess(world, latency=0.02, service_times=True, workers=16) as sandbox:
    allowed = [1, 2, 4, 8, 16, 32, 64]
    rates = [await rate(n, supervoxels[: min(4_000 * n, 32_000)]) for n in allowed]

# %% [markdown]
# Up to 16, each further request helps in full; beyond, requests only queue at the service, in front of everybody else.
# The dashed line is what is possible: a batch is 20 ms under way, and holds one of the 16 workers for 3 ms and 0.35 ms
# for each id.

# %%
held = 0.003 + 500 * 0.00035
ideal = [500 * min(n / (0.02 + held), 16 / held) for n in allowed]
fig, ax = plt.subplots(figsize=(7, 4))
ax.loglog(allowed, rates, "o-", label="measured")
ax.loglog(allowed, ideal, "--", color="0.5", label="limit of latency and workers")
ax.axvline(16, color="tab:red", linewidth=0.8, label="the default")
ax.set_xticks(allowed, [str(n) for n in allowed])
ax.set_yticks([2_000, 5_000, 10_000, 20_000, 40_000], ["2,000", "5,000", "10,000", "20,000", "40,000"])
ax.minorticks_off()
ax.set(xlabel="requests at once", ylabel="look-ups a second")
ax.legend()
fig.tight_layout()

# %%
[f"{n}: {r:,.0f}/s, {r / i:.0%} of the limit" for n, r, i in zip(allowed, rates, ideal, strict=True)]
