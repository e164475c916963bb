"""What llmctl can make of a dense weight while it loads: one row a method. No torch."""

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Method:
    """One way to store a weight in fewer bits."""

    title: str
    """As messages and tables call it."""
    bits: int
    group_sizes: tuple[int, ...]
    """Numbers along a row that may share a scale, the best first; empty: the whole row does."""
    bits_per_weight: float
    """Scales included, with the best group size."""


METHODS: Mapping[str, Method] = {
    "int8": Method(title="8-bit integers, a scale a row", bits=8, group_sizes=(), bits_per_weight=8.05),
    "int4": Method(title="4-bit integers", bits=4, group_sizes=(64, 32), bits_per_weight=4.5),
    "nf4": Method(title="4-bit normal floats (bitsandbytes)", bits=4, group_sizes=(64,), bits_per_weight=4.5),
    "fp4": Method(title="4-bit floats (bitsandbytes)", bits=4, group_sizes=(64,), bits_per_weight=4.5),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Scheme:
    """Which method each kind of weight is stored by; None leaves it as it is."""

    body: str | None
    """Linear layers and experts: a key of `METHODS`."""
    head: str | None = "int8"
    """The layer that gives the logits: "int8" or None."""
    embedding: str | None = "int8"
    """The table of tokens: "int8" or None."""
    skip: tuple[str, ...] = ()
    """Regular expressions; a module whose path one of them finds stays dense."""


def group_size(method: str, num_columns: int) -> int | None:
    """Numbers that share a scale in rows of `num_columns`; None where no group of the method divides them."""
    sizes = METHODS[method].group_sizes
    if not sizes:
        return num_columns
    return next((size for size in sizes if num_columns % size == 0), None)
