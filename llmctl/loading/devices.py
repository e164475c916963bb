"""The devices that this torch can use, best first, as the plain data of `hardware`."""

import torch

from llmctl.loading import hardware
from llmctl.loading.hardware import Device

# As the allocators of the accelerators, of the CPU on Linux and macOS, and of the CPU on Windows say it.
_NO_MEMORY = ("out of memory", "can't allocate memory", "not enough memory")


def available() -> list[Device]:
    """cuda, xpu and mps devices, one for each kind's first device, and the CPU last."""
    return [*_cuda(), *_xpu(), *_mps(), hardware.cpu()]


def out_of_memory(error: RuntimeError) -> str | None:
    """What torch says when it found no memory, on whichever device; None for any other failure."""
    sentences = str(error).split(". ")
    return next((each for each in sentences if any(words in each for words in _NO_MEMORY)), None)


def _cuda() -> list[Device]:
    if not torch.cuda.is_available():
        return []
    free, total = torch.cuda.mem_get_info()
    return [
        Device(
            kind="cuda",
            name=torch.cuda.get_device_name(),
            total_bytes=total,
            free_bytes=free,
            has_bf16=torch.cuda.is_bf16_supported(including_emulation=False),
        )
    ]


def _xpu() -> list[Device]:
    if not torch.xpu.is_available():
        return []
    free, total = torch.xpu.mem_get_info()
    return [
        Device(
            kind="xpu",
            name=torch.xpu.get_device_name(),
            total_bytes=total,
            free_bytes=free,
            has_bf16=torch.xpu.is_bf16_supported(including_emulation=False),
        )
    ]


def _mps() -> list[Device]:
    if not torch.backends.mps.is_available():
        return []
    total = torch.mps.recommended_max_memory()
    return [
        Device(
            kind="mps",
            name=hardware.cpu().name,
            total_bytes=total,
            free_bytes=min(total, hardware.free_memory()),
            has_bf16="bf16" in hardware.cpu_flags(),
        )
    ]
