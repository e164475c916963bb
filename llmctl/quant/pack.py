"""Brings a loaded model's dense layers into the order of the CPU's kernels, in place, and joins siblings.

For a model that nobody trains or saves any more: the weights themselves are given up layer by layer.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from llmctl.quant import dense, packed_model, select, siblings
from llmctl.quant.activations import Memo
from llmctl.quant.dense import DenseKernel
from llmctl.quant.joined import Joined, PartKernel
from llmctl.quant.modules import QuantLinear
from llmctl.quant.select import Kind

_KINDS: tuple[Kind, ...] = ("linear", "conv1d", "head")
_CPU = torch.device("cpu")


@dataclass(slots=True)
class Packed:
    """What became of a model."""

    num_layers: int = 0
    """That compute from packed weights from now on."""
    head: str = ""
    """What was decided of a head that shares its weight with the table of tokens, for people; else empty."""


def pack(model: Any, *, spare_bytes: int, memo: Memo | None = None) -> Packed:
    """Pack what can be; quantised layers stay, but have their biases joined.

    A head that shares its weight with others is packed as a copy if that takes `spare_bytes` at most. Nothing
    else takes more memory than before, but one group of layers at a time, which is there twice.
    """
    memo, done = memo or Memo(), Packed()
    _join_biases(model)
    places = _places(model, spare_bytes, done)
    done.num_layers = len(places)
    alone = dict.fromkeys(places)
    for paths in siblings.find(_widths(model, places)):
        if len({model.get_submodule(path).weight.dtype for path in paths}) == 1:
            _pack_together(model, paths, memo)
            for path in paths:
                del alone[path]
    for path in alone:
        _pack_alone(model, path, memo)
    packed_model.adopt(model)
    return done


def _widths(model: Any, places: Mapping[str, Kind]) -> dict[str, int]:
    return {path: model.get_submodule(path).in_features for path, kind in places.items() if kind == "linear"}


def _places(model: Any, spare_bytes: int, done: Packed) -> dict[str, Kind]:
    """What is to be packed, by path."""
    names = {name for name, _ in model.named_parameters(remove_duplicate=False)}
    found = select.for_checkpoint(model, names)
    places: dict[str, Kind] = {}
    for path, place in found.places.items():
        if place.kind not in _KINDS or not _is_plain(model.get_submodule(path)):
            continue
        if path == found.head and found.shared:
            num_bytes = model.get_submodule(path).weight.nbytes
            if num_bytes > spare_bytes:
                done.head = f"the head keeps the table's order: {num_bytes >> 20} MiB for a copy are too much"
                continue
            done.head = f"the head has a copy of the table in its own order, {num_bytes >> 20} MiB"
        places[path] = place.kind
    return places


def _is_plain(module: nn.Module) -> bool:
    """Whether its weight is here, of a type that is multiplied here, and nobody moves it around."""
    weight: Any = module.weight
    return weight.device == _CPU and dense.fits(weight.dtype) and not hasattr(module, "_hf_hook")


def _pack_together(model: nn.Module, paths: Sequence[str], memo: Memo) -> None:
    layers, weights = zip(*(_emptied(model, path) for path in paths), strict=True)
    sizes, together = [layer.out_features for layer in layers], torch.cat(weights)
    del weights
    joined, dtype = Joined(DenseKernel(together, memo), sizes, memo), together.dtype
    for layer, part in zip(layers, joined.parts(), strict=True):
        layer.hold(part, dtype, _CPU)
    _share_biases(joined, layers)


def _pack_alone(model: nn.Module, path: str, memo: Memo) -> None:
    layer, weight = _emptied(model, path)
    layer.hold(DenseKernel(weight.T if layer.is_transposed else weight, memo), weight.dtype, _CPU)


def _emptied(model: nn.Module, path: str) -> tuple[QuantLinear, Tensor]:
    """A layer of ours in the place of the one at `path`, and the weight of that, which nobody else holds."""
    module: Any = model.get_submodule(path)
    is_transposed = not isinstance(module, nn.Linear)
    layer = QuantLinear(module.weight, getattr(module, "bias", None), is_transposed=is_transposed)
    model.set_submodule(path, layer.train(module.training))
    return layer, module.weight.detach()


def _join_biases(model: nn.Module) -> None:
    """The same for layers that were joined while their weights came, before their biases."""
    members: dict[Joined, list[QuantLinear]] = {}
    for layer, part in _parts(model):
        members.setdefault(part.joined, []).append(layer)
    for joined, layers in members.items():
        if joined.bias is None and len(layers) == len(joined.sizes):
            _share_biases(joined, sorted(layers, key=_index))


def _parts(model: nn.Module) -> Iterator[tuple[QuantLinear, PartKernel]]:
    for module in model.modules():
        if isinstance(module, QuantLinear) and isinstance(module.kernel, PartKernel):
            yield module, module.kernel


def _index(layer: QuantLinear) -> int:
    assert isinstance(layer.kernel, PartKernel)
    return layer.kernel.index


def _share_biases(joined: Joined, layers: Sequence[QuantLinear]) -> None:
    if any(layer.bias is not None and layer.bias.device != _CPU for layer in layers):
        return
    for layer, bias in zip(layers, joined.take_biases([layer.bias for layer in layers]), strict=True):
        if layer.bias is not None and bias is not None:
            layer.bias.data = bias
