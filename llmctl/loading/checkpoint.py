"""Finds a model by the name that a user gives and says what it is: folder, configuration, weights, sizes.

Reads JSON and the headers of weights only, so it knows a model of any size in a moment and needs no torch.
"""

import difflib
import os
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from llmctl.core.errors import BadFileError, NotFoundError, UsageError
from llmctl.core.places import expanded
from llmctl.core.progress import Progress
from llmctl.loading import contents
from llmctl.loading.gguf.head import SUFFIX as GGUF_SUFFIX
from llmctl.loading.gguf.head import read_gguf
from llmctl.loading.gguf.model import check_architecture, config_of
from llmctl.loading.gguf.names import find_gguf, find_tagged, names_in, split_name
from llmctl.loading.header import TensorEntry, read_header
from llmctl.lora.config import read_config

if TYPE_CHECKING:
    from llmctl.loading.hub.download import BeforeWeights
    from llmctl.loading.reading import StoredTensor

_FILE_SUFFIXES = (GGUF_SUFFIX, ".safetensors", ".bin", ".pt", ".pth", ".ckpt", ".json")
_HUB_ID_MAX_SLASHES = 1
_TOKENIZER_FILES = ("tokenizer.json", "tokenizer.model", "vocab.json", "spiece.model")


class Patch(Protocol):
    """Tensors that are made when they are read, in the place of those of the files."""

    @property
    def title(self) -> str:
        """What it is, for users: `the delta vicuna-7b`."""
        ...

    @property
    def notices(self) -> tuple[str, ...]:
        """What a user should know of it."""
        ...

    @property
    def tokenizer_folder(self) -> Path:
        """Where the tokenizer is."""
        ...

    @property
    def entries(self) -> Mapping[str, TensorEntry]:
        """All tensors by name; where they start means nothing."""
        ...

    def tensors(self, on_read: Callable[[int], None]) -> "dict[str, StoredTensor]":
        """What `reading.stored_tensors` gives of files."""
        ...


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
    adapter: Path | None = None
    """The folder of a PEFT adapter upon the model, which all the rest is about but the name."""
    patch: Patch | None = None
    """What makes other tensors of those in `weight_files`; all the rest is about these then."""

    @property
    def title(self) -> str:
        """Its name, and whose it is where somebody else chose it."""
        return self.name if self.patch is None else f"{self.name} ({self.patch.title})"

    def entries(self) -> Iterator[tuple[str, TensorEntry]]:
        """Every tensor and what is known before it is read. Raises `BadFileError` for a damaged header."""
        if self.patch is not None:
            yield from self.patch.entries.items()
        elif self.gguf is not None:
            yield from read_gguf(self.gguf).tensors.items()
        else:
            for file in self.weight_files:
                yield from read_header(file).items()

    @property
    def tokenizer_folder(self) -> Path:
        """Where the tokenizer is: an adapter may come with its own."""
        if self.patch is not None:
            return self.patch.tokenizer_folder
        own = self.adapter
        has_own = own is not None and any((own / name).is_file() for name in _TOKENIZER_FILES)
        return own if own is not None and has_own else self.folder


