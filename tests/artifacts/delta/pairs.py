"""Random checkpoints and what a careless tool could do to them."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from torch import Tensor

DTYPES = (
    *(torch.float64, torch.float32, torch.float16, torch.bfloat16),
    *(torch.float8_e4m3fn, torch.float8_e5m2, torch.float8_e8m0fnu, torch.complex64),
    *(torch.uint64, torch.uint32, torch.uint16),
    *(torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8, torch.bool),
)
NAMES = ("model.embed.weight", "lm_head.weight", "a/b c", "ü.\u4e2d\u6587", 'quote"\\', "0", "x" * 300, "..")


def write(folder: Path, tensors: Mapping[str, Tensor], *, shards: int = 1, config: str = "{}") -> Path:
    """A model folder of these tensors in so many files."""
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(config)
    (folder / "tokenizer.json").write_text('{"version": "1.0"}')
    names = list(tensors)
    if shards == 1:
        save_file(dict(tensors), folder / "model.safetensors", metadata={"format": "pt"})
        return folder
    weight_map = {}
    for number in range(shards):
        file = f"model-{number + 1:05}-of-{shards:05}.safetensors"
        own = {name: tensors[name] for name in names[number::shards]}
        save_file(own, folder / file)
        weight_map |= dict.fromkeys(own, file)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    return folder


def bits_of(folder: Path) -> dict[str, tuple[str, tuple[int, ...], bytes]]:
    """Every tensor as type, shape and bytes."""
    found = {name: t for file in sorted(folder.glob("*.safetensors")) for name, t in load_file(file).items()}
    return {
        name: (str(t.dtype), tuple(t.shape), bytes(t.reshape(-1).view(torch.uint8).tolist()))
        for name, t in found.items()
    }


def hashes_of(folder: Path) -> dict[str, str]:
    """Every file with its hash."""
    return {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.iterdir())
        if path.is_file()
    }


@st.composite
def tensors(draw: st.DrawFn, shape: Sequence[int] | None = None, dtype: torch.dtype | None = None) -> Tensor:
    """Any bits at all: NaN, infinities and subnormals among them."""
    if shape is None:
        shape = draw(st.lists(st.integers(0, 5), max_size=3))
    kind = dtype or draw(st.sampled_from(DTYPES))
    count = kind.itemsize
    for size in shape:
        count *= size
    raw = draw(st.binary(min_size=count, max_size=count))
    if kind is torch.bool:
        raw = bytes(byte & 1 for byte in raw)
    if not raw:
        return torch.empty(*shape, dtype=kind)
    return torch.frombuffer(bytearray(raw), dtype=torch.uint8).view(kind).reshape(tuple(shape))


@st.composite
def models(draw: st.DrawFn) -> dict[str, Tensor]:
    """A few tensors by odd names."""
    names = draw(st.lists(st.sampled_from(NAMES), min_size=1, max_size=5, unique=True))
    return {name: draw(tensors()) for name in names}


@st.composite
def changed(draw: st.DrawFn, model: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A model with some tensors equal, others changed, resized, missing or new."""
    found: dict[str, Tensor] = {}
    for name, tensor in model.items():
        fate = draw(st.sampled_from(("same", "bits", "rows", "other", "gone")))
        if fate == "same":
            found[name] = tensor
        elif fate == "bits":
            found[name] = draw(tensors(tuple(tensor.shape), tensor.dtype))
        elif fate == "rows" and tensor.dim():
            rows = draw(st.integers(0, 7))
            found[name] = draw(tensors((rows, *tensor.shape[1:]), tensor.dtype))
            common = min(rows, tensor.shape[0])
            found[name][:common] = tensor[:common]
        elif fate == "other":
            found[name] = draw(tensors())
    return found | ({} if found and draw(st.booleans()) else {"new": draw(tensors())})
