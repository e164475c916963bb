"""Layer 4: from a model's name to a model in memory. The names are FastChat's, imported on first use."""

from typing import TYPE_CHECKING, Any

from llmctl.core.lazy import load

if TYPE_CHECKING:
    from llmctl.loading.api import (
        AWQConfig,
        ExllamaConfig,
        GptqConfig,
        XftConfig,
        get_context_length,
        load_model,
    )

__all__ = ["AWQConfig", "ExllamaConfig", "GptqConfig", "XftConfig", "get_context_length", "load_model"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return load(f"{__name__}.api:{name}")
