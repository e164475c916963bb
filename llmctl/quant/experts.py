"""Experts of one layer, stored as 3D parameters, with a kernel for each expert and projection.

The class of the model keeps its gate, its norms and its biases; only the products with weights are ours.
"""

import functools
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from llmctl.quant.kernels import Kernel
from llmctl.quant.modules import refuse_saving, run, spent, warn_if_moved

PROJECTIONS = ("gate_up_proj", "up_proj", "down_proj")
"""Names under which transformers' classes keep the weights of experts."""


class QuantExperts(nn.Module):
    """Mixed into a class of experts that transformers' `use_experts_implementation` describes."""

    kernels: dict[str, list[Kernel]]
    home: torch.device
    num_packed: int
    own_class: ClassVar[Any]
    """The one that this is mixed into."""
    # Of the model's class:
    num_experts: int
    has_gate: bool
    has_bias: bool
    is_transposed: bool
    act_fn: Callable[[Tensor], Tensor]
    post_expert_norm: Callable[[Tensor], Tensor]
    _apply_gate: Callable[[Tensor], Tensor]

    def hold(self, name: str, kernels: list[Kernel], dtype: torch.dtype, device: torch.device) -> None:
        """Compute the projection `name` by `kernels`, one an expert, from now on."""
        self.kernels[name], self.home = kernels, device
        self.num_packed += getattr(self, name).numel()
        setattr(self, name, spent(dtype, device))

    @property
    def num_packed_bytes(self) -> int:
        """Memory of the packed weights."""
        return sum(kernel.num_bytes for kernels in self.kernels.values() for kernel in kernels)

    def forward(self, hidden_states: Tensor, top_k_index: Tensor, top_k_weights: Tensor) -> Tensor:
        """[tokens, H] to [tokens, H]: for each token the weighted sum of what its experts say.

        `top_k_index` and `top_k_weights` are [tokens, k]; an index that no expert has counts for nothing.
        """
        if not self.kernels:
            dense: Tensor = super().forward(hidden_states, top_k_index, top_k_weights)
            return dense
        total = torch.zeros_like(
            hidden_states, dtype=torch.promote_types(hidden_states.dtype, top_k_weights.dtype)
        )
        for expert in torch.unique(top_k_index).tolist():
            if expert >= self.num_experts:
                continue
            token, place = torch.where(top_k_index == expert)
            # One type in each step: torch is slow where two meet.
            said = self._expert(expert, hidden_states[token]).to(total.dtype)
            total.index_add_(0, token, said * top_k_weights[token, place, None].to(total.dtype))
        return total.to(hidden_states.dtype)

    def _expert(self, expert: int, x: Tensor) -> Tensor:
        if self.has_gate:
            y = self._apply_gate(self._product("gate_up_proj", expert, x))
        else:
            y = self.act_fn(self._product("up_proj", expert, x))
        y = self._product("down_proj", expert, y)
        return self.post_expert_norm(y) if getattr(self, "has_post_expert_norm", False) else y

    def _product(self, name: str, expert: int, x: Tensor) -> Tensor:
        bias = getattr(self, f"{name}_bias")[expert] if self.has_bias else None
        if name in self.kernels:
            return run(self.kernels[name][expert], self.home, x, bias)
        weight = getattr(self, name)[expert]
        return nn.functional.linear(x, weight.T if self.is_transposed else weight, bias)

    def __reduce_ex__(self, protocol: Any) -> tuple[Any, ...]:
        # By the model's own class: a class made while running cannot be found by its name.
        return _blank, (self.own_class,), self.__dict__

    def _save_to_state_dict(self, destination: Any, prefix: str, keep_vars: bool) -> None:
        refuse_saving(prefix, is_packed=bool(self.kernels))
        super()._save_to_state_dict(destination, prefix, keep_vars)

    def _apply(self, fn: Callable[..., Any], recurse: bool = True) -> "QuantExperts":
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        for name in self.kernels:
            warn_if_moved(getattr(self, name), self.home)
        return self


def are_known(module: nn.Module) -> bool:
    """Whether `module` is of a class whose products, gate and order of weights transformers describes."""
    flags = ("has_gate", "has_bias", "is_transposed", "_apply_gate", "num_experts")
    return all(hasattr(module, flag) for flag in flags) and len(projections(module)) == 2


def projections(module: nn.Module) -> Mapping[str, Tensor]:
    """The weights of experts that `module` itself holds, [E, N, K] or [E, K, N], by name."""
    return {name: each for name, each in module.named_parameters(recurse=False) if name in PROJECTIONS}


def adopt(module: nn.Module) -> QuantExperts:
    """Make `module` itself compute by kernels; its weights are what they were until `hold` takes them."""
    module.__class__ = _packed_class(type(module))  # type: ignore[arg-type]
    assert isinstance(module, QuantExperts)
    module.kernels, module.home, module.num_packed = {}, torch.device("meta"), 0
    return module


@functools.cache
def _packed_class(kind: type[Any]) -> type[Any]:
    """`QuantExperts` before the model's own class, whose forward is then the dense way."""
    return type(
        f"Quant{kind.__name__}", (QuantExperts, kind), {"__module__": kind.__module__, "own_class": kind}
    )


def _blank(kind: Any) -> Any:
    made: Any = _packed_class(kind)
    return made.__new__(made)
