"""A folder that appears when it is whole: work in a hidden place beside it, resumable, then one rename.

    with Job(target, key=key, num_bytes=total, sources=sources, progress=progress) as job:
        facts = walk.transform(shards, sources, compute, job)
        job.carry(files)
        job.finish()

`.NAME.llmctl-part` holds the work, a journal of finished shards, and a lock. A job that was killed goes on
there when it is the same: the same `key`, which stands for inputs and options.
"""

import fcntl
import hashlib
import json
import logging
import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Protocol

from llmctl import __version__
from llmctl.artifacts.stream.carry import Carried, is_weight
from llmctl.artifacts.stream.disk import check_room, disk_errors
from llmctl.artifacts.stream.exchange import exchange
from llmctl.core.errors import AccessError, BusyError, DoesNotFitError, LlmctlError, UsageError
from llmctl.core.progress import Progress
from llmctl.loading import contents

log = logging.getLogger(__name__)

_JOURNAL, _LOCK, _FILES = "journal.jsonl", "lock", "files"
_MAY_RUN = 0o111
_MARKS = ("config.json", "adapter_config.json")
"""One of them and weights are in every folder that llmctl writes, but for deltas."""


class Input(Protocol):
    """A checkpoint, adapter or delta that is read."""

    @property
    def folder(self) -> Path:
        """Where all of it lies."""
        ...


def key_of(operation: str, options: Mapping[str, Any], sources: Sequence[Input]) -> str:
    """What tells whether a job is the one that was interrupted: version, options, and the inputs' files."""
    inputs = [
        [str(source.folder.resolve()), [_stamp(path) for path in sorted(source.folder.iterdir())]]
        for source in sources
    ]
    told = json.dumps([__version__, operation, options, inputs], sort_keys=True, default=str)
    return hashlib.blake2b(told.encode(), digest_size=16).hexdigest()


def _stamp(path: Path) -> list[Any]:
    if not path.exists():
        return [path.name]
    about = path.stat()
    return [path.name, about.st_size, about.st_mtime_ns] if path.is_file() else [path.name]


def check_target(target: Path, *, overwrite: bool, sources: Sequence[Input]) -> None:
    """Raise `UsageError` for a place that cannot be written to or must not be; else as `disk_errors` does."""
    with disk_errors(target):
        _check_apart(target, sources)
        if target.is_symlink():
            raise UsageError(f"{target} is a link", hint="name the folder that it leads to, or another one")
        if not target.exists():
            return
        if not target.is_dir():
            raise UsageError(f"{target} is no folder", hint="name a folder that is not there yet")
        names = [path.name for path in target.iterdir()]
    if target.is_mount():
        raise UsageError(f"{target} is a disk's own folder", hint="name a folder in it")
    if names and not overwrite:
        raise UsageError(f"{target} exists", hint="--overwrite replaces it; or name another folder")
    is_model = any(mark in names for mark in _MARKS) and any(map(is_weight, names))
    if names and not is_model and contents.DELTA not in names:
        raise UsageError(
            f"{target} holds no model, and --overwrite replaces nothing else", hint="name another folder"
        )


def _check_apart(target: Path, sources: Sequence[Input]) -> None:
    place = _real(target)
    for source in sources:
        folder = _real(source.folder)
        # A file may be a link to where it really lies, as in the hub's cache.
        links = [_real(path) for path in source.folder.iterdir() if path.is_symlink()]
        if (
            place == folder
            or folder in place.parents
            or any(place in each.parents for each in (folder, *links))
        ):
            raise UsageError(
                f"{target} cannot be the result: it is, or holds, or lies in {folder}, which is read",
                hint="name another folder; inputs are never touched",
            )


def _real(path: Path) -> Path:
    # Path's own raises for links that lead in a circle.
    return Path(os.path.realpath(path))


