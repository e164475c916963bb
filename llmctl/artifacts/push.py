"""Uploads a folder to the hub as a repository, by huggingface_hub's client: `llmctl models push`. No torch.

Large files that the hub has already are not sent again, so that an interrupted upload goes on where it was.
"""

import logging
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llmctl.artifacts.stream import carry
from llmctl.core import settings
from llmctl.core.errors import AccessError, BadFileError, NotFoundError, UnreachableError, UsageError
from llmctl.core.progress import Progress
from llmctl.loading import contents
from llmctl.loading.checkpoint import open_folder
from llmctl.loading.header import read_header
from llmctl.loading.hub.api import Hub

log = logging.getLogger(__name__)

_PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl")
_MESSAGE = "Upload with llmctl"


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What is to be uploaded, and where to."""

    folder: Path
    repo_id: str
    is_private: bool = False
    """Of a repository that is made; a public one that is there is refused."""
    revision: str | None = None
    """A branch, which is made if it is not there; None: main."""
    message: str = _MESSAGE


@dataclass(frozen=True, slots=True, kw_only=True)
class Pushed:
    """What was uploaded, or would be."""

    repo_id: str
    url: str
    commit: str | None
    """None where nothing was sent."""
    files: tuple[str, ...]
    num_bytes: int

    def as_dict(self) -> dict[str, Any]:
        """For `--json`."""
        return {
            "repo": self.repo_id,
            "url": self.url,
            "commit": self.commit,
            "files": list(self.files),
            "bytes": self.num_bytes,
        }


def push(wanted: Wanted, progress: Progress, *, is_dry: bool = False) -> Pushed:
    """Upload all files of a folder but hidden ones; with `is_dry` only say which.

    Raises `NotFoundError` (no folder), `BadFileError` (nothing in it, or a model that is not whole),
    `UsageError` (an id that cannot be one, a public repository for what is private), `AccessError` (no token,
    no rights), `UnreachableError`.
    """
    _check_id(wanted.repo_id)
    files = _files(wanted.folder)
    site = Hub.from_environ(wanted.repo_id, revision=wanted.revision)
    num_bytes = sum(path.stat().st_size for path in files.values())
    url, commit = f"{site.endpoint}/{wanted.repo_id}", None
    if not is_dry:
        _check_access(site)
        progress.stage(f"push {wanted.repo_id}", total_bytes=num_bytes)
        with site.errors(hint="what has arrived is kept: the same command goes on from there"), _quiet():
            url, commit = _send(wanted, site, files)
        progress.advance(num_bytes)
    return Pushed(repo_id=wanted.repo_id, url=url, commit=commit, files=tuple(files), num_bytes=num_bytes)


def check(repo_id: str, *, is_dry: bool) -> None:
    """Raise what `push` would raise before it sends anything, for work that ends with one."""
    _check_id(repo_id)
    if not is_dry:
        _check_access(Hub.from_environ(repo_id, revision=None))


def _check_id(repo_id: str) -> None:
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id

    try:
        validate_repo_id(repo_id)
        is_named = "/" in repo_id
    except HFValidationError:
        is_named = False
    if not is_named:
        raise UsageError(
            f"{repo_id!r} cannot be a repository of the hub", hint="give owner/name, as in Qwen/Qwen3-0.6B"
        )
    if settings.load(warns=False).hub == "modelscope":
        raise UsageError(
            "llmctl uploads to Hugging Face's hub only, and the setting hub is modelscope",
            hint="set LLMCTL_HUB=huggingface for this command",
        )


def _files(folder: Path) -> dict[str, Path]:
    """All that goes along, by its name in the repository."""
    if not folder.is_dir():
        raise NotFoundError(f"no such folder: {folder}", hint="give the folder that is to be uploaded")
    found = {
        path.relative_to(folder).as_posix(): path
        for path in sorted(folder.rglob("*"))
        if not path.is_dir() and not any(part.startswith(".") for part in path.relative_to(folder).parts)
    }
    for path in found.values():
        _check_readable(path)
    if not found:
        raise BadFileError(f"{folder} has no files to upload")
    _check_whole(folder, found)
    if pickles := [name for name in found if name.endswith(_PICKLES)]:
        log.warning(
            "%s can run code when they are opened; `llmctl models convert` makes safetensors of them",
            contents.shown(pickles),
        )
    return found


def _check_whole(folder: Path, found: Mapping[str, Path]) -> None:
    """Half a model on the hub is worse than none."""
    names = [name for name in found if "/" not in name]
    weights = contents.weight_names(names)
    for name in contents.missing_shards(folder, names):
        raise BadFileError(
            f"{folder} lacks {name}, which its index names", hint="finish the download or copy"
        )
    if contents.DELTA in found or contents.is_adapter(names):
        for name in (name for name in names if name.endswith(".safetensors")):
            read_header(found[name])
    elif contents.CONFIG in found and weights:
        open_folder(folder)
    elif not any(name.endswith(_PICKLES) for name in names):
        log.warning("%s is no model, delta or adapter", folder)
    for name, path in found.items():
        if (place := carry.Carried(name=name, path=path, num_bytes=0).elsewhere) is not None:
            log.warning("%s is a link to %s, whose content is uploaded", path, place)


def _check_readable(path: Path) -> None:
    if not path.is_file():
        raise BadFileError(f"{path} is no file, or a link to none", hint="remove it, or copy what is missing")
    if not os.access(path, os.R_OK):
        raise AccessError(f"cannot read {path}", hint="look at its rights")


def _check_access(site: Hub) -> None:
    if site.is_offline:
        raise UnreachableError("HF_HUB_OFFLINE is set, and an upload needs the hub", hint="unset it")
    if "Authorization" not in site.headers:
        raise AccessError(
            f"an upload to {site.endpoint} needs a token that may write",
            hint="set HF_TOKEN or run `hf auth login`",
        )


def _send(wanted: Wanted, site: Hub, files: dict[str, Path]) -> tuple[str, str]:
    """Where the repository is, and the commit."""
    from huggingface_hub import CommitOperationAdd, HfApi

    api = HfApi(endpoint=site.endpoint)
    if wanted.is_private and api.repo_exists(wanted.repo_id) and not api.model_info(wanted.repo_id).private:
        raise UsageError(
            f"{wanted.repo_id} is there already, and public: --private is for one that is made",
            hint=f"make it private at {site.endpoint}/{wanted.repo_id}/settings, or name another",
        )
    # None: as the owner's organisation has it, which is public if it says nothing.
    api.create_repo(wanted.repo_id, private=wanted.is_private or None, exist_ok=True)
    if wanted.revision is not None:
        api.create_branch(wanted.repo_id, branch=wanted.revision, exist_ok=True)
    try:
        done = api.create_commit(
            wanted.repo_id,
            [CommitOperationAdd(name, path) for name, path in files.items()],
            commit_message=wanted.message,
            revision=wanted.revision,
        )
    except RuntimeError as error:
        # Threads that send a file hide what befell them.
        raise (error.__cause__ or error) from error
    except ValueError as error:
        # The hub reads the card's front matter, and the client passes on what it says.
        raise BadFileError(f"the hub refuses {wanted.folder}: {_in_one_line(error)}") from error
    return f"{site.endpoint}/{wanted.repo_id}", str(done.oid)


def _in_one_line(error: Exception) -> str:
    return " ".join(str(error).split())


@contextmanager
def _quiet() -> Iterator[None]:
    """Without huggingface_hub's own bars."""
    from huggingface_hub.utils import (
        are_progress_bars_disabled,
        disable_progress_bars,
        enable_progress_bars,
    )

    had_bars = not are_progress_bars_disabled()
    disable_progress_bars()
    try:
        yield
    finally:
        if had_bars:
            enable_progress_bars()
