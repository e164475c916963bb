"""What a model of transformers tells of itself once its weights are packed: its memory, its parameters.

transformers counts parameters, and sees only the empty ones that stand where the weights were.
"""

import functools
from collections.abc import Iterator
from typing import Any, ClassVar

from torch import nn

from llmctl.core.errors import UsageError
from llmctl.quant.experts import QuantExperts
from llmctl.quant.modules import QuantEmbedding, QuantLinear, refuse_saving

_Packed = QuantLinear | QuantEmbedding | QuantExperts


class PackedModel(nn.Module):
    """Mixed into a class of transformers' models. Copies of a model share its packed weights."""

    own_class: ClassVar[Any]
    """The model's."""
    config: Any
    get_input_embeddings: Any
    get_output_embeddings: Any

    def get_memory_footprint(self, return_buffers: bool = True) -> int:
        """Bytes of all weights, and of buffers."""
        own: int = super().get_memory_footprint(return_buffers)  # type: ignore[misc]
        return own + sum(module.num_packed_bytes for module in self._packed())

    def num_parameters(self, only_trainable: bool = False, exclude_embeddings: bool = False) -> int:
        """Weights by number; as transformers does it, those of a tied pair count once."""
        own: int = super().num_parameters(only_trainable, exclude_embeddings)  # type: ignore[misc]
        is_tied = getattr(self.config, "tie_word_embeddings", False)
        tied = self.get_output_embeddings() if is_tied else None
        return own + sum(
            module.num_packed
            for module in self._packed()
            if module is not tied
            and not only_trainable
            and not (exclude_embeddings and isinstance(module, QuantEmbedding))
        )

    def resize_token_embeddings(self, *sizes: Any, **options: Any) -> Any:
        """The table of tokens. Raises `UsageError` for another size where table or head are llmctl's."""
        ends = (self.get_input_embeddings(), self.get_output_embeddings())
        is_changed = any(size is not None for size in (*sizes, *options.values()))
        if is_changed and any(isinstance(each, QuantEmbedding | QuantLinear) for each in ends):
            raise UsageError(
                "the table of tokens of a quantised model cannot be resized",
                hint="load the model without quantisation to resize it",
            )
        return super().resize_token_embeddings(*sizes, **options)  # type: ignore[misc]

    def save_pretrained(self, *args: Any, **options: Any) -> None:
        """Save the model where nothing is packed; else `UsageError`, before any file is written."""
        self._refuse_saving()
        super().save_pretrained(*args, **options)  # type: ignore[misc]

    def push_to_hub(self, *args: Any, **options: Any) -> Any:
        """Upload the model where nothing is packed; else `UsageError`, before any repository is made."""
        self._refuse_saving()
        return super().push_to_hub(*args, **options)  # type: ignore[misc]

    def _refuse_saving(self) -> None:
        for name, module in self.named_modules():
            refuse_saving(name, is_packed=isinstance(module, _Packed) and module.num_packed > 0)

    def _packed(self) -> Iterator[_Packed]:
        return (module for module in self.modules() if isinstance(module, _Packed))

    def __reduce_ex__(self, protocol: Any) -> tuple[Any, ...]:
        # By the model's own class: a class made while running cannot be found by its name.
        return _blank, (self.own_class,), self.__dict__


def adopt(model: Any) -> None:
    """Make `model` tell what is so, where it is transformers' and has packed weights."""
    is_known = hasattr(model, "get_memory_footprint") and not isinstance(model, PackedModel)
    if is_known and any(isinstance(each, _Packed) for each in model.modules()):
        kind: Any = type(model)
        model.__class__ = _mixed(kind)


@functools.cache
def _mixed(kind: Any) -> Any:
    """`PackedModel` before the model's own class, under whose name transformers keeps tables."""
    names = {"__module__": kind.__module__, "__qualname__": kind.__qualname__, "own_class": kind}
    return type(kind.__name__, (PackedModel, kind), names)


def _blank(kind: Any) -> Any:
    made = _mixed(kind)
    return made.__new__(made)
