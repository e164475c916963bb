"""The accelerators of a machine as far as one sees them without torch; `devices` asks torch and is sure."""

import importlib.metadata
import itertools
import os
import platform
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import replace

from llmctl.loading.planning import hardware
from llmctl.loading.planning.hardware import Device

_MIB = 1024**2
_QUERY = ("--query-gpu=name,memory.total,memory.free,compute_cap", "--format=csv,noheader,nounits")
_TIMEOUT_S = 10
_BF16_SINCE = 8.0
"""NVIDIA's compute capability."""
_METAL_SHARE = 0.75
"""How much of a Mac's memory its GPU may take, about."""


def visible() -> list[Device]:
    """The cuda or mps devices that the installed torch could use, and the CPU last."""
    return [*_cuda(), *_mps(), hardware.cpu()]


def _cuda() -> list[Device]:
    program = shutil.which("nvidia-smi")
    if program is None or _is_torch_for_cpu():
        return []
    try:
        # The driver's own program, with fixed arguments.
        answer = subprocess.run(  # noqa: S603
            [program, *_QUERY], capture_output=True, text=True, check=False, timeout=_TIMEOUT_S
        )
    except (OSError, subprocess.TimeoutExpired):
        return []
    cards = [card for line in answer.stdout.splitlines() if (card := _card(line)) is not None]
    return [replace(card, index=index) for index, card in enumerate(_allowed(cards))]


def _card(line: str) -> Device | None:
    """One line of the driver's answer; None without a driver, or for a card that tells no memory."""
    try:
        name, total, free, capability = (field.strip() for field in line.split(","))
        return Device(
            kind="cuda",
            name=name,
            total_bytes=int(total) * _MIB,
            free_bytes=int(free) * _MIB,
            has_bf16=float(capability) >= _BF16_SINCE,
        )
    # It answers in words then.
    except ValueError:
        return None


def _allowed(cards: list[Device]) -> list[Device]:
    """Those that CUDA_VISIBLE_DEVICES names by number, in its order, as torch will number them."""
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    if named is None:
        return cards
    numbers = [number.strip() for number in named.split(",")]
    if any(number and not number.lstrip("-").isdigit() for number in numbers):
        # Names of cards, which this program's answer does not hold.
        return cards
    allowed = itertools.takewhile(lambda number: number.isdigit() and int(number) < len(cards), numbers)
    return [cards[int(number)] for number in allowed]


def _mps() -> Iterator[Device]:
    if platform.system() != "Darwin" or platform.machine() != "arm64":
        return
    host = hardware.cpu()
    total = int(host.total_bytes * _METAL_SHARE)
    yield Device(
        kind="mps",
        name=host.name,
        total_bytes=total,
        free_bytes=min(total, host.free_bytes),
        has_bf16=host.has_bf16,
    )


def _is_torch_for_cpu() -> bool:
    """Whether the installed torch was built without CUDA; its version says so."""
    try:
        return importlib.metadata.version("torch").endswith("+cpu")
    except importlib.metadata.PackageNotFoundError:
        return False
