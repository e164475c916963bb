"""C functions of our own, compiled for the user's CPU where there is a compiler; never required.

Each file of C is compiled once (a second or two) into the cache folder, and loaded by ctypes.
"""

import ctypes
import functools
import hashlib
import logging
import os
import platform
import shutil
import subprocess
import tempfile
from pathlib import Path

from llmctl.core.places import Places, private_folder
from llmctl.core.settings import SWITCHES

log = logging.getLogger(__name__)

VARIABLE = "LLMCTL_NATIVE"
"""`off` keeps llmctl from compiling and from loading what it compiled."""
_COMPILERS = ("cc", "gcc", "clang")
_FLAGS = ("-O3", "-march=native", "-fopenmp", "-shared", "-fPIC", "-std=gnu11")
# AMD's CPUs take hundreds of cycles for a store that narrows 512 bits.
_X86_FLAGS = ("-mprefer-vector-width=256",)
_TIMEOUT_S = 60


def compiler() -> str | None:
    """Path of the C compiler that would be used; None without one, and where the user wants none."""
    if is_off():
        return None
    names = (os.environ.get("CC", ""), *_COMPILERS)
    return next((found for name in names if name and (found := shutil.which(name))), None)


def is_off() -> bool:
    """Whether the user wants none of it."""
    return not SWITCHES.get(os.environ.get(VARIABLE, "").lower(), True)


@functools.cache
def library(source: Path) -> ctypes.CDLL | None:
    """The functions of the C file `source`; None where they cannot be had, which the log tells."""
    command = compiler()
    if command is None:
        return None
    try:
        return ctypes.CDLL(str(_compiled(source, command)))
    except (OSError, subprocess.SubprocessError) as error:
        log.info("%s is not compiled, slower code takes its place: %s", source.name, _first_line(error))
        return None


def _compiled(source: Path, command: str) -> Path:
    text = source.read_bytes()
    # Other CPUs may share the home folder, and another compiler may mend what this one got wrong.
    arguments = [command, *_FLAGS, *(_X86_FLAGS if platform.machine() in ("x86_64", "AMD64") else ())]
    key = hashlib.sha256(b"\0".join([text, " ".join(arguments).encode(), _cpu().encode()])).hexdigest()
    folder = private_folder(Places.from_environ(os.environ).cache / "native")
    target = folder / f"{source.stem}-{key[:16]}.so"
    if not target.exists():
        with tempfile.TemporaryDirectory(dir=folder) as scratch:
            made = Path(scratch) / target.name
            arguments += [str(source), "-o", str(made)]
            subprocess.run(arguments, check=True, capture_output=True, timeout=_TIMEOUT_S)  # noqa: S603  # ours
            made.replace(target)
    return target


def _cpu() -> str:
    """What tells one CPU's instructions from another's."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return f"{platform.machine()} {platform.processor()}"
    return next((line for line in lines if line.startswith(("flags", "Features"))), platform.machine())


def _first_line(error: Exception) -> str:
    told = getattr(error, "stderr", b"") or b""
    lines = told.decode(errors="replace").splitlines()
    return lines[0] if lines else str(error)
