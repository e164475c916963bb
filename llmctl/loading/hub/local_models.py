"""The models that are on this machine by the names that a user gives, and the list of them for the shells.

Only looks at names of files: an entry need not be complete or of a kind that llmctl can run.
"""

import logging
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path

from llmctl.core import settings
from llmctl.core.errors import LlmctlError
from llmctl.core.name_list import MODELS as LIST_NAME
from llmctl.core.name_list import read_names, write_names
from llmctl.core.places import Places
from llmctl.demo import MODELS as EMBEDDED
from llmctl.loading import contents
from llmctl.loading.gguf.head import SUFFIX as GGUF_SUFFIX
from llmctl.loading.gguf.names import choose_gguf, find_tagged, models_among, split_name

log = logging.getLogger(__name__)

MAX_FOLDERS = 50
"""Folders that were used as a model and are remembered."""
_PREFIX = "models--"
_HUB_ID = re.compile(r"[\w.-]+(?:/[\w.-]+)?")
_MARKS = (contents.CONFIG, contents.ADAPTER_CONFIG, f"*{GGUF_SUFFIX}")
"""What a model's folder or an adapter's holds."""
_DEFAULT_REVISIONS = ("main", "master")


def hub_folder(environ: Mapping[str, str]) -> Path:
    """The cache of huggingface_hub by its own rules, found without importing it."""
    caches = environ.get("XDG_CACHE_HOME") or "~/.cache"
    home = environ.get("HF_HOME") or f"{caches}/huggingface"
    folder = environ.get("HF_HUB_CACHE") or environ.get("HUGGINGFACE_HUB_CACHE") or f"{home}/hub"
    # Unlike Path, it leaves an unknown user alone.
    return Path(os.path.expanduser(os.path.expandvars(folder))).absolute()  # noqa: PTH111


def modelscope_folder(environ: Mapping[str, str]) -> Path:
    """Where downloads from ModelScope lie, in the layout of the hub's cache."""
    return Places.from_environ(environ).cache.absolute() / "modelscope"


def repository_name(repo_id: str) -> str:
    """What the folder of a repository in the hub's cache is called."""
    return f"{_PREFIX}{repo_id.replace('/', '--')}"


def local_models(environ: Mapping[str, str]) -> list[str]:
    """The embedded models, then in order those that are downloaded, as `org/name` or `org/name/FILE.gguf`."""
    roots = (hub_folder(environ), modelscope_folder(environ))
    return [*EMBEDDED, *sorted({name for root in roots for name in _downloaded(root)})]


def find_here(model: str, environ: Mapping[str, str], *, revision: str | None = None) -> Path | None:
    """The folder or GGUF file of `model` if it is on this machine; None otherwise. Never raises or downloads.

    In order: a folder of that name (a repository of the hub's cache stands for its snapshot) or GGUF file,
    an embedded model, what was downloaded of a repository. A `revision` (branch, tag or commit) is one of
    a repository.
    """
    if revision is not None:
        repository = find_repository(model, environ, revision=revision)
        return _meant(repository, split_name(model)[1], revision) if repository is not None else None
    if is_path(model):
        # Unlike Path, it leaves an unknown user alone.
        path = Path(os.path.expanduser(model))  # noqa: PTH111
        return _tagged(model) or _snapshot(path) or path
    if model in EMBEDDED:
        return EMBEDDED[model]
    repository = find_repository(model, environ)
    return _meant(repository, split_name(model)[1]) if repository is not None else None


def is_path(model: str) -> bool:
    """Whether `model` is a folder, a GGUF file or `FOLDER:Q4_K_M`.

    A stray folder with an embedded model's name is none.
    """
    # Unlike Path, these take a name that no file can have for an absent one.
    path = os.path.expanduser(model)  # noqa: PTH111
    if not model.strip():
        return False
    if os.path.isdir(path):  # noqa: PTH112
        return not _is_stray(model, path)
    is_file = path.endswith(GGUF_SUFFIX) and os.path.isfile(path)  # noqa: PTH113
    return is_file or _tagged(model) is not None