def locate(
    model: str, *, revision: str | None, progress: Progress, before_weights: "BeforeWeights | None" = None
) -> Checkpoint:
    """Find `model`: a local folder or GGUF file, else an embedded model, else a repository of the hub.

    A PEFT adapter is its base, found in the same way by the name that it gives, with the adapter upon it.
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
    return _whole(folder, progress=progress, before_weights=before_weights, name=name)


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
    return _whole(
        found, progress=progress, before_weights=before_weights, name=model, revision=revision, commit=commit
    )


def _whole(
    folder: Path, *, progress: Progress, before_weights: "BeforeWeights | None", **told: Any
) -> Checkpoint:
    """What `open_folder` makes of the folder, the base of an adapter downloaded if need be."""
    if not is_adapter(folder):
        return open_folder(folder, **told)
    base, revision = base_of(folder)
    found = locate(base, revision=revision, progress=progress, before_weights=before_weights)
    return adapted(folder, found, **told)


def is_adapter(folder: Path) -> bool:
    """Whether a folder or file is the folder of a PEFT adapter."""
    return folder.is_dir() and contents.is_adapter(names_in(folder))


def locate_adapter(model: str, *, progress: Progress) -> Path:
    """The folder of a PEFT adapter that is here or of the hub, downloaded then; its base is not looked at.

    Raises `BadFileError` for what is no adapter, else as `locate` does.
    """
    folder = _local_folder(model)
    if folder is None and model not in _embedded():
        from llmctl.loading.hub import download as hub

        folder = hub.download(model, progress=progress)
    if folder is None or not is_adapter(folder):
        raise BadFileError(
            f"{model} is no LoRA adapter: no {contents.ADAPTER_CONFIG}, or the weights of a whole model",
            hint="give the folder that peft's save_pretrained wrote",
        )
    contents.refuse_unusable(str(folder), names_in(folder))
    return folder


def base_of(folder: Path) -> tuple[str, str | None]:
    """Name or path of an adapter's base, and its revision on the hub. Raises `BadFileError`."""
    config = read_config(folder)
    if config.base is None:
        raise BadFileError(
            f"{folder} is a PEFT adapter, and its {contents.ADAPTER_CONFIG} names no base model",
            hint="write it there as base_model_name_or_path; `llmctl lora merge` takes it as --base",
        )
    if is_adapter(_path(config.base)):
        raise BadFileError(
            f"the base of the adapter {folder}, {config.base}, is an adapter itself",
            hint="merge that one first: llmctl lora merge",
        )
    return config.base, None if _path(config.base).exists() else config.base_revision


def adapted(
    folder: Path,
    base: Checkpoint,
    *,
    name: str | None = None,
    revision: str | None = None,
    commit: str | None = None,
) -> Checkpoint:
    """The adapter in `folder` upon `base`. Raises `BadFileError` where it is not whole, or upon another."""
    contents.refuse_unusable(str(folder), names_in(folder))
    read_config(folder)
    if base.adapter is not None:
        raise BadFileError(
            f"the base of the adapter {folder}, {base.name}, is an adapter itself",
            hint="merge that one first: llmctl lora merge",
        )
    return replace(base, name=name or folder.resolve().name, adapter=folder, revision=revision, commit=commit)


def open_folder(
    folder: Path, *, name: str | None = None, revision: str | None = None, commit: str | None = None
) -> Checkpoint:
    """Check that `folder`, which may be a GGUF file too, is a whole model that llmctl can run.

    Of an adapter the base must be on this machine, or `NotFoundError` is raised. Raises `BadFileError` naming
    what is missing or damaged, `AmbiguousError` for several GGUF files.
    """
    file = find_gguf(folder)
    if file is not None:
        return _open_gguf(file, name=name or file.stem, revision=revision, commit=commit)
    names = names_in(folder)
    if contents.is_adapter(names):
        return adapted(folder, _base_here(folder), name=name, revision=revision, commit=commit)
    if contents.CONFIG not in names:
        _refuse_folder(folder)
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


def _base_here(folder: Path) -> Checkpoint:
    """The base of an adapter, which is not downloaded for this."""
    from llmctl.loading.hub.local_models import find_here

    base, revision = base_of(folder)
    found = find_here(base, os.environ, revision=revision)
    if found is None:
        flag = f" --revision {revision}" if revision else ""
        raise NotFoundError(
            f"the base of the adapter {folder}, {base}, is not on this machine",
            hint=f"download it first: llmctl models pull {base}{flag}",
        )
    return open_folder(found, name=base)


def _refuse_folder(folder: Path) -> None:
    """Say what else a folder without a config may be."""
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
