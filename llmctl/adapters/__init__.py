"""Layer 2: which family a model is of, and how it wants to be prompted and loaded. No torch.

The names below are those of FastChat's `model_adapter`; each is imported when it is first asked for.
"""

from typing import TYPE_CHECKING, Any

from llmctl.core.lazy import load

if TYPE_CHECKING:
    from llmctl.adapters.base import BaseModelAdapter
    from llmctl.adapters.surface import (
        get_conv_template,
        get_conversation_template,
        get_model_adapter,
        register_model_adapter,
    )

__all__ = [
    "BaseModelAdapter",
    "get_conv_template",
    "get_conversation_template",
    "get_model_adapter",
    "register_model_adapter",
]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module = "base" if name == "BaseModelAdapter" else "surface"
    return load(f"{__name__}.{module}:{name}")
