"""How many tokens a model takes, prompt and answer together, read from its config."""

import math
from collections.abc import Mapping
from typing import Any

# In the order in which FastChat asks; the first that a config has counts.
_KEYS = (
    "max_position_embeddings",
    "max_sequence_length",
    "seq_length",
    "max_seq_len",
    "n_positions",
    "n_ctx",
    "model_max_length",
)
# transformers writes 1e30 for "no limit".
_SANE = 10**9
DEFAULT = 2048
"""For models that name no limit anywhere, as in FastChat."""


def context_length(config: Mapping[str, Any], *, tokenizer_limit: int | None = None) -> int:
    """The context of a `config.json`, in tokens; of its text part when it has several.

    Configs whose length is already the scaled one (they name the original beside it, as Llama 3.1 does) are
    taken at their word; for the others the rope factor multiplies.
    """
    text_config = config.get("text_config")
    if isinstance(text_config, Mapping):
        config = {**config, **text_config}
    base = next((int(config[key]) for key in _KEYS if _is_length(config.get(key))), None)
    if base is None:
        limit = tokenizer_limit or 0
        return limit if 0 < limit < _SANE else DEFAULT
    return int(base * _factor(config))


def _is_length(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 < value < _SANE


def _factor(config: Mapping[str, Any]) -> float:
    scaling = config.get("rope_scaling") or config.get("rope_parameters") or {}
    if not isinstance(scaling, Mapping) or "original_max_position_embeddings" in {**scaling, **config}:
        return 1.0
    kind = scaling.get("rope_type", scaling.get("type"))
    factor = scaling.get("factor", 1.0)
    is_number = isinstance(factor, int | float) and math.isfinite(factor)
    return max(1.0, float(factor)) if is_number and kind in ("linear", "dynamic", "yarn") else 1.0
