"""What a delta says of itself, in `llmctl_delta.json` and in the metadata of its safetensors files.

An exact delta has `delta*.safetensors`: for each tensor that differs one of bytes, the coded pieces one
behind the other, whose sizes the metadata tells. An add delta has its differences as a model has weights.
"""

import base64
import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, get_args

import zstandard

from llmctl.artifacts.stream import digests
from llmctl.artifacts.stream.source import Source
from llmctl.core.errors import BadFileError
from llmctl.core.places import expanded
from llmctl.loading import contents

FILE = "llmctl_delta.json"
STEM = "delta"
VERSION = 1
FORMAT = "llmctl-delta"
_MAX_HEADER_BYTES = 100_000_000
"""Of all files of a target together, and of one file of a delta."""
_MAX_REASON = 200
_MAX_NAME, _MAX_SHOWN = 255, 50

Kind = Literal["exact", "add"]
Fate = Literal["same", "changed", "resized", "new", "excluded"]
"""What the target's tensor is to the base's: equal, of the same shape, with other rows, without one, or left
out of the delta and taken as it is in the base."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """One tensor of the target."""

    dtype: str
    shape: tuple[int, ...]
    num_bytes: int
    fate: Fate
    base: str | None = None
    """Digest of the base's tensor by this name; None where it is not needed."""
    target: str | None = None
    """Digest of what comes out."""
    base_rows: int | None = None
    """Of a resized one: how many rows the base has."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TargetFile:
    """One file of the target, so that it comes back as it was to the last byte."""

    name: str
    header: bytes
    """As it stands in the file, its length before it; of the index of several files all of it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """What `FILE` holds."""

    kind: Kind
    base_name: str
    base_digest: str
    """Of all base tensors that are needed."""
    target_name: str
    tensors: Mapping[str, Told]
    """In the target's order."""
    removed: tuple[str, ...] = ()
    """Tensors of the base that the target has not."""
    left_out: tuple[str, ...] = ()
    """Tensors of the target that were excluded and that the base has not."""
    files: tuple[TargetFile, ...] = ()
    """Empty where the target is not of safetensors, or something of it was left out."""
    carried: Mapping[str, str] = field(default_factory=dict)
    """Files that are no weights, with their digests."""
    exclude: tuple[str, ...] = ()
    base_commit: str | None = None
    target_commit: str | None = None

    def as_text(self) -> str:
        """The text of `FILE`."""
        value = {
            "format": FORMAT,
            "version": VERSION,
            **{key: getattr(self, key) for key in self.__slots__ if key not in ("tensors", "files")},
            "files": [{"name": file.name, "header": _packed(file.header)} for file in self.files],
            "tensors": {name: _without_none(asdict(told)) for name, told in self.tensors.items()},
        }
        return json.dumps({**value, "digest": digest_of(value)}, indent=1) + "\n"


def digest_of(value: Mapping[str, Any]) -> str:
    """What tells a manifest that was damaged: a digest of all else in it."""
    return digests.of_text(json.dumps({key: each for key, each in value.items() if key != "digest"}))


def is_delta(folder: Path) -> bool:
    """Whether a folder is a delta of llmctl's."""
    return (folder / FILE).is_file()


def read(folder: Path) -> Manifest:
    """The manifest of a delta. Raises `BadFileError`."""
    path = folder / FILE
    value = contents.read_json(path)
    if value.get("format") != FORMAT:
        raise BadFileError(f"{path} does not say that it is a delta")
    if value.get("version") != VERSION:
        raise BadFileError(
            f"{folder} is a delta of version {value.get('version')}, and this llmctl reads version {VERSION}",
            hint="take a newer llmctl",
        )
    try:
        if value["digest"] != digest_of(value):
            raise ValueError("it is not what it was")
        return _manifest(value)
    except (KeyError, TypeError, ValueError, AttributeError, RecursionError, zstandard.ZstdError) as error:
        raise BadFileError(
            f"{path} is damaged: {str(error)[:_MAX_REASON]}", hint="download or copy the delta again"
        ) from error


def _manifest(value: Mapping[str, Any]) -> Manifest:
    if value["kind"] not in get_args(Kind):
        raise ValueError(f"kind {value['kind']!r}")
    files = tuple((_plain(each["name"]), each["header"]) for each in value["files"])
    if len(dict(files)) != len(files):
        raise ValueError("two files of one name")
    return Manifest(
        kind=value["kind"],
        base_name=_name(value["base_name"]),
        base_digest=str(value["base_digest"]),
        target_name=_name(value["target_name"]),
        tensors={name: _told(each) for name, each in value["tensors"].items()},
        files=_unpacked(files),
        carried={name: str(digest) for name, digest in value["carried"].items()},
        removed=tuple(map(str, value["removed"])),
        left_out=tuple(map(str, value["left_out"])),
        exclude=tuple(map(str, value["exclude"])),
        base_commit=_text_or_none(value["base_commit"]),
        target_commit=_text_or_none(value["target_commit"]),
    )


def name_of(source: Source) -> str:
    """What a model is called in a delta: one line that can be shown, without a machine's own paths."""
    name = source.folder.resolve().name if expanded(source.name).exists() else source.name
    return "".join(each if each.isprintable() else "?" for each in name)[:_MAX_NAME] or "model"


