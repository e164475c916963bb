"""Opens a PEFT adapter's folder: which tensors it holds, and for which module. Numbers are read later.

What becomes of them is the business of `resolve`, which knows the base model.
"""

import pickle
import re
import struct
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from llmctl.core.errors import BadFileError
from llmctl.lora.config import SAFETENSORS, WEIGHTS, AdapterConfig, read_config

_PREFIX = "base_model.model."
_WRAPPED = ".base_layer"
# A name of the adapter stands in some files, as PEFT has it in memory: lora_A.default.weight.
_LOW_RANK = re.compile(
    r"(?P<module>.+?)\.(?:"
    r"lora_(?P<matrix>[AB])(?:\.(?P<name>[^.]+))?\.(?P<kind>weight|bias)"
    r"|lora_embedding_(?P<table>[AB])(?:\.[^.]+)?"
    r"|(?P<magnitude>lora_magnitude_vector)(?:\.[^.]+)*"
    r")"
)
_TOKENS = re.compile(r"(?P<module>.+)\.token_adapter\.trainable_tokens_delta(?:\.[^.]+)?")
_SAVED = re.compile(r"(?P<module>.+)\.modules_to_save(?:\.(?!weight$|bias$)[^.]+)?\.(?P<own>.+)")
# A copy of the base's, and what VeLoRA needs while it trains alone: it is merged as plain LoRA is.
_NO_SAY = re.compile(r".+\.original_module\..+|.+\.lora_velora_embed(?:\..+)?")
_DTYPES: Mapping[str, torch.dtype] = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
}
_PIECE = 1 << 22
"""Numbers that are looked at together."""
_NO_PICKLE = (RuntimeError, OSError, ValueError, EOFError, struct.error, pickle.UnpicklingError)
"""What torch raises over a file of an older kind."""
_FOREIGN = re.compile(r"GLOBAL ([\w.]+)")
_AGAIN = "download or copy the adapter again"
_OTHER_KIND = "use it unmerged, with peft"


@dataclass(frozen=True, slots=True, kw_only=True)
class AdapterTensor:
    """One tensor of an adapter's file."""

    name: str
    """As the file has it."""
    shape: tuple[int, ...]
    dtype: torch.dtype
    load: Callable[[], Tensor]

    def read(self) -> Tensor:
        """The numbers, in the type of the file.

        Raises `BadFileError` for NaN and infinities: an adapter with such numbers is broken.
        """
        tensor = self.load()
        # By pieces: to look at all at once takes twice its memory again.
        if not all(bool(piece.isfinite().all()) for piece in torch.split(tensor.flatten(), _PIECE)):
            raise BadFileError(
                f"the adapter's tensor {self.name} holds numbers that are NaN or infinite",
                hint="its training went wrong: take an earlier checkpoint of it",
            )
        return tensor


@dataclass(frozen=True, slots=True, kw_only=True)
class LowRank:
    """The matrices of one module, or of one parameter of it."""

    a: AdapterTensor
    """Of a layer [r, K], of a table of tokens [r, V], of experts [E * r, K]."""
    b: AdapterTensor
    """Of a layer [N, r], of a table [H, r], of experts [N, r * E]."""
    bias: AdapterTensor | None = None
    magnitude: AdapterTensor | None = None
    is_table: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Adapter:
    """An adapter's files, each tensor by what it is; names of modules are those that PEFT saw in the base."""

    folder: Path
    config: AdapterConfig
    low_rank: Mapping[tuple[str, int], LowRank] = field(default_factory=dict)
    """By module and how deep PEFT wrapped it, 0 on the outside: one parameter of the module each."""
    full: Mapping[str, AdapterTensor] = field(default_factory=dict)
    """Whole parameters by name: `modules_to_save`, biases, tables that were saved along."""
    in_place: frozenset[str] = frozenset()
    """Those of `full` that PEFT writes into the base's own parameter, whoever shares it."""
    tokens: Mapping[str, AdapterTensor] = field(default_factory=dict)
    """Rows of tables by module."""
    notices: tuple[str, ...] = ()
    """What a user should know of the files."""

    @property
    def name(self) -> str:
        """For messages."""
        return self.folder.name


