"""Whether a model fits into a device's memory, and what of it would: arithmetic over facts, without torch.

    weights   see `weight_bytes`: the plan counts them in the same way
    cache     see `cache_size`, in the numbers that the model computes in
    overhead  `plan.OVERHEAD_BYTES` for activations and the libraries

The sum is an estimate: what a device can really give, only loading tells.
"""

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from llmctl.core.errors import UsageError
from llmctl.core.sizes import shown
from llmctl.loading.facts.cache_size import CacheSize, cache_size
from llmctl.loading.facts.describe import Description
from llmctl.loading.planning import quant_choice
from llmctl.loading.planning.hardware import Device
from llmctl.loading.planning.plan import OVERHEAD_BYTES, choose_device, choose_dtype
from llmctl.loading.planning.quant_choice import NONE
from llmctl.loading.planning.request import PlanRequest
from llmctl.loading.planning.weight_bytes import BYTES, weight_bytes

DEFAULT_CONTEXT = 4096
"""Tokens that the cache is counted for when nobody says; fewer if the model takes fewer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FitRequest:
    """Under which conditions; the defaults are this machine and the checkpoint as it is."""

    device: str = "auto"
    dtype: str = "auto"
    row_dtype: str | None = None
    """What the family's row says to "auto"."""
    quant: str | None = None
    """As `PlanRequest.quantization`."""
    settings: Mapping[str, str] = field(default_factory=dict)
    """As `PlanRequest.settings`."""
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
    """The method that the layers are packed by, or "none"."""
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
    the model's, and what `quant_choice.choose` refuses.
    """
    _check(model, request)
    present = described(devices, kind=request.device, memory_bytes=request.memory_bytes)
    device, _ = choose_device(request.device, present)
    dtype, reason = choose_dtype(request.dtype, model.facts.stored_dtype, device, row=request.row_dtype)
    context = request.context or min(DEFAULT_CONTEXT, model.context_length)
    scheme, quant_reason = quant_choice.choose(
        PlanRequest(quantization=request.quant, settings=request.settings), model.facts, device, dtype
    )
    num_weight_bytes = weight_bytes(model.facts, dtype, scheme)
    cache, cache_notes = _cache(model, dtype, has_cache=request.has_cache)
    free = device.free_bytes - num_weight_bytes - OVERHEAD_BYTES
    most = cache.tokens_in(max(0, free)) if free >= 0 else 0
    return Fit(
        device=device,
        dtype=dtype,
        quant=scheme.body or NONE if scheme is not None else NONE,
        context=context,
        weight_bytes=num_weight_bytes,
        cache_bytes=cache.bytes_for(context),
        cache_bytes_per_1k=cache.bytes_for(1024) - cache.state_bytes,
        overhead_bytes=OVERHEAD_BYTES,
        max_context=model.context_length if most is None else min(most, model.context_length),
        notes=(reason, *([quant_reason] if quant_reason is not None else []), *cache_notes),
    )


def described(
    devices: Sequence[Device], *, kind: str, memory_bytes: int | None, count: int = 1
) -> list[Device]:
    """`devices`, as if those of `kind` ("auto": of the best) had that much free, each.

    A kind that is not here is laid before them, `count` times; that takes its memory to be told.
    """
    if memory_bytes is None:
        return list(devices)
    meant = devices[0].kind if kind == "auto" else kind
    if not any(each.kind == meant for each in devices):
        absent = Device(
            kind=meant, name="not here", total_bytes=memory_bytes, free_bytes=memory_bytes, has_bf16=True
        )
        return [*(replace(absent, index=index) for index in range(count)), *devices]
    return [
        replace(each, total_bytes=memory_bytes, free_bytes=memory_bytes) if each.kind == meant else each
        for each in devices
    ]


def remedies(model: Description, request: FitRequest, devices: Sequence[Device]) -> tuple[str, ...]:
    """What would make a model fit, a sentence each, the least loss first; empty when nothing does."""
    asked = estimate(model, request, devices)
    told = []
    if asked.max_context > 0:
        told.append(f"--context {asked.max_context} fits")
    for flags, changed in _smaller(request, asked):
        # What this checkpoint or device does not allow is no remedy.
        with contextlib.suppress(UsageError):
            fit = estimate(model, changed, devices)
            if fit.fits:
                told.append(f"{flags} takes {shown(fit.needed_bytes)} and fits")
    return tuple(told)


def _smaller(request: FitRequest, asked: Fit) -> Iterator[tuple[str, FitRequest]]:
    """The same question with smaller weights, by the flags of it."""
    base, prefix = request, ""
    if BYTES[asked.dtype] > BYTES["bfloat16"]:
        base, prefix = replace(request, dtype="bfloat16"), "--dtype bfloat16"
        yield prefix, base
    if asked.quant == NONE:
        for name, flag in quant_choice.FLAGS.items():
            yield f"{prefix} {flag}".strip(), replace(base, quant=name)


def _check(model: Description, request: FitRequest) -> None:
    name = model.checkpoint.name
    if request.context is not None and request.context > model.context_length:
        raise UsageError(
            f"--context {request.context} is more than {name} takes, {model.context_length} tokens",
            hint=f"give at most {model.context_length}",
        )


def _cache(model: Description, dtype: str, *, has_cache: bool) -> tuple[CacheSize, tuple[str, ...]]:
    if not has_cache:
        return CacheSize(bytes_per_token=0), ("a model of this kind keeps no cache",)
    found = cache_size(model.checkpoint.config, bytes_per_number=BYTES[dtype])
    if found is None:
        note = "the config names no layers or heads, so the cache is not counted"
        return CacheSize(bytes_per_token=0), (note,)
    return found, found.notes
