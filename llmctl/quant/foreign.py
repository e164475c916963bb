"""Kernels that other packages bring for GPTQ and AWQ files: which are here, which are used, and why not.

Looks at what is installed and imports none of it. llmctl reads the files by itself without any of them.
"""

import importlib.metadata
import importlib.util
import re
from collections.abc import Mapping
from dataclasses import dataclass

from llmctl.core.errors import UsageError


@dataclass(frozen=True, slots=True, kw_only=True)
class Package:
    """One package with kernels of its own."""

    module: str
    distribution: str
    formats: Mapping[str, Mapping[str, str]]
    """Formats that transformers runs with it, each with the least versions that transformers takes."""
    why_not: str
    """Why it is not used where it is there."""
    way_around: str
    """What to do without it."""


_OWN_READER = "leave it out: llmctl reads GPTQ and AWQ files by itself, with kernels of its own"
_INSTALL = "on a CUDA device pip install 'llmctl[gptq]' gives kernels that may be faster"
# transformers 5 hands GPTQ to optimum and gptqmodel, AWQ to gptqmodel alone.
_GPTQMODEL = {"gptqmodel": "1.4.3"}

PACKAGES: Mapping[str, Package] = {
    "gptqmodel": Package(
        module="gptqmodel",
        distribution="gptqmodel",
        formats={"gptq": {**_GPTQMODEL, "optimum": "1.24.0"}, "awq": _GPTQMODEL},
        why_not="on a CPU it runs the operator of torch that llmctl runs, not faster",
        way_around=f"{_OWN_READER}; {_INSTALL}",
    ),
    "autoawq": Package(
        module="awq",
        distribution="autoawq",
        formats={},
        why_not="transformers 5 does not drive it, and its authors have given it up",
        way_around=f"{_OWN_READER}; {_INSTALL}",
    ),
    "auto-gptq": Package(
        module="auto_gptq",
        distribution="auto_gptq",
        formats={},
        why_not="it does not import with transformers 5, and its authors have given it up",
        way_around=f"{_OWN_READER}; {_INSTALL}",
    ),
    "exllamav2": Package(
        module="exllamav2",
        distribution="exllamav2",
        formats={},
        why_not="it runs models of its own making only; its kernels for GPTQ come with gptqmodel",
        way_around=f"EXL2 files need its own program, GPTQ and AWQ files do not: {_OWN_READER}",
    ),
    "exllama": Package(
        module="exllama_kernels",
        distribution="exllama_kernels",
        formats={},
        why_not="they belong to auto-gptq; gptqmodel brings newer ones",
        way_around=f"{_OWN_READER}; {_INSTALL}",
    ),
}
"""By the name that users know them by."""
_DEVICES = ("cuda",)
"""Where kernels of others may beat ours."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Use:
    """What becomes of one package on one device."""

    name: str
    version: str | None
    """None: not installed. Empty: it can be imported, and says no version."""
    is_used: bool
    why: str


def survey(device: str) -> list[Use]:
    """Every known package, and whether quantised files run with it on a device of that kind."""
    return [_use(name, package, device) for name, package in PACKAGES.items()]


def choose(file_format: str, device: str) -> str | None:
    """The package whose kernels run files of that format on a device of that kind; None for llmctl's own."""
    if device not in _DEVICES:
        return None
    return next((name for name, package in PACKAGES.items() if _can_run(package, file_format)), None)


def refuse(name: str, device: str) -> UsageError:
    """The refusal of a package that a user names and that cannot be used, with the way around."""
    package = PACKAGES[name]
    found = _use(name, package, device)
    state = f"is not used on {device}: {found.why}" if found.version is not None else "is not installed"
    return UsageError(f"the kernels of {name} cannot be used: it {state}", hint=package.way_around)


def _use(name: str, package: Package, device: str) -> Use:
    version = _version(package)
    if version is None:
        return Use(name=name, version=None, is_used=False, why="not installed")
    runs = [each for each in package.formats if _can_run(package, each)]
    if device in _DEVICES and runs:
        why = f"{', '.join(runs)} files, by transformers; llmctl's tests have not run it"
        return Use(name=name, version=version, is_used=True, why=why)
    if device in _DEVICES and package.formats:
        return Use(name=name, version=version, is_used=False, why=_lacking(package))
    return Use(name=name, version=version, is_used=False, why=package.why_not)


def _can_run(package: Package, file_format: str) -> bool:
    needed = package.formats.get(file_format)
    return needed is not None and not _missing(needed) and _is_importable(package.module)


def _lacking(package: Package) -> str:
    needed = min(package.formats.values(), key=len)
    return f"transformers wants {', '.join(_missing(needed))}"


def _missing(needed: Mapping[str, str]) -> list[str]:
    """Distributions that are absent or older than needed, as "optimum>=1.24.0"."""
    return [
        f"{name}>={least}" for name, least in needed.items() if _release(_installed(name)) < _release(least)
    ]


def _version(package: Package) -> str | None:
    if not _is_importable(package.module):
        return None
    return _installed(package.distribution) or ""


def _is_importable(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    # What is in sys.modules without saying where it comes from.
    except ValueError:
        return False


def _installed(distribution: str) -> str | None:
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return None


def _release(version: str | None) -> tuple[int, ...]:
    """The numbers of "1.24.0.dev1+cu12" before anything else: (1, 24, 0)."""
    found = re.match(r"\d+(?:\.\d+)*", version or "")
    return tuple(map(int, found[0].split("."))) if found else ()
