"""Ready-made clients of known datasets."""

from __future__ import annotations

from ._sync.client import CortexClient
from .datasets.spec import DatasetSpec, get_spec


def load_client(dataset: str | DatasetSpec) -> CortexClient:
    """Give the blocking client of a dataset, the same object each time; nothing is sent yet.

    Parameters
    ----------
    dataset
        Name of a preset (``"minnie_public"``), of a datastack that has one, or any :class:`DatasetSpec`.

    Notes
    -----
    It has the default settings, and everybody in this process shares it; after it was closed, the next call makes
    another one. For settings of your own build a :class:`CortexClient`.

    Examples
    --------
    >>> load_client("minnie_public")
    CortexClient('minnie_public', datastack='minnie65_public')
    """
    spec = get_spec(dataset)
    client = _clients.get(spec)
    if client is not None and not client.closed:
        return client
    if client is not None:
        _clients.pop(spec, None)
    return _clients.setdefault(spec, CortexClient(spec))  # another thread's, if that was faster


_clients: dict[DatasetSpec, CortexClient] = {}
