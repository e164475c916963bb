"""Packs weights as GPTQ checkpoints have them, from the description of the format alone, bit by bit.

Nothing here imports llmctl: what these functions write is what its readers are held against.
"""

import json
import re
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

Packed = tuple[dict[str, Tensor], Tensor]
"""Parts by role, and the weight [N, K] in float32 that they stand for exactly."""
LINEARS = re.compile(r"\.(?:[qkvo]_proj|(?:gate|up|down)_proj|w[123]|c_attn|c_proj|c_fc)$")
CONV1D = re.compile(r"\.(?:c_attn|c_proj|c_fc)$")
OLD_3_BITS = (0x24924924, 0x92492492, 0x49249249)


@dataclass(frozen=True, kw_only=True)
class Variant:
    """How a weight is quantised and stored."""

    bits: int = 4
    group_size: int = 32
    sym: bool = True
    desc_act: bool = False
    has_g_idx: bool = True
    is_v2: bool = False
    writer: str = "autogptq"
    """Who lowers the zero points of version 1: "autogptq" each by itself, "gptqmodel" whole words of them but
    for 3 bits, "gptqmodel-old" those too, by the wrong words."""


@dataclass(frozen=True, kw_only=True)
class Numbers:
    """What a weight is quantised to: q [N, K], zero and scale [G, N], and the group of each k."""

    q: np.ndarray
    zero: np.ndarray
    scale: np.ndarray
    g_idx: np.ndarray

    def dense(self) -> Tensor:
        """The weight in float32, number by number."""
        num_rows, num_columns = self.q.shape
        weight = np.zeros((num_rows, num_columns), dtype=np.float32)
        for n in range(num_rows):
            for k in range(num_columns):
                g = self.g_idx[k]
                weight[n, k] = np.float32(int(self.q[n, k]) - int(self.zero[g, n])) * np.float32(
                    self.scale[g, n]
                )
        return torch.from_numpy(weight)


