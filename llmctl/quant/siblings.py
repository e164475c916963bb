"""Which layers of a model multiply one tensor, by their names, and how they become one kernel.

A name that misleads costs time, never a wrong result: see `joined`.
"""

import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch

from llmctl.quant import kernels, weights
from llmctl.quant.activations import Memo
from llmctl.quant.joined import Joined
from llmctl.quant.modules import QuantLinear
from llmctl.quant.weights import IntWeight, QuantWeight

SIBLINGS: tuple[tuple[str, ...], ...] = (
    ("q_proj", "k_proj", "v_proj"),
    ("query", "key", "value"),
    ("q", "k", "v"),
    ("q_lin", "k_lin", "v_lin"),
    ("q_a_proj", "kv_a_proj_with_mqa"),
    ("in_proj_qkv", "in_proj_z", "in_proj_b", "in_proj_a"),
    ("in_proj_qkvz", "in_proj_ba"),
    ("qkv_proj", "output_gate"),
    ("gate_proj", "up_proj"),
    ("w1", "w3"),
    ("wi_0", "wi_1"),
    ("linear_x", "linear_y"),
)
"""Names of layers of one module that transformers' classes call on the same tensor, if the first is there."""
# There queries come from another sequence than keys and values.
_CROSS = re.compile(r"cross|encoder_attn|encdec", re.IGNORECASE)


def find(widths: Mapping[str, int]) -> list[tuple[str, ...]]:
    """Groups of two paths or more; `widths` tells the columns of the layers that may be joined, by path."""
    children: dict[str, set[str]] = defaultdict(set)
    for path in widths:
        parent, _, name = path.rpartition(".")
        if not _CROSS.search(parent):
            children[parent].add(name)
    groups = []
    for parent, names in children.items():
        for siblings in SIBLINGS:
            paths = tuple(f"{parent}.{name}" if parent else name for name in siblings if name in names)
            if siblings[0] in names and len(paths) > 1 and len({widths[path] for path in paths}) == 1:
                groups.append(paths)
    return groups


@dataclass(slots=True, eq=False)
class Joint:
    """Layers that become one kernel when the quantised weights of all have arrived."""

    layers: Sequence[QuantLinear]
    arrived: dict[QuantLinear, QuantWeight] = field(default_factory=dict)
    is_off: bool = False
    """Whether each goes by itself after all."""

    def fill(self, layer: QuantLinear, weight: QuantWeight, *, dtype: torch.dtype, memo: Memo) -> None:
        """Take the weight of one layer. Raises `ValueError` as `kernels.build` does."""
        self.arrived[layer] = weight
        if self.is_off or device_of(weight).type != "cpu":
            self.part(dtype=dtype, memo=memo)
        elif len(self.arrived) == len(self.layers):
            self._join(dtype=dtype, memo=memo)

    def part(self, *, dtype: torch.dtype, memo: Memo) -> None:
        """Let each layer have its weight for itself from now on."""
        self.is_off = True
        while self.arrived:
            layer, weight = self.arrived.popitem()
            layer.hold(kernels.build(weight, dtype=dtype, memo=memo), dtype, device_of(weight))

    def _join(self, *, dtype: torch.dtype, memo: Memo) -> None:
        together = weights.join([self.arrived[layer] for layer in self.layers], 0, is_new=False)
        if together is None:
            self.part(dtype=dtype, memo=memo)
            return
        self.arrived.clear()
        joined = Joined(
            kernels.build(together, dtype=dtype, memo=memo),
            [layer.out_features for layer in self.layers],
            memo,
        )
        for layer, part in zip(self.layers, joined.parts(), strict=True):
            layer.hold(part, dtype, device_of(together))


def device_of(weight: QuantWeight) -> torch.device:
    """Where the weight lies."""
    return weight.values.device if isinstance(weight, IntWeight) else weight.codes.device
