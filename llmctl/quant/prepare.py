"""Puts quantised modules into a model and fills them: as its weights arrive, or when it has them.

prepare   modules become placeholders that wait for a weight; transformers' ties of these are taken over
fill      one weight has arrived: rounded if it is dense, packed for the device that it lies on
quantise  both at once, on a model that has its weights
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor, nn

from llmctl.quant import kernels, modules, select, siblings
from llmctl.quant.activations import Memo
from llmctl.quant.experts import QuantExperts, adopt, projections
from llmctl.quant.methods import Scheme
from llmctl.quant.modules import QuantEmbedding, QuantLinear
from llmctl.quant.rounding import round_to
from llmctl.quant.select import Place, Selection
from llmctl.quant.siblings import Joint, device_of
from llmctl.quant.weights import IntWeight, QuantWeight

_WAITING = "_llmctl_waiting"
_OWN = (QuantLinear, QuantEmbedding, QuantExperts)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Target:
    """A parameter that waits for its weight."""

    module: nn.Module
    name: str
    """Within the module."""
    shape: tuple[int, ...]
    """As a checkpoint has it, dense."""
    method: str | None
    joint: Joint | None = None
    """Of layers that multiply the same tensor as the module."""


@dataclass(slots=True)
class _Waiting:
    """What a prepared model waits for, by full names of parameters."""

    targets: dict[str, _Target] = field(default_factory=dict)
    uses: dict[str, tuple[str, ...]] = field(default_factory=dict)
    """The targets of each weight, its own and those that share it."""
    filled: set[str] = field(default_factory=set)


def prepare(model: nn.Module, selection: Selection) -> frozenset[str]:
    """Swap the selected modules for placeholders, in place; returns the names of parameters for `fill`.

    Biases stay ordinary parameters. What transformers would tie to a packed weight is no longer tied by it.
    """
    waiting = _Waiting()
    for path, place in selection.places.items():
        placeholder = _placeholder(model.get_submodule(path), place)
        model.set_submodule(path, placeholder)
        _spare_parent(model.get_submodule(path.rpartition(".")[0]))
        names = projections(placeholder) if isinstance(placeholder, QuantExperts) else ("weight",)
        for name in names:
            full = f"{path}.{name}"
            waiting.targets[full] = _target(placeholder, name, place.method)
            waiting.uses[full] = (full,)
    if selection.head in selection.places:
        _take_over_ties(model, selection, waiting)
    _join(waiting)
    setattr(model, _WAITING, waiting)
    return frozenset(waiting.uses)


def fill(
    model: nn.Module,
    name: str,
    weight: Tensor | QuantWeight,
    *,
    dtype: torch.dtype,
    memo: Memo,
    consumes: bool = False,
) -> frozenset[str]:
    """Give the weight of parameter `name` to what waits for it; `dtype` is what the model computes in.

    A dense weight that may be consumed has no memory any more when it has been rounded. Returns the names of
    all parameters that have their weight by this, of a table and a head that share one both; none where
    nothing waits. Raises `ValueError` for a wrong shape, or numbers that cannot be rounded.
    """
    waiting: _Waiting | None = getattr(model, _WAITING, None)
    uses = waiting.uses.get(name, ()) if waiting is not None else ()
    if waiting is None or not uses:
        return frozenset()
    _check_shape(name, weight, waiting.targets[name])
    # The weight of its own counts for more than one that it shares.
    wanted = [each for each in uses if each == name or each not in waiting.filled]
    targets = [waiting.targets[each] for each in wanted]
    rounded: dict[str, QuantWeight] = {}
    try:
        if consumes and isinstance(weight, Tensor):
            _consume(weight, targets, rounded)
        for target in targets:
            _fill(target, weight, rounded, dtype=dtype, memo=memo)
    except ValueError as error:
        raise ValueError(f"the weight {name} cannot be packed: {error}") from error
    waiting.filled.update(wanted)
    return frozenset(wanted)


def unfilled(model: nn.Module) -> list[str]:
    """Names of parameters that still wait for a weight, sorted."""
    waiting: _Waiting | None = getattr(model, _WAITING, None)
    if waiting is None:
        return []
    # A dense table that shares the head's weight is transformers' own affair.
    own = {name for name, target in waiting.targets.items() if isinstance(target.module, _OWN)}
    return sorted(own - waiting.filled)


def quantise(model: nn.Module, scheme: Scheme, *, dtype: torch.dtype, memo: Memo) -> Selection:
    """Store the weights of a loaded model as `scheme` says, one by one, each freed before the next.

    Returns what was selected. Raises `ValueError` for numbers that cannot be rounded; the model is lost then.
    """
    selection = select.select(model, scheme)
    weights: dict[str, Tensor] = {}
    for path in selection.places:
        module = model.get_submodule(path)
        weights |= {f"{path}.{name}": each.detach() for name, each in select.matrices(module).items()}
    prepare(model, selection)
    waiting: _Waiting = getattr(model, _WAITING)
    for name in list(weights):
        weight = weights.pop(name)
        if name not in waiting.filled:
            fill(model, name, weight, dtype=dtype, memo=memo)
    return selection


def _join(waiting: _Waiting) -> None:
    """Make targets that multiply the same tensor wait for each other."""
    layers = {
        name.removesuffix(".weight"): target.module
        for name, target in waiting.targets.items()
        if isinstance(target.module, QuantLinear) and not target.module.is_transposed
    }
    for paths in siblings.find({path: layer.in_features for path, layer in layers.items()}):
        joint = Joint([layers[path] for path in paths])
        for path in paths:
            name = f"{path}.weight"
            waiting.targets[name] = replace(waiting.targets[name], joint=joint)


def _spare_parent(parent: nn.Module) -> None:
    """Keep transformers from initialising a module by way of its parent, which has no numbers of its own."""
    # Buffers that no checkpoint has come by initialising alone: GPT-Neo's mask by its own module, Falcon-H1's
    # factors by the whole model, layers above them.
    own = (parent.named_parameters(recurse=False), parent.named_buffers())
    if all(next(each, None) is None for each in own):
        modules.mark_loaded(parent)


def _placeholder(module: nn.Module, place: Place) -> nn.Module:
    if place.kind == "experts":
        return adopt(module)
    weight, bias = module.weight, getattr(module, "bias", None)
    if place.kind == "embedding":
        factor = select.factor(module)
        placeholder: nn.Module = QuantEmbedding(weight, padding_idx=module.padding_idx, factor=factor)  # type: ignore[arg-type]
    else:
        placeholder = QuantLinear(weight, bias, is_transposed=place.kind == "conv1d")  # type: ignore[arg-type]
    return placeholder.train(module.training)


def _target(module: nn.Module, name: str, method: str | None) -> _Target:
    parameter = module.get_parameter(name)
    if isinstance(module, QuantExperts):
        # What is there now comes by `fill`, and has no place of its own until then.
        setattr(module, name, modules.absent(parameter))
    return _Target(module=module, name=name, shape=tuple(parameter.shape), method=method)


def _take_over_ties(model: nn.Module, selection: Selection, waiting: _Waiting) -> None:
    """Let the head have the weight of those that it shares one with, whichever of them arrives."""
    head = f"{selection.head}.weight"
    for name in selection.shared:
        if name not in waiting.targets:
            path, _, own = name.rpartition(".")
            target = waiting.targets[name] = _target(model.get_submodule(path), own, None)
            if not target.module.get_parameter(own).is_meta:
                waiting.filled.add(name)
        waiting.uses[name] = (name, head)
    if selection.shared:
        waiting.uses[head] = (head, selection.shared[0])
        _untie(model, head)


def _untie(model: nn.Module, head: str) -> None:
    """Make transformers, which ties by lists of names, leave the head alone."""
    for prefix, module in model.named_modules():
        start = f"{prefix}." if prefix else ""
        for listed in ("_tied_weights_keys", "all_tied_weights_keys"):
            ties = getattr(module, listed, None)
            if isinstance(ties, dict):
                kept = {key: value for key, value in ties.items() if head not in (start + key, start + value)}
                setattr(module, listed, kept)


def _check_shape(name: str, weight: Tensor | QuantWeight, target: _Target) -> None:
    wanted = target.shape
    if not isinstance(weight, Tensor) and _is_transposed(target.module):
        wanted = (*wanted[:-2], wanted[-1], wanted[-2])
    if tuple(weight.shape) != wanted:
        raise ValueError(
            f"the weight {name} has the shape {list(weight.shape)}, the model needs {list(wanted)}"
        )


def _is_transposed(module: nn.Module) -> bool:
    return bool(getattr(module, "is_transposed", False))


def _consume(weight: Tensor, targets: Sequence[_Target], rounded: dict[str, QuantWeight]) -> None:
    """Round the weight for all targets and free its memory, though callers up the stack still hold it."""
    methods = {target.method for target in targets}
    # A part of a larger tensor, as splitting one gives, shares its memory with the others.
    memory = weight.untyped_storage()
    is_own = memory.nbytes() == weight.nbytes and memory.resizable()
    if not is_own or None in methods or any(isinstance(target.module, QuantExperts) for target in targets):
        return
    for target in targets:
        if target.method is not None and target.method not in rounded:
            rounded[target.method] = round_to(_rows(weight, target.module), target.method)
    memory.resize_(0)


def _fill(
    target: _Target,
    weight: Tensor | QuantWeight,
    rounded: dict[str, QuantWeight],
    *,
    dtype: torch.dtype,
    memo: Memo,
) -> None:
    """Pack `weight` into its module; `rounded` keeps by method what a sharer may take as well."""
    module, method = target.module, target.method
    if isinstance(module, QuantExperts):
        _fill_experts(target, module, weight, dtype=dtype, memo=memo)
        return
    if isinstance(weight, Tensor) and method is not None:
        if method not in rounded:
            rounded[method] = round_to(_rows(weight, module), method)
        weight = rounded[method]
    if target.joint is not None and isinstance(weight, Tensor):
        target.joint.part(dtype=dtype, memo=memo)
    if isinstance(module, QuantLinear) and not isinstance(weight, Tensor):
        if target.joint is not None:
            target.joint.fill(module, weight, dtype=dtype, memo=memo)
        else:
            module.hold(kernels.build(weight, dtype=dtype, memo=memo), dtype, device_of(weight))
    elif isinstance(module, QuantEmbedding) and isinstance(weight, IntWeight):
        module.hold(weight, dtype)
    else:
        dense = weight if isinstance(weight, Tensor) else weight.dequantize(dtype)
        modules.hold_dense(module, target.name, dense)


def _fill_experts(
    target: _Target, module: QuantExperts, weight: Tensor | QuantWeight, *, dtype: torch.dtype, memo: Memo
) -> None:
    if isinstance(weight, Tensor) and target.method is None:
        modules.hold_dense(module, target.name, weight)
        return
    packed = [
        kernels.build(_expert(weight, index, target), dtype=dtype, memo=memo)
        for index in range(weight.shape[0])
    ]
    device = weight.device if isinstance(weight, Tensor) else device_of(weight)
    module.hold(target.name, packed, dtype, device)


def _expert(weight: Tensor | QuantWeight, index: int, target: _Target) -> QuantWeight:
    if not isinstance(weight, Tensor):
        return weight.expert(index)
    assert target.method is not None
    return round_to(_rows(weight[index], target.module), target.method)


def _rows(weight: Tensor, module: nn.Module) -> Tensor:
    """A dense weight [N, K], as nn.Linear has it."""
    return weight.T.contiguous() if _is_transposed(module) else weight
