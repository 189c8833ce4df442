"""The fewest instants at which every one of many lifetimes can be seen."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Times = npt.NDArray[np.int64]


def stab(start: Times, end: Times) -> tuple[Times, npt.NDArray[np.intp]]:
    """Choose instants such that each interval holds one; no set of instants is smaller.

    Greedy by earliest end: the interval that ends first must be met before it ends, and the last moment before that
    meets most others too.

    Parameters
    ----------
    start, end
        (n,) ms; half-open intervals ``start <= t < end``, none empty.

    Returns
    -------
    instants
        (m,) ms, ascending.
    which
        (n,) index into ``instants``: where each interval is met.
    """
    which = np.empty(len(start), np.intp)
    instants: list[int] = []
    for i in np.argsort(end, kind="stable"):
        if not instants or instants[-1] < start[i]:
            instants.append(int(end[i]) - 1)
        which[i] = len(instants) - 1
    return np.array(instants, np.int64), which
