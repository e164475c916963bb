"""`llmctl doctor`: what this machine has, what of it llmctl can use, and what nobody has tried on it."""

import contextlib
import importlib
import importlib.metadata
import os
import platform
import stat
import sys
import sysconfig
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from llmctl import __version__
from llmctl.cli.console import Console
from llmctl.cli.options import Json, console_of, settings_of
from llmctl.core.errors import LlmctlError
from llmctl.core.places import Places

if TYPE_CHECKING:
    from llmctl.loading.hardware import Device

LIBRARIES = (
    "torch",
    "transformers",
    "tokenizers",
    "accelerate",
    "safetensors",
    "huggingface_hub",
    "bitsandbytes",
)
OPTIONAL = {
    "awq": "autoawq's kernels",
    "auto_gptq": "auto-gptq's kernels",
    "gptqmodel": "makes GPTQ and AWQ checkpoints",
    "flash_attn": "attention kernels for CUDA",
}
# What importing a package that does not fit the installed torch or transformers has been seen to raise.
BROKEN_IMPORT = (
    ImportError,
    AttributeError,
    LookupError,
    NameError,
    OSError,
    RuntimeError,
    SyntaxError,
    TypeError,
    ValueError,
)
TESTED_TORCH, TESTED_TRANSFORMERS = "2.13", "5.23"
GIB = 1024**3


def doctor(ctx: typer.Context, is_json: Json = False) -> None:
    """Say what llmctl finds on this machine."""
    console = console_of(ctx)
    settings = _settings(ctx)
    with console.progress() as progress:
        progress.stage("look around")
        found = {**examine(), "settings": settings}
    if is_json:
        console.json(found)
    else:
        _tell(console, found)


def _settings(ctx: typer.Context) -> str:
    """Whether the settings can be read; if not, everything else is still told."""
    try:
        settings_of(ctx)
    except LlmctlError as error:
        return error.message
    return "ready"


def examine() -> dict[str, Any]:
    """All findings, as JSON shows them."""
    from llmctl.loading import hardware

    found = _devices()
    return {
        "llmctl": __version__,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "executable": sys.executable,
        "libraries": {name: _version(name) for name in LIBRARIES},
        "optional": {name: _usable(name) for name in OPTIONAL},
        "devices": [
            {
                "kind": device.kind,
                "name": device.name,
                "total_bytes": device.total_bytes,
                "free_bytes": device.free_bytes,
                "native_bfloat16": device.has_bf16,
            }
            for device in found
        ],
        "cpu": {"cores": os.cpu_count(), "features": sorted(hardware.cpu_flags()), "compiler": _compiler()},
        "places": _places(),
        "untested": _untested([device.kind for device in found]),
    }


def _devices() -> "list[Device]":
    """What torch can use; the CPU alone when torch itself is broken, which `untested` then says."""
    from llmctl.loading import hardware

    if _usable("torch") != "usable":
        return [hardware.cpu()]
    from llmctl.loading import devices

    return devices.available()


def _version(distribution: str) -> str | None:
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return None


def _usable(module: str) -> str:
    """Whether it is "usable", or why not; only an import tells, because a package may be there and broken."""
    try:
        # stdout is for the findings; some of these packages greet whoever imports them.
        with contextlib.redirect_stdout(sys.stderr):
            importlib.import_module(module)
    except ModuleNotFoundError as error:
        return "not installed" if error.name == module else f"does not import: {error}"
    except BROKEN_IMPORT as error:
        return f"does not import: {str(error).splitlines()[0] if str(error) else type(error).__name__}"
    return "usable"


def _compiler() -> str | None:
    """The C++ compiler that torch.compile and run-time operators would use."""
    import shutil

    named = os.environ.get("CXX") or sysconfig.get_config_var("CXX") or "g++"
    return next((path for name in (named.split()[0], "g++", "clang++") if (path := shutil.which(name))), None)


def _places() -> dict[str, dict[str, Any]]:
    from llmctl.loading.local_models import hub_folder

    own = Places.from_environ(os.environ)
    paths = {"config": own.config, "data": own.data, "cache": own.cache, "models": hub_folder(os.environ)}
    return {
        name: {"path": str(path), "state": _state(path, is_private=name == "data")}
        for name, path in paths.items()
    }


def _state(path: Path, *, is_private: bool) -> str:
    if not path.exists():
        above = next(parent for parent in path.parents if parent.exists())
        can_be_made = above.is_dir() and os.access(above, os.W_OK)
        return "not made yet" if can_be_made else f"cannot be made: {above} is not a folder to write in"
    if not path.is_dir():
        return "is not a folder"
    mode = stat.S_IMODE(path.stat().st_mode)
    if is_private and mode & 0o077:
        return f"others can read it (mode {mode:04o}): chmod 700 {path}"
    return "ready" if os.access(path, os.W_OK) else "not writable"


def _untested(kinds: list[str]) -> list[str]:
    """What of llmctl runs here without ever having been tried on such a machine."""
    notes = [f"{kind}: llmctl's tests have run on CPUs only" for kind in kinds if kind != "cpu"]
    if (state := _usable("torch")) != "usable":
        notes.append(f"torch {state}: no model can run")
    for name, tested in (("torch", TESTED_TORCH), ("transformers", TESTED_TRANSFORMERS)):
        version = _version(name) or "none"
        if not version.startswith(f"{tested}."):
            notes.append(f"{name} {version}: llmctl is tested with {tested}")
    if platform.system() != "Linux":
        notes.append(f"{platform.system()}: llmctl's tests have run on Linux only")
    return notes


def _tell(console: Console, found: dict[str, Any]) -> None:
    console.line(f"llmctl {found['llmctl']}  python {found['python']}  {found['platform']}")
    _section(
        console, "libraries", {name: version or "missing" for name, version in found["libraries"].items()}
    )
    _section(
        console, "optional", {name: f"{found['optional'][name]} ({use})" for name, use in OPTIONAL.items()}
    )
    _section(console, "devices", {device["kind"]: _device_line(device) for device in found["devices"]})
    cpu = found["cpu"]
    features = ", ".join(cpu["features"]) or "none that matter"
    compiler = cpu["compiler"] or "none (torch.compile cannot be used)"
    _section(console, "cpu", {"cores": str(cpu["cores"]), "features": features, "compiler": compiler})
    _section(
        console,
        "places",
        {"settings": found["settings"]}
        | {name: f"{place['path']} ({place['state']})" for name, place in found["places"].items()},
    )
    _section(
        console,
        "untested here",
        {f"{i}": text for i, text in enumerate(found["untested"], 1)} or {"-": "nothing"},
    )


def _device_line(device: dict[str, Any]) -> str:
    memory = f"{device['free_bytes'] / GIB:.1f} of {device['total_bytes'] / GIB:.1f} GiB free"
    return f"{device['name']}, {memory}, {'native' if device['native_bfloat16'] else 'no native'} bfloat16"


def _section(console: Console, title: str, rows: dict[str, str]) -> None:
    console.line(f"\n{title}")
    width = max(map(len, rows))
    for name, text in rows.items():
        console.line(f"  {name.ljust(width)}  {text}")
