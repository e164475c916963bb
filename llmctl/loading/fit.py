"""Whether a model fits into a device's memory, and what of it would: arithmetic over facts, without torch.

    weights   parameters x bytes of the dtype; quantised, matrices x bits / 8 and the rest as it was;
              a checkpoint that is quantised already takes what its files hold
    cache     see `cache_size`, in the numbers that the model computes in
    overhead  `plan.OVERHEAD_BYTES` for activations and the libraries

The sum is an estimate: what a device can really give, only loading tells.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from llmctl.core.errors import UsageError
from llmctl.loading.cache_size import CacheSize, cache_size
from llmctl.loading.describe import Description
from llmctl.loading.hardware import Device
from llmctl.loading.plan import BYTES, OVERHEAD_BYTES, choose_device, choose_dtype, gib, stored_dtype

QUANT_BITS: dict[str, float | None] = {"none": None, "int8": 8.125, "fp8": 8.125, "int4": 4.25, "nf4": 4.125}
"""Bits of a weight and of its share of the scales: 16 bits for each 128 weights, for each 64 in int4."""
DEFAULT_CONTEXT = 4096
"""Tokens that the cache is counted for when nobody says; fewer if the model takes fewer."""
_TRIED = ("int8", "int4")


@dataclass(frozen=True, slots=True, kw_only=True)
class FitRequest:
    """Under which conditions; the defaults are this machine and the checkpoint as it is."""

    device: str = "auto"
    dtype: str = "auto"
    quant: str = "none"
    """A key of `QUANT_BITS`."""
    context: int | None = None
    """Tokens of prompt and answer together; None is `DEFAULT_CONTEXT` or the model's if that is less."""
    memory_bytes: int | None = None
    """What the device has free, in the place of what it says."""
    has_cache: bool = True
    """Whether the model remembers tokens at all; embedding models and rerankers do not."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fit:
    """What one way of loading a model takes."""

    device: Device
    dtype: str
    quant: str
    context: int
    """Tokens that `cache_bytes` are for."""
    weight_bytes: int
    cache_bytes: int
    cache_bytes_per_1k: int
    """For the first 1024 tokens."""
    overhead_bytes: int
    max_context: int
    """Tokens that fit beside the weights, at most the model's context; 0 when the weights do not fit."""
    notes: tuple[str, ...]
    """What was assumed and why, a sentence each."""

    @property
    def needed_bytes(self) -> int:
        """All of it together."""
        return self.weight_bytes + self.cache_bytes + self.overhead_bytes

    @property
    def fits(self) -> bool:
        """Whether the device has that much free."""
        return self.needed_bytes <= self.device.free_bytes


def estimate(model: Description, request: FitRequest, devices: Sequence[Device]) -> Fit:
    """Add up what `model` takes under the conditions of `request`; `devices` is best first, the CPU last.

    Raises `UsageError` for a device that is not there (unless the request says its memory), a context beyond
    the model's, and for quantising what is quantised.
    """
    _check(model, request)
    device = _device(request, devices)
    dtype, reason = choose_dtype(request.dtype, stored_dtype(model.checkpoint.bytes_by_dtype), device)
    context = request.context or min(DEFAULT_CONTEXT, model.context_length)
    weight_bytes, weight_note = _weights(model, dtype, request.quant)
    cache, cache_notes = _cache(model, dtype, has_cache=request.has_cache)
    free = device.free_bytes - weight_bytes - OVERHEAD_BYTES
    most = cache.tokens_in(max(0, free)) if free >= 0 else 0
    return Fit(
        device=device,
        dtype=dtype,
        quant=request.quant,
        context=context,
        weight_bytes=weight_bytes,
        cache_bytes=cache.bytes_for(context),
        cache_bytes_per_1k=cache.bytes_for(1024) - cache.state_bytes,
        overhead_bytes=OVERHEAD_BYTES,
        max_context=model.context_length if most is None else min(most, model.context_length),
        notes=(reason, *weight_note, *cache_notes),
    )


def remedies(model: Description, request: FitRequest, devices: Sequence[Device]) -> tuple[str, ...]:
    """What would make a model fit, a sentence each, the least loss first; empty when nothing does."""
    asked = estimate(model, request, devices)
    told = []
    if asked.max_context > 0:
        told.append(f"--context {asked.max_context} fits")
    for changed in _smaller(model, request, asked):
        fit = estimate(model, changed, devices)
        if fit.fits:
            told.append(f"{_flags(request, changed)} takes {gib(fit.needed_bytes)} and fits")
    return tuple(told)


def _smaller(model: Description, request: FitRequest, asked: Fit) -> Iterator[FitRequest]:
    """The same question with smaller weights."""
    half = replace(request, dtype="bfloat16")
    if BYTES[asked.dtype] > BYTES["bfloat16"]:
        yield half
    if request.quant == "none" and model.quantisation is None:
        for quant in _TRIED:
            yield replace(half if BYTES[asked.dtype] > BYTES["bfloat16"] else request, quant=quant)


def _flags(request: FitRequest, changed: FitRequest) -> str:
    flags = [
        f"--{name} {getattr(changed, name)}"
        for name in ("dtype", "quant")
        if getattr(changed, name) != getattr(request, name)
    ]
    return " ".join(flags)


def _check(model: Description, request: FitRequest) -> None:
    name = model.checkpoint.name
    if request.quant != "none" and model.quantisation is not None:
        raise UsageError(
            f"--quant {request.quant}: {name} is quantised already ({model.quantisation.method})",
            hint="leave --quant out",
        )
    if request.context is not None and request.context > model.context_length:
        raise UsageError(
            f"--context {request.context} is more than {name} takes, {model.context_length} tokens",
            hint=f"give at most {model.context_length}",
        )


def _device(request: FitRequest, devices: Sequence[Device]) -> Device:
    """The device asked for, with the memory asked for; one that is not here has to be given its memory."""
    memory = request.memory_bytes
    is_here = request.device == "auto" or any(device.kind == request.device for device in devices)
    if memory is not None and not is_here:
        return Device(
            kind=request.device, name="not here", total_bytes=memory, free_bytes=memory, has_bf16=True
        )
    device, _ = choose_device(request.device, devices)
    return device if memory is None else replace(device, total_bytes=memory, free_bytes=memory)


def _weights(model: Description, dtype: str, quant: str) -> tuple[int, tuple[str, ...]]:
    if model.quantisation is not None:
        return model.checkpoint.num_bytes, (f"weights as they are stored ({model.quantisation.method})",)
    bits = QUANT_BITS[quant]
    packed = model.num_matrix_parameters if bits is not None else 0
    num_bytes = (model.num_parameters - packed) * BYTES[dtype] + int(packed * (bits or 0) / 8)
    return num_bytes, (f"{quant}: {bits:g} bits a weight, scales included",) if bits is not None else ()


def _cache(model: Description, dtype: str, *, has_cache: bool) -> tuple[CacheSize, tuple[str, ...]]:
    if not has_cache:
        return CacheSize(bytes_per_token=0), ("a model of this kind keeps no cache",)
    found = cache_size(model.checkpoint.config, bytes_per_number=BYTES[dtype])
    if found is None:
        note = "the config names no layers or heads, so the cache is not counted"
        return CacheSize(bytes_per_token=0), (note,)
    return found, found.notes
