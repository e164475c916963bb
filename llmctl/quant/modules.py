"""Layers whose weight is packed, mostly in few bits, in the place of nn.Linear, Conv1D and nn.Embedding.

They begin as placeholders with a weight on meta, which loaders see and name; `quant.prepare` fills them.
"""

import functools
import logging
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from llmctl.core.errors import UsageError
from llmctl.quant.kernels import Kernel
from llmctl.quant.weights import IntWeight

log = logging.getLogger(__name__)


class QuantLinear(nn.Module):
    """y = x W^T + bias by a kernel on packed weights; by the weight itself where that arrived dense."""

    def __init__(
        self, weight: Tensor, bias: nn.Parameter | None = None, *, is_transposed: bool = False
    ) -> None:
        """`weight` tells the shape, [N, K], or [K, N] where `is_transposed`, as Conv1D has it."""
        super().__init__()
        num_rows, num_columns = weight.T.shape if is_transposed else weight.shape
        self.in_features, self.out_features = num_columns, num_rows
        self.is_transposed = is_transposed
        self.weight = absent(weight)
        self.bias = bias
        self.kernel: Kernel | None = None
        self.home = torch.device("meta")
        """Where the kernel's weights are."""

    def hold(self, kernel: Kernel, dtype: torch.dtype, device: torch.device) -> None:
        """Compute by `kernel` from now on, whose weights lie on `device`."""
        self.kernel, self.home = kernel, device
        self.weight = spent(dtype, device)

    @property
    def num_packed(self) -> int:
        """Weights that are packed."""
        return self.in_features * self.out_features if self.kernel is not None else 0

    @property
    def num_packed_bytes(self) -> int:
        """Memory of the packed weight."""
        return self.kernel.num_bytes if self.kernel is not None else 0

    def forward(self, x: Tensor) -> Tensor:
        """[..., K] to [..., N], in the type of `x`."""
        if self.kernel is None:
            return nn.functional.linear(x, self.weight.T if self.is_transposed else self.weight, self.bias)
        return run(self.kernel, self.home, x, self.bias)

    def extra_repr(self) -> str:
        """For `print(model)`."""
        title = self.kernel.title if self.kernel is not None else "no kernel"
        return f"in_features={self.in_features}, out_features={self.out_features}, {title}"

    def _save_to_state_dict(self, destination: Any, prefix: str, keep_vars: bool) -> None:
        refuse_saving(prefix, is_packed=self.kernel is not None)
        super()._save_to_state_dict(destination, prefix, keep_vars)

    def _apply(self, fn: Callable[..., Any], recurse: bool = True) -> "QuantLinear":
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        if self.kernel is not None:
            warn_if_moved(self.weight, self.home)
        return self


@dataclass(frozen=True, slots=True)
class Factor:
    """What some models multiply the rows of their table by."""

    value: float
    is_rounded: bool
    """Whether it is a number of the model's type first."""

    def of(self, dtype: torch.dtype) -> float:
        """The number to multiply by."""
        return float(torch.tensor(self.value, dtype=dtype)) if self.is_rounded else self.value