def stream_words(numbers: Sequence[int], bits: int) -> list[int]:
    """Numbers as words of 32 bits, one after the other from the lowest bit on."""
    stream = 0
    for place, number in enumerate(numbers):
        assert 0 <= number < 1 << bits
        stream |= int(number) << place * bits
    num_words = -(-len(numbers) * bits // 32)
    return [stream >> 32 * word & 0xFFFFFFFF for word in range(num_words)]


def int32(words: Sequence[Sequence[int]]) -> Tensor:
    """Unsigned words as the tensor that holds their bits."""
    return torch.from_numpy(np.array(words, dtype=np.uint32).view(np.int32).copy())


def order_of_groups(num_columns: int, variant: Variant, rng: np.random.Generator) -> np.ndarray:
    """The group of each k: in order, or as act-order leaves it."""
    size = num_columns if variant.group_size == -1 else variant.group_size
    groups = np.arange(num_columns) // size
    return rng.permutation(groups) if variant.desc_act else groups


def random_numbers(shape: tuple[int, int], variant: Variant, seed: int = 0) -> Numbers:
    """Any numbers that the format can hold, the lowest and highest zero points among them."""
    num_rows, num_columns = shape
    rng = np.random.default_rng(seed)
    g_idx = order_of_groups(num_columns, variant, rng)
    num_groups = int(g_idx.max()) + 1
    top = 1 << variant.bits
    zero = rng.integers(0, top, (num_groups, num_rows))
    return Numbers(
        q=rng.integers(0, top, shape),
        zero=np.full_like(zero, top // 2) if variant.sym else zero,
        scale=rng.uniform(1e-3, 1.0, (num_groups, num_rows)).astype(np.float16),
        g_idx=g_idx,
    )


def rounded(weight: Tensor, variant: Variant, seed: int = 0) -> Numbers:
    """A weight [N, K] to the nearest numbers."""
    dense = weight.float().numpy()
    num_rows, num_columns = dense.shape
    g_idx = order_of_groups(num_columns, variant, np.random.default_rng(seed))
    num_groups, top = int(g_idx.max()) + 1, (1 << variant.bits) - 1
    zero = np.full((num_groups, num_rows), top // 2 + 1)
    scale = np.ones((num_groups, num_rows), dtype=np.float16)
    for g in range(num_groups):
        group = dense[:, g_idx == g]
        low, high = np.minimum(group.min(1), 0), np.maximum(group.max(1), 0)
        if variant.sym:
            high = np.maximum(-low, high)
            low = -high
        scale[g] = np.maximum((high - low) / top, 1e-4).astype(np.float16)
        if not variant.sym:
            zero[g] = np.clip(np.round(-low / scale[g].astype(np.float32)), 0, top)
    q = np.round(dense / scale.astype(np.float32).T[:, g_idx]) + zero.T[:, g_idx]
    return Numbers(q=np.clip(q, 0, top).astype(np.int64), zero=zero, scale=scale, g_idx=g_idx)


def packed(numbers: Numbers, variant: Variant) -> dict[str, Tensor]:
    """qweight, qzeros, scales and g_idx as a file has them."""
    parts = {
        "qweight": int32([stream_words(row, variant.bits) for row in numbers.q.tolist()]).t().contiguous(),
        "qzeros": int32([zero_words(row, variant) for row in numbers.zero.tolist()]),
        "scales": torch.from_numpy(numbers.scale.copy()),
    }
    if variant.has_g_idx:
        parts["g_idx"] = torch.from_numpy(numbers.g_idx.astype(np.int32))
    return parts


def zero_words(zeros: Sequence[int], variant: Variant) -> list[int]:
    """Zero points of one group as version 1 or 2 stores them."""
    top = (1 << variant.bits) - 1
    if variant.is_v2:
        return stream_words(zeros, variant.bits)
    if variant.writer == "autogptq" or (variant.writer == "gptqmodel" and variant.bits == 3):
        return stream_words([zero - 1 & top for zero in zeros], variant.bits)
    if variant.writer == "gptqmodel-old" and variant.bits == 3:
        ones = [OLD_3_BITS[place % 3] for place in range(-(-len(zeros) * 3 // 32))]
    else:
        ones = stream_words([1] * len(zeros), variant.bits)
    words = stream_words(zeros, variant.bits)
    return [word - one & 0xFFFFFFFF for word, one in zip(words, ones, strict=True)]


def random_layer(shape: tuple[int, int], variant: Variant, seed: int = 0) -> Packed:
    """A weight of any numbers."""
    numbers = random_numbers(shape, variant, seed)
    return packed(numbers, variant), numbers.dense()


def config(variant: Variant, **more: Any) -> dict[str, Any]:
    """The quantization_config of a checkpoint whose weights are all of that variant."""
    makers = {"autogptq": {}, "gptqmodel": {"meta": {"quantizer": ["gptqmodel:4.0.0"]}}}
    return {
        "quant_method": "gptq",
        "bits": variant.bits,
        "group_size": variant.group_size,
        "sym": variant.sym,
        "desc_act": variant.desc_act,
        "checkpoint_format": "gptq_v2" if variant.is_v2 else "gptq",
        "lm_head": False,
        **makers[variant.writer.removesuffix("-old")],
        **more,
    }


def pack_folder(
    source: Path,
    target: Path,
    *,
    dynamic: Mapping[str, Mapping[str, Any]] | None = None,
    is_legacy: bool = False,
    **variant: Any,
) -> dict[str, Tensor]:
    """Write the model of the folder `source` to `target`, its linear layers quantised.

    `variant` are fields of `Variant`, `dynamic` is as in the config, `is_legacy` writes quantize_config.json.
    Gives the dense weights that it stands for, by the names of `source`.
    """
    base = Variant(**variant)
    more = {"dynamic": dynamic} if dynamic else {}

    def pack(module: str, weight: Tensor) -> Packed | None:
        chosen = _variant_of(module, base, dynamic or {})
        if chosen is None:
            return None
        numbers = rounded(weight, chosen, seed=len(module))
        return packed(numbers, chosen), numbers.dense()

    file = "quantize_config.json" if is_legacy else None
    return write_folder(source, target, pack, config(base, **more), file)


def _variant_of(module: str, base: Variant, dynamic: Mapping[str, Mapping[str, Any]]) -> Variant | None:
    for key, values in dynamic.items():
        if key.startswith("-:") and re.match(key[2:], module):
            return None
        if not key.startswith("-:") and re.match(key.removeprefix("+:"), module):
            known = {name: value for name, value in values.items() if name in Variant.__dataclass_fields__}
            return replace(base, **known)
    return base


def write_folder(
    source: Path,
    target: Path,
    pack: Callable[[str, Tensor], Packed | None],
    quantization: Mapping[str, Any],
    own_file: str | None = None,
) -> dict[str, Tensor]:
    """A checkpoint with the linear layers of `source` packed, and the dense weights that it stands for.

    `pack` is given a module's name and its weight [N, K]; None leaves it dense. The config goes into
    config.json, or into a file of its own as old tools have it.
    """
    shutil.copytree(source, target)
    stored: dict[str, Tensor] = {}
    dense: dict[str, Tensor] = load_file(source / "model.safetensors")
    for name, tensor in list(dense.items()):
        module = name.removesuffix(".weight")
        made = None
        if name.endswith(".weight") and tensor.ndim == 2 and LINEARS.search(module):
            # Conv1D has inputs first.
            is_turned = CONV1D.search(module) is not None
            made = pack(module, tensor.t() if is_turned else tensor)
        if made is None:
            stored[name] = tensor
            continue
        parts, weight = made
        stored |= {f"{module}.{role}": part.contiguous() for role, part in parts.items()}
        dense[name] = weight.t().contiguous() if is_turned else weight
    save_file(stored, target / "model.safetensors", metadata={"format": "pt"})
    path = target / (own_file or "config.json")
    values = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    added = dict(quantization) if own_file else {"quantization_config": dict(quantization)}
    path.write_text(json.dumps(values | added), encoding="utf-8")
    return dense
