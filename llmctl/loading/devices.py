"""The devices that this torch can use, best first, as the plain data of `hardware`."""

import importlib
import importlib.util
import logging
from typing import Any

import torch

from llmctl.loading.planning import hardware
from llmctl.loading.planning.hardware import Device

log = logging.getLogger(__name__)

# As the allocators of the accelerators, of the CPU on Linux and macOS, and of the CPU on Windows say it.
_NO_MEMORY = ("out of memory", "can't allocate memory", "not enough memory")


def available() -> list[Device]:
    """cuda, xpu and npu devices, each by itself, mps, and the CPU last."""
    return [*_cuda(), *_xpu(), *_npu(), *_mps(), hardware.cpu()]


def out_of_memory(error: RuntimeError) -> str | None:
    """What torch says when it found no memory, on whichever device; None for any other failure."""
    sentences = str(error).split(". ")
    return next((each for each in sentences if any(words in each for words in _NO_MEMORY)), None)


def _cuda() -> list[Device]:
    return _several("cuda", torch.cuda, including_emulation=False)


def _xpu() -> list[Device]:
    return _several("xpu", torch.xpu, including_emulation=False)


def _npu() -> list[Device]:
    """Huawei's; the package `torch_npu` brings them into torch."""
    if importlib.util.find_spec("torch_npu") is None:
        return []
    try:
        importlib.import_module("torch_npu")
    # What a package of another torch, or without its driver, fails with.
    except (ImportError, OSError, RuntimeError, AttributeError) as error:
        log.warning("torch_npu does not import, so there are no npu devices: %s", error)
        return []
    return _several("npu", torch.npu)  # type: ignore[attr-defined]


def _several(kind: str, backend: Any, **asked: bool) -> list[Device]:
    """All devices of a kind, whose backend has the functions of `torch.cuda`; `asked` goes with bf16's."""
    if not backend.is_available():
        return []
    return [_numbered(kind, backend, index, asked) for index in range(backend.device_count())]


def _numbered(kind: str, backend: Any, index: int, asked: dict[str, bool]) -> Device:
    free, total = backend.mem_get_info(index)
    with backend.device(index):
        has_bf16 = backend.is_bf16_supported(**asked)
    return Device(
        kind=kind,
        name=backend.get_device_name(index),
        total_bytes=total,
        free_bytes=free,
        has_bf16=has_bf16,
        index=index,
    )


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
