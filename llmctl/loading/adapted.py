"""A base model and a LoRA adapter upon it, loaded as one: tensors are merged when read, before packing.

What the adapter means is the business of `lora`; where base and adapter are found that of `checkpoint`.
"""

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from llmctl.core.errors import BadFileError
from llmctl.loading.checkpoint import Checkpoint
from llmctl.loading.reading import StoredTensor
from llmctl.lora.checkpoint import open_adapter
from llmctl.lora.places import Names
from llmctl.lora.plan import Change, MergePlan, plan_merge
from llmctl.lora.resolve import resolve
from llmctl.lora.updates import WHOLE, apply_all
from llmctl.quant.formats.base import Part, Reader

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class MergedTensor:
    """One tensor of the merged model; `merged[...]` reads what it is made of."""

    name: str
    source: Any
    """What `merged[...]` reads of the base: a tensor, or one that will be decoded."""
    change: Change
    dtype: torch.dtype

    def __getitem__(self, index: Any) -> Tensor:
        """The tensor in the type that the model computes in. Raises `BadFileError`."""
        return self.change.apply(self.source[...], self.dtype, name=self.name)


class DenseReader:
    """A reader whose weights come out dense: what is merged cannot be packed as the files have it."""

    gives_quantised = False

    def __init__(self, reader: Reader) -> None:
        self._reader = reader
        self.title = reader.title

    def part(self, tensor: str) -> Part | None:
        """As the reader."""
        return self._reader.part(tensor)

    def decode(self, weight: str, parts: Mapping[str, Tensor], dtype: torch.dtype) -> Tensor:
        """The weight in `dtype`."""
        found = self._reader.decode(weight, parts, dtype)
        return found if isinstance(found, Tensor) else found.dequantize(dtype)


def skeleton(model_class: Any, config: Any) -> Any:
    """The model without numbers. Raises `BadFileError`."""
    with torch.device("meta"):
        return model_class(config)


def plan_for(checkpoint: Checkpoint, model: Any, tensors: Mapping[str, tuple[int, ...] | None]) -> MergePlan:
    """How the adapter of `checkpoint` is merged into files with `tensors`; tells what a user should know.

    `model` is the base's class on the meta device. Raises `BadFileError` as `plan_merge` does.
    """
    assert checkpoint.adapter is not None
    made = plan_merge(open_adapter(checkpoint.adapter), model, tensors)
    for notice in made.resolved.notices:
        log.warning("%s: %s", checkpoint.name, notice)
    log.info("%s: the adapter changes %d tensors of its base", checkpoint.name, len(made.changes))
    return made


@dataclass(frozen=True, slots=True, kw_only=True)
class Base:
    """A base that is about to be loaded, and becomes the merged model."""

    checkpoint: Checkpoint
    config: Any
    """transformers' config, which is changed where the merged model's says something else."""
    tensors: Mapping[str, Any]
    """What stands for each tensor of the files; a quantised weight is one by its dense name."""
    reader: Reader | None = None


def merged(base: Base, model: Any, dtype: torch.dtype) -> dict[str, Any]:
    """The base's tensors, those that the adapter changes merged as they are read, in `dtype`.

    Raises `BadFileError` as `plan_for` does.
    """
    if base.reader is not None and any(isinstance(module, Conv1D) for module in model.modules()):
        raise BadFileError(
            f"the base of {base.checkpoint.name} is quantised and keeps its layers the other way round, so "
            "that llmctl cannot merge into them",
            hint="name its 16-bit checkpoint as base_model_name_or_path",
        )
    shapes = {
        name: tensor.entry.shape if isinstance(tensor, StoredTensor) else None
        for name, tensor in base.tensors.items()
    }
    plan = plan_for(base.checkpoint, model, shapes)
    for part in (base.config, base.config.get_text_config()):
        for key, value in plan.config_changes.items():
            setattr(part, key, value)
    made = {
        name: MergedTensor(name=name, source=base.tensors[change.source], change=change, dtype=dtype)
        for name, change in plan.changes.items()
    }
    return {**base.tensors, **made}


def merge_into(checkpoint: Checkpoint, model: nn.Module) -> None:
    """Merge the adapter of `checkpoint` into a base that is in memory, in place.

    For bases that transformers alone can load. Raises `BadFileError` as `resolve` does, and for what would
    change the model's shape.
    """
    assert checkpoint.adapter is not None
    found = resolve(open_adapter(checkpoint.adapter), model, Names(model), ())
    parameters = dict(model.named_parameters())
    resized = [
        name
        for name, updates in found.parameters.items()
        if name not in parameters or updates[-1].shape != tuple(parameters[name].shape)
    ]
    if found.untied or resized:
        raise BadFileError(
            f"the adapter {checkpoint.name} changes the shape of {[*found.untied, *resized][0]}, which needs "
            "a base with safetensors that llmctl reads itself"
        )
    for name, updates in found.parameters.items():
        data = parameters[name].data
        if data.is_meta:
            raise BadFileError(
                f"{name} of the base of {checkpoint.name} is not in memory, so nothing can be merged into it",
                hint="leave out --cpu-offloading and --num-gpus",
            )
        data.copy_(apply_all(data.cpu(), updates, WHOLE, data.dtype, name=name))
