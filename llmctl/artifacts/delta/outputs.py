"""The files of weights that an exact delta comes to: those that the target had, or shards of another size."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from llmctl.artifacts.delta.manifest import Manifest, TargetFile
from llmctl.artifacts.delta.opened import Delta
from llmctl.artifacts.stream.writer import MAX_SHARD_BYTES, Layout, Planned, Shard, Step, index_of, split
from llmctl.loading import contents


@dataclass(frozen=True, slots=True, kw_only=True)
class OutFile:
    """One file of weights of the target."""

    name: str
    header: bytes
    """All that stands before the data."""
    num_bytes: int
    tensors: tuple[str, ...]
    shard: Shard | None = None
    """Where the file is not one that the target had."""


def out_files(delta: Delta, max_shard_bytes: int | None) -> list[OutFile]:
    """The files to write; `max_shard_bytes` None means those of the target. Raises `BadFileError`."""
    told = delta.manifest
    if told.files and max_shard_bytes is None:
        outs = [_as_it_was(delta, file) for file in told.files if file.name != contents.INDEX]
        if sorted(name for out in outs for name in out.tensors) != sorted(told.tensors):
            raise delta.damaged("llmctl_delta.json", "its files are not those of its tensors")
        return outs
    return [_out_file(shard) for shard in split(_steps(told), max_bytes=max_shard_bytes or MAX_SHARD_BYTES)]


def indexes(delta: Delta, outs: Sequence[OutFile]) -> Mapping[str, bytes]:
    """The index of several files, by its name."""
    shards = [out.shard for out in outs if out.shard is not None]
    if not shards:
        return {file.name: file.header for file in delta.manifest.files if file.name == contents.INDEX}
    return {contents.INDEX: index_of(shards).encode()} if len(shards) > 1 else {}


def _as_it_was(delta: Delta, file: TargetFile) -> OutFile:
    try:
        entries = json.loads(file.header[8:])
        entries.pop("__metadata__", None)
        shapes = {name: (each["dtype"], tuple(each["shape"])) for name, each in entries.items()}
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise delta.damaged(file.name, "its header is not that of safetensors") from error
    told = delta.manifest.tensors
    if any(name not in told or (told[name].dtype, told[name].shape) != each for name, each in shapes.items()):
        raise delta.damaged(file.name, "its header tells of other tensors")
    # Where they stand is checked when the file is there.
    return OutFile(
        name=file.name,
        header=file.header,
        num_bytes=len(file.header) + sum(told[name].num_bytes for name in shapes),
        tensors=tuple(shapes),
    )


def _steps(told: Manifest) -> list[Step]:
    return [
        Step(
            name=name,
            reads=(),
            writes=(Planned(name=name, dtype=each.dtype, shape=each.shape, size=each.num_bytes),),
        )
        for name, each in told.tensors.items()
    ]


def _out_file(shard: Shard) -> OutFile:
    layout = Layout.of(shard.planned)
    return OutFile(
        name=shard.name,
        header=layout.header,
        num_bytes=layout.num_bytes,
        tensors=tuple(planned.name for planned in shard.planned),
        shard=shard,
    )
