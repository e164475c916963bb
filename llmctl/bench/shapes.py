"""Shapes of real models, of a block and of the whole, for measurements without their weights. No torch."""

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """The widths of one block of a decoder."""

    hidden: int
    intermediate: int
    num_heads: int
    num_kv_heads: int
    head_size: int
    source: str
    """The model whose config.json says so."""

    @property
    def layers(self) -> Mapping[str, tuple[int, int]]:
        """The seven linear layers as (columns in, columns out), in the order in which a block calls them."""
        queries, keys = self.num_heads * self.head_size, self.num_kv_heads * self.head_size
        return {
            "q": (self.hidden, queries),
            "k": (self.hidden, keys),
            "v": (self.hidden, keys),
            "o": (queries, self.hidden),
            "gate": (self.hidden, self.intermediate),
            "up": (self.hidden, self.intermediate),
            "down": (self.intermediate, self.hidden),
        }

    @property
    def num_weights(self) -> int:
        """Numbers in the seven together."""
        return sum(columns * outputs for columns, outputs in self.layers.values())


def _shape(source: str, hidden: int, intermediate: int, heads: tuple[int, int, int]) -> Shape:
    num_heads, num_kv_heads, head_size = heads
    return Shape(
        hidden=hidden,
        intermediate=intermediate,
        num_heads=num_heads,
        num_kv_heads=num_kv_heads,
        head_size=head_size,
        source=source,
    )


SHAPES: Mapping[str, Shape] = {
    "demo": _shape("demo (comes with llmctl)", 256, 512, (4, 2, 64)),
    "qwen2-0.5b": _shape("Qwen/Qwen2-0.5B", 896, 4864, (14, 2, 64)),
    "qwen3-0.6b": _shape("Qwen/Qwen3-0.6B", 1024, 3072, (16, 8, 128)),
    "qwen2.5-1.5b": _shape("Qwen/Qwen2.5-1.5B", 1536, 8960, (12, 2, 128)),
    "llama-1b": _shape("meta-llama/Llama-3.2-1B", 2048, 8192, (32, 8, 64)),
    "gemma-2b": _shape("google/gemma-2b", 2048, 16384, (8, 1, 256)),
    "mistral-7b": _shape("mistralai/Mistral-7B-v0.3", 4096, 14336, (32, 8, 128)),
    "llama-8b": _shape("meta-llama/Llama-3.1-8B", 4096, 14336, (32, 8, 128)),
    "qwen2.5-7b": _shape("Qwen/Qwen2.5-7B", 3584, 18944, (28, 4, 128)),
    "llama-70b": _shape("meta-llama/Llama-3.1-70B", 8192, 28672, (64, 8, 128)),
}
"""By the name that `--shape` takes, the smallest first."""
DEFAULT_SHAPE = "qwen2-0.5b"


@dataclass(frozen=True, slots=True, kw_only=True)
class Stack:
    """What makes a whole model of blocks of one shape."""

    model_type: str
    """As transformers calls the architecture."""
    num_layers: int
    vocabulary_size: int
    context: int
    """Tokens that the model was made for."""
    is_tied: bool
    """Whether the output layer is the table of tokens."""


def _stack(model_type: str, num_layers: int, vocabulary_size: int, context: int, *, is_tied: bool) -> Stack:
    return Stack(
        model_type=model_type,
        num_layers=num_layers,
        vocabulary_size=vocabulary_size,
        context=context,
        is_tied=is_tied,
    )


STACKS: Mapping[str, Stack] = {
    "demo": _stack("llama", 3, 2048, 1024, is_tied=True),
    "qwen2-0.5b": _stack("qwen2", 24, 151936, 131072, is_tied=True),
    "qwen3-0.6b": _stack("qwen3", 28, 151936, 40960, is_tied=True),
    "qwen2.5-1.5b": _stack("qwen2", 28, 151936, 131072, is_tied=True),
    "llama-1b": _stack("llama", 16, 128256, 131072, is_tied=True),
    "gemma-2b": _stack("gemma", 18, 256000, 8192, is_tied=True),
    "mistral-7b": _stack("mistral", 32, 32768, 32768, is_tied=False),
    "llama-8b": _stack("llama", 32, 128256, 131072, is_tied=False),
    "qwen2.5-7b": _stack("qwen2", 28, 152064, 131072, is_tied=False),
    "llama-70b": _stack("llama", 80, 128256, 131072, is_tied=False),
}
"""By the names of `SHAPES`."""
