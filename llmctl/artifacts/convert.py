"""The same weights in other numbers, other files or another format of files: `llmctl models convert`.

Pickle files become safetensors on the way, without running what they say.
"""

import logging
import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
import transformers
from torch import Tensor

from llmctl.artifacts.stream.carry import Carried, carried, tell_lacking
from llmctl.artifacts.stream.config import with_dtype
from llmctl.artifacts.stream.job import Job, check_target, key_of
from llmctl.artifacts.stream.source import Source
from llmctl.artifacts.stream.walk import Made, transform
from llmctl.artifacts.stream.writer import MAX_SHARD_BYTES, Planned, Shard, Step, split
from llmctl.core.errors import BadFileError, UsageError
from llmctl.core.progress import Progress
from llmctl.loading import contents
from llmctl.loading.facts.quantisation import settings_of

log = logging.getLogger(__name__)

DTYPES: Mapping[str, str] = {"float32": "F32", "bfloat16": "BF16", "float16": "F16"}
_FLOATS = ("F64", "F32", "F16", "BF16")
# What transformers joins to the table of tokens when it loads: heads, and tables of other parts.
_HEAD = re.compile(r"(?:^|\.)(?:lm_head|embed_out|output|decoder|cls\.predictions\.decoder)\.weight$")
_TABLE = re.compile(r"(?:^|\.)(?:embed_tokens|wte|word_embeddings|embed_in|shared|embeddings)\.weight$")
_ROOMIER = {
    "float16": "take --dtype bfloat16 or float32",
    "bfloat16": "take --dtype float32",
    "float32": "leave --dtype out",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class ConvertRequest:
    """One checkpoint to be converted."""

    model: str
    target: Path
    dtype: str | None = None
    """A key of `DTYPES`; None: numbers stay bit for bit."""
    max_shard_bytes: int = MAX_SHARD_BYTES
    revision: str | None = None
    overwrite: bool = False
    is_dry: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Converted:
    """What became of it, or would."""

    name: str
    target: Path
    dtype: str | None
    bytes_before: int
    bytes_after: int
    num_files: int
    """Of weights."""
    num_cast: int
    """Tensors whose numbers are of another type now."""
    joined: Mapping[str, str]
    """Tensors that are left out because they are another one, whose name it gives."""
    carried: tuple[str, ...]
    seconds: float | None = None
    """None where nothing was done."""

    def as_dict(self) -> dict[str, Any]:
        """For `--json`."""
        return {
            "name": self.name,
            "out": str(self.target),
            "dtype": self.dtype,
            "bytes_before": self.bytes_before,
            "bytes_after": self.bytes_after,
            "files": self.num_files,
            "cast_tensors": self.num_cast,
            "joined": dict(self.joined),
            "carried": list(self.carried),
            "seconds": self.seconds,
        }


def convert(request: ConvertRequest, progress: Progress) -> Converted:
    """Write the checkpoint to `request.target`; with `is_dry` only say what would come of it.

    Raises `UsageError` for a dtype that is none or does not suit the weights, what `Source.open` and
    `stream.job` raise, and `BadFileError` for numbers that are too large for the dtype.
    """
    if request.dtype is not None and request.dtype not in DTYPES:
        raise UsageError(f"--dtype must be one of {', '.join(DTYPES)}, not {request.dtype!r}")
    source = Source.open(request.model, revision=request.revision, progress=progress, takes_pickles=True)
    check_target(request.target, overwrite=request.overwrite, sources=[source])
    _refuse_quantised(source, request.dtype)
    joined = _joined(source)
    steps = [_step(source, name, request.dtype) for name in source.names if name not in joined]
    shards = split(steps, max_bytes=request.max_shard_bytes)
    files = carried(source.folder, without=(contents.CONFIG,))
    tell_lacking(source.name, source.folder, files, source.files)
    result = Converted(
        name=source.name,
        target=request.target,
        dtype=request.dtype,
        bytes_before=source.num_bytes,
        bytes_after=sum(shard.num_bytes for shard in shards),
        num_files=len(shards),
        num_cast=sum(step.writes[0].dtype != source.entry(step.name).dtype for step in steps),
        joined=joined,
        carried=tuple(each.name for each in files),
    )
    return result if request.is_dry else _written(request, source, (shards, files), result, progress)


def _written(
    request: ConvertRequest,
    source: Source,
    parts: tuple[Sequence[Shard], Sequence[Carried]],
    result: Converted,
    progress: Progress,
) -> Converted:
    started = time.monotonic()
    shards, files = parts
    job = Job(
        request.target,
        key=key_of("convert", {"dtype": request.dtype, "max": request.max_shard_bytes}, [source]),
        sources=[source],
        num_bytes=result.bytes_after + sum(each.num_bytes for each in files),
        progress=progress,
        overwrite=request.overwrite,
    )
    with job:
        transform(shards, [source], _computing(source, request.dtype), job)
        job.carry(files)
        if source.config:
            config = source.config if request.dtype is None else with_dtype(source.config, request.dtype)
            job.write_json(contents.CONFIG, config)
        job.finish()
    return replace(result, seconds=round(time.monotonic() - started, 1))


def _refuse_quantised(source: Source, dtype: str | None) -> None:
    if dtype is not None and settings_of(source.config, source.folder) is not None:
        raise UsageError(
            f"{source.name} is quantised: its scales and packed numbers have the types that they need",
            hint="leave --dtype out; without it the weights are only put into other files",
        )


def _step(source: Source, name: str, dtype: str | None) -> Step:
    entry = source.entry(name)
    written = DTYPES[dtype] if dtype is not None and entry.dtype in _FLOATS else entry.dtype
    planned = Planned(name=name, dtype=written, shape=entry.shape)
    return Step(name=name, reads=((0, name),), writes=(planned,))


def _computing(source: Source, dtype: str | None) -> Callable[[Step, Sequence[Tensor]], Made]:
    def compute(step: Step, tensors: Sequence[Tensor]) -> Made:
        (tensor,) = tensors
        if dtype is None or step.writes[0].dtype == source.entry(step.name).dtype:
            return Made(tensors=[tensor])
        cast = tensor.to(getattr(torch, dtype))
        # Infinite before is infinite after; what was finite must stay so.
        if bool(cast.isinf().any()) and int(cast.isinf().sum()) > int(tensor.isinf().sum()):
            raise BadFileError(
                f"{step.name} of {source.name} holds numbers that are too large for {dtype}",
                hint=_ROOMIER[dtype],
            )
        return Made(tensors=[cast])

    return compute


def _joined(source: Source) -> dict[str, str]:
    """Tensors that are the same memory as another, and that transformers joins by itself when it loads."""
    if not source.ties or not _ties_tables(source.folder):
        return {}
    groups: dict[str, list[str]] = {}
    for name, first in source.ties.items():
        groups.setdefault(first, [first]).append(name)
    joined: dict[str, str] = {}
    for names in groups.values():
        known = [name for name in names if _HEAD.search(name) or _TABLE.search(name)]
        # A head is made of the table, not the other way around.
        tables = [name for name in known if not _HEAD.search(name)]
        if len(known) == len(names) and tables:
            joined |= {name: tables[0] for name in names if name != tables[0]}
    return joined


def _ties_tables(folder: Path) -> bool:
    try:
        config = transformers.AutoConfig.from_pretrained(folder, local_files_only=True)
    except (OSError, ValueError):
        # Nobody knows; a copy too many does no harm.
        return False
    return bool(getattr(config.get_text_config(), "tie_word_embeddings", False))