def open_adapter(folder: Path) -> Adapter:
    """The adapter in `folder`.

    Raises `BadFileError` for a configuration that cannot be honoured, files that are missing or damaged, and
    tensors that are no LoRA's.
    """
    config = read_config(folder)
    file = next((folder / name for name in WEIGHTS if (folder / name).is_file()), None)
    if file is None:
        raise BadFileError(
            f"{folder} has an adapter_config.json and no weights: {SAFETENSORS} is missing",
            hint="copy or download the whole adapter",
        )
    tensors = _read_safetensors(file) if file.name == SAFETENSORS else _read_pickle(file)
    sorted_out = _Sorted(file)
    for tensor in tensors:
        sorted_out.take(tensor)
    return Adapter(
        folder=folder,
        config=config,
        low_rank=dict(sorted_out.low_rank()),
        full=sorted_out.full,
        in_place=frozenset(sorted_out.in_place),
        tokens=sorted_out.tokens,
        notices=tuple(_unprefixed([tensor.name for tensor in tensors])),
    )


def _unprefixed(names: list[str]) -> Iterator[str]:
    """The notice of names that PEFT would not take for an adapter's."""
    if without := [name for name in names if not name.startswith(_PREFIX)]:
        yield (
            f"{without[0]} and {len(without) - 1} more tensors of the adapter lack {_PREFIX!r} before their "
            "names: llmctl takes them as if they had it, peft loads none of them"
        )


class _Sorted:
    """Sorts tensors out by their names."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._parts: dict[tuple[str, int], dict[str, AdapterTensor]] = {}
        self._names: set[str] = set()
        self.full: dict[str, AdapterTensor] = {}
        self.in_place: set[str] = set()
        self.tokens: dict[str, AdapterTensor] = {}

    def take(self, tensor: AdapterTensor) -> None:
        """Put one where it belongs. Raises `BadFileError` for one that is no LoRA's."""
        name = tensor.name.removeprefix(_PREFIX)
        if _NO_SAY.fullmatch(name):
            return
        if found := _LOW_RANK.fullmatch(name):
            self._take_low_rank(tensor, found)
        elif found := _TOKENS.fullmatch(name):
            self._put(self.tokens, _inside(found["module"]), tensor)
        elif found := _SAVED.fullmatch(name):
            self._put(self.full, f"{found['module']}.{found['own']}", tensor)
        elif ".lora_" in name or ".token_adapter." in name:
            raise BadFileError(
                f"{self._file}: {tensor.name} is a tensor of a variant of LoRA that llmctl does not know",
                hint=_OTHER_KIND,
            )
        else:
            plain = name.replace(_WRAPPED, "")
            self._put(self.full, plain, tensor)
            if name.rpartition(".")[0].endswith(_WRAPPED):
                self.in_place.add(plain)

    def low_rank(self) -> Iterator[tuple[tuple[str, int], LowRank]]:
        """The matrices by module. Raises `BadFileError` for one without the other."""
        for (module, depth), parts in self._parts.items():
            is_table = "table A" in parts or "table B" in parts
            kinds = ("table A", "table B") if is_table else ("A", "B")
            missing = [kind for kind in kinds if kind not in parts]
            if missing:
                there = next(iter(parts.values())).name
                raise BadFileError(
                    f"{self._file} has {there} and lacks the matrix {missing[0][-1]} of {module}",
                    hint="the adapter was not saved as a whole",
                )
            a, b = (parts[kind] for kind in kinds)
            if len(a.shape) != 2 or len(b.shape) != 2:
                raise BadFileError(
                    f"{self._file}: {a.name} is {list(a.shape)} and {b.name} {list(b.shape)}; llmctl merges "
                    "matrices, which those of convolutions and of unfinished saves are not",
                    hint=_OTHER_KIND,
                )
            magnitude = parts.get("magnitude")
            yield (
                (module, depth),
                LowRank(a=a, b=b, bias=parts.get("bias"), magnitude=magnitude, is_table=is_table),
            )

    def _take_low_rank(self, tensor: AdapterTensor, found: re.Match[str]) -> None:
        module, depth = found["module"], 0
        while module.endswith(_WRAPPED):
            module, depth = module.removesuffix(_WRAPPED), depth + 1
        module = _inside(module)
        if found["kind"] == "bias":
            if found["matrix"] == "A":
                raise BadFileError(
                    f"{self._file}: {tensor.name} is the bias of a matrix that has none", hint=_AGAIN
                )
            part = "bias"
        elif found["matrix"]:
            part = found["matrix"]
        else:
            part = f"table {found['table']}" if found["table"] else "magnitude"
        self._names.add(found["name"] or "")
        if len(self._names - {""}) > 1:
            raise BadFileError(
                f"{self._file} holds several adapters: {', '.join(sorted(self._names - {''}))}",
                hint="save each of them for itself",
            )
        self._put(self._parts.setdefault((module, depth), {}), part, tensor)

    def _put(self, where: dict[str, AdapterTensor], key: str, tensor: AdapterTensor) -> None:
        # PEFT saves a bias of a module in modules_to_save once more for bias="all".
        if key in where and not _is_same(where[key], tensor):
            raise BadFileError(
                f"{self._file} holds both {where[key].name} and {tensor.name}, which are one and differ",
                hint="save the adapter again with peft",
            )
        where[key] = tensor