class Job:
    """One folder in the making; see the module."""

    def __init__(
        self,
        target: Path,
        *,
        key: str,
        sources: Sequence[Input],
        num_bytes: int,
        progress: Progress,
        overwrite: bool = False,
    ) -> None:
        """`num_bytes` is what will be written. Raises `UsageError` as `check_target` does."""
        check_target(target, overwrite=overwrite, sources=sources)
        self._target, self._place = target, _real(target)
        self._part = self._place.parent / f".{self._place.name}.llmctl-part"
        self._key, self._num_bytes = key, num_bytes
        self._sources, self._overwrite = sources, overwrite
        self._lock: IO[str] | None = None
        self._is_finished = False
        self.progress = progress
        self.finished: dict[str, Mapping[str, Any]] = {}
        """Shards that are whole, and what was noted with each."""

    @property
    def folder(self) -> Path:
        """Where the files of the result are made."""
        return self._part / _FILES

    def __enter__(self) -> "Job":
        """Raises `DoesNotFitError`, `AccessError`, and `BusyError` when another process does the same."""
        self._take_lock()
        try:
            with disk_errors(self._part / _JOURNAL):
                self._resume()
            done = sum((self.folder / name).stat().st_size for name in self.finished)
            check_room(self._part, self._num_bytes - done)
        except LlmctlError as error:
            self._leave(error)
            self._release()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """What was refused leaves nothing behind; what was interrupted, or lacked room, goes on next time."""
        if self._is_finished:
            shutil.rmtree(self._part, ignore_errors=True)
        else:
            self._leave(error)
        self._release()

    def finish_shard(self, name: str, facts: Mapping[str, Any]) -> None:
        """Note that a file is whole and on the disk; `facts` come back in `finished`."""
        self.finished[name] = facts
        self._note({"shard": name, "bytes": (self.folder / name).stat().st_size, "facts": facts})

    def write_text(self, name: str, text: str) -> None:
        """Write a small file of the result."""
        self.write_bytes(name, text.encode())

    def write_json(self, name: str, value: Mapping[str, Any]) -> None:
        """Write a small file of the result."""
        self.write_text(name, json.dumps(value, indent=2, ensure_ascii=False) + "\n")

    def write_bytes(self, name: str, data: bytes) -> None:
        """Write a small file of the result."""
        path = self.folder / name
        with disk_errors(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())

    def carry(self, files: Sequence[Carried]) -> None:
        """Copy what is no weight."""
        for each in files:
            path = self.folder / each.name
            if (place := each.elsewhere) is not None:
                log.warning("%s is a link to %s, which is copied", each.path, place)
            with disk_errors(path):
                path.parent.mkdir(parents=True, exist_ok=True)
                with _opened(each.path) as source, path.open("wb") as file:
                    shutil.copyfileobj(source, file)
                    is_program = os.fstat(source.fileno()).st_mode & _MAY_RUN
                    os.fchmod(file.fileno(), os.fstat(file.fileno()).st_mode | is_program)
                    file.flush()
                    os.fsync(file.fileno())

    def finish(self) -> None:
        """Put the folder in its place, for good; an old one is removed last.

        Raises as `check_target` does: what is in the place may have come while the work went on.
        """
        check_target(self._target, overwrite=self._overwrite, sources=self._sources)
        place = self._place
        with disk_errors(self._target):
            for folder in {path.parent for path in self.folder.rglob("*")} | {self.folder}:
                _sync_folder(folder)
            # An old folder in the place of the new one must not pass for finished work.
            (self._part / _JOURNAL).unlink()
            if place.is_dir() and any(place.iterdir()):
                exchange(self.folder, place)
            else:
                self.folder.rename(place)
            self._is_finished = True
            _sync_folder(place.parent)

    def _take_lock(self) -> None:
        lock = self._part / _LOCK
        with disk_errors(lock):
            self._part.mkdir(parents=True, exist_ok=True)
            self._lock = lock.open("w", encoding="utf-8")
            if not _holds(self._lock, lock):
                self._release()
                raise BusyError(f"another llmctl is writing {self._target}", hint="wait until it is done")

    def _release(self) -> None:
        if self._lock is not None:
            self._lock.close()

    def _resume(self) -> None:
        notes = _read_notes(self._part / _JOURNAL)
        is_same = bool(notes) and notes[0] == {"key": self._key} and self.folder.is_dir()
        if is_same:
            shards = [note for note in notes[1:] if _size(self.folder / note["shard"]) == note["bytes"]]
            self.finished = {note["shard"]: note["facts"] for note in shards}
            if self.finished:
                files = (
                    "1 finished file" if len(self.finished) == 1 else f"{len(self.finished)} finished files"
                )
                log.warning("%s: going on after %s", self._target, files)
        else:
            (self._part / _JOURNAL).unlink(missing_ok=True)
            shutil.rmtree(self.folder, ignore_errors=True)
            self.folder.mkdir()
            self._note({"key": self._key})
        for path in self.folder.iterdir():
            if path.name not in self.finished:
                path.unlink() if path.is_file() else shutil.rmtree(path)

    def _note(self, value: Mapping[str, Any]) -> None:
        path = self._part / _JOURNAL
        with disk_errors(path), path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(value) + "\n")
            file.flush()
            os.fsync(file.fileno())

    def _leave(self, error: BaseException | None) -> None:
        is_over = error is None or isinstance(error, LlmctlError)
        if not is_over and not self.finished:
            # There is nothing to go on with, and much of it may lie there.
            shutil.rmtree(self.folder, ignore_errors=True)
        elif not is_over:
            log.warning("what is finished stays in %s, and the same command goes on", self._part)
        # A folder that came into the place meanwhile can be moved away, as room can be made.
        if isinstance(error, DoesNotFitError | UsageError) and self.finished:
            error.hint = f"{error.hint}; what is finished stays in {self._part}, and the same command goes on"
        elif is_over:
            shutil.rmtree(self._part, ignore_errors=True)


def _holds(opened: IO[str], path: Path) -> bool:
    """Take the lock, if nobody has it."""
    try:
        fcntl.flock(opened, fcntl.LOCK_EX | fcntl.LOCK_NB)
        # A job that is done takes its place away, and with it a lock that another has opened already.
        return os.path.samestat(path.stat(), os.fstat(opened.fileno()))
    except (BlockingIOError, FileNotFoundError):
        return False
    except OSError:
        opened.close()
        raise


def _size(path: Path) -> int | None:
    return path.stat().st_size if path.is_file() else None


def _read_notes(path: Path) -> list[dict[str, Any]]:
    """The journal; a last line that was cut short counts as not written."""
    if not path.is_file():
        return []
    notes = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            notes.append(json.loads(line))
        except ValueError:
            break
    return notes


def _opened(path: Path) -> IO[bytes]:
    try:
        return path.open("rb")
    except OSError as error:
        raise AccessError(f"cannot read {path}: {error.strerror}", hint="look at its rights") from error


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
