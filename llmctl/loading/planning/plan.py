"""Where, in which numbers and how quantised a model runs: a pure function of request, facts and devices.

No torch here; every choice comes with its reason as a sentence.
"""

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from llmctl.core.errors import DoesNotFitError, UsageError
from llmctl.core.sizes import shown, shown_count
from llmctl.loading.planning import placement, quant_choice
from llmctl.loading.planning.hardware import Device
from llmctl.loading.planning.placement import Placement, choose_device
from llmctl.loading.planning.request import Facts, PlanRequest
from llmctl.loading.planning.weight_bytes import BYTES, block_bytes, weight_bytes
from llmctl.quant.methods import Scheme

__all__ = [
    "BYTES",
    "OVERHEAD_BYTES",
    "Facts",
    "LoadPlan",
    "PlanRequest",
    "choose_device",
    "choose_dtype",
    "plan",
    "stored_dtype",
]

OVERHEAD_BYTES = placement.OVERHEAD_BYTES
_MAX_TOLD = 3
"""Remedies in one message."""
_LARGER: Mapping[str, tuple[str | None, ...]] = {
    "8bit": (None, "none"),
    "4bit": (None, "none", "8bit", "int8"),
}
"""What was asked for where so many bits would be fewer."""
_STORED = {"F32": "float32", "BF16": "bfloat16", "F16": "float16", "F64": "float32"}


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadPlan:
    """What `loader` will do."""

    device: Device
    """Where the first layer runs; `device.place` is torch's name for it."""
    dtype: str
    """A key of `BYTES`."""
    num_bytes: int
    """Estimated memory on all devices, overhead included."""
    reasons: tuple[str, ...]
    weight_bytes: int = 0
    """The part of it that the weights take."""
    free_bytes: int = 0
    """What the devices of the plan have free."""
    quant: Scheme | None = None
    """How dense weights are packed while they load; None leaves them."""
    checkpoint_format: str | None = None
    """How the files are quantised; None: they are not."""
    is_decoded: bool = False
    """Whether packed weights of the files become dense ones, unless `quant` packs them anew."""
    device_map: str | Mapping[str, int | str] | None = None
    """accelerate's: "auto", "sequential" or a dict; None: the whole model is on `device`."""
    max_memory: Mapping[int | str, int] | None = None
    """Bytes by GPU number, and of "cpu" where weights may stay there; None exactly when `device_map` is."""
    offload: bool = False
    """Whether some weights stay in the host's memory and are computed with there."""
    attention: str = "sdpa"
    """As transformers calls it."""
    bytes_by_device: Mapping[str, int] = field(default_factory=dict)
    """Estimated memory by `Device.place`, overhead included."""

    @property
    def size(self) -> str:
        """What it takes of what there is, such as `1.2 GiB of 20.4 GiB free`."""
        return f"{shown(self.num_bytes)} of {shown(self.free_bytes)} free"

    @property
    def summary(self) -> str:
        """The numbers that it runs in and where, such as `bfloat16 -> int8 on cpu`."""
        numbers = self.dtype
        if self.quant is not None and self.quant.body is not None:
            numbers += f" -> {self.quant.body}"
        elif self.checkpoint_format is not None and not self.is_decoded:
            numbers = f"{self.checkpoint_format}, in {numbers}"
        return f"{numbers} on {', '.join(self.bytes_by_device) or self.device.place}"


def plan(request: PlanRequest, facts: Facts, devices: Sequence[Device]) -> LoadPlan:
    """Choose devices, dtype and quantisation, and check that the model fits.

    `devices` is best first, each GPU by itself, and ends with the CPU. Raises `UsageError` for what the
    devices, the checkpoint or the other wishes do not allow, `DoesNotFitError` with what would fit.
    """
    draft = _draft(request, facts, devices)
    if not draft.fits:
        raise _does_not_fit(request, facts, devices, draft)
    return draft.plan


@dataclass(frozen=True, slots=True)
class _Draft:
    """A plan that may ask for more than there is."""

    plan: LoadPlan
    placement: Placement
    request: PlanRequest
    """What was asked, less settings that are for other devices."""

    @property
    def fits(self) -> bool:
        return self.plan.weight_bytes <= self.placement.room


def _draft(request: PlanRequest, facts: Facts, devices: Sequence[Device]) -> _Draft:
    request, idle = placement.without_idle_settings(request, devices)
    chosen, place_reason = placement.choose_devices(request, devices)
    first = chosen[0]
    dtype, dtype_reason = choose_dtype(request.dtype, facts.stored_dtype, first, row=request.row_dtype)
    scheme, quant_reason = quant_choice.choose(request, facts, first, dtype)
    if request.cpu_offloading and scheme is None:
        raise UsageError(
            "--cpu-offloading goes with --load-8bit or --load-4bit",
            hint="give one of them, or leave it out",
        )
    weights = weight_bytes(facts, dtype, scheme)
    placed = placement.place(
        request, chosen, devices[-1], num_bytes=weights, block_bytes=block_bytes(facts, weights)
    )
    num_free = sum(each.free_bytes for each in chosen) + (devices[-1].free_bytes if placed.offload else 0)
    reasons = (place_reason, *idle, dtype_reason, quant_reason, placed.reason)
    return _Draft(
        plan=LoadPlan(
            device=first,
            dtype=dtype,
            num_bytes=weights + OVERHEAD_BYTES * len(chosen),
            weight_bytes=weights,
            free_bytes=num_free,
            reasons=tuple(reason for reason in reasons if reason is not None),
            quant=scheme,
            checkpoint_format=facts.quantisation.title if facts.quantisation is not None else None,
            is_decoded=facts.quantisation is not None and facts.quantisation.is_decoded,
            device_map=placed.device_map,
            max_memory=placed.max_memory,
            offload=placed.offload,
            bytes_by_device=placed.bytes_by_device,
        ),
        placement=placed,
        request=request,
    )


