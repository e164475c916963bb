"""Turns a model folder into a quantised one, weight by weight; knows no format."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from tests import tiny

Pack = Callable[[str, torch.Tensor], tuple[dict[str, torch.Tensor], torch.Tensor]]
"""From a weight's name and the weight to what is stored for it by name, and what that stands for."""

_DENSE = ("embed", "wte", "wpe", "norm", "ln_", "lm_head", "gate.weight", "router")
_CONV1D = ("c_attn.weight", "c_proj.weight", "c_fc.weight")


def is_linear(name: str, weight: torch.Tensor) -> bool:
    """Whether tools quantise that weight of a checkpoint."""
    return weight.dim() == 2 and name.endswith(".weight") and not any(word in name for word in _DENSE)


def is_conv1d(name: str) -> bool:
    """Whether GPT-2 stores that weight as [K, N]."""
    return name.endswith(_CONV1D)


def rewrite(
    source: Path,
    target: Path,
    pack: Pack,
    quantization_config: dict[str, Any],
    chosen: Callable[[str, torch.Tensor], bool] = is_linear,
) -> dict[str, torch.Tensor]:
    """Write `source` to `target` with the chosen weights packed; all weights that the result stands for."""
    shutil.copytree(source, target)
    stored: dict[str, torch.Tensor] = {}
    dense: dict[str, torch.Tensor] = {}
    for name, tensor in load_file(source / "model.safetensors").items():
        if chosen(name, tensor):
            parts, dense[name] = pack(name, tensor.float())
            stored |= parts
        else:
            stored[name] = dense[name] = tensor
    contiguous = {name: tensor.contiguous() for name, tensor in stored.items()}
    save_file(contiguous, target / "model.safetensors", metadata={"format": "pt"})
    tiny.edit_json(target / "config.json", quantization_config=quantization_config)
    return dense


def read_all(reader: Any, stored: dict[str, torch.Tensor]) -> dict[str, Any]:
    """What a reader makes of the tensors of a checkpoint: its quantised weights by name."""
    parts: dict[str, dict[str, torch.Tensor]] = {}
    for name, tensor in stored.items():
        if part := reader.part(name):
            parts.setdefault(part.weight, {})[part.role] = tensor
    return {weight: reader.decode(weight, by_role, torch.float32) for weight, by_role in parts.items()}


def read_folder(
    folder: Path, open_reader: Callable[..., Any]
) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    """The quantised weights of a folder in float32, [N, K] where not dense, and the others."""
    stored = load_file(folder / "model.safetensors")
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    reader = open_reader(config["quantization_config"], stored)
    quantised = read_all(reader, stored)
    whole = {
        name: weight if isinstance(weight, torch.Tensor) else weight.dequantize()
        for name, weight in quantised.items()
    }
    return whole, {name: tensor for name, tensor in stored.items() if reader.part(name) is None}
