"""An unmodified peer in a process of its own: ``python -m benchmarks.peer NAME URL TOKEN DATASTACK``.

It builds its client, says ``ready``, and then answers one JSON line on standard input with one on standard output:
``{"call": ..., "ids": FILE.npy, "out": FILE.npy}`` gives ``{"seconds": ..., "cpu": ...}``. The clock runs around the
call alone.
"""

from __future__ import annotations

import contextlib
import json
import logging
import subprocess
import sys
import tempfile
import threading
import time
import warnings
import zlib
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.int64]


def main() -> None:
    name, url, token, datastack = sys.argv[1:]
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    peers = {
        "cortical-tools": _cortical_tools,
        "caveclient": _caveclient,
        "cloud-volume": _cloud_volume,
        "cortical-tools' meshes": _cortical_meshes,
        "pcg_skel": _pcg_skel,
    }
    calls = peers[name](url, token, datastack)
    print("ready", flush=True)
    for line in sys.stdin:
        job = json.loads(line)
        ids = np.load(job["ids"])
        wall, cpu = time.perf_counter(), time.process_time()
        answer = calls[job["call"]](ids)
        told = {"seconds": time.perf_counter() - wall, "cpu": time.process_time() - cpu}
        if callable(answer):  # what is told of meshes, off the clock
            answer = answer()
        np.save(job["out"], _digests(ids, answer) if isinstance(answer, dict) else np.asarray(answer).astype(np.int64))
        print(json.dumps(told), flush=True)


def _client(url: str, token: str, datastack: str) -> Any:
    from caveclient import CAVEclient

    return CAVEclient(datastack, server_address=url, auth_token=token, write_server_cache=False)


def _caveclient(url: str, token: str, datastack: str) -> dict[str, Callable[[Array], Any]]:
    client = _client(url, token, datastack)
    _send_storage_here(client.skeleton.session, url)
    graph = client.chunkedgraph
    return {
        "get_roots": graph.get_roots,
        "get_root_timestamps": lambda ids: _milliseconds(graph.get_root_timestamps(ids)),
        "each_root_timestamp": lambda ids: _milliseconds([graph.get_root_timestamps([i])[0] for i in ids]),
        "get_skeleton": lambda ids: {str(i): client.skeleton.get_skeleton(i) for i in ids.tolist()},
        "fetch_skeletons": lambda ids: _fetch_skeletons(client.skeleton, ids),
        "gcs": lambda ids: client.skeleton.fetch_skeletons(ids.tolist(), method="gcs"),
    }


def _send_storage_here(session: Any, url: str) -> None:
    """The host of Google's storage is written into caveclient's code: its requests go to the sandbox instead."""
    get = session.get
    session.get = lambda where, **options: get(
        where.replace("https://storage.googleapis.com", f"{url}/storage"), **options
    )


def _milliseconds(times: Any) -> Callable[[], list[int]]:
    """Times since the epoch, made off the clock."""
    return lambda: [round(when.timestamp() * 1000) for when in times]


def _fetch_skeletons(service: Any, ids: Array, most: int = 500) -> dict[str, Any]:
    """All skeletons by the bulk route, in requests as large as the service takes."""
    parts = [service.fetch_skeletons(ids[k : k + most].tolist(), method="server") for k in range(0, len(ids), most)]
    return {key: value for part in parts for key, value in part.items()}


def _digests(ids: Array, found: dict[str, Any]) -> Array:
    """What skeletons are compared by; see `digest`."""
    return np.stack([digest(**{name: found[str(i)][name] for name in COMPARED}) for i in ids.tolist()])


COMPARED = ("vertices", "edges", "radius", "mesh_to_skel_map", "lvl2_ids", "compartment")


def digest(**arrays: npt.ArrayLike) -> Array:
    """A number for each array of a skeleton that changes if any of its values, or their order, does."""
    return np.array(
        [zlib.crc32(np.ascontiguousarray(arrays[name], np.float64).tobytes()) for name in COMPARED[:3]]
        + [zlib.crc32(np.ascontiguousarray(arrays[name], np.int64).tobytes()) for name in COMPARED[3:]]
    )


def _cloud_volume(url: str, token: str, datastack: str) -> dict[str, Callable[[Array], Any]]:
    from cloudvolume import CloudVolume

    from .meshes import digest as mesh_digest

    table = _client(url, token, datastack).chunkedgraph.table_name
    cloudpath = f"graphene://{url}/segmentation/table/{table}"
    volume = CloudVolume(cloudpath, use_https=True, secrets={"token": token}, progress=False)

    def get_meshes(ids: Array) -> Callable[[], list[int]]:
        with contextlib.redirect_stdout(sys.stderr):  # it prints a line for each mesh
            meshes = volume.mesh.get(ids.tolist())
        return lambda: [mesh_digest(meshes[root]) for root in ids.tolist()]

    return {"get_meshes": get_meshes}