def _inside(module: str) -> str:
    """The name without what PEFT wraps the modules in that it is part of (`target_parameters`)."""
    return module.replace(f"{_WRAPPED}.", ".")


def _is_same(one: AdapterTensor, other: AdapterTensor) -> bool:
    return one.shape == other.shape and torch.equal(one.read(), other.read())


def _read_safetensors(file: Path) -> list[AdapterTensor]:
    try:
        with safe_open(file, framework="pt") as opened:
            return [
                AdapterTensor(
                    name=name,
                    shape=tuple(opened.get_slice(name).get_shape()),
                    dtype=_dtype(file, name, opened),
                    load=_Slice(file, name),
                )
                for name in opened.keys()  # noqa: SIM118 - it is no mapping
            ]
    except (SafetensorError, OSError) as error:
        raise _damaged(file, error) from error


@dataclass(frozen=True, slots=True)
class _Slice:
    """Reads one tensor of a safetensors file."""

    file: Path
    name: str

    def __call__(self) -> Tensor:
        try:
            with safe_open(self.file, framework="pt") as opened:
                tensor: Tensor = opened.get_tensor(self.name)
                return tensor
        except (SafetensorError, OSError) as error:
            raise _damaged(self.file, error) from error


def _dtype(file: Path, name: str, opened: Any) -> torch.dtype:
    told = opened.get_slice(name).get_dtype()
    if told not in _DTYPES:
        raise _no_float(file, name, told)
    return _DTYPES[told]


def _no_float(file: Path, name: str, dtype: str) -> BadFileError:
    return BadFileError(
        f"{file}: {name} is of the type {dtype}, and an adapter has {', '.join(_DTYPES)}",
        hint="take the adapter as it was trained, not quantised",
    )


def _read_pickle(file: Path) -> list[AdapterTensor]:
    """Tensors of an older file, mapped; nothing else in it is made."""
    try:
        loaded: Any = torch.load(file, map_location="cpu", weights_only=True, mmap=True)
    except _NO_PICKLE as error:
        # Files from before torch 1.6 cannot be mapped.
        loaded = _unmapped(file, error)
    if not isinstance(loaded, Mapping) or not all(_is_plain(each) for each in loaded.values()):
        raise BadFileError(f"{file} holds something else than tensors by name", hint=_AGAIN)
    for name, each in loaded.items():
        if each.dtype not in _DTYPES.values():
            raise _no_float(file, str(name), str(each.dtype).removeprefix("torch."))
    return [
        AdapterTensor(name=str(name), shape=tuple(each.shape), dtype=each.dtype, load=_Kept(each.detach()))
        for name, each in loaded.items()
    ]


def _is_plain(value: Any) -> bool:
    return isinstance(value, Tensor) and value.layout is torch.strided and not value.is_meta


def _unmapped(file: Path, reason: Exception) -> Any:
    if "mmap can only be used" not in str(reason):
        raise _unpickled(file, reason) from reason
    try:
        return torch.load(file, map_location="cpu", weights_only=True)
    except _NO_PICKLE as error:
        raise _unpickled(file, error) from error


def _unpickled(file: Path, error: Exception) -> BadFileError:
    """The refusal; torch's own would advise to run what is in there."""
    if not isinstance(error, pickle.UnpicklingError):
        return _damaged(file, error)
    if foreign := _FOREIGN.search(str(error)):
        return BadFileError(
            f"{file} holds something else than tensors, {foreign[1]}, and llmctl loads nothing but tensors",
            hint="save the adapter again with peft, which writes safetensors",
        )
    return BadFileError(f"{file} does not load: it is no file of tensors", hint=_AGAIN)


@dataclass(frozen=True, slots=True)
class _Kept:
    tensor: Tensor

    def __call__(self) -> Tensor:
        return self.tensor


def _damaged(file: Path, error: Exception) -> BadFileError:
    first = (str(error).splitlines() or [type(error).__name__])[0]
    return BadFileError(f"{file} does not load: {first}", hint=_AGAIN)
