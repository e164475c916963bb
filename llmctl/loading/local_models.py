"""The models that are on this machine by the names that a user gives, and the list of them for the shells.

Only looks at names of files: an entry need not be complete or of a kind that llmctl can run.
"""

import logging
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path

from llmctl.core.name_list import MODELS as LIST_NAME
from llmctl.core.name_list import read_names, write_names
from llmctl.demo import MODELS as EMBEDDED
from llmctl.loading import contents

log = logging.getLogger(__name__)

MAX_FOLDERS = 50
"""Folders that were used as a model and are remembered."""
_PREFIX = "models--"
_HUB_ID = re.compile(r"[\w.-]+(?:/[\w.-]+)?")
_MARKS = (contents.CONFIG, contents.ADAPTER_CONFIG)
"""What a model's folder or an adapter's holds."""


def hub_folder(environ: Mapping[str, str]) -> Path:
    """The cache of huggingface_hub by its own rules, found without importing it."""
    caches = environ.get("XDG_CACHE_HOME") or "~/.cache"
    home = environ.get("HF_HOME") or f"{caches}/huggingface"
    folder = environ.get("HF_HUB_CACHE") or environ.get("HUGGINGFACE_HUB_CACHE") or f"{home}/hub"
    # Unlike Path, it leaves an unknown user alone.
    return Path(os.path.expanduser(os.path.expandvars(folder))).absolute()  # noqa: PTH111


def local_models(environ: Mapping[str, str]) -> list[str]:
    """The embedded models, then in order those of the hub that are downloaded, as `org/name`."""
    return [*EMBEDDED, *sorted(_downloaded(hub_folder(environ)))]


def find_here(model: str, environ: Mapping[str, str]) -> Path | None:
    """The folder of `model` if it is on this machine; None otherwise. Never raises, never downloads.

    In order: a folder of that name (a repository of the hub's cache stands for its snapshot), an embedded
    model, what was downloaded of a hub repository.
    """
    # Unlike Path, these take a name that no file can have for an absent one.
    path = os.path.expanduser(model)  # noqa: PTH111
    if model.strip() and os.path.isdir(path) and not _is_stray(model, path):  # noqa: PTH112
        return _snapshot(Path(path)) or Path(path)
    if model in EMBEDDED:
        return EMBEDDED[model]
    if not _HUB_ID.fullmatch(model):
        return None
    return _snapshot(hub_folder(environ) / f"{_PREFIX}{model.replace('/', '--')}")


def _is_stray(model: str, path: str) -> bool:
    """Whether a folder only happens to have an embedded model's name."""
    return model in EMBEDDED and not os.path.isfile(f"{path}/{contents.CONFIG}")  # noqa: PTH113


def _snapshot(repository: Path) -> Path | None:
    """Of a repository in the hub's cache the files of its main branch, else the latest; None elsewhere."""
    try:
        if not (repository / "snapshots").is_dir() or (repository / contents.CONFIG).exists():
            return None
        main = repository / "refs" / "main"
        commit = main.read_text(encoding="ascii").strip() if main.is_file() else ""
        marked = [path for mark in _MARKS for path in repository.glob(f"snapshots/*/{mark}") if path.exists()]
        folders = (path.parent for path in marked)
        return max(folders, key=lambda folder: (folder.name == commit, folder.stat().st_mtime), default=None)
    except (OSError, ValueError) as error:
        log.debug("cannot look into %s: %s", repository, error)
        return None


def remember(cache: Path, *, used: str | None) -> None:
    """Bring the list for shell completions in the folder `cache` up to date.

    `used` is the model that was just opened, as the user called it; a folder is remembered by its absolute
    path, the `MAX_FOLDERS` last used ones as long as they exist. Never raises.
    """
    path = cache / LIST_NAME
    known = [name for name in read_names(path) if Path(name).is_absolute()]
    folders = [folder for folder in (_folder(used), *known) if folder is not None and _is_folder(folder)]
    write_names(path, [*local_models(os.environ), *list(dict.fromkeys(folders))[:MAX_FOLDERS]])


def _downloaded(root: Path) -> Iterator[str]:
    try:
        folders = [path for path in root.iterdir() if path.name.startswith(_PREFIX)]
    except OSError:
        return
    for folder in folders:
        if _has_snapshot(folder):
            yield folder.name.removeprefix(_PREFIX).replace("--", "/")


def _has_snapshot(folder: Path) -> bool:
    try:
        return any(path.exists() for path in folder.glob(f"snapshots/*/{contents.CONFIG}"))
    except OSError as error:
        log.debug("cannot look into %s: %s", folder, error.strerror)
        return False


def _folder(used: str | None) -> str | None:
    """The absolute path of a model that is a folder; an embedded one's name goes before a stray folder's."""
    if used is None:
        return None
    # Not resolved: a link keeps the name by which the user knows it.
    path = os.path.abspath(os.path.expanduser(used))  # noqa: PTH100, PTH111
    return path if _is_folder(path) and not _is_stray(used, path) else None


def _is_folder(path: str) -> bool:
    # Unlike Path, it takes a name that no file can have for an absent one.
    return os.path.isdir(path)  # noqa: PTH112
