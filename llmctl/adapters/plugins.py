"""Families that installed packages bring, through the entry-point group `llmctl.adapters`.

An entry point names a path of a TOML file (a `Path`, or a string that ends in .toml), a TOML text, or a
list of adapter classes. A broken one is told with its package's name and left out.
"""

import functools
import logging
import os
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llmctl.adapters.foreign import named
from llmctl.adapters.registered import family_of
from llmctl.adapters.spec import PLUGIN_RANK, Family, read_rows
from llmctl.core.errors import LlmctlError, UsageError

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

log = logging.getLogger(__name__)

GROUP = "llmctl.adapters"


def plugin_families() -> tuple[Family, ...]:
    """The families of all installed plugins; of two with one id the first package's by name. Never raises."""
    return _families(tuple(sys.path))


@functools.lru_cache(maxsize=1)
def _families(folders: tuple[str, ...]) -> tuple[Family, ...]:
    """Read once for each `sys.path`, so that a broken plugin is told once."""
    if not any(_offers(folder) for folder in folders):
        return ()
    # Its import takes longer than a match; hardly anybody has a plugin.
    from importlib.metadata import entry_points

    found: dict[str, Family] = {}
    for entry in sorted(entry_points(group=GROUP), key=lambda entry: (_distribution(entry), entry.name)):
        for family in _families_of(entry):
            if family.id in found:
                log.warning(
                    "%s: family %r is left out, %s has one", family.origin, family.id, found[family.id].origin
                )
            else:
                found[family.id] = family
    return tuple(found.values())


def _offers(folder: str) -> bool:
    """Whether a package installed in `folder` mentions the group at all.

    Names as text: hundreds of Path objects would take longer than the files.
    """
    heading = f"[{GROUP}]".encode()
    try:
        names = [
            name
            for name in os.listdir(folder or ".")  # noqa: PTH208
            if name.endswith((".dist-info", ".egg-info"))
        ]
    except OSError:
        return False
    return any(heading in content for content in _contents(folder, names))


def _contents(folder: str, names: Iterable[str]) -> Iterator[bytes]:
    for name in names:
        try:
            with open(f"{folder or '.'}/{name}/entry_points.txt", "rb") as file:  # noqa: PTH123
                yield file.read()
        except OSError:
            continue


def _families_of(entry: "EntryPoint") -> tuple[Family, ...]:
    package = _distribution(entry)
    try:
        with named(f"its entry point {entry.name} = {entry.value}"):
            offered = entry.load()
        return _read(offered, package)
    except LlmctlError as error:
        log.warning("the plugin %s is left out: %s", package, error.message)
        return ()


def _read(offered: Any, package: str) -> tuple[Family, ...]:
    origin = f"plugin {package}"
    if isinstance(offered, Path) or (isinstance(offered, str) and offered.strip().endswith(".toml")):
        path = Path(offered)
        with named(f"reading {path}"):
            text = path.read_text(encoding="utf-8")
        return _rows(text, where=path.name, origin=origin)
    if isinstance(offered, str):
        return _rows(offered, where="its TOML", origin=origin)
    if isinstance(offered, list | tuple):
        return tuple(family_of(cls, origin=origin, origin_rank=PLUGIN_RANK) for cls in offered)
    raise UsageError(
        f"it offers {type(offered).__name__}, not a path of a TOML file, a TOML text or a list of classes"
    )


def _rows(text: str, *, where: str, origin: str) -> tuple[Family, ...]:
    from llmctl.prompts.library import names

    return read_rows(text, where=where, origin=origin, origin_rank=PLUGIN_RANK, templates=names())


def _distribution(entry: "EntryPoint") -> str:
    return entry.dist.name if entry.dist is not None else entry.module
