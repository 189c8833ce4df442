# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
# ---

# %% [markdown]
# # Neurons upright
#
# Cells by the depth of their somata, skeletons with their synapses in both transforms, and a mesh. The notebook runs
# against a [sandbox](../sandbox.md). Where the folder of real minnie65 data is at hand, neurons and synapses are those
# of the MICrONS Consortium (Nature 640, 2025; CC BY), edits and other nuclei invented; elsewhere all is made up, and
# small. On the real servers, leave out the first cell and name your dataset.

# %%
import os
from pathlib import Path

from cortexclient.sandbox import Sandbox, World

data = Path(os.environ.get("CORTEXCLIENT_SHARED_DATA", "../shared/data"))
world = World.from_minnie65(data) if data.is_dir() else World.default()
sandbox = Sandbox(world).start()

# %%
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.collections import LineCollection

from cortexclient import CortexClient

client = CortexClient(sandbox.spec, token=sandbox.token)
client

# %% [markdown]
# ## Cells by depth
#
# Root ids of proofread cells, of whatever age, are mapped to cells, and these found in the table of nuclei.
# `[1, 1, 1]` makes positions nanometres; `client.space` turns them upright: micrometres below the pia.

# %%
proofread = client.tables.proofreading_status_and_strategy().query()["valid_id"]
cells = client.root_id_to_cell_id(proofread, detail=True)
cells["status"].value_counts()

# %%
nuclei = client.tables.nucleus_detection_v0().query(desired_resolution=[1, 1, 1], split_positions=True)
upright = client.space.transform("nm")
image = nuclei[["pt_position_x", "pt_position_y", "pt_position_z"]].to_numpy() / 1000
cortex = upright.apply_dataframe("pt_position", nuclei)
known = nuclei["id"].isin(cells["cell_id"]).to_numpy()
fig, axes = plt.subplots(1, 2, figsize=(10, 4.5))
for ax, points, title in zip(axes, (image, np.asarray(cortex)), ("as in the image", "upright"), strict=True):
    shades = ax.scatter(points[:, 0], points[:, 1], c=np.asarray(cortex)[:, 1], s=8, cmap="viridis_r")
    ax.scatter(points[known, 0], points[known, 1], s=40, facecolors="none", edgecolors="tab:red", label="proofread")
    ax.set(title=title, xlabel="x (µm)", ylabel="y (µm)")
    ax.invert_yaxis()
    ax.set_aspect("equal")
axes[0].legend(loc="lower right")
_ = fig.colorbar(shades, ax=axes, label="depth below the pia (µm)", shrink=0.5)
# %% [markdown]
# ## Many skeletons
#
# The largest skeletons among the cells of the nucleus table, as plain arrays. One call; each id has its own outcome.

# %%
nuclei = nuclei[nuclei["pt_root_id"] > 0].drop_duplicates("pt_root_id").set_index("pt_root_id")
found = client.skeleton.get_skeletons(nuclei.index[-240:], timeout=300)
found

# %%
largest = sorted(found, key=lambda root: len(found[root].vertices))[-24:]
depths = upright.apply(nuclei.loc[largest, ["pt_position_x", "pt_position_y", "pt_position_z"]].to_numpy())[:, 1]
fig, ax = plt.subplots(figsize=(11, 4.5))
for place, number in enumerate(np.argsort(depths)):
    skeleton = found[largest[number]]
    points = upright.apply(skeleton.vertices)[:, :2]
    points[:, 0] += 220 * place - np.median(points[:, 0])
    ax.add_collection(LineCollection(points[skeleton.edges], linewidths=0.5, colors=[plt.cm.viridis(place / 24)]))
    ax.plot(220 * place, depths[number], "k.", markersize=3)
ax.autoscale()
ax.invert_yaxis()
ax.set_aspect("equal")
ax.set_ylabel("depth (µm)")
ax.set_xticks([])
fig.tight_layout()

# %% [markdown]
# ## One cell with its synapses, three ways
#
# In nanometres as the images have it; `rigid`: rotated and shifted; `streamline`: straightened along the curvature of
# the cortex, too.

# %%
root = largest[-1]
views = {how: client.get_skeleton(root, synapses=True, transform=how) for how in (None, "rigid", "streamline")}
fig, axes = plt.subplots(1, 3, figsize=(11, 5))
for ax, (how, neuron) in zip(axes, views.items(), strict=True):
    skeleton, scale = neuron.skeleton, 1000 if how is None else 1
    ax.add_collection(LineCollection(skeleton.vertices[skeleton.edges][:, :, :2] / scale, linewidths=0.5, colors="0.4"))
    for name, colour in (("post_syn", "tab:blue"), ("pre_syn", "tab:red")):
        place = "post_pt_position" if name == "post_syn" else "pre_pt_position"
        points = np.stack(neuron.anno[name].df[place].to_numpy()) if len(neuron.anno[name]) else np.empty((0, 3))
        ax.scatter(points[:, 0] / scale, points[:, 1] / scale, s=1, c=colour, label=f"{len(points):,} {name}")
    ax.set_title(how or "as it is")
    ax.set_aspect("equal")
    ax.autoscale()
    ax.invert_yaxis()
axes[0].set_ylabel("y (µm)")
axes[0].legend(markerscale=6, fontsize=8)
fig.tight_layout()

# %% [markdown]
# ## A mesh
#
# Meshes come as Draco fragments, one for each level-2 chunk, which are fetched side by side and welded along their
# borders. This is the smallest of the larger cells; vertices are in nanometres, and the shade is the third axis.

# %%
by_size = sorted(found, key=lambda root: len(found[root].vertices))
small = next((root for root in by_size if len(found[root].vertices) > 1000), by_size[-1])
mesh = client.mesh.get_mesh(small)
x, y, z = (mesh.vertices[::4] / 1000).T
fig, ax = plt.subplots(figsize=(9, 6))
ax.scatter(x, y, c=z, s=0.3, cmap="copper", linewidths=0)
ax.set_aspect("equal")
ax.invert_yaxis()
ax.set(title=f"{small}: {len(mesh.vertices):,} vertices, {len(mesh.faces):,} faces", xlabel="x (µm)", ylabel="y (µm)")
fig.tight_layout()

# %%
client.close()
sandbox.stop()
