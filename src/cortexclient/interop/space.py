"""The spatial transforms of a dataset, from standard_transform."""

from __future__ import annotations

from typing import Any

from .._quietly import quietly
from ..datasets.spec import DatasetSpec
from ..errors import CortexUsageError, MissingDependency


def dataset_space(spec: DatasetSpec) -> Any:
    """The dataset object of standard_transform: depth below the pia and curvature-aware transforms."""
    if spec.space is None:
        raise CortexUsageError(
            f"dataset {spec.name!r} names no spatial transform: give DatasetSpec(space=...) the name of a dataset "
            "object in standard_transform (minnie_ds, v1dd_ds)"
        )
    try:
        transforms = quietly("standard_transform")  # its older spellings announce themselves
    except ImportError as error:
        raise MissingDependency("standard_transform", "space", "client.space") from error
    return getattr(transforms, spec.space)
