"""What a machine has, as plain data: devices, free memory, CPU features. No torch; `devices` asks torch."""

import platform
import subprocess
from dataclasses import dataclass
from pathlib import Path

import psutil

GIB = 1024**3
_SEVERAL = ("cuda", "xpu", "npu")
"""Kinds of which a machine may have several."""
_CGROUP = Path("/sys/fs/cgroup")
# Instructions that multiply bfloat16 matrices: without them a bf16 model is slower on a CPU than float32.
_BF16_FLAGS = frozenset({"avx512_bf16", "amx_bf16", "bf16"})
_TOLD_FLAGS = _BF16_FLAGS | {"avx2", "avx512f", "avx512_vnni", "avx_vnni", "amx_int8", "asimd", "i8mm", "sve"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Device:
    """One place where a model can run."""

    kind: str
    """cuda, xpu, npu, mps or cpu."""
    name: str
    total_bytes: int
    free_bytes: int
    has_bf16: bool
    """Whether bfloat16 is computed natively."""
    index: int = 0
    """Its number among those of its kind."""

    @property
    def place(self) -> str:
        """torch's name for it: "cuda:1", "cpu"."""
        return f"{self.kind}:{self.index}" if self.kind in _SEVERAL else self.kind


def cpu() -> Device:
    """The host: its processor and the memory that this process may still use."""
    return Device(
        kind="cpu",
        name=_cpu_name(),
        total_bytes=min(int(psutil.virtual_memory().total), _cgroup_limit()),
        free_bytes=free_memory(),
        has_bf16=bool(cpu_flags() & _BF16_FLAGS),
    )


def free_memory() -> int:
    """Bytes of host memory that can be had without swapping, containers' limits counted."""
    limit = _cgroup_limit()
    inside = limit - (_number(_CGROUP / "memory.current") or 0)
    return max(0, min(int(psutil.virtual_memory().available), inside))


def cpu_flags() -> frozenset[str]:
    """The processor's features that matter here, by the names that Linux gives them."""
    if platform.system() == "Darwin":
        return _darwin_flags()
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return frozenset()
    words: set[str] = set()
    for line in text.splitlines():
        key, _, value = line.partition(":")
        if key.strip() in ("flags", "Features"):
            words.update(value.split())
    return frozenset(words & _TOLD_FLAGS)


def _darwin_flags() -> frozenset[str]:
    # A fixed command.
    answer = subprocess.run(
        ["/usr/sbin/sysctl", "-n", "hw.optional.arm.FEAT_BF16"], capture_output=True, text=True, check=False
    )
    return frozenset({"bf16"}) if answer.stdout.strip() == "1" else frozenset()


def _cpu_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def _cgroup_limit() -> int:
    return _number(_CGROUP / "memory.max") or 2**63


def _number(path: Path) -> int | None:
    try:
        text = path.read_text(encoding="ascii").strip()
    except OSError:
        return None
    return int(text) if text.isdigit() else None
