"""Finds a model by the name that a user gives and says what it is: folder, configuration, weights, sizes.

Reads JSON and the headers of weights only, so it knows a model of any size in a moment and needs no torch.
"""

import difflib
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llmctl.core.errors import BadFileError, NotFoundError, UsageError
from llmctl.core.places import expanded
from llmctl.core.progress import Progress
from llmctl.loading import contents
from llmctl.loading.gguf.head import SUFFIX as GGUF_SUFFIX
from llmctl.loading.gguf.head import read_gguf
from llmctl.loading.gguf.model import check_architecture, config_of
from llmctl.loading.gguf.names import find_gguf, find_tagged, names_in, split_name
from llmctl.loading.header import read_header

if TYPE_CHECKING:
    from llmctl.loading.hub.download import BeforeWeights

_FILE_SUFFIXES = (GGUF_SUFFIX, ".safetensors", ".bin", ".pt", ".pth", ".ckpt", ".json")
_HUB_ID_MAX_SLASHES = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """A model's files, checked to be complete; nothing of the weights is read but their headers."""

    name: str
    """As a user would call it: hub id, embedded model's name or folder's name."""
    folder: Path
    config: Mapping[str, Any]
    """`config.json`, or as much of one as a GGUF file says."""
    generation_config: Mapping[str, Any]
    """`generation_config.json`, empty when there is none."""
    weight_files: tuple[Path, ...]
    """Safetensors files, in order of their names; of a GGUF model its one file."""
    num_bytes: int
    """Weights of all files."""
    bytes_by_dtype: Mapping[str, int]
    """By the type's name in the files: {"BF16": 123}, {"Q4_K": 99, "F32": 1}."""
    num_parameters: int
    """Numbers as they are stored; packed 4-bit weights count by container."""
    revision: str | None = None
    """Asked for by the user."""
    commit: str | None = None
    """Commit of the hub's repository, None for other folders."""
    gguf: Path | None = None
    """The file, in `folder`, of a model that is kept as GGUF."""


def locate(
    model: str, *, revision: str | None, progress: Progress, before_weights: "BeforeWeights | None" = None
) -> Checkpoint:
    """Find `model`: a local folder or GGUF file, else an embedded model, else a repository of the hub.

    What is of the hub is downloaded, unless `before_weights` raises; `owner/name/FILE.gguf` and
    `owner/name:Q4_K_M` are one GGUF file of it. Raises `UsageError` (a revision of something that has none),
    `NotFoundError`, `BadFileError`, and what `hub.download` raises.
    """
    folder = _local_folder(model)
    name = folder.resolve().name.removesuffix(GGUF_SUFFIX) if folder else model
    if folder is None:
        folder = _embedded().get(model)
    if folder is None:
        return download(model, revision=revision, progress=progress, before_weights=before_weights)
    if revision is not None:
        raise UsageError(
            f"--revision {revision} is for models of the hub, and {model} is on this machine",
            hint="leave --revision out",
        )
    return open_folder(folder, name=name)


def download(
    model: str, *, revision: str | None, progress: Progress, before_weights: "BeforeWeights | None" = None
) -> Checkpoint:
    """The model that the hub has by this name, whatever is here by the same; raises as `locate` does."""
    from llmctl.loading.hub import download as hub

    repo_id, wanted = split_name(model)
    found = hub.download(
        repo_id, revision=revision, progress=progress, gguf=wanted, before_weights=before_weights
    )
    commit = found.name if found.is_dir() else found.parent.name
    return open_folder(found, name=model, revision=revision, commit=commit)


def open_folder(
    folder: Path, *, name: str | None = None, revision: str | None = None, commit: str | None = None
) -> Checkpoint:
    """Check that `folder`, which may be a GGUF file too, is a whole model that llmctl can run.

    Raises `BadFileError` naming what is missing or damaged, `AmbiguousError` for several GGUF files.
    """
    file = find_gguf(folder)
    if file is not None:
        return _open_gguf(file, name=name or file.stem, revision=revision, commit=commit)
    names = names_in(folder)
    if contents.CONFIG not in names:
        _refuse_folder(folder, names)
    contents.refuse_unusable(str(folder), names)
    config = contents.read_json(folder / contents.CONFIG)
    files = _weight_files(folder, names)
    bytes_by_dtype: Counter[str] = Counter()
    num_parameters = 0
    for entry in (entry for file in files for entry in read_header(file).values()):
        bytes_by_dtype[entry.dtype] += entry.num_bytes
        num_parameters += entry.num_elements
    return Checkpoint(
        name=name or folder.resolve().name,
        folder=folder,
        config=config,
        generation_config=contents.read_json(folder / "generation_config.json", optional=True),
        weight_files=files,
        num_bytes=bytes_by_dtype.total(),
        bytes_by_dtype=dict(bytes_by_dtype),
        num_parameters=num_parameters,
        revision=revision,
        commit=commit,
    )