class QuantEmbedding(nn.Module):
    """A table of tokens in few bits: only the rows that are asked for become numbers of the model's type."""

    def __init__(
        self, weight: Tensor, *, padding_idx: int | None = None, factor: Factor | None = None
    ) -> None:
        """`weight` [N, K] tells the shape; what comes out is multiplied by `factor`."""
        super().__init__()
        self.num_embeddings, self.embedding_dim = weight.shape
        self.padding_idx = padding_idx
        self.factor = factor
        self.weight = absent(weight)
        self.table: IntWeight | None = None

    def hold(self, table: IntWeight, dtype: torch.dtype) -> None:
        """Look up in `table` from now on."""
        self.table = table
        self.weight = spent(dtype, table.values.device)

    @property
    def num_packed(self) -> int:
        """Weights that are packed."""
        return self.num_embeddings * self.embedding_dim if self.table is not None else 0

    @property
    def num_packed_bytes(self) -> int:
        """Memory of the packed table."""
        return self.table.num_bytes if self.table is not None else 0

    def forward(self, ids: Tensor) -> Tensor:
        """int [...] to [..., K], in the type of `weight`."""
        if self.table is None:
            rows = nn.functional.embedding(ids, self.weight, self.padding_idx)
        else:
            rows = self._rows(self.table, ids)
        return rows if self.factor is None else rows * self.factor.of(rows.dtype)

    def extra_repr(self) -> str:
        """For `print(model)`."""
        bits = f"{self.table.bits} bits" if self.table is not None else "no table"
        return f"{self.num_embeddings}, {self.embedding_dim}, {bits}"

    def _rows(self, table: IntWeight, ids: Tensor) -> Tensor:
        asked = ids.reshape(-1).to(table.values.device)
        chosen = replace(
            table,
            values=table.values[asked],
            scale=table.scale[asked],
            zero=None if table.zero is None else table.zero[asked],
        )
        rows = chosen.dequantize(self.weight.dtype).to(ids.device)
        return rows.view(*ids.shape, self.embedding_dim)

    def _save_to_state_dict(self, destination: Any, prefix: str, keep_vars: bool) -> None:
        refuse_saving(prefix, is_packed=self.table is not None)
        super()._save_to_state_dict(destination, prefix, keep_vars)

    def _apply(self, fn: Callable[..., Any], recurse: bool = True) -> "QuantEmbedding":
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        if self.table is not None:
            self.table = self.table.to(self.weight.device)
        return self


def refuse_saving(prefix: str, *, is_packed: bool) -> None:
    """Raise `UsageError` for a module with packed weights: what was saved would be empty."""
    if is_packed:
        raise UsageError(
            f"the weights of {prefix.rstrip('.')} are packed for this machine and cannot be saved",
            hint="load the model anew, without quantisation, to save it",
        )


def run(kernel: Kernel, home: torch.device, x: Tensor, bias: Tensor | None) -> Tensor:
    """`kernel` on `x`; where the weights lie on another device, `x` travels, being the smaller."""
    if x.device == home:
        return kernel(x, bias)
    moved = None if bias is None else bias.to(home)
    return kernel(x.to(home), moved).to(x.device)


def absent(weight: Tensor) -> nn.Parameter:
    """What stands for a weight that has not come yet: its shape and type on meta."""
    if isinstance(weight, nn.Parameter) and weight.is_meta:
        return weight
    return nn.Parameter(torch.empty_like(weight, device="meta"), requires_grad=False)


def spent(dtype: torch.dtype, device: torch.device) -> nn.Parameter:
    """What stands where a packed weight was: it tells its type and device, and has no numbers."""
    return _loaded(torch.empty(0, dtype=dtype, device=device))


def hold_dense(module: nn.Module, name: str, weight: Tensor) -> None:
    """Compute by the weight as it is from now on, in the layout of the module's placeholder."""
    setattr(module, name, _loaded(weight))


def warn_if_moved(stub: Tensor, home: torch.device) -> None:
    """Tell, once for each device, that packed weights stay where they were packed."""
    if stub.device != home:
        _tell_moved(str(home), str(stub.device))


@functools.cache
def _tell_moved(home: str, device: str) -> None:
    log.warning(
        "weights are packed for %s and stay there; load the model anew to have it on %s", home, device
    )


def _loaded(weight: Tensor) -> nn.Parameter:
    parameter = nn.Parameter(weight.detach(), requires_grad=False)
    # transformers gives random numbers to all that does not carry this.
    parameter._is_hf_initialized = True  # type: ignore[attr-defined]  # noqa: SLF001
    return parameter


def mark_loaded(module: nn.Module) -> None:
    """Keep transformers from giving the module random numbers."""
    module._is_hf_initialized = True  # type: ignore[assignment]  # noqa: SLF001
