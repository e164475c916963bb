"""What the user has set: flags > `LLMCTL_*` > `./llmctl.toml` > user file > defaults, in one frozen object.

A setting that is nowhere set is None: then the model's own recommendation or the command's default holds.
Trust is not a setting: remote code is switched on by a flag alone, so that a file found in a project cannot.
Nor may such a file send conversations to a server: `url` is the user's own file's, a variable's or a flag's.
"""

import logging
import os
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from llmctl.core import sampling
from llmctl.core.errors import BadFileError, NotFoundError, UsageError
from llmctl.core.places import Places
from llmctl.core.sampling import Range
from llmctl.core.types import SamplingParams

log = logging.getLogger(__name__)

PREFIX = "LLMCTL_"
SWITCHES: Mapping[str, bool] = {
    **dict.fromkeys(("on", "1", "yes", "true"), True),
    **dict.fromkeys(("off", "0", "no", "false"), False),
}
"""What `LLMCTL_NATIVE` may be, in small letters."""
FILE_NAME = "llmctl.toml"
USER_FILE_NAME = "config.toml"
# Variables that are read elsewhere and are no settings.
OTHER_VARIABLES = frozenset(
    {
        "LLMCTL_CONFIG_HOME",
        "LLMCTL_DATA_HOME",
        "LLMCTL_CACHE_HOME",
        "LLMCTL_REQUIRE_SHARED",
        "LLMCTL_API_KEY",
        "LLMCTL_EDITOR",
        "LLMCTL_UNTRIED_KERNELS",
        "LLMCTL_NATIVE",
        "LLMCTL_ATTENTION",
        "LLMCTL_CLUSTER_TOKEN_FILE",
    }
)
CHOICES: dict[str, tuple[str, ...]] = {
    "device": ("auto", "cuda", "xpu", "npu", "mps", "cpu"),
    "dtype": ("auto", "float32", "bfloat16", "float16"),
    "color": ("auto", "always", "never"),
    "reasoning": ("show", "fold", "hide"),
    "thinking": ("auto", "on", "off"),
    "overflow": ("ask", "drop", "stop"),
    "style": ("rich", "simple"),
    "log": ("on", "off"),
    "history": ("on", "off"),
    "hub": ("huggingface", "modelscope"),
}
MAX_GPUS = 1024
RANGES: dict[str, Range] = {
    "context": Range(kind=int, low=1),
    "timeout": Range(kind=float, low=0, high=86_400, open_low=True),
    "num_gpus": Range(kind=int, low=1, high=MAX_GPUS),
}
NOT_OF_A_PROJECT = ("url",)
"""A folder that somebody cloned must not decide these."""
FASTCHAT_MODELSCOPE = "FASTCHAT_USE_MODELSCOPE"
_BASE = SamplingParams()


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """All settings. `sampling` holds only what was set, by `SamplingParams` field name."""

    model: str = "demo"
    device: str = "auto"
    dtype: str = "auto"
    quantization: str | None = None
    """How weights that are not packed already are while a model loads; None: as they are stored."""
    num_gpus: int | None = None
    """How many GPUs a model is spread over."""
    gpus: str | None = None
    """Which GPUs may be used, numbers with commas between; None: those from 0 on."""
    max_gpu_memory: str | None = None
    """What weights may take on each GPU, such as 20GiB."""
    color: str = "auto"
    system: str | None = None
    url: str | None = None
    """An OpenAI-compatible server to talk to instead of loading a model."""
    timeout: float = 60.0
    """Seconds without a byte after which a server counts as silent."""
    context: int | None = None
    """Limit on prompt and answer together in tokens, below the model's own."""
    reasoning: str = "show"
    """What happens to the text that a model writes to itself before it answers."""
    thinking: str = "auto"
    """Whether models that can do either reason before they answer; auto leaves that to the model."""
    overflow: str = "ask"
    """What a conversation does that is longer than the context."""
    style: str | None = None
    """How answers look; None: markdown in a conversation at a terminal, the bare text elsewhere."""
    log: str = "on"
    """Whether conversations are kept (`llmctl logs`)."""
    history: str = "on"
    """Whether lines typed in one session are offered in the next."""
    hub: str = "huggingface"
    """Where models are downloaded from."""
    sampling: Mapping[str, Any] = field(default_factory=dict)
    origins: Mapping[str, str] = field(default_factory=dict, compare=False)
    """Where each value that is no default comes from: a file's path, a variable's or a flag's name."""

    def with_flags(self, flags: Mapping[str, Any], *, names: Mapping[str, str] | None = None) -> "Settings":
        """Lay command-line flags over these settings; None means that the flag was not given.

        `names` says how errors call those flags whose name is not `--` and the setting's.
        """
        settings = self
        for key, value in flags.items():
            if value is not None:
                flag = (names or {}).get(key, f"--{key.replace('_', '-')}")
                settings = _overlay(settings, {key: value}, flag)
        return settings

    def without(self, key: str) -> "Settings":
        """These settings with the default in the place of `key`."""
        sampled = {name: value for name, value in self.sampling.items() if name != key}
        origins = {name: origin for name, origin in self.origins.items() if name != key}
        own = {key: getattr(Settings(), key)} if key in NAMES else {}
        return replace(self, **own, sampling=sampled, origins=origins)


