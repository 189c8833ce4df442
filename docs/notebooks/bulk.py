# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
# ---

# %% [markdown]
# # A job that is interrupted
#
# A bulk job writes its answers part by part into a folder. A part exists only if it is whole, so that a job which was
# killed goes on where it was. The notebook runs against a [sandbox](../sandbox.md) with 20 ms latency and the prices of the real
# services, so that there is time to interrupt it.

# %%
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from cortexclient import CortexClient
from cortexclient.bulk import BulkJob
from cortexclient.sandbox import SandboxProcess, World

world = World.synthesize(seed=1, nuclei=4_000, edits=3_000)
sandbox = SandboxProcess(world, latency=0.02, service_times=True).start()
folder = Path(tempfile.mkdtemp()) / "cells"
roots = world.graph.root_ids()
len(roots)