def _name(value: object) -> str:
    # It becomes the name of the model for whoever runs it.
    if not isinstance(value, str) or not value.isprintable() or not 0 < len(value) <= _MAX_NAME:
        raise ValueError(f"{str(value)[:_MAX_SHOWN]!r} is no name of a model")
    return value


def _told(value: Mapping[str, Any]) -> Told:
    told = Told(**{**value, "shape": tuple(value["shape"])})
    rows = () if told.base_rows is None else (told.base_rows,)
    # A bool would pass for a number.
    if not all(type(size) is int and size >= 0 for size in (*told.shape, told.num_bytes, *rows)):
        raise ValueError(f"{told} holds what is no size")
    if told.fate not in get_args(Fate) or not isinstance(told.dtype, str):
        raise ValueError(f"{told} is no fate of a tensor")
    if rows and (told.base is None or not told.shape):
        raise ValueError(f"{told} has rows of no base")
    return replace(told, base=_text_or_none(told.base), target=_text_or_none(told.target))


def _text_or_none(value: object) -> str | None:
    if value is not None and not isinstance(value, str):
        raise ValueError(f"{value!r} is no text")
    return value


def is_plain(name: str) -> bool:
    """Whether a file of weights or an index may be called so: a name that leads nowhere else."""
    is_weight = name.endswith(".safetensors") or name == contents.INDEX
    return is_weight and name.isprintable() and Path(name).name == name


def _plain(name: str) -> str:
    if not is_plain(name):
        raise ValueError(f"file {name!r}")
    return name


def _without_none(value: Mapping[str, Any]) -> dict[str, Any]:
    return {key: each for key, each in value.items() if each is not None}


def _packed(header: bytes) -> str:
    compressor = zstandard.ZstdCompressor(level=9, write_checksum=True)
    return base64.b64encode(compressor.compress(header)).decode()


def _unpacked(files: Iterable[tuple[str, str]]) -> tuple[TargetFile, ...]:
    found, left = [], _MAX_HEADER_BYTES
    for name, text in files:
        data = base64.b64decode(text, validate=True)
        left -= zstandard.frame_content_size(data)
        if left < 0:
            raise ValueError("headers that are too long")
        found.append(TargetFile(name=name, header=zstandard.ZstdDecompressor().decompress(data)))
    return tuple(found)


@dataclass(frozen=True, slots=True, kw_only=True)
class Coded:
    """One tensor of a delta file."""

    name: str
    width: int
    """Bytes of its numbers."""
    sizes: tuple[int, ...]
    """Coded bytes of each piece; 0 where it is as in the base."""

    @property
    def num_bytes(self) -> int:
        """Of all pieces."""
        return sum(self.sizes)


def shard_header(coded: Sequence[Coded]) -> bytes:
    """The JSON of the header of one delta file, whose tensors stand in the order of `coded`."""
    about = {each.name: {"width": each.width, "sizes": each.sizes} for each in coded}
    told = {"format": FORMAT, "version": str(VERSION), "coding": "difference, byte planes, zstandard"}
    entries: dict[str, Any] = {"__metadata__": {**told, "tensors": json.dumps(about, separators=(",", ":"))}}
    end = 0
    for each in coded:
        span = [end, end + each.num_bytes]
        entries[each.name] = {"dtype": "U8", "shape": [each.num_bytes], "data_offsets": span}
        end = span[1]
    return json.dumps(entries, separators=(",", ":")).encode()


def longest_header(coded: Iterable[tuple[str, int, int]], most: int) -> int:
    """Bytes that `shard_header` takes at most, for tensors of (name, width, number of pieces).

    `most` is what the coded bytes of a piece are at most.
    """
    worst = [Coded(name=name, width=width, sizes=(most,) * count) for name, width, count in coded]
    # Digits of the offsets: those of the worst case are as many as any.
    return len(shard_header(worst))


def read_coded(file: Path) -> dict[str, Coded]:
    """What the metadata of a delta file tells. Raises `BadFileError`."""
    try:
        with file.open("rb") as opened:
            size = min(int.from_bytes(opened.read(8), "little"), _MAX_HEADER_BYTES)
            metadata = json.loads(opened.read(size))["__metadata__"]
        about = json.loads(metadata["tensors"])
        return {
            name: Coded(name=name, width=int(each["width"]), sizes=tuple(map(int, each["sizes"])))
            for name, each in about.items()
        }
    except OSError as error:
        raise BadFileError(f"cannot read {file}: {error.strerror}") from error
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError) as error:
        raise BadFileError(
            f"{file} is damaged: its metadata is that of no delta", hint="download or copy the delta again"
        ) from error


def other_files(manifest: Manifest, folder: Path, names: Iterable[str]) -> list[str]:
    """Which of the carried files `names` in `folder` are not what they were. Raises `BadFileError`."""
    found = digests.of_files(folder, names)
    return [name for name, digest in found.items() if digest != manifest.carried[name]]


def counts(manifest: Manifest) -> dict[str, int]:
    """How many tensors of each fate."""
    return dict(Counter(told.fate for told in manifest.tensors.values()))
