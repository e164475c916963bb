"""The configuration of a checkpoint whose numbers become others."""

from collections.abc import Mapping
from typing import Any

_DTYPE_KEYS = ("dtype", "torch_dtype")


def with_dtype(config: Mapping[str, Any], dtype: str) -> dict[str, Any]:
    """`config` with the new dtype wherever it names one, in its parts too."""
    changed = {
        key: with_dtype(value, dtype) if isinstance(value, Mapping) and key.endswith("_config") else value
        for key, value in config.items()
    }
    return {**changed, **{key: dtype for key in _DTYPE_KEYS if key in config}}