def _pcg_skel(url: str, token: str, datastack: str) -> dict[str, Callable[[Array], Any]]:
    import pcg_skel

    client = _client(url, token, datastack)

    def meshworks(ids: Array) -> Callable[[], Any]:
        found = [pcg_skel.get_meshwork_from_client(i, client, synapses=True) for i in ids.tolist()]
        return lambda: np.stack([meshwork_digest(neuron) for neuron in found])

    return {"meshworks": meshworks}


def meshwork_digest(neuron: Any) -> Array:
    """A number for each part of a Meshwork that changes if anything in it does; synapses in the order of their ids."""
    parts = [neuron.skeleton.vertices, neuron.skeleton.edges, neuron.skeleton.radius, neuron.mesh.vertices]
    parts += [neuron.anno.lvl2_ids.df["lvl2_id"], neuron.anno.compartment.df["compartment"]]
    for name in ("pre", "post"):
        rows = neuron.anno[f"{name}_syn"].df.sort_values("id")
        parts += [rows["id"], rows["size"], rows[f"{name}_pt_level2_id"], rows[f"{name}_pt_mesh_ind"]]
        parts.append(np.vstack([np.zeros((1, 3)), *rows["ctr_pt_position"].to_numpy()]))
    exact = (np.asarray(part) for part in parts)
    return np.array([zlib.crc32(np.ascontiguousarray(p, np.int64 if p.dtype.kind in "iu" else float)) for p in exact])


def _cortical_tools(url: str, token: str, datastack: str) -> dict[str, Callable[[Array], Any]]:
    from cortical_tools.common import DatasetClient

    cave = _client(url, token, datastack)
    client = DatasetClient(
        caveclient=cave,
        cell_id_lookup_view="nucleus_detection_lookup_v1",
        root_id_lookup_main_table="nucleus_detection_v0",
        root_id_lookup_alt_tables=["nucleus_alternative_points"],
    )
    return {"root_id_to_cell_id": lambda ids: client.root_id_to_cell_id(ids, client=cave).loc[ids]}


def _cortical_meshes(url: str, token: str, datastack: str) -> dict[str, Callable[[Array], Any]]:
    """The part of cortical-tools that is about meshes, which needs no tables."""
    from cortical_tools.mesh import MeshClient

    client = MeshClient(caveclient=_client(url, token, datastack))
    shapes: dict[int, Any] = {}

    def vertex_labels(ids: Array) -> Any:
        """Of one root, the mesh at hand, in this process: to start four more takes it longer than a mesh does."""
        root = int(ids[0])
        with contextlib.redirect_stdout(sys.stderr):
            if root not in shapes:
                shapes[root] = client.get_mesh(root)
            return client.compute_vertex_to_l2_mapping(root, shapes[root].vertices, shapes[root].faces, n_jobs=1)

    return {"vertex_labels": vertex_labels}


class Peer:
    """The child process, for the time of a ``with`` block; warm, its client built."""

    def __init__(self, name: str, url: str, token: str, datastack: str) -> None:
        self._command = [sys.executable, "-m", "benchmarks.peer", name, url, token, datastack]

    def __enter__(self) -> Self:
        self._folder = tempfile.TemporaryDirectory(prefix="peer-")
        self._process = subprocess.Popen(self._command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        if self._read() != "ready\n":
            raise RuntimeError("the peer did not start; see its stderr")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._process.terminate()
        self._process.communicate()
        self._folder.cleanup()

    def call(self, name: str, ids: Array, limit: float = 1800.0) -> tuple[Array, dict[str, float]]:
        """The peer's answer, and the seconds and CPU seconds that it took; ended after ``limit`` seconds."""
        asked, answer = Path(self._folder.name) / "asked.npy", Path(self._folder.name) / "answer.npy"
        np.save(asked, ids)
        watchdog = threading.Timer(limit, self._process.kill)  # its algorithm can loop for ever on a short lifetime
        watchdog.start()
        try:
            self._write({"call": name, "ids": str(asked), "out": str(answer)})
            line = self._read()
        finally:
            watchdog.cancel()
        if not line:
            raise TimeoutError(f"the peer gave no answer to {name} of {len(ids)} ids within {limit} s; see its stderr")
        return np.load(answer), json.loads(line)

    def _write(self, job: dict[str, str]) -> None:
        assert self._process.stdin
        self._process.stdin.write(json.dumps(job) + "\n")
        self._process.stdin.flush()

    def _read(self) -> str:
        assert self._process.stdout
        return self._process.stdout.readline()


if __name__ == "__main__":
    main()
