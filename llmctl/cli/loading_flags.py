"""The flags of how a model is loaded, read and checked, and the plan request that they make."""

import contextlib
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from llmctl.core.errors import UsageError
from llmctl.core.settings import Settings
from llmctl.core.sizes import parse_size
from llmctl.loading.facts.quantisation import QUANT_KEYS
from llmctl.loading.planning import quant_choice
from llmctl.loading.planning.request import PlanRequest

_WORDS: Mapping[str, bool] = {"true": True, "false": False}
_OF_GPUS = ("num_gpus", "gpus", "max_gpu_memory")
"""Settings, so that a machine's owner says them once."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadingFlags:
    """What was given on the command line beside the settings."""

    bits: int | None = None
    """8 or 4: --load-8bit, --load-4bit."""
    cpu_offloading: bool = False
    formats: Mapping[str, object] | None = None
    """The --quant-config settings by key."""
    is_for_another: bool = False
    """Whether they were given for the model before this one: what they say of its weights is a wish now."""

    def given(self, settings: Settings) -> list[str]:
        """The flags by name, those among the settings that are about GPUs too."""
        flags = {key: f"--{key.replace('_', '-')}" for key in _OF_GPUS}
        named = {
            f"--load-{self.bits}bit": self.bits is not None,
            **{flag: settings.origins.get(key) == flag for key, flag in flags.items()},
            "--cpu-offloading": self.cpu_offloading,
            "--quant-config": bool(self.formats),
        }
        return [name for name, is_given in named.items() if is_given]

    def request(self, settings: Settings) -> PlanRequest:
        """What is asked of the plan. Raises `UsageError` for what cannot be read or is not offered."""
        quantization, origin = self._quantization(settings)
        origins = {key: settings.origins.get(key, "--") for key in _OF_GPUS} | {"quantization": origin}
        with _naming(settings, "gpus"):
            gpus = _numbers(settings.gpus) if settings.gpus is not None else None
        with _naming(settings, "max_gpu_memory"):
            memory = settings.max_gpu_memory
            num_bytes = parse_size(memory, flag="max_gpu_memory") if memory is not None else None
        return PlanRequest(
            device=settings.device,
            dtype=settings.dtype,
            num_gpus=settings.num_gpus,
            gpus=gpus,
            max_gpu_memory=num_bytes,
            quantization=quantization,
            cpu_offloading=self.cpu_offloading,
            settings={key: origin for key, origin in origins.items() if not origin.startswith("--")},
        )

    def _quantization(self, settings: Settings) -> tuple[str | None, str]:
        """What is asked for, and where."""
        asked, origin = settings.quantization, settings.origins.get("quantization", "--")
        is_flag = origin.startswith("--")
        if self.bits is not None:
            asked, origin, is_flag = self._in_bits(asked if is_flag else None), f"--load-{self.bits}bit", True
        if asked is None:
            return None, origin
        with _naming(settings, "quantization"):
            quant_choice.check_name(asked)
        if is_flag and self.is_for_another:
            return (None if asked in quant_choice.FORMATS else asked), f"llmctl chat {origin}"
        if not is_flag and asked in quant_choice.FORMATS:
            raise UsageError(
                f"{origin}: quantization {asked!r} is a format of files, and a setting is for all models",
                hint=f"say --quantization {asked} where a checkpoint must be in it",
            )
        return asked, origin

    def _in_bits(self, named: str | None) -> str:
        """What --load-8bit or --load-4bit comes to beside the --quantization `named`."""
        asked = f"{self.bits}bit"
        if named is None or named == asked:
            return asked
        if named not in quant_choice.BEST_OF[asked]:
            raise UsageError(
                f"--load-{self.bits}bit and --quantization {named} do not go together", hint="give one"
            )
        return named


def read(params: Mapping[str, Any]) -> LoadingFlags:
    """The flags among the parameters of a command, by the names of `options`. Raises `UsageError`."""
    if params.get("load_8bit") and params.get("load_4bit"):
        raise UsageError("--load-8bit and --load-4bit do not go together", hint="give one")
    return LoadingFlags(
        bits=8 if params.get("load_8bit") else 4 if params.get("load_4bit") else None,
        cpu_offloading=bool(params.get("cpu_offloading")),
        formats=_formats(params.get("quant_config") or ()),
    )


@contextlib.contextmanager
def _naming(settings: Settings, key: str) -> Iterator[None]:
    """Let errors begin with the place where `key` is set."""
    try:
        yield
    except UsageError as error:
        raise UsageError(f"{settings.origins.get(key, key)}: {error.message}", hint=error.hint) from error


def _numbers(text: str) -> tuple[int, ...]:
    parts = [part.strip() for part in text.split(",")]
    if not all(re.fullmatch(r"[0-9]{1,4}", part) for part in parts):
        raise UsageError(f"gpus must be numbers such as 0,2, not {text!r}")
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
