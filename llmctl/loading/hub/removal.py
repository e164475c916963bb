"""Takes a downloaded model out of the cache of its hub, and nothing that lies anywhere else.

Links are removed and never followed. What another process is just downloading is left alone.
"""

import os
import re
import shutil
import stat
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from llmctl.core.errors import AccessError, LlmctlError, NotFoundError, UsageError
from llmctl.loading.gguf.names import choose_gguf, split_name

_COMMIT_PREFIX = re.compile(r"[0-9a-f]{7,40}")
_INCOMPLETE = ".incomplete"
# A lock that is free is had at once; huggingface_hub does not even try without a wait.
_LOCK_WAIT_S = 0.1


@dataclass(frozen=True, slots=True, kw_only=True)
class Removal:
    """What is to go, worked out before anything is touched."""

    name: str
    repository: Path
    """Its folder in the cache."""
    is_whole: bool
    """Whether nothing of the repository stays."""
    commits: tuple[str, ...]
    """The snapshots that it touches."""
    files: tuple[Path, ...]
    """What is deleted besides empty folders: links, blobs, unfinished downloads, refs."""
    num_bytes: int
    """That the disk gets back."""


def plan_removal(model: str, repository: Path, *, revision: str | None) -> Removal:
    """What removing `model`, one of its revisions or one GGUF file of it takes from its folder in the cache.

    Raises `NotFoundError` for a revision or file that is not there, `UsageError` for a folder that is a link,
    `AmbiguousError` for a tag that several files have.
    """
    if repository.is_symlink():
        raise UsageError(
            f"{repository} is a link to {repository.readlink()}, and rm removes only what lies in the cache",
            hint="delete the link by hand, and what it leads to where it lies",
        )
    wanted = split_name(model)[1]
    commits = _commits(repository)
    chosen = commits if revision is None else _of_revision(model, repository, revision)
    doomed = [path for commit in chosen for path in _files(repository / "snapshots" / commit)]
    if wanted is not None:
        name = choose_gguf(model, {path.name for path in doomed}, wanted)
        doomed = [path for path in doomed if path.name == name]
    staying = [
        path
        for commit in commits
        for path in _files(repository / "snapshots" / commit)
        if path not in set(doomed)
    ]
    if not staying:
        files = list(_files(repository))
        return _removal(model, repository, tuple(chosen), files, is_whole=True)
    kept = {_target(path) for path in staying}
    blobs = {
        target for path in doomed if (target := _target(path)) not in kept and _is_blob(target, repository)
    }
    gone = [commit for commit in chosen if wanted is None]
    refs = [path for path in _files(repository / "refs") if _text(path) in gone]
    files = [*doomed, *sorted(blobs), *refs]
    return _removal(model, repository, tuple(chosen), files, is_whole=False)


def remove(removal: Removal, lock_folder: Path) -> None:
    """Delete what was planned.

    Raises `LlmctlError` when another process is downloading some of it, `AccessError` when the disk refuses.
    """
    with _locked(removal, lock_folder):
        try:
            if removal.is_whole:
                shutil.rmtree(removal.repository)
                return
            for path in removal.files:
                path.unlink(missing_ok=True)
            for commit in removal.commits:
                _remove_empty(removal.repository / "snapshots" / commit)
        except OSError as error:
            raise AccessError(f"cannot remove {error.filename}: {error.strerror}") from error


def _removal(
    model: str, repository: Path, commits: tuple[str, ...], files: list[Path], *, is_whole: bool
) -> Removal:
    return Removal(
        name=model,
        repository=repository,
        is_whole=is_whole,
        commits=commits,
        files=tuple(files),
        num_bytes=sum(map(_own_bytes, files)),
    )


def _commits(repository: Path) -> list[str]:
    snapshots = repository / "snapshots"
    if snapshots.is_symlink() or not snapshots.is_dir():
        return []
    return sorted(path.name for path in snapshots.iterdir() if path.is_dir() and not path.is_symlink())


def _of_revision(model: str, repository: Path, revision: str) -> list[str]:
    """The commit that a branch, tag or beginning of a commit means."""
    commits = _commits(repository)
    refs = {path.relative_to(repository / "refs").as_posix(): path for path in _files(repository / "refs")}
    if revision in refs:
        found = [commit for commit in commits if commit == _text(refs[revision])]
    else:
        is_commit = _COMMIT_PREFIX.fullmatch(revision) is not None
        found = [commit for commit in commits if is_commit and commit.startswith(revision)]
    if len(found) != 1:
        raise NotFoundError(
            f"{model} has no revision {revision!r} in the cache {repository}",
            hint=f"it has {', '.join([*sorted(refs), *commits]) or 'none that is whole'}",
        )
    return found


def _files(folder: Path) -> Iterator[Path]:
    """All files and links below a folder, no link followed."""
    for parent, folders, names in os.walk(folder):
        linked = [name for name in folders if (Path(parent) / name).is_symlink()]
        yield from (Path(parent) / name for name in (*names, *linked))


def _target(path: Path) -> Path:
    """Where a link leads by its own word; a file is its own target."""
    if not path.is_symlink():
        return path
    return Path(os.path.normpath(path.parent / path.readlink()))


def _is_blob(target: Path, repository: Path) -> bool:
    return target.parent == repository / "blobs" and not target.parent.is_symlink()


def _own_bytes(path: Path) -> int:
    try:
        found = path.lstat()
    except OSError:
        return 0
    # A file that has another name elsewhere keeps its bytes.
    return found.st_size if stat.S_ISREG(found.st_mode) and found.st_nlink == 1 else 0


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii").strip()
    except (OSError, ValueError):
        return ""


@contextmanager
def _locked(removal: Removal, lock_folder: Path) -> Iterator[None]:
    """Hold the locks that downloads of these blobs take, those of huggingface_hub too."""
    from filelock import Timeout
    from huggingface_hub.utils import WeakFileLock

    digests = {
        path.name.removesuffix(_INCOMPLETE).partition(".")[0]
        for path in removal.files
        if path.parent.name == "blobs"
    }
    with ExitStack() as stack:
        for lock in sorted(lock_folder.glob("*.lock")):
            if not removal.is_whole and lock.stem not in digests:
                continue
            try:
                stack.enter_context(WeakFileLock(lock, timeout=_LOCK_WAIT_S))
            except Timeout as error:
                raise LlmctlError(
                    f"another process is just downloading {removal.name}",
                    hint="wait until it is done, or stop it",
                ) from error
        yield


def _remove_empty(folder: Path) -> None:
    """Remove a folder if nothing but empty folders is left in it."""
    for parent, _, _ in os.walk(folder, topdown=False):
        try:
            Path(parent).rmdir()
        except OSError:
            return
