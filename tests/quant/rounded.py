"""A dense model and its quantised twin that stand for the same numbers, so that both must say the same."""

from typing import Any

import torch
from torch import nn

from llmctl.quant import prepare, select
from llmctl.quant.experts import QuantExperts
from llmctl.quant.kernels import Memo
from llmctl.quant.methods import Scheme
from llmctl.quant.rounding import round_to
from llmctl.quant.select import Place, Selection
from tests import tiny

IDS = (torch.arange(40)[None] * 37 + 3) % 250


def logits(model: Any, ids: torch.Tensor = IDS) -> torch.Tensor:
    """What the model makes of `ids`, the decoder of a pair of the first seven."""
    own = {"decoder_input_ids": ids[:, :7]} if model.config.is_encoder_decoder else {}
    with torch.no_grad():
        found: torch.Tensor = model(input_ids=ids, use_cache=False, **own).logits
    return found.float()


def difference(found: torch.Tensor, wanted: torch.Tensor) -> float:
    """Length of the difference, as a share of what was wanted."""
    return float((found.float() - wanted.float()).norm() / wanted.float().norm())


def twins(kind: str, scheme: Scheme, **changes: Any) -> tuple[Any, Any, Selection]:
    """A dense model whose weights are rounded by `scheme`, and one that has the same packed."""
    dense, packed = tiny.model(kind, **changes), tiny.model(kind, **changes)
    selection = select.select(packed, scheme)
    prepare.prepare(packed, selection)
    for path, place in selection.places.items():
        module = dense.get_submodule(path)
        for name, weight in select.matrices(module).items():
            fill_both(packed, module, f"{path}.{name}", weight, place)
    assert prepare.unfilled(packed) == []
    return dense, packed, selection


def fill_both(packed: Any, module: nn.Module, name: str, weight: torch.Tensor, place: Place) -> None:
    """Give the rounded `weight` to the parameter `name` of `packed`, and to `module`, which stays dense."""
    is_transposed = place.kind == "conv1d" or getattr(module, "is_transposed", False)
    assert place.method is not None
    rounded = round_to(weight.mT.contiguous() if is_transposed else weight, place.method)
    prepare.fill(packed, name, rounded, dtype=torch.float32, memo=Memo())
    numbers = rounded.dequantize()
    own = numbers.mT.contiguous() if is_transposed else numbers
    # Not in place: a table that shares this weight keeps its own.
    setattr(module, name.rpartition(".")[2], nn.Parameter(own, requires_grad=False))


def experts_of(model: nn.Module) -> list[QuantExperts]:
    """The packed experts of a model."""
    return [each for each in model.modules() if isinstance(each, QuantExperts)]
