"""Adapters written by hand, without peft, and what stands for a base."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from llmctl.loading import architecture
from llmctl.loading.adapted import skeleton
from llmctl.lora.checkpoint import open_adapter
from llmctl.lora.plan import MergePlan, plan_merge
from tests import tiny

PREFIX = "base_model.model."
Q = "model.layers.{}.self_attn.q_proj"


def numbers(*shape: int, seed: int = 1) -> Tensor:
    """The same small numbers each time."""
    generator = torch.Generator().manual_seed(seed + 31 * len(shape) + sum(shape))
    return torch.randn(shape, generator=generator) * 0.1


def write(folder: Path, tensors: Mapping[str, Tensor], **config: Any) -> Path:
    """An adapter with `tensors` by name without the prefix."""
    folder.mkdir(parents=True, exist_ok=True)
    save_file(
        {f"{PREFIX}{name}": each.contiguous().clone() for name, each in tensors.items()},
        folder / "adapter_model.safetensors",
    )
    values = {"peft_type": "LORA", "r": 4, "lora_alpha": 8, "base_model_name_or_path": "base", **config}
    (folder / "adapter_config.json").write_text(json.dumps(values))
    return folder


def pair(module: str, num_rows: int = 32, num_columns: int = 32, rank: int = 4) -> dict[str, Tensor]:
    """A and B of one layer."""
    seed = len(module)
    return {
        f"{module}.lora_A.weight": numbers(rank, num_columns, seed=seed),
        f"{module}.lora_B.weight": numbers(num_rows, rank, seed=seed + 1),
    }


def queries(**changes: Any) -> dict[str, Tensor]:
    """The queries of both layers of a tiny Llama."""
    return {**pair(Q.format(0), **changes), **pair(Q.format(1), **changes)}


def empty(kind: str = "llama", **changes: Any) -> Any:
    """The model on the meta device."""
    return skeleton(*architecture.model_class(tiny.config(kind, **changes)))


def stored(folder: Path, kind: str = "llama", **changes: Any) -> dict[str, Tensor]:
    """The tensors that a tiny model's folder holds."""
    tiny.model(kind, **changes).save_pretrained(folder)
    return load_file(folder / "model.safetensors")


def planned(adapter: Path, tensors: Mapping[str, Tensor], kind: str = "llama", **changes: Any) -> MergePlan:
    """How an adapter is merged into a tiny model."""
    shapes = {name: tuple(each.shape) for name, each in tensors.items()}
    return plan_merge(open_adapter(adapter), empty(kind, **changes), shapes)


def merged(plan: MergePlan, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """What comes out, in float32."""
    made = {
        name: change.apply(tensors[change.source], torch.float32, name=name)
        for name, change in plan.changes.items()
    }
    return {**tensors, **made}
