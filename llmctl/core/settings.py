"""What the user has set: flags > `LLMCTL_*` > `./llmctl.toml` > user file > defaults, in one frozen object.

A setting that is nowhere set is None: then the model's own recommendation or the command's default holds.
Trust is not a setting: remote code is switched on by a flag alone, so that a file found in a project cannot.
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
from llmctl.core.types import SamplingParams

log = logging.getLogger(__name__)

PREFIX = "LLMCTL_"
FILE_NAME = "llmctl.toml"
USER_FILE_NAME = "config.toml"
# Variables that are read elsewhere and are no settings.
OTHER_VARIABLES = frozenset(
    {"LLMCTL_CONFIG_HOME", "LLMCTL_DATA_HOME", "LLMCTL_CACHE_HOME", "LLMCTL_REQUIRE_SHARED"}
)
CHOICES: dict[str, tuple[str, ...]] = {
    "device": ("auto", "cuda", "xpu", "mps", "cpu"),
    "dtype": ("auto", "float32", "bfloat16", "float16"),
    "color": ("auto", "always", "never"),
}
_BASE = SamplingParams()


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """All settings. `sampling` holds only what was set, by `SamplingParams` field name."""

    model: str = "demo"
    device: str = "auto"
    dtype: str = "auto"
    color: str = "auto"
    system: str | None = None
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


NAMES: tuple[str, ...] = tuple(f.name for f in fields(Settings) if f.name not in ("sampling", "origins"))
KEYS: tuple[str, ...] = (*NAMES, *sampling.KEYS)


def load(environ: Mapping[str, str] | None = None, folder: Path | None = None) -> Settings:
    """Read user file, project file and environment.

    Raises `UsageError` for a bad key or value (naming where it stands), `BadFileError` for a file that is
    not TOML.
    """
    environ = os.environ if environ is None else environ
    settings = Settings()
    user_file = Places.from_environ(environ).config / USER_FILE_NAME
    for path in (user_file, (folder or _present_folder()) / FILE_NAME):
        settings = _overlay(settings, _read(path), str(path))
    for key, text in _variables(environ).items():
        settings = _overlay(settings, {key: _from_text(key, text)}, PREFIX + key.upper())
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


def _variables(environ: Mapping[str, str]) -> dict[str, str]:
    """The set `LLMCTL_*` variables by key; an empty one counts as not set."""
    found: dict[str, str] = {}
    for name, text in sorted(environ.items()):
        if not name.startswith(PREFIX) or name in OTHER_VARIABLES or not text:
            continue
        key = name.removeprefix(PREFIX).lower()
        key = sampling.ALIASES.get(key, key)
        if key in KEYS:
            found[key] = text
        else:
            log.warning("the variable %s is not known to llmctl and does nothing (llmctl config show)", name)
    return found


def _from_text(key: str, text: str) -> Any:
    """An environment variable's text as the type of its key; what does not convert is refused later."""
    if key in NAMES:
        return text
    if key == "stop":
        return text
    try:
        if key == "stop_token_ids":
            return [int(part) for part in text.split(",")]
        return sampling.RANGES[key].kind(text)
    except ValueError:
        return text


def _overlay(settings: Settings, values: Mapping[str, Any], origin: str) -> Settings:
    own: dict[str, Any] = {}
    sampled = dict(settings.sampling)
    for name, value in values.items():
        key = sampling.ALIASES.get(name, name)
        try:
            if key in NAMES:
                own[key] = _checked(key, value)
            elif key in sampling.KEYS:
                sampled[key] = getattr(sampling.update(_BASE, {key: value}), key)
            else:
                raise sampling.unknown_key(name, KEYS)
        except UsageError as error:
            raise UsageError(f"{origin}: {error.message}", hint=error.hint) from error
    origins = {**settings.origins, **{sampling.ALIASES.get(name, name): origin for name in values}}
    return replace(settings, **own, sampling=sampled, origins=origins)


def _checked(key: str, value: Any) -> str:
    if not isinstance(value, str) or not value:
        raise UsageError(f"{key} must be text, not {value!r}")
    choices = CHOICES.get(key)
    if choices and value not in choices:
        raise UsageError(f"{key} must be one of {', '.join(choices)}, not {value!r}")
    return value
