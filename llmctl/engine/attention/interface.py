"""What attends over the blocks of many sequences: the interface of all backends, and the choice among them.

Shapes: T new tokens of n sequences in one row, Hq query heads, Hk key heads (Hq a multiple), D and Dv their
sizes, blocks of block_size tokens.
"""

import importlib
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from llmctl.core.errors import UsageError
from llmctl.engine.execution.step import Step

log = logging.getLogger(__name__)


class Reach(Protocol):
    """How far back a token sees: what attention must know of a `policy.LayerPolicy`."""

    @property
    def window(self) -> int | None:
        """Position i sees j > i - window; None: no window."""

    @property
    def chunk(self) -> int | None:
        """Position i sees j of its own chunk, j // chunk == i // chunk; None: no chunks."""


@dataclass(frozen=True, slots=True)
class KVLayer:
    """Keys and values that one layer keeps of all sequences. Backends write into the tensors."""

    keys: Tensor
    """[num_blocks, Hk, block_size, D], contiguous."""
    values: Tensor
    """[num_blocks, Hk, block_size, Dv], contiguous."""
    policy: Reach
    group: int
    """Number of the policy group, whose tables in `Step.groups` hold for this layer."""


@dataclass(frozen=True, slots=True)
class Scoring:
    """How queries and keys become weights, before and in the softmax."""

    scale: float
    """Of the dot products."""
    softcap: float | None = None
    """Scores s become softcap * tanh(s / softcap)."""
    sinks: Tensor | None = None
    """[Hq]: a further score in each head's softmax that brings no value."""


class Backend(Protocol):
    """Attends for all sequences of a step. One thread at a time; steps of any kind in any order."""

    @property
    def name(self) -> str:
        """What is told to users."""

    def attend(
        self, q: Tensor, k: Tensor | None, v: Tensor | None, layer: KVLayer, step: Step, scoring: Scoring
    ) -> Tensor:
        """Write the new tokens' keys and values into their slots, then attend.

        q [Hq, T, D], k [Hk, T, D], v [Hk, T, Dv] of any strides give [T, Hq, Dv], contiguous, in q's dtype.
        Each token sees its own sequence only, up to itself and as far back as the layer's policy reaches;
        blocks before that need not exist. Without k and v the layer holds them already (layers that share).
        """


_CHOICES: Mapping[str, str] = {
    "cpu": "llmctl.engine.attention.cpu:choose",
    "cuda": "llmctl.engine.attention.cuda:choose",
    "any": "llmctl.engine.attention.dense:choose",
}


def choose(device: torch.device, dtype: torch.dtype) -> Backend:
    """The fastest backend for `dtype` on `device` that is known to be right; the log names it.

    Raises `UsageError` for numbers that are no floats, and for a wrong `LLMCTL_UNTRIED_KERNELS`.
    """
    if not dtype.is_floating_point:
        raise UsageError(
            f"attention cannot keep keys and values as {str(dtype).removeprefix('torch.')}",
            hint="take --dtype bfloat16, float16 or float32",
        )
    module, name = _CHOICES.get(device.type, _CHOICES["any"]).split(":")
    backend: Backend = getattr(importlib.import_module(module), name)(device, dtype)
    log.info("attention: %s", backend.name)
    return backend


def first_seen(policy: Reach, position: int) -> int:
    """The first position that the token at `position` sees."""
    if policy.window is not None:
        return max(0, position - policy.window + 1)
    if policy.chunk is not None:
        return position // policy.chunk * policy.chunk
    return 0
