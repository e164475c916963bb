"""On which devices a model goes, and how much of it on each, by FastChat's rules. No torch."""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from llmctl.core.errors import UsageError
from llmctl.core.sizes import shown
from llmctl.loading.planning.hardware import GIB, Device
from llmctl.loading.planning.request import PlanRequest

OVERHEAD_BYTES = GIB // 4
"""For activations, a short context's cache and the libraries, on each device."""
GPU_KINDS = ("cuda", "xpu", "npu")
"""Kinds of which a machine may have several."""
_SHARE = 0.85
"""Of a GPU's free memory that weights get when nobody says: the rest is for the cache, as in FastChat."""
_PACKAGES = {"npu": "torch_npu"}
"""What a kind of device needs beside torch."""
_OF_GPUS = ("num_gpus", "gpus", "max_gpu_memory")
"""Wishes on GPUs that may be settings."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Placement:
    """How a model of a known size lies on the chosen devices."""

    device_map: str | None
    max_memory: Mapping[int | str, int] | None
    bytes_by_device: Mapping[str, int]
    """By `Device.place`, overhead included."""
    room: int
    """Bytes that there are for weights."""
    offload: bool
    reason: str | None


def without_idle_settings(
    request: PlanRequest, devices: Sequence[Device]
) -> tuple[PlanRequest, tuple[str, ...]]:
    """`request`, less what settings say of GPUs where it means another device, and a sentence on each.

    Raises as `choose_device`.
    """
    kind = choose_device(request.device, devices)[0].kind
    idle = [] if kind in GPU_KINDS else [name for name in _OF_GPUS if name in request.settings]
    told = [f"{name} of {request.settings[name]}: not counted, it is for GPUs" for name in idle]
    dropped: dict[str, Any] = dict.fromkeys(idle)
    return replace(request, **dropped), tuple(told)


def choose_devices(request: PlanRequest, devices: Sequence[Device]) -> tuple[tuple[Device, ...], str]:
    """The GPUs, or the one device, that a request means, and why.

    Raises `UsageError` for devices that are not there, and for wishes on GPUs where there are none.
    """
    first, reason = choose_device(request.device, devices)
    _check_num_gpus(request)
    if first.kind not in GPU_KINDS:
        _refuse_gpu_wishes(request, first)
        return (first,), reason
    present = [each for each in devices if each.kind == first.kind]
    chosen = _numbered(request, present) if request.gpus is not None else present
    count = request.num_gpus or (len(chosen) if request.gpus is not None else 1)
    if count > len(chosen):
        given = "--gpus names" if request.gpus is not None else f"there {_is_or_are(len(chosen))}"
        more = f"name {count} with --gpus, or " if len(present) >= count else ""
        raise UsageError(
            f"{request.called('num_gpus', count)}: {given} only {len(chosen)} ({_places(chosen)})",
            hint=f"{more}give at most {len(chosen)}",
        )
    used = tuple(chosen[:count])
    if count == 1 and request.gpus is None:
        return used, reason
    return used, f"devices {_places(used)} ({used[0].name}): asked for"


def choose_device(asked: str, devices: Sequence[Device]) -> tuple[Device, str]:
    """The device that `asked` means ("auto": the first), and why. Raises `UsageError` without one."""
    if asked == "auto":
        best = devices[0]
        return best, f"device {best.kind} ({best.name}): the best that this torch can use"
    for device in devices:
        if device.kind == asked:
            return device, f"device {device.kind} ({device.name}): asked for"
    found = ", ".join(dict.fromkeys(device.kind for device in devices))
    package = f"; {asked} needs the package {_PACKAGES[asked]} beside torch" if asked in _PACKAGES else ""
    raise UsageError(
        f"device {asked!r} cannot be used here, only {found}",
        hint=f"leave out --device, or see llmctl doctor{package}",
    )


def place(
    request: PlanRequest, chosen: Sequence[Device], host: Device, *, num_bytes: int, block_bytes: int
) -> Placement:
    """Lay weights of `num_bytes` on the chosen devices; `block_bytes` is what cannot be split.

    It may not fit: then `room` is less than `num_bytes`.
    """
    limits = [_limit(request, each, is_alone=len(chosen) == 1) for each in chosen]
    room = sum(limits)
    if request.cpu_offloading and num_bytes > room:
        return _offloaded(chosen, host, limits, num_bytes)
    if len(chosen) == 1:
        need = {chosen[0].place: num_bytes + OVERHEAD_BYTES}
        told = "offloading: none, all weights fit on the GPU" if request.cpu_offloading else None
        return Placement(
            device_map=None, max_memory=None, bytes_by_device=need, room=room, offload=False, reason=told
        )
    is_even = request.max_gpu_memory is not None
    shares = _shares(num_bytes, limits, is_even=is_even)
    budgets = limits if is_even else _budgets(limits, shares, block_bytes)
    split = ", ".join(f"{each.place} {shown(share)}" for each, share in zip(chosen, shares, strict=True))
    limit = request.settings.get("max_gpu_memory", "--max-gpu-memory")
    how = f"evenly, at most {limit} on each" if is_even else "by free memory, at most 85 % of it"
    return Placement(
        device_map="auto" if is_even else "sequential",
        max_memory={each.index: budget for each, budget in zip(chosen, budgets, strict=True)},
        bytes_by_device={
            each.place: share + OVERHEAD_BYTES for each, share in zip(chosen, shares, strict=True)
        },
        room=room,
        offload=False,
        reason=f"weights spread {how}: {split}",
    )


def _limit(request: PlanRequest, device: Device, *, is_alone: bool) -> int:
    """Bytes of weights that a device may hold."""
    free = max(0, device.free_bytes - OVERHEAD_BYTES)
    if request.max_gpu_memory is not None:
        return min(request.max_gpu_memory, free)
    return free if is_alone and not request.cpu_offloading else min(free, int(device.free_bytes * _SHARE))


def _shares(num_bytes: int, limits: Sequence[int], *, is_even: bool) -> list[int]:
    """How `num_bytes` lie within `limits`: as much on each, or in the proportion of the limits."""
    if not is_even:
        room = max(1, sum(limits))
        # Rounded so that they add up.
        ends = [0, *(num_bytes * part // room for part in itertools.accumulate(limits))]
        return [end - start for start, end in itertools.pairwise(ends)]
    shares, left = [0] * len(limits), num_bytes
    # The smallest first: what it cannot take, the larger ones share.
    order = sorted(range(len(limits)), key=lambda index: limits[index])
    for count, index in zip(range(len(limits), 0, -1), order, strict=True):
        shares[index] = min(limits[index], left // count)
        left -= shares[index]
    return shares


def _budgets(limits: Sequence[int], shares: Sequence[int], block_bytes: int) -> list[int]:
    """What accelerate may put on each: it fills one GPU after the other, so that a budget makes a share."""
    budgets = [
        # accelerate keeps room for one more block on the first.
        min(limit, share + block_bytes * (2 if index == 0 else 1))
        for index, (limit, share) in enumerate(zip(limits, shares, strict=True))
    ]
    return [*budgets[:-1], limits[-1]]


def _offloaded(chosen: Sequence[Device], host: Device, limits: Sequence[int], num_bytes: int) -> Placement:
    on_host = num_bytes - sum(limits)
    # A GPU without room for the overhead computes nothing, however much the host holds for it.
    has_room = all(each.free_bytes >= OVERHEAD_BYTES for each in chosen)
    room_on_host = int(host.free_bytes * _SHARE) if has_room else 0
    need = {each.place: limit + OVERHEAD_BYTES for each, limit in zip(chosen, limits, strict=True)}
    return Placement(
        device_map="auto",
        max_memory={
            **{each.index: limit for each, limit in zip(chosen, limits, strict=True)},
            "cpu": room_on_host,
        },
        bytes_by_device={**need, host.place: on_host},
        room=sum(limits) + room_on_host,
        offload=True,
        reason=f"offloading: {shown(on_host)} of weights stay in the host's memory, which is slow",
    )


def _check_num_gpus(request: PlanRequest) -> None:
    if request.num_gpus is not None and request.num_gpus < 1:
        raise UsageError(f"--num-gpus must be at least 1, not {request.num_gpus}")
    if request.gpus is not None and len(set(request.gpus)) < max(1, len(request.gpus)):
        raise UsageError(f"{request.called('gpus', _joined(request.gpus))} must name each GPU once")


def _refuse_gpu_wishes(request: PlanRequest, device: Device) -> None:
    for is_given, flag in (
        ((request.num_gpus or 1) > 1, f"--num-gpus {request.num_gpus}"),
        (request.gpus is not None, f"--gpus {_joined(request.gpus or ())}"),
        (request.max_gpu_memory is not None, "--max-gpu-memory"),
        (request.cpu_offloading, "--cpu-offloading"),
    ):
        if is_given:
            raise UsageError(
                f"{flag} is for {', '.join(GPU_KINDS)}, and the model would run on {device.kind}",
                hint=f"leave {flag.partition(' ')[0]} out, or see llmctl doctor for the devices",
            )


def _numbered(request: PlanRequest, present: Sequence[Device]) -> list[Device]:
    numbers = request.gpus or ()
    by_number = {each.index: each for each in present}
    missing = [number for number in numbers if number not in by_number]
    if missing:
        known, kind = _joined(sorted(by_number)), present[0].kind
        called = request.called("gpus", _joined(numbers))
        raise UsageError(
            f"{called}: there is no {kind} device {missing[0]}, only {known}",
            hint="llmctl doctor shows the devices",
        )
    return [by_number[number] for number in numbers]


def _places(devices: Sequence[Device]) -> str:
    return ", ".join(each.place for each in devices)


def _joined(numbers: Sequence[int]) -> str:
    return ",".join(map(str, numbers))


def _is_or_are(count: int) -> str:
    return "is" if count == 1 else "are"
