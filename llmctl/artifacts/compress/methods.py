"""What `llmctl compress` can make of a checkpoint: one row a method. No torch."""

from collections.abc import Mapping
from dataclasses import dataclass

from llmctl.core.errors import UsageError


@dataclass(frozen=True, slots=True, kw_only=True)
class Method:
    """One way to store the weights of layers in fewer bits."""

    title: str
    """As tables and cards call it."""
    bits: int
    group_sizes: tuple[int, ...] = ()
    """Numbers along a row that may share a scale, the best first; empty: nothing to choose."""
    divisor: int = 1
    """Of the width of a weight that can be stored so, where no group is chosen."""
    takes_calibration: bool = False
    is_for_experts_in_transformers: bool = True
    """Whether transformers (5.24) loads experts that are stored so."""
    package: str | None = None
    """Who makes it, where llmctl does not."""
    extra: str | None = None
    """The extra of llmctl that brings `package`."""


METHODS: Mapping[str, Method] = {
    "int8": Method(
        title="8-bit integers, a scale a row (compressed-tensors, int-quantized)",
        bits=8,
        is_for_experts_in_transformers=False,
    ),
    "int4": Method(
        title="4-bit integers (compressed-tensors, pack-quantized)",
        bits=4,
        group_sizes=(64, 32, 128),
        takes_calibration=True,
    ),
    "fp8": Method(title="8-bit floats, a scale a row (compressed-tensors, float-quantized)", bits=8),
    "nf4": Method(
        title="4-bit normal floats in blocks of 64 (bitsandbytes)",
        bits=4,
        divisor=64,
        is_for_experts_in_transformers=False,
    ),
    "gptq": Method(
        title="4-bit integers (GPTQ)",
        bits=4,
        group_sizes=(128, 64, 32),
        takes_calibration=True,
        is_for_experts_in_transformers=False,
        package="gptqmodel",
        extra="gptq",
    ),
    "awq": Method(
        title="4-bit integers (AWQ)",
        bits=4,
        group_sizes=(128, 64, 32),
        takes_calibration=True,
        is_for_experts_in_transformers=False,
        package="gptqmodel",
        extra="awq",
    ),
}


def method_of(name: str) -> Method:
    """The row of `name`. Raises `UsageError` with the names that there are."""
    if name not in METHODS:
        raise UsageError(f"--method must be one of {', '.join(METHODS)}, not {name!r}")
    return METHODS[name]


def check_group_size(name: str, size: int | None) -> None:
    """Raise `UsageError` for a size of groups that the method does not know."""
    sizes = method_of(name).group_sizes
    if size is None or size in sizes:
        return
    if not sizes:
        raise UsageError(
            f"--group-size {size}: the groups of {name} are given", hint="leave it out, or take int4"
        )
    raise UsageError(f"--group-size must be one of {', '.join(map(str, sorted(sizes)))}, not {size}")