def find_repository(model: str, environ: Mapping[str, str], *, revision: str | None = None) -> Path | None:
    """The folder of a downloaded repository in the hub's cache or ModelScope's; None when there is none.

    What is in both is taken from where the settings download from.
    """
    repo_id, wanted = split_name(model)
    if not _HUB_ID.fullmatch(repo_id):
        return None
    roots = (hub_folder(environ), modelscope_folder(environ))
    here = [folder for folder in (root / repository_name(repo_id) for root in roots) if _is_there(folder)]
    whole = [folder for folder in here if _meant(folder, wanted, revision) is not None] or here
    return (whole[-1] if len(whole) > 1 and _prefers_modelscope(environ) else whole[0]) if whole else None


def _prefers_modelscope(environ: Mapping[str, str]) -> bool:
    try:
        return settings.load(environ, warns=False).hub == "modelscope"
    except LlmctlError:
        return False


def _is_there(folder: Path) -> bool:
    try:
        return folder.is_dir()
    except OSError:
        return False


def _tagged(model: str) -> Path | None:
    try:
        return find_tagged(model)
    except LlmctlError:
        return None


def _meant(repository: Path, wanted: str | None, revision: str | None = None) -> Path | None:
    """The snapshot, or the file in it that is wanted."""
    folder = _snapshot(repository, wanted, revision)
    if folder is None or wanted is None:
        return folder
    try:
        return folder / choose_gguf(repository.name, _names(folder), wanted)
    except LlmctlError:
        return None


def _names(folder: Path) -> list[str]:
    """Links that lead nowhere do not count."""
    return [path.name for path in folder.iterdir() if path.exists()]


def _is_stray(model: str, path: str) -> bool:
    """Whether a folder only happens to have an embedded model's name."""
    return model in EMBEDDED and not os.path.isfile(f"{path}/{contents.CONFIG}")  # noqa: PTH113


def _snapshot(repository: Path, wanted: str | None = None, revision: str | None = None) -> Path | None:
    """Of a repository in the hub's cache the files of its main branch, else the latest; None elsewhere.

    Only snapshots with the GGUF file that is wanted count, if one is, and of the revision, if one is named.
    """
    try:
        if not (repository / "snapshots").is_dir() or (repository / contents.CONFIG).exists():
            return None
        names = _DEFAULT_REVISIONS if revision is None else (revision,)
        refs = (repository / "refs" / name for name in names)
        commit = next((ref.read_text(encoding="ascii").strip() for ref in refs if ref.is_file()), revision)
        marks = _MARKS if wanted is None else _MARKS[-1:]
        marked = [path for mark in marks for path in repository.glob(f"snapshots/*/{mark}") if path.exists()]
        folders = (path.parent for path in marked if revision is None or path.parent.name == commit)
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
    folders = [folder for folder in (_folder(used), *known) if folder is not None and is_path(folder)]
    write_names(path, [*local_models(os.environ), *list(dict.fromkeys(folders))[:MAX_FOLDERS]])


def _downloaded(root: Path) -> Iterator[str]:
    try:
        folders = [path for path in root.iterdir() if path.name.startswith(_PREFIX)]
    except OSError:
        return
    for folder in folders:
        yield from _models_in(folder)


def _models_in(repository: Path) -> Iterator[str]:
    """The repository's id, or its GGUF files by name when there are several and no other weights."""
    repo_id = repository.name.removeprefix(_PREFIX).replace("--", "/")
    try:
        names = {path.name for path in repository.glob("snapshots/*/*") if path.exists()}
    except OSError as error:
        log.debug("cannot look into %s: %s", repository, error.strerror)
        return
    files = [] if any(name.endswith(".safetensors") for name in names) else models_among(names)
    if len(files) > 1:
        yield from (f"{repo_id}/{file}" for file in files)
    elif files or contents.CONFIG in names:
        yield repo_id


def _folder(used: str | None) -> str | None:
    """The absolute path of a folder or GGUF file; an embedded model's name goes before a stray folder's."""
    if used is None:
        return None
    # Not resolved: a link keeps the name by which the user knows it.
    path = os.path.abspath(os.path.expanduser(used))  # noqa: PTH100, PTH111
    return path if is_path(path) and not _is_stray(used, path) else None