REASONS: Mapping[str, bool | None] = {"auto": None, "on": True, "off": False}
"""What the values of `thinking` mean in a request."""
NAMES: tuple[str, ...] = tuple(f.name for f in fields(Settings) if f.name not in ("sampling", "origins"))
KEYS: tuple[str, ...] = (*NAMES, *sampling.KEYS)


def load(
    environ: Mapping[str, str] | None = None, folder: Path | None = None, *, warns: bool = True
) -> Settings:
    """Read user file, project file and environment; with `warns` off unknown variables are passed over.

    Raises `UsageError` for a bad key or value (naming where it stands), `BadFileError` for a file that is
    not TOML.
    """
    environ = os.environ if environ is None else environ
    settings = Settings()
    user_file = Places.from_environ(environ).config / USER_FILE_NAME
    settings = _overlay(settings, _read(user_file), str(user_file))
    project_file = (folder or _present_folder()) / FILE_NAME
    settings = _overlay(settings, _of_a_project(_read(project_file), project_file), str(project_file))
    if environ.get(FASTCHAT_MODELSCOPE, "").lower() == "true":
        settings = _overlay(settings, {"hub": "modelscope"}, FASTCHAT_MODELSCOPE)
    for key, text in _variables(environ, warns=warns).items():
        settings = _overlay(settings, {key: from_text(key, text)}, PREFIX + key.upper())
    return settings


def _present_folder() -> Path:
    try:
        return Path.cwd()
    except FileNotFoundError as error:
        raise NotFoundError("the present folder has been deleted", hint="change to another one") from error


def _read(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except OSError as error:
        raise BadFileError(f"cannot read {path}: {error.strerror}") from error
    # ValueError: not UTF-8, not TOML, or a number of more digits than Python reads.
    except (ValueError, RecursionError) as error:
        raise BadFileError(f"{path} is not valid TOML: {error}") from error


def _of_a_project(values: dict[str, Any], path: Path) -> dict[str, Any]:
    for key in NOT_OF_A_PROJECT:
        if key in values:
            raise UsageError(
                f"{path}: {key} cannot be set by a project's file, which may be a stranger's",
                hint=f"put it into your own {USER_FILE_NAME}, into {PREFIX}{key.upper()}, or give --{key}",
            )
    return values


def _variables(environ: Mapping[str, str], *, warns: bool) -> dict[str, str]:
    """The set `LLMCTL_*` variables by key; an empty one counts as not set."""
    found: dict[str, str] = {}
    native = environ.get("LLMCTL_NATIVE", "")
    if native and native.lower() not in SWITCHES:
        raise UsageError(f"LLMCTL_NATIVE must be on or off, not {native!r}")
    for name, text in sorted(environ.items()):
        if not name.startswith(PREFIX) or name in OTHER_VARIABLES or not text:
            continue
        key = name.removeprefix(PREFIX).lower()
        key = sampling.ALIASES.get(key, key)
        if key in KEYS:
            found[key] = text
        elif warns:
            log.warning("the variable %s is not known to llmctl and does nothing (llmctl config show)", name)
    return found


def from_text(key: str, text: str) -> Any:
    """Text as the type of its key; what does not convert is refused later, as a value of the wrong type."""
    if key == "stop" or (key in NAMES and key not in RANGES):
        return text
    try:
        if key == "stop_token_ids":
            return [int(part) for part in text.split(",")]
        return (RANGES.get(key) or sampling.RANGES[key]).kind(text)
    except ValueError:
        return text


def _key(name: str) -> str:
    """A setting may be written as its flag is."""
    name = name.replace("-", "_")
    return sampling.ALIASES.get(name, name)


def _overlay(settings: Settings, values: Mapping[str, Any], origin: str) -> Settings:
    own: dict[str, Any] = {}
    sampled = dict(settings.sampling)
    for name, value in values.items():
        key = _key(name)
        try:
            if key in NAMES:
                own[key] = _checked(key, value)
            elif key in sampling.KEYS:
                sampled[key] = getattr(sampling.update(_BASE, {key: value}), key)
            else:
                raise sampling.unknown_key(name, KEYS)
        except UsageError as error:
            raise UsageError(f"{origin}: {error.message}", hint=error.hint) from error
    origins = {**settings.origins, **{_key(name): origin for name in values}}
    return replace(settings, **own, sampling=sampled, origins=origins)


def _checked(key: str, value: Any) -> str | int | float:
    if key in RANGES:
        return sampling.number(key, value, RANGES[key])
    if not isinstance(value, str) or not value:
        raise UsageError(f"{key} must be text, not {value!r}")
    choices = CHOICES.get(key)
    if choices and value not in choices:
        raise UsageError(f"{key} must be one of {', '.join(choices)}, not {value!r}")
    return value
