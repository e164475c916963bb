"""Where and in which numbers a model runs: a pure function of request, hardware and checkpoint.

No torch here; every choice comes with its reason as a sentence.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from llmctl.core.errors import DoesNotFitError, UsageError
from llmctl.loading.hardware import GIB, Device

BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}
_STORED = {"F32": "float32", "BF16": "bfloat16", "F16": "float16", "F64": "float32"}
OVERHEAD_BYTES = GIB // 4
"""For activations, a short context's cache and the libraries."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadPlan:
    """What `loader` will do."""

    device: Device
    dtype: str
    """A key of `BYTES`."""
    num_bytes: int
    """Estimated memory on the device, overhead included."""
    reasons: tuple[str, ...]


def plan(
    *,
    device: str,
    dtype: str,
    devices: Sequence[Device],
    bytes_by_dtype: Mapping[str, int],
    num_parameters: int,
    name: str,
) -> LoadPlan:
    """Choose device and dtype, and check that the model fits.

    `device` and `dtype` are what the user asked for, "auto" included; `devices` is best first and ends with
    the CPU; `bytes_by_dtype` counts the checkpoint's tensors by safetensors' type names.
    Raises `UsageError` for a device that is not there, `DoesNotFitError`.
    """
    place, place_reason = choose_device(device, devices)
    stored = stored_dtype(bytes_by_dtype)
    kind, kind_reason = choose_dtype(dtype, stored, place)
    num_bytes = num_parameters * BYTES[kind] + OVERHEAD_BYTES
    if num_bytes > place.free_bytes:
        raise _does_not_fit(name, num_parameters, kind, place)
    size = f"{name} takes about {gib(num_bytes)} of {gib(place.free_bytes)} free"
    return LoadPlan(device=place, dtype=kind, num_bytes=num_bytes, reasons=(place_reason, kind_reason, size))


def choose_device(asked: str, devices: Sequence[Device]) -> tuple[Device, str]:
    """The device that `asked` means ("auto": the first), and why. Raises `UsageError` without one."""
    if asked == "auto":
        best = devices[0]
        return best, f"device {best.kind} ({best.name}): the best that this torch can use"
    for device in devices:
        if device.kind == asked:
            return device, f"device {device.kind} ({device.name}): asked for"
    found = ", ".join(device.kind for device in devices)
    raise UsageError(
        f"device {asked!r} cannot be used here, only {found}",
        hint="leave out --device, or see llmctl doctor",
    )


def stored_dtype(bytes_by_dtype: Mapping[str, int]) -> str:
    """The dtype of most of the checkpoint's bytes."""
    floats = {kind: size for kind, size in bytes_by_dtype.items() if kind in _STORED}
    return _STORED[max(floats, key=lambda kind: floats[kind])] if floats else "float32"


def choose_dtype(asked: str, stored: str, device: Device) -> tuple[str, str]:
    """The numbers that a checkpoint of `stored` runs in, and why; both are keys of `BYTES`, or "auto"."""
    if asked != "auto":
        return asked, f"dtype {asked}: asked for"
    if stored == "float32":
        faster = "; --dtype bfloat16 would be faster and half as large" if device.has_bf16 else ""
        return stored, f"dtype float32: the checkpoint's own{faster}"
    if device.has_bf16:
        return "bfloat16", f"dtype bfloat16: a 16-bit checkpoint, and this {device.kind} computes it natively"
    smaller = "bfloat16" if device.kind == "cpu" else "float16"
    halves = f"--dtype {smaller} halves the memory"
    return "float32", f"dtype float32: this {device.kind} does not compute bfloat16 natively; {halves}"


def _does_not_fit(name: str, num_parameters: int, kind: str, device: Device) -> DoesNotFitError:
    need = num_parameters * BYTES[kind] + OVERHEAD_BYTES
    half = num_parameters * 2 + OVERHEAD_BYTES
    fitting = max(0, device.free_bytes - OVERHEAD_BYTES) // 2 / 1e9
    if half < need and half <= device.free_bytes:
        hint = f"--dtype bfloat16 takes {gib(half)} and fits"
    else:
        hint = f"what fits here in bfloat16 is a model of up to {fitting:.1f} billion parameters"
    return DoesNotFitError(
        f"{name} ({num_parameters / 1e9:.1f} billion parameters) takes about {gib(need)} in {kind}, "
        f"{device.kind} has {gib(device.free_bytes)} free",
        hint=hint,
    )


def gib(num_bytes: int) -> str:
    """A size as messages show it."""
    return f"{num_bytes / GIB:.1f} GiB"
