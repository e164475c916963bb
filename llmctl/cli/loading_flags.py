"""The flags of how a model is loaded, read and checked, and the plan request that they make."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from llmctl.core.errors import UsageError
from llmctl.core.settings import Settings
from llmctl.core.sizes import parse_size
from llmctl.loading.planning import quant_choice
from llmctl.loading.planning.request import PlanRequest

QUANT_KEYS = ("quant_method", "bits", "group_size", "desc_act", "sym", "checkpoint_format", "zero_point")
"""What --quant-config may say."""
_WORDS: Mapping[str, bool] = {"true": True, "false": False}
_MAX_GPUS = 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadingFlags:
    """What was given on the command line beside the settings."""

    bits: int | None = None
    """8 or 4: --load-8bit, --load-4bit."""
    num_gpus: int | None = None
    gpus: tuple[int, ...] | None = None
    max_gpu_memory: int | None = None
    """Bytes."""
    cpu_offloading: bool = False
    formats: Mapping[str, object] | None = None
    """The --quant-config settings by key."""

    @property
    def given(self) -> list[str]:
        """The flags by name."""
        named = {
            f"--load-{self.bits}bit": self.bits is not None,
            "--num-gpus": self.num_gpus is not None,
            "--gpus": self.gpus is not None,
            "--max-gpu-memory": self.max_gpu_memory is not None,
            "--cpu-offloading": self.cpu_offloading,
            "--quant-config": bool(self.formats),
        }
        return [name for name, is_given in named.items() if is_given]

    def request(self, settings: Settings) -> PlanRequest:
        """What is asked of the plan. Raises `UsageError` for a quantisation that is not offered."""
        return PlanRequest(
            device=settings.device,
            dtype=settings.dtype,
            num_gpus=self.num_gpus,
            gpus=self.gpus,
            max_gpu_memory=self.max_gpu_memory,
            quantization=self._quantization(settings),
            cpu_offloading=self.cpu_offloading,
        )

    def _quantization(self, settings: Settings) -> str | None:
        asked, origin = settings.quantization, settings.origins.get("quantization", "")
        if self.bits is not None:
            if asked is not None and origin.startswith("--"):
                raise UsageError(f"--load-{self.bits}bit and --quantization {asked} do not go together")
            return f"{self.bits}bit"
        if asked is not None:
            try:
                quant_choice.check_name(asked)
            except UsageError as error:
                raise UsageError(f"{origin}: {error.message}", hint=error.hint) from error
        return asked


def read(params: Mapping[str, Any]) -> LoadingFlags:
    """The flags among the parameters of a command, by the names of `options`. Raises `UsageError`."""
    if params.get("load_8bit") and params.get("load_4bit"):
        raise UsageError("--load-8bit and --load-4bit do not go together", hint="give one")
    num_gpus, gpus, memory = (params.get(name) for name in ("num_gpus", "gpus", "max_gpu_memory"))
    if num_gpus is not None and not 1 <= num_gpus <= _MAX_GPUS:
        raise UsageError(f"--num-gpus must be between 1 and {_MAX_GPUS}, not {num_gpus}")
    return LoadingFlags(
        bits=8 if params.get("load_8bit") else 4 if params.get("load_4bit") else None,
        num_gpus=num_gpus,
        gpus=_numbers(gpus) if gpus is not None else None,
        max_gpu_memory=parse_size(memory, flag="--max-gpu-memory") if memory is not None else None,
        cpu_offloading=bool(params.get("cpu_offloading")),
        formats=_formats(params.get("quant_config") or ()),
    )


def _numbers(text: str) -> tuple[int, ...]:
    parts = [part.strip() for part in text.split(",")]
    if not all(re.fullmatch(r"[0-9]{1,4}", part) for part in parts):
        raise UsageError(f"--gpus must be numbers of GPUs such as 0,2, not {text!r}")
    return tuple(map(int, parts))


def _formats(assignments: Sequence[str]) -> Mapping[str, object] | None:
    found: dict[str, object] = {}
    for assignment in assignments:
        key, is_set, value = (part.strip() for part in assignment.partition("="))
        if not is_set or not value:
            raise UsageError(f"--quant-config must be KEY=VALUE such as bits=4, not {assignment!r}")
        if key not in QUANT_KEYS:
            raise UsageError(
                f"--quant-config: no key is called {key!r}", hint=f"keys: {', '.join(QUANT_KEYS)}"
            )
        if key in found:
            raise UsageError(f"--quant-config gives {key} twice", hint="give it once")
        found[key] = _value(value)
    return found or None


def _value(text: str) -> object:
    if text.lower() in _WORDS:
        return _WORDS[text.lower()]
    return int(text) if re.fullmatch(r"-?[0-9]{1,9}", text) else text
