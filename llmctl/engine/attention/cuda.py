"""Attention on CUDA devices: torch's SDPA one sequence at a time, or others' kernels with block tables.

Nobody of us has run the latter on a device: they are taken only where `LLMCTL_ATTENTION` names one. What they
do not know (sinks, keys and values of different sizes, chunks that blocks do not fit) goes through SDPA.
"""

import importlib
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from llmctl.core.errors import NotFoundError, UsageError
from llmctl.engine.attention.chunked import Cuts, LocalTables
from llmctl.engine.attention.dense import Call, DenseBackend
from llmctl.engine.attention.interface import KVLayer, Scoring
from llmctl.engine.execution import storage
from llmctl.engine.execution.step import Step

VARIABLE = "LLMCTL_ATTENTION"
"""`sdpa` or a key of `KERNELS`: what attends on CUDA devices."""


@dataclass(frozen=True, slots=True)
class Paged:
    """What a kernel with block tables is given."""

    q: Tensor
    """[T, Hq, D]."""
    keys: Tensor
    """[num_blocks, block_size, Hk, D], a view of the storage."""
    values: Tensor
    """The same of the values."""
    sequences: LocalTables
    """Sequences or pieces of them; the queries of each are its last tokens."""
    window: int | None
    scoring: Scoring

    @property
    def max_length(self) -> int:
        """At least the keys of each sequence."""
        return self.sequences.tables.shape[1] * self.keys.shape[1]

    @property
    def window_size(self) -> tuple[int, int]:
        """Keys that a query sees before and behind its own; -1 for all."""
        return (-1 if self.window is None else self.window - 1, 0)


Kernel = Callable[[Paged], Tensor]


@dataclass(frozen=True, slots=True, kw_only=True)
class KernelRow:
    """A kernel and what it asks for."""

    attend: Kernel
    """Gives [T, Hq, D]."""
    module: str
    """What must be importable."""
    block_multiple: int = 1
    """Block sizes must be multiples of it."""
    has_softcap: bool = False


class PagedBackend:
    """See `Backend`: one call for all sequences of a step."""

    def __init__(self, name: str, row: KernelRow) -> None:
        """`row` is one of `KERNELS`, and `name` its key."""
        self.name = f"{name}, over block tables"
        self._row = row
        self._dense = DenseBackend()
        self._cuts = Cuts()

    def attend(
        self, q: Tensor, k: Tensor | None, v: Tensor | None, layer: KVLayer, step: Step, scoring: Scoring
    ) -> Tensor:
        """See `Backend.attend`."""
        if not self._can_attend(q, layer, scoring):
            return self._dense.attend(q, k, v, layer, step, scoring)
        if k is not None and v is not None:
            storage.write(layer, k, v, step.groups[layer.group].slots)
        out = Call(q, k, v, layer, step, scoring).empty()
        chunk, window = layer.policy.chunk, layer.policy.window
        sequences = self._cuts.local_tables(step, layer.group, chunk)
        pages = (layer.keys.transpose(1, 2), layer.values.transpose(1, 2))
        return out.copy_(self._row.attend(Paged(q.transpose(0, 1), *pages, sequences, window, scoring)))

    def _can_attend(self, q: Tensor, layer: KVLayer, scoring: Scoring) -> bool:
        block_size, key_size = layer.keys.shape[2:]
        return (
            q.dtype == layer.keys.dtype
            and q.dtype in (torch.float16, torch.bfloat16)
            and scoring.sinks is None
            and (scoring.softcap is None or self._row.has_softcap)
            and layer.values.shape[3] == key_size <= 256
            and block_size % self._row.block_multiple == 0
            and (layer.policy.chunk is None or layer.policy.chunk % block_size == 0)
        )


def choose(device: torch.device, dtype: torch.dtype) -> PagedBackend | DenseBackend:
    """The backend that `LLMCTL_ATTENTION` names, SDPA where it names none.

    Raises `UsageError` for a name that is none, `NotFoundError` where its package is not installed.
    """
    del device, dtype
    name = os.environ.get(VARIABLE, "") or "sdpa"
    if name == "sdpa":
        return DenseBackend()
    if name not in KERNELS:
        raise UsageError(f"{VARIABLE} must be one of sdpa, {', '.join(KERNELS)}, not {name!r}")
    row = KERNELS[name]
    try:
        importlib.import_module(row.module)
    except ImportError as error:
        raise NotFoundError(
            f"{VARIABLE}={name} needs {row.module}, which cannot be imported: {error}",
            hint=f"install it, or unset {VARIABLE}",
        ) from error
    return PagedBackend(name, row)


def _torch_varlen(paged: Paged) -> Tensor:
    varlen = importlib.import_module("torch.nn.attention.varlen")
    sequences = paged.sequences
    out: Tensor = varlen.varlen_attn(
        paged.q,
        paged.keys,
        paged.values,
        sequences.rows,
        None,
        sequences.max_count,
        paged.max_length,
        scale=paged.scoring.scale,
        window_size=paged.window_size,
        enable_gqa=True,
        seqused_k=sequences.lengths,
        block_table=sequences.tables,
    )
    return out


def _flash_attn(paged: Paged) -> Tensor:
    flash_attn = importlib.import_module("flash_attn")
    sequences = paged.sequences
    ends = sequences.lengths.cumsum(0, dtype=torch.int32)
    out: Tensor = flash_attn.flash_attn_varlen_func(
        paged.q,
        paged.keys,
        paged.values,
        cu_seqlens_q=sequences.rows,
        cu_seqlens_k=torch.cat((ends.new_zeros(1), ends)),
        max_seqlen_q=sequences.max_count,
        max_seqlen_k=paged.max_length,
        softmax_scale=paged.scoring.scale,
        causal=True,
        window_size=paged.window_size,
        softcap=paged.scoring.softcap or 0.0,
        block_table=sequences.tables,
    )
    return out


KERNELS: Mapping[str, KernelRow] = {
    # FlashAttention 2, which both are, reads pages of multiples of 256 tokens.
    "torch-varlen": KernelRow(attend=_torch_varlen, module="torch.nn.attention.varlen", block_multiple=256),
    "flash-attn": KernelRow(attend=_flash_attn, module="flash_attn", block_multiple=256, has_softcap=True),
}
"""Kernels that read blocks where they lie. None is taken unasked: they are untried."""
