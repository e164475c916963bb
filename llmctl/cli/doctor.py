"""`llmctl doctor`: what this machine has, what of it llmctl can use, and what nobody has tried on it."""

import contextlib
import ctypes
import importlib
import importlib.metadata
import importlib.util
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
from llmctl.core import native
from llmctl.core.errors import LlmctlError
from llmctl.core.places import Places
from llmctl.core.sizes import shown

if TYPE_CHECKING:
    from llmctl.loading.planning.hardware import Device

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
    "awq": "kernels that llmctl does not use",
    "auto_gptq": "kernels that llmctl does not use",
    "gptqmodel": "kernels for GPTQ and AWQ on CUDA",
    "flash_attn": "attention that llmctl does not use",
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
TESTED_TORCH, TESTED_TRANSFORMERS = "2.13", "5.24"
_ABSENT = "not installed"


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
    from llmctl.loading.planning import hardware

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
        "kernels": _kernels(found),
        "places": _places(),
        "untested": _untested([device.kind for device in found]),
    }


def _devices() -> "list[Device]":
    """What torch can use; the CPU alone when torch itself is broken, which `untested` then says."""
    from llmctl.loading.planning import hardware

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
        return _ABSENT if error.name == module else f"does not import: {error}"
    except BROKEN_IMPORT as error:
        return f"does not import: {str(error).splitlines()[0] if str(error) else type(error).__name__}"
    return "usable"


def _compiler() -> str | None:
    """The C++ compiler that torch.compile and run-time operators would use."""
    import shutil

    named = os.environ.get("CXX") or sysconfig.get_config_var("CXX") or "g++"
    return next((path for name in (named.split()[0], "g++", "clang++") if (path := shutil.which(name))), None)


def _kernels(devices: "list[Device]") -> dict[str, Any]:
    """What multiplies with quantised weights here, and what could."""
    from llmctl.quant import foreign

    cpu, best = devices[-1], devices[0]
    is_there = _usable("torch") == "usable"
    return {
        "cpu": _cpu_kernels(has_bf16=cpu.has_bf16) if is_there else {},
        "attention": _attention(best.kind) if is_there else "none: torch is not usable",
        "compiled": _compiled_here(),
        "bitsandbytes": _native_library(),
        "cuda": _cuda_kernels() if is_there else {},
        "packages": {
            each.name: {"version": each.version, "is_used": each.is_used, "why": each.why}
            for each in foreign.survey(best.kind)
        },
    }


def _attention(kind: str) -> str:
    """The backend that a 16-bit model's engine would take on the best device."""
    import torch

    from llmctl.engine.attention import interface

    try:
        return interface.choose(torch.device(kind), torch.bfloat16).name
    except LlmctlError as error:
        return error.message


def _compiled_here() -> str:
    """Whether llmctl's own C is compiled for this CPU."""
    if native.is_off():
        return f"off ({native.VARIABLE})"
    command = native.compiler()
    return f"compiled by {command}" if command else "none without a C compiler: torch takes its place"


def _cpu_kernels(*, has_bf16: bool) -> dict[str, str]:
    """By method, the kernel that a small weight gets, in the dtype that a 16-bit checkpoint runs in."""
    import torch

    from llmctl.quant import coded, cpu_int8, kernels
    from llmctl.quant.activations import Memo
    from llmctl.quant.methods import METHODS
    from llmctl.quant.rounding import round_to
    from llmctl.quant.tiles import TileKernel

    dtype = torch.bfloat16 if has_bf16 else torch.float32
    whole = [name for name in METHODS if name not in coded.TABLES]
    weights = {name: round_to(torch.ones(64, 64), name) for name in whole}
    found = {name: kernels.build(weight, dtype=dtype, memo=Memo()).title for name, weight in weights.items()}
    if cpu_int8.way() == "narrow":
        found["int8"] += ", activations in 7 bits (no VNNI here)"
    # A kernel of these would import bitsandbytes, which takes longer than all the rest.
    native = _native_library()
    packed = coded.PackedKernel.title if native["has_avx512_bf16"] and has_bf16 else coded.CodedKernel.title
    title = packed if native["state"] == "loads" else TileKernel.title
    return found | dict.fromkeys(coded.TABLES, title)


