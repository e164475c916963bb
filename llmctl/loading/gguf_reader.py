"""Hands transformers' reader of GGUF what llmctl has read of a file.

The `gguf` package's own reader makes arrays of every token, which takes seconds, and transformers calls it
for the config, for the tokenizer and for the weights.
"""

import contextlib
import functools
import importlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from llmctl.loading.gguf.head import read_gguf
from llmctl.loading.header import TensorEntry

_BOOL, _INT, _FLOAT, _STRING, _ARRAY = 7, 11, 12, 8, 9
_TYPES = {bool: _BOOL, int: _INT, float: _FLOAT, str: _STRING}
"""Of the format's types the widest that mean the same to Python."""
_DTYPES: Mapping[str, Any] = {
    "F16": np.float16,
    "F32": np.float32,
    "F64": np.float64,
    "I8": np.int8,
    "I16": np.int16,
    "I32": np.int32,
    "I64": np.int64,
}
"""Of the types that are no blocks; bfloat16 is bytes to numpy."""


@contextlib.contextmanager
def handed_over(file: Path | None) -> Iterator[None]:
    """Let transformers read GGUF files through one `Reader` each, without a bar; no effect for None."""
    if file is None:
        yield
        return
    package: Any = importlib.import_module("gguf")
    loader: Any = importlib.import_module("transformers.modeling_gguf_pytorch_utils")
    # Its switch for bars does not reach this one.
    own, bar = package.GGUFReader, loader.tqdm
    package.GGUFReader, loader.tqdm = functools.cache(Reader), lambda tensors, **words: tensors
    try:
        yield
    finally:
        package.GGUFReader, loader.tqdm = own, bar


@dataclass(frozen=True, slots=True)
class Field:
    """A value of the head: `types` of the format, and those of `parts` that `data` names."""

    parts: Sequence[Any]
    types: list[int]
    data: range


@dataclass(frozen=True, slots=True)
class Tensor:
    """Name and type of a tensor, and its bytes in the file, shaped as `gguf.dequantize` takes them."""

    name: str
    tensor_type: Any
    data: Any


class Reader:
    """What transformers looks at of a `gguf.GGUFReader`."""

    def __init__(self, path: str) -> None:
        """Raises `BadFileError` as `read_gguf` does."""
        package: Any = importlib.import_module("gguf")
        head = read_gguf(Path(path), keep=None)
        data = np.memmap(path, mode="r")
        self.fields = {key: _field(value) for key, value in head.metadata.items()}
        self.tensors = [
            Tensor(name, package.GGMLQuantizationType[entry.dtype], _shaped(data, entry))
            for name, entry in head.tensors.items()
        ]


def _field(value: Any) -> Field:
    values = value if isinstance(value, list) else [value]
    kinds = [_TYPES[type(each)] for each in values[:1]]
    parts = [each.encode() if isinstance(each, str) else (each,) for each in values]
    return Field(parts, [_ARRAY, *kinds] if isinstance(value, list) else kinds, range(len(parts)))


def _shaped(data: Any, entry: TensorEntry) -> Any:
    raw = data[entry.start : entry.end]
    dtype = _DTYPES.get(entry.dtype)
    if dtype is not None:
        return raw.view(dtype).reshape(entry.shape)
    return raw.reshape(*entry.shape[:-1], -1)
