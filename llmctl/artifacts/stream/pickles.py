"""Weights in torch's pickle files, `pytorch_model*.bin`: read without running what they say.

torch's `weights_only` takes tensors and plain containers alone; the bytes stay in the file until they are
asked for, but for files of torch before 1.6.
"""

import logging
import pickle
import re
import struct
import warnings
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from llmctl.artifacts.stream import bits
from llmctl.core.errors import BadFileError, UsageError
from llmctl.core.places import expanded
from llmctl.core.progress import Progress
from llmctl.demo import MODELS
from llmctl.loading import contents
from llmctl.loading.checkpoint import is_path_like
from llmctl.loading.gguf.names import split_name

log = logging.getLogger(__name__)

SINGLE, INDEX = "pytorch_model.bin", "pytorch_model.bin.index.json"
_SHARD = re.compile(r"pytorch_model-\d+-of-(\d+)\.bin")
_OTHER = re.compile(r"[^/]+\.(?:bin|pt|pth)")
# What torch's own reader comes upon in bytes that are not what they were.
_DAMAGED = (
    *(RuntimeError, EOFError, ValueError, LookupError, OSError, TypeError, AttributeError, ArithmeticError),
    *(AssertionError, struct.error),
)
_FOREIGN = re.compile(r"(?:GLOBAL|class|function) ([\w.]+)")
_MOST_REPEATED_BYTES = 1 << 20
_NO_WEIGHTS = re.compile(r"training_args|optimizer|scheduler|rng_state|adapter_model|consolidated")


@dataclass(frozen=True, slots=True, kw_only=True)
class Pickled:
    """One tensor of a file."""

    name: str
    file: Path
    tensor: Tensor
    """Mapped, not read."""

    def read(self, start: int, end: int) -> Tensor:
        """Bytes of it, uint8 [bytes], in memory of their own."""
        return bits.as_bytes(self.tensor)[start:end].clone()


def weight_names(names: Collection[str]) -> tuple[str, ...]:
    """The pickle files among `names` that make up a model."""
    if SINGLE in names:
        return (SINGLE,)
    shards = tuple(sorted(name for name in names if _SHARD.fullmatch(name)))
    others = (name for name in names if _OTHER.fullmatch(name) and not _NO_WEIGHTS.match(name))
    return shards or tuple(sorted(others))


def wanted_names(names: Collection[str]) -> tuple[str, ...]:
    """What of a repository a model in pickle files is, weights last; empty where it has safetensors."""
    root = [name for name in names if "/" not in name]
    weights = () if contents.weight_names(root) else weight_names(root)
    return (*contents.small_names(root), *weights) if weights else ()


def find(model: str, revision: str | None, progress: Progress) -> Path | None:
    """The folder of a model that is kept in pickle files alone; None for any other."""
    path = expanded(model)
    if path.is_dir():
        names = [each.name for each in path.iterdir() if each.is_file()]
        if not wanted_names(names):
            return None
        refuse_revision(model, revision)
        return path
    if path.exists() or is_path_like(model) or model in MODELS:
        return None
    from llmctl.loading.hub import download as hub

    repo_id, gguf = split_name(model)
    if gguf is not None:
        return None
    folder = hub.download(repo_id, revision=revision, progress=progress, wanted=wanted_names)
    names = [each.name for each in folder.iterdir()] if folder.is_dir() else []
    return folder if wanted_names(names) else None


def refuse_revision(model: str, revision: str | None) -> None:
    """Raise `UsageError` for the revision of a folder, which has none."""
    if revision is not None:
        raise UsageError(
            f"--revision {revision} is for what is on the hub, and {model} is on this machine",
            hint="leave --revision out",
        )


def tensors(folder: Path) -> list[Pickled]:
    """Every tensor of the folder, in order of file and place in it.

    Raises `BadFileError` for files that are missing, damaged, or hold more than tensors.
    """
    names = weight_names([each.name for each in folder.iterdir() if each.is_file()])
    if (folder / INDEX).is_file() and SINGLE not in names:
        names = _indexed(folder, names)
    _check_count(folder, names)
    found: dict[str, Pickled] = {}
    for name in names:
        for each in _of_file(folder / name):
            if each.name in found:
                raise BadFileError(f"{folder} holds {each.name} in more than one of its files")
            found[each.name] = each
    return list(found.values())