def _open_gguf(file: Path, *, name: str, revision: str | None, commit: str | None) -> Checkpoint:
    head = read_gguf(file)
    check_architecture(file, head)
    bytes_by_dtype: Counter[str] = Counter()
    for entry in head.tensors.values():
        bytes_by_dtype[entry.dtype] += entry.num_bytes
    return Checkpoint(
        name=name,
        folder=file.parent,
        config=config_of(head),
        generation_config={},
        weight_files=(file,),
        num_bytes=bytes_by_dtype.total(),
        bytes_by_dtype=dict(bytes_by_dtype),
        num_parameters=sum(entry.num_elements for entry in head.tensors.values()),
        revision=revision,
        commit=commit,
        gguf=file,
    )


def _local_folder(model: str) -> Path | None:
    """The folder or GGUF file that `model` means, or None when it can only be another kind of name."""
    if not model.strip():
        raise UsageError(
            f"a model's name cannot be {model!r}",
            hint="give a folder, `demo`, or a hub id such as Qwen/Qwen3-0.6B",
        )
    path = _path(model)
    if path.is_file():
        if path.suffix == GGUF_SUFFIX:
            return path
        raise BadFileError(
            f"{model} is a file; llmctl needs the folder with {contents.CONFIG} and *.safetensors, or *.gguf",
            hint=f"try {path.parent}" if (path.parent / contents.CONFIG).exists() else None,
        )
    if path.is_dir():
        # A stray folder called `demo` must not hide the embedded model; `./demo` still means the folder.
        is_stray = model in _embedded() and not (path / contents.CONFIG).exists()
        return None if is_stray else path
    if path.exists():
        raise BadFileError(
            f"{model} is a device or pipe, not a model",
            hint=f"give a folder with {contents.CONFIG} and *.safetensors, or a *.gguf file",
        )
    if (tagged := find_tagged(model)) is not None:
        return tagged
    if is_path_like(model) or (model.endswith(GGUF_SUFFIX) and path.parent.is_dir()):
        kind = "file" if model.endswith(GGUF_SUFFIX) else "folder"
        raise NotFoundError(f"no such {kind}: {model}", hint=_sibling_hint(path))
    return None


def _path(model: str) -> Path:
    """`model` as a path that the file system can be asked about, whether it exists or not."""
    try:
        path = expanded(model)
        path.exists()
    except (OSError, RuntimeError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise NotFoundError(f"no model {model!r}: {reason}") from error
    return path


def is_path_like(model: str) -> bool:
    """Whether a name can only be a path: no model of the hub is called like it."""
    if model.startswith((".", "/", "~")) or "\\" in model or "://" in model:
        return True
    is_long = model.endswith(("/", *_FILE_SUFFIXES)) or model.count("/") > _HUB_ID_MAX_SLASHES
    return is_long and split_name(model)[1] is None


def _sibling_hint(path: Path) -> str:
    siblings = names_in(path.parent) if path.parent.is_dir() else []
    near = difflib.get_close_matches(path.name, siblings, n=1)
    if near:
        return f"did you mean {path.parent / near[0]}?"
    return "give a folder, `demo`, or a hub id such as Qwen/Qwen3-0.6B"


def _embedded() -> Mapping[str, Path]:
    from llmctl.demo import MODELS

    return MODELS


def _refuse_folder(folder: Path, names: list[str]) -> None:
    """Say what else a folder without a config may be."""
    if contents.ADAPTER_CONFIG in names:
        base = (
            contents.read_json(folder / contents.ADAPTER_CONFIG).get("base_model_name_or_path") or "not named"
        )
        raise BadFileError(
            f"{folder} is a PEFT adapter, not a model; its base model is {base}",
            hint=f"run {base} for now: adapters come with a later release; or merge the adapter with peft's "
            "merge_and_unload",
        )
    inner = sorted(
        path.parent for glob in ("*", "snapshots/*") for path in folder.glob(f"{glob}/{contents.CONFIG}")
    )
    if inner:
        raise BadFileError(
            f"{folder} is not a model folder: no {contents.CONFIG}", hint=f"did you mean {inner[0]}?"
        )


def _weight_files(folder: Path, names: list[str]) -> tuple[Path, ...]:
    shards = () if contents.SINGLE_FILE in names else contents.indexed_shards(folder)
    missing = [name for name in shards if name not in names]
    if missing:
        raise BadFileError(
            f"{folder} lacks {contents.shown(missing)}, named in {contents.INDEX}",
            hint="finish the download or copy; the other files may stay",
        )
    return tuple(folder / name for name in shards or contents.weight_names(names))