def stored_dtype(bytes_by_dtype: Mapping[str, int]) -> str:
    """The dtype of most of the checkpoint's bytes, by safetensors' type names."""
    floats = {kind: size for kind, size in bytes_by_dtype.items() if kind in _STORED}
    return _STORED[max(floats, key=lambda kind: floats[kind])] if floats else "float32"


def choose_dtype(asked: str, stored: str, device: Device, *, row: str | None = None) -> tuple[str, str]:
    """The numbers that a checkpoint of `stored` runs in, and why; both are keys of `BYTES`, or "auto".

    `row` is what the family's row says to "auto". Raises `UsageError` for a dtype that is none of them.
    """
    if asked != "auto" and asked not in BYTES:
        raise UsageError(f"dtype must be one of auto, {', '.join(BYTES)}, not {asked!r}")
    if asked != "auto":
        return asked, f"dtype {asked}: asked for"
    if row is not None:
        return row, f"dtype {row}: its family's row says so"
    if stored == "float32":
        faster = "; --dtype bfloat16 would be faster and half as large" if device.has_bf16 else ""
        return stored, f"dtype float32: the checkpoint's own{faster}"
    if device.has_bf16:
        return "bfloat16", f"dtype bfloat16: this {device.kind} computes it natively"
    smaller = "bfloat16" if device.kind == "cpu" else "float16"
    halves = f"--dtype {smaller} halves the memory"
    return "float32", f"dtype float32: this {device.kind} does not compute bfloat16 natively; {halves}"


def _does_not_fit(
    request: PlanRequest, facts: Facts, devices: Sequence[Device], draft: _Draft
) -> DoesNotFitError:
    made = draft.plan
    quant = f", {made.quant.body}" if made.quant is not None else ""
    fitting = [
        f"{flags} takes {shown(smaller.plan.num_bytes)} and fits"
        for flags, smaller in _smaller(request, facts, devices, draft)
        if smaller.fits
    ][:_MAX_TOLD]
    most = shown_count(draft.placement.room // BYTES["bfloat16"], in_words=True)
    small_enough = (
        f"what fits here in bfloat16 is a model of up to {most} parameters"
        if draft.placement.room
        else "nothing fits into so little"
    )
    return DoesNotFitError(
        f"{facts.name} ({shown_count(facts.num_parameters, in_words=True)} parameters) takes about "
        f"{_need(draft)} in {made.dtype}{quant}, {_room(draft)}",
        hint="; ".join(fitting) or small_enough,
    )


def _is_for_weights(draft: _Draft) -> bool:
    """Whether weights have less than what is free: they are told without the overhead then."""
    return draft.request.max_gpu_memory is not None or len(draft.plan.bytes_by_device) > 1


def _need(draft: _Draft) -> str:
    if _is_for_weights(draft):
        return f"{shown(draft.plan.weight_bytes)} of weights"
    return shown(draft.plan.num_bytes)


def _room(draft: _Draft) -> str:
    """What there is, as it was counted."""
    places, room = list(draft.plan.bytes_by_device), shown(draft.placement.room)
    if not _is_for_weights(draft):
        return f"{draft.plan.device.kind} has {shown(draft.plan.free_bytes)} free"
    if draft.request.max_gpu_memory is not None:
        limit = draft.request.settings.get("max_gpu_memory", "--max-gpu-memory")
        return f"{', '.join(places)} may hold {room} of them ({limit})"
    return f"{', '.join(places)} have {shown(draft.plan.free_bytes)} free, {room} of it for weights"


def _smaller(
    request: PlanRequest, facts: Facts, devices: Sequence[Device], draft: _Draft
) -> Iterator[tuple[str, _Draft]]:
    """Other ways to load the same model by their flags, the smallest loss first."""
    changes: list[tuple[str, PlanRequest]] = []
    if draft.request.max_gpu_memory is not None:
        limit = request.called("max_gpu_memory", shown(draft.request.max_gpu_memory))
        changes.append((f"without {limit} it", replace(request, max_gpu_memory=None)))
    num_used = len(draft.plan.bytes_by_device) - draft.plan.offload
    if request.gpus is None:
        # GPU 0 is taken when nobody says, and may be the busy one.
        others = [each for each in devices if each.kind == draft.plan.device.kind][1:]
        changes += [
            (f"--gpus {each.index}", replace(request, gpus=(each.index,), num_gpus=None))
            for each in others
            if num_used == 1
        ]
        changes += [
            (f"--num-gpus {count}", replace(request, num_gpus=count))
            for count in range(num_used + 1, len(others) + 2)
        ]
    base, prefix = request, ""
    if BYTES[draft.plan.dtype] > BYTES["bfloat16"]:
        base, prefix = replace(request, dtype="bfloat16"), "--dtype bfloat16"
        changes.append((prefix, base))
    for name, flag in quant_choice.FLAGS.items():
        if request.quantization in _LARGER[name]:
            changes.append((f"{prefix} {flag}".strip(), replace(base, quantization=name)))
    for flags, changed in changes:
        # What this checkpoint or device does not allow is no remedy.
        with contextlib.suppress(UsageError):
            yield flags, _draft(changed, facts, devices)
    with contextlib.suppress(UsageError):
        last = _draft(replace(base, quantization="4bit", cpu_offloading=True), facts, devices)
        # Without offloading it has been told above.
        if last.plan.offload:
            yield f"{prefix} --load-4bit --cpu-offloading".strip(), last
