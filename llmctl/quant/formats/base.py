"""What a reader of a quantised checkpoint is, and what readers share."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from llmctl.core.errors import BadFileError
from llmctl.quant.weights import QuantWeight


@dataclass(frozen=True, slots=True)
class Part:
    """What one tensor of a file is for."""

    weight: str
    """The dense tensor that it stands for, by the name that it would have: "layers.0.mlp.up_proj.weight"."""
    role: str
    """Which part: "qweight", "scales"."""


class Reader(Protocol):
    """Reads one checkpoint of one format."""

    title: str
    """For the user: "GPTQ, 4 bits, groups of 128, act-order"."""
    gives_quantised: bool
    """Whether `decode` gives canonical forms, or dense tensors: such formats only save space on disk here."""

    def part(self, tensor: str) -> Part | None:
        """What the tensor of that name belongs to; None for one that is dense."""
        ...

    def decode(self, weight: str, parts: Mapping[str, Tensor], dtype: torch.dtype) -> QuantWeight | Tensor:
        """The weight of that name from its parts by role; dense ones in `dtype`.

        Canonical forms are [..., N, K] as nn.Linear has it. Raises `BadFileError` naming the weight.
        """
        ...


def bad(weight: str, what: str) -> BadFileError:
    """The refusal of one damaged weight."""
    return BadFileError(
        f"the quantised weight {weight} is damaged: {what}",
        hint="download the model again, or ask its publisher",
    )


def need(weight: str, parts: Mapping[str, Tensor], roles: Iterable[str]) -> None:
    """Raise `BadFileError` unless every role is there."""
    if missing := [role for role in roles if role not in parts]:
        raise bad(weight, f"it has no {', '.join(missing)}")


def is_whole(tensor: Tensor) -> bool:
    """Whether it holds whole numbers; true and false are none."""
    return not (tensor.is_floating_point() or tensor.is_complex() or tensor.dtype == torch.bool)


def refuse_unknown(config: Mapping[str, Any], known: Iterable[str], title: str) -> None:
    """Raise `BadFileError` over keys of a quantisation config that nobody here knows how to honour."""
    unknown = sorted(key for key, value in config.items() if key not in set(known) and value is not None)
    if unknown:
        raise BadFileError(
            f"the quantization_config ({title}) has keys that llmctl does not know: {', '.join(unknown)}",
            hint="take another quantisation of this model, or its 16-bit checkpoint",
        )
