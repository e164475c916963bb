"""One repository in huggingface_hub's cache, so that models are shared with every other tool that uses it.

The layout is documented (huggingface.co/docs/huggingface_hub/guides/manage-cache): `blobs/<digest>`,
`snapshots/<commit>/<name>` as links to them, `refs/<revision>` with the commit.
"""

import logging
import os
import shutil
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from llmctl.core.errors import DoesNotFitError, LlmctlError
from llmctl.loading import contents
from llmctl.loading.gguf.names import choose_gguf, models_among
from llmctl.loading.hub.api import COMMIT
from llmctl.loading.hub.fetch import RemoteFile, partial_path
from llmctl.loading.hub.local_models import repository_name

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class RepoCache:
    """The cached files of the model `repo_id`."""

    root: Path
    """The whole cache, `HF_HUB_CACHE` for the hub."""
    repo_id: str
    variable: str = "HF_HOME"
    """What moves the cache to another disk."""

    @property
    def folder(self) -> Path:
        """All of this repository."""
        return self.root / repository_name(self.repo_id)

    @property
    def lock_folder(self) -> Path:
        """Where downloads into this repository keep others out, a file for each blob."""
        return self.root / ".locks" / repository_name(self.repo_id)

    def snapshot(self, commit: str) -> Path:
        """The folder of one commit."""
        return self.folder / "snapshots" / commit

    def blob(self, file: RemoteFile) -> Path:
        """Where the bytes of `file` lie, whichever commit they are part of."""
        return self.folder / "blobs" / file.digest

    def has(self, file: RemoteFile, commit: str) -> bool:
        """Whether the snapshot holds `file` whole."""
        path = self.snapshot(commit) / file.name
        return path.is_file() and path.stat().st_size == file.num_bytes

    def has_blob(self, file: RemoteFile) -> bool:
        """Whether the bytes are there, perhaps through another commit."""
        blob = self.blob(file)
        return blob.is_file() and blob.stat().st_size == file.num_bytes

    def complete_snapshot(
        self,
        revision: str,
        *,
        gguf: str | None = None,
        wanted: Callable[[Collection[str]], Sequence[str]] | None = None,
    ) -> Path | None:
        """The folder of `revision`, or the GGUF file in it, if it can be run as it is; asks no hub.

        Where `wanted` chooses of its files, it is taken for whole.
        """
        commit = self._commit(revision)
        if commit is None or not self.snapshot(commit).is_dir():
            return None
        folder = self.snapshot(commit)
        names = {path.name for path in folder.iterdir() if path.exists()}
        if wanted is not None and wanted(names):
            return folder
        try:
            if wants_gguf(names, gguf):
                return folder / choose_gguf(self.repo_id, names, gguf)
            if contents.is_adapter(names):
                return folder if contents.adapter_names(names) else None
            shards = () if contents.SINGLE_FILE in names else contents.indexed_shards(folder)
        except LlmctlError:
            return None
        weights = shards or contents.weight_names(names)
        return folder if weights and contents.CONFIG in names and names.issuperset(weights) else None

    def check_space(self, files: Sequence[RemoteFile]) -> None:
        """Raise `DoesNotFitError` when the rest of `files` is more than the disk can take."""
        need = sum(file.num_bytes - _size(partial_path(self.blob(file))) for file in files)
        place = next(path for path in (self.folder, *self.folder.parents) if path.exists())
        free = shutil.disk_usage(place).free
        if need > free:
            raise DoesNotFitError(
                f"{self.repo_id} needs {_gigabytes(need)} of disk; {self.root} has {_gigabytes(free)} free",
                hint=f"free some space, or set {self.variable} to a folder on a larger disk",
            )

    @contextmanager
    def locked(self, file: RemoteFile) -> Iterator[None]:
        """Keep other downloads of `file` out, those of huggingface_hub too."""
        from huggingface_hub.utils import WeakFileLock

        lock = self.lock_folder / f"{file.digest}.lock"
        lock.parent.mkdir(parents=True, exist_ok=True)
        with WeakFileLock(lock):
            yield

    def link(self, file: RemoteFile, commit: str) -> None:
        """Show the blob of `file` in the snapshot."""
        blob, pointer = self.blob(file), self.snapshot(commit) / file.name
        pointer.parent.mkdir(parents=True, exist_ok=True)
        pointer.unlink(missing_ok=True)
        try:
            pointer.symlink_to(os.path.relpath(blob, pointer.parent))
        except (OSError, NotImplementedError):
            # Windows and some network disks have no symlinks; huggingface_hub moves the file there as well.
            blob.replace(pointer)

    def point(self, revision: str, commit: str) -> None:
        """Note the commit of `revision` for the time when the hub cannot be asked."""
        ref = self.folder / "refs" / revision
        if COMMIT.fullmatch(revision) or (ref.is_file() and ref.read_text() == commit):
            return
        try:
            ref.parent.mkdir(parents=True, exist_ok=True)
            fresh = ref.with_name(f"{ref.name}.{os.getpid()}.tmp")
            fresh.write_text(commit)
            fresh.replace(ref)
        except OSError as error:
            log.info("cannot note in %s that %s is %s: %s", ref, revision, commit, error.strerror)

    def _commit(self, revision: str) -> str | None:
        if COMMIT.fullmatch(revision):
            return revision
        ref = self.folder / "refs" / revision
        return ref.read_text().strip() if ref.is_file() else None


def wants_gguf(names: Collection[str], wanted: str | None) -> bool:
    """Whether a repository with these files is taken as GGUF: somebody says so, or there is nothing else."""
    return wanted is not None or (
        bool(models_among(names)) and not any(name.endswith(".safetensors") for name in names)
    )


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _gigabytes(num_bytes: int) -> str:
    return f"{num_bytes / 1e9:.1f} GB" if num_bytes >= 1e8 else f"{num_bytes / 1e6:.1f} MB"