def ties(found: Sequence[Pickled]) -> dict[str, str]:
    """Names of tensors that are the same memory as one before, and the name of that one."""
    first: dict[tuple[Any, ...], str] = {}
    tied = {}
    for each in found:
        tensor = each.tensor
        if tensor.numel() == 0:
            continue
        place = (each.file, tensor.data_ptr(), tensor.dtype, tuple(tensor.shape), tensor.stride())
        if first.setdefault(place, each.name) != each.name:
            tied[each.name] = first[place]
    return tied


def _check_count(folder: Path, names: Sequence[str]) -> None:
    """Refuse shards of which some are missing, by their own names."""
    found = _SHARD.fullmatch(names[0]) if names else None
    if found is not None and len(names) != int(found[1]):
        raise BadFileError(
            f"{folder} has {len(names)} of the {int(found[1])} files that {names[0]} tells of",
            hint="finish the download or copy; the other files may stay",
        )


def _indexed(folder: Path, names: Sequence[str]) -> tuple[str, ...]:
    weight_map = contents.read_json(folder / INDEX).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise BadFileError(f"{folder / INDEX} has no weight_map")
    wanted = tuple(sorted({str(file) for file in weight_map.values()}))
    missing = [name for name in wanted if name not in names]
    if missing:
        raise BadFileError(
            f"{folder} lacks {contents.shown(missing)}, named in {INDEX}",
            hint="finish the download or copy; the other files may stay",
        )
    return wanted


def _of_file(file: Path) -> list[Pickled]:
    loaded = _load(file)
    # Some tools wrap the weights, as training frameworks do.
    if isinstance(loaded, dict) and isinstance(loaded.get("state_dict"), dict):
        loaded = loaded["state_dict"]
    if not isinstance(loaded, dict):
        raise BadFileError(f"{file} holds a {type(loaded).__name__}, not tensors by name")
    for name, tensor in loaded.items():
        if not isinstance(tensor, Tensor) or tensor.layout is not torch.strided or tensor.is_quantized:
            raise BadFileError(f"{file}: {name} is no plain tensor")
        if tensor.dtype not in bits.NAMES:
            raise BadFileError(f"{file}: {name} is of the type {tensor.dtype}, which safetensors lacks")
        if tensor.nbytes > max(tensor.untyped_storage().nbytes(), _MOST_REPEATED_BYTES):
            raise BadFileError(f"{file}: {name} is told to be larger than what there is of it")
    return [Pickled(name=str(name), file=file, tensor=tensor) for name, tensor in loaded.items()]


def _load(file: Path) -> Any:
    is_mapped = _is_zip(file)
    try:
        # It warns of what is refused below.
        with warnings.catch_warnings(action="ignore"):
            return torch.load(file, map_location="cpu", weights_only=True, mmap=is_mapped)
    except pickle.UnpicklingError as error:
        raise BadFileError(
            f"{file} holds more than tensors, and reading it could run code{_named(error)}",
            hint="take the model's safetensors",
        ) from error
    except _DAMAGED as error:
        raise BadFileError(
            f"{file} is damaged: {_first_line(error)}", hint="download or copy the file again"
        ) from error


def _is_zip(file: Path) -> bool:
    with file.open("rb") as opened:
        is_zip = opened.read(2) == b"PK"
    if not is_zip:
        log.warning("%s is in the format of torch before 1.6, and is read into memory as a whole", file)
    return is_zip


def _named(error: Exception) -> str:
    """What it holds; the rest of torch's words is advice to trust it."""
    found = _FOREIGN.search(str(error))
    return f": {found[1]}" if found else ""


def _first_line(error: Exception) -> str:
    return (str(error) or type(error).__name__).splitlines()[0]