def _native_library() -> dict[str, Any]:
    """bitsandbytes' code for CPUs, opened without importing the package."""
    version, spec = _version("bitsandbytes"), importlib.util.find_spec("bitsandbytes")
    if spec is None or not spec.submodule_search_locations:
        return {"version": version, "state": "not installed", "has_avx512_bf16": False}
    suffix = {"Darwin": "dylib", "Windows": "dll"}.get(platform.system(), "so")
    path = Path(spec.submodule_search_locations[0]) / f"libbitsandbytes_cpu.{suffix}"
    try:
        probe = getattr(ctypes.CDLL(str(path)), "has_avx512bf16_cpu", None)
    except OSError:
        return {"version": version, "state": "does not load", "has_avx512_bf16": False}
    return {"version": version, "state": "loads", "has_avx512_bf16": probe is not None and bool(probe())}


def _cuda_kernels() -> dict[str, dict[str, str]]:
    """By path, what it is and whether anybody has run it."""
    from llmctl.quant import cuda

    try:
        wanted = cuda.untried_wanted(os.environ)
    except LlmctlError as error:
        return {"-": {"title": "none can be chosen", "state": error.message}}
    return {
        name: {"title": path.title, "state": _cuda_state(name, is_tried=path.is_tried, is_on=name in wanted)}
        for name, path in cuda.PATHS.items()
    }


def _cuda_state(name: str, *, is_tried: bool, is_on: bool) -> str:
    if is_tried:
        return "llmctl's tests have not run it on a GPU"
    switch = "on" if is_on else f"off without LLMCTL_UNTRIED_KERNELS={name}"
    return f"written, never run: {switch}"


def _places() -> dict[str, dict[str, Any]]:
    from llmctl.loading.hub.local_models import hub_folder

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
    _tell_optional(console, found["optional"])
    _section(console, "devices", {device["kind"]: _device_line(device) for device in found["devices"]})
    cpu = found["cpu"]
    features = ", ".join(cpu["features"]) or "none that matter"
    compiler = cpu["compiler"] or "none (torch.compile cannot be used)"
    _section(console, "cpu", {"cores": str(cpu["cores"]), "features": features, "compiler": compiler})
    _tell_kernels(console, found["kernels"], [device["kind"] for device in found["devices"]])
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


def _tell_optional(console: Console, optional: dict[str, str]) -> None:
    rows = {name: f"{state} ({OPTIONAL[name]})" for name, state in optional.items() if state != _ABSENT}
    _section(console, "optional", rows or {"-": "none, and none is needed"})


def _tell_kernels(console: Console, kernels: dict[str, Any], kinds: list[str]) -> None:
    native, packages = kernels["bitsandbytes"], kernels["packages"]
    rows = {f"cpu {method}": title for method, title in kernels["cpu"].items()}
    rows |= {"attention": kernels["attention"], "own C code": kernels["compiled"]}
    rows["bitsandbytes"] = f"{native['version'] or 'missing'}, its native library {native['state']}"
    if "cuda" in kinds:
        rows |= {
            f"cuda {name}": f"{path['title']}: {path['state']}" for name, path in kernels["cuda"].items()
        }
    else:
        rows["cuda"] = _why_no_cuda(kernels["cuda"])
    for name, package in packages.items():
        if package["version"] is not None:
            use = f"{'used' if package['is_used'] else 'not used'}: {package['why']}"
            rows[name] = f"{package['version']} {use}".strip()
    if absent := [name for name in packages if name not in rows]:
        rows["others"] = f"not installed, not needed for GPTQ and AWQ files: {', '.join(absent)}"
    _section(console, "kernels", rows)


def _why_no_cuda(paths: dict[str, Any]) -> str:
    if "-" in paths:
        return f"{paths['-']['title']}: {paths['-']['state']}"
    version = _version("torch") or "none"
    why = "is built without CUDA" if version.endswith("+cpu") else "finds no device"
    return f"not here: torch {version} {why}"


def _device_line(device: dict[str, Any]) -> str:
    memory = f"{shown(device['free_bytes'])} of {shown(device['total_bytes'])} free"
    return f"{device['name']}, {memory}, {'native' if device['native_bfloat16'] else 'no native'} bfloat16"


def _section(console: Console, title: str, rows: dict[str, str]) -> None:
    console.line(f"\n{title}")
    width = max(map(len, rows))
    for name, text in rows.items():
        console.line(f"  {name.ljust(width)}  {text}")
