"""The presets, and clients ready for use: ``from cortexclient.datasets.minnie_public import client``."""

from .spec import (
    MINNIE_PROD,
    MINNIE_PUBLIC,
    V1DD,
    V1DD_PUBLIC,
    DatasetSpec,
    get_spec,
    known_specs,
    register,
)

__all__ = ["MINNIE_PROD", "MINNIE_PUBLIC", "V1DD", "V1DD_PUBLIC", "DatasetSpec", "get_spec", "known_specs", "register"]
