# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
# ---

# %% [markdown]
# # A job that is killed, and goes on
#
# A bulk job writes its answers part by part into a folder. A part is there only if it is whole, so that a job which was
# killed goes on where it was, and answers for the same instant. The notebook runs against a [sandbox](../sandbox.md)
# with 20 ms latency and the prices of the real services, so that there is time to kill it.

# %%
import os
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

import matplotlib.pyplot as plt
from matplotlib.ticker import MaxNLocator

from cortexclient import BulkJob, CortexClient
from cortexclient.sandbox import SandboxProcess, World

world = World.synthesize(seed=1, nuclei=4_000, edits=3_000)
stack = ExitStack()
sandbox = stack.enter_context(SandboxProcess(world, latency=0.02, service_times=True))
folder = Path(tempfile.mkdtemp()) / "cells"
client = CortexClient(sandbox.spec, token=sandbox.token)
supervoxels = world.tables["nucleus_detection_v0"].rows["pt_supervoxel_id"]
job = BulkJob("get_roots", supervoxels, folder, client=client, part_size=250)
job.create()

# %% [markdown]
# Another process does the job, as a batch system would. It is ended with `kill -9` when a third of the parts are there:

# %%
with sandbox.env():
    command = [sys.executable, "-c", f"from cortexclient import BulkJob; BulkJob.open({str(folder)!r}).resume()"]
    worker = subprocess.Popen(command, env=dict(os.environ))
while job.status().done < job.status().parts // 3:
    time.sleep(0.02)
worker.kill()
worker.wait()
killed = time.time()
job.status()

# %% [markdown]
# Going on does what is missing, and nothing else; afterwards every id has exactly one outcome.

# %%
job.resume()

# %%
job.verify()

# %% [markdown]
# When each part came to be: two are in hand at any time, and what the killed process had in its hands was done again.

# %%
born = sorted(path.stat().st_mtime for path in folder.glob("part-*.parquet"))
fig, ax = plt.subplots(figsize=(7, 3))
ax.step([moment - born[0] for moment in born], range(1, len(born) + 1), where="post")
ax.axvline(killed - born[0], color="tab:red", label="kill -9")
ax.set(xlabel="seconds since the first part", ylabel="parts that are there")
ax.yaxis.set_major_locator(MaxNLocator(integer=True))
ax.legend()
fig.tight_layout()

# %% [markdown]
# The rows of all parts, read lazily:

# %%
job.scan().collect().head()

# %%
client.close()
stack.close()
