"""What of a checkpoint is no weight and goes along: configuration, tokenizer, templates, licence, code."""

import logging
import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

from llmctl.core.errors import BadFileError
from llmctl.loading import contents

log = logging.getLogger(__name__)

_WEIGHTS = (".safetensors", ".bin", ".pt", ".pth", ".ckpt", ".gguf", ".h5", ".msgpack", ".onnx")
_INDEX = ".index.json"
_UNWANTED = re.compile(r"(?:^|/)(?:\.|__pycache__/)")


@dataclass(frozen=True, slots=True, kw_only=True)
class Carried:
    """A file that is copied."""

    name: str
    """In the folder, with `/` between parts."""
    path: Path
    num_bytes: int

    @property
    def elsewhere(self) -> Path | None:
        """Where a link leads out of the folder; those of the hub's cache lead to its own files."""
        if not self.path.is_symlink():
            return None
        place = self.path.resolve()
        folder = self.path.parents[self.name.count("/")].resolve()
        is_own = folder in place.parents or folder.parent.parent / "blobs" in place.parents
        return None if is_own else place


def carried(folder: Path, *, without: Collection[str] = ()) -> tuple[Carried, ...]:
    """Every file of `folder` that is no weight and not called as one of `without`, sorted by name.

    Hidden files stay behind, and folders with weights of their own, which are other checkpoints, but for the
    modules of sentence-transformers. Raises `BadFileError` for links that lead nowhere.
    """
    paths = {path.relative_to(folder).as_posix(): path for path in folder.rglob("*") if not path.is_dir()}
    names = {name for name in paths if not _UNWANTED.search(name)}
    # A module's own weights are small, and nobody else carries them.
    modules = set(contents.module_names(names))
    others = {name.split("/")[0] for name in names - modules if "/" in name and is_weight(name)}
    wanted = {
        name
        for name in names
        if not is_weight(name) and ("/" not in name or name.split("/")[0] not in others)
    }
    return tuple(_carried(name, paths[name]) for name in sorted((wanted | modules) - set(without)))


def left_behind(folder: Path, read: Collection[Path]) -> tuple[str, ...]:
    """A word about files that are neither carried nor weights that were `read`; empty if there are none."""
    along = {each.name for each in carried(folder)} | {path.name for path in read}
    names = (path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    left = [
        name
        for name in names
        if name not in along and not _UNWANTED.search(name) and not name.endswith(_INDEX)
    ]
    return (f"left behind, as weights that are not read: {contents.shown(left)}",) if left else ()


def tell_lacking(name: str, folder: Path, files: Sequence[Carried], read: Collection[Path]) -> None:
    """Say what of the model `name` the result will not have, beside the weights that are `read`."""
    if not has_tokenizer([each.name for each in files]):
        log.warning("%s has no tokenizer, and so has what becomes of it", name)
    for notice in left_behind(folder, read):
        log.warning("%s: %s", name, notice)


def _carried(name: str, path: Path) -> Carried:
    if not path.is_file():
        raise BadFileError(
            f"{path} is no file, or a link to none", hint="download or copy the folder again, or remove it"
        )
    return Carried(name=name, path=path, num_bytes=path.stat().st_size)


def is_weight(name: str) -> bool:
    """Whether a file of this name holds weights, or tells where they are."""
    return name.endswith((*_WEIGHTS, _INDEX))


def has_tokenizer(names: Collection[str]) -> bool:
    """Whether a folder with these files can turn text into tokens."""
    return any(
        name.startswith(("tokenizer", "vocab")) or name.endswith((".model", ".tiktoken")) for name in names
    )
