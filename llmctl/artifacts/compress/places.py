"""Which tensors of a checkpoint are weights of layers that can be stored in few bits, and why others are not.

The model is built without memory (on meta), and `quant.select` judges its modules; here its names are brought
together with those of the files.
"""

import math
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn
from transformers.conversion_mapping import get_model_conversion_mapping
from transformers.core_model_loading import WeightConverter, WeightRenaming, rename_source_key

from llmctl.artifacts.compress.methods import METHODS
from llmctl.artifacts.stream import bits
from llmctl.core.errors import BadFileError, UsageError
from llmctl.loading import architecture, loader
from llmctl.loading.checkpoint import Checkpoint
from llmctl.quant.methods import Scheme
from llmctl.quant.select import Place, Selection, select

_FLOATS = ("F32", "F16", "BF16", "F64")
AS_IT_IS, SKIPPED = "embeddings and output layer keep their numbers", "it is to be skipped"
_OF_SELECT = "it is to stay as it is"
"""What `quant.select` says of those two."""
_UNKNOWN = "transformers' model has no such layer"


@dataclass(frozen=True, slots=True)
class Held:
    """What a file says of one tensor."""

    dtype: str
    """As safetensors writes it."""
    shape: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class _Target:
    """The parameter of the model that a stored tensor goes to."""

    name: str
    is_converted: bool
    """Joined with others, say."""
    is_known: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """Which layers, and how their rows are cut."""

    method: str
    """A key of `METHODS`."""
    group_size: int | None = None
    """Numbers that share a scale; None: the best that divides all rows."""
    skip: tuple[str, ...] = ()
    """Regular expressions over the names of modules."""


@dataclass(slots=True, kw_only=True)
class Places:
    """What becomes of the tensors of a checkpoint."""

    group_size: int | None
    chosen: dict[str, str] = field(default_factory=dict)
    """Stored name of each weight that is to be compressed, and the path of its module in the model."""
    dense: dict[str, str] = field(default_factory=dict)
    """Modules that stay as they are, each with the reason, as words after "because"."""
    dense_bytes: dict[str, int] = field(default_factory=dict)
    """Of the matrices of those modules, as the files hold them."""
    ignored: set[str] = field(default_factory=set)
    """Layers that stay dense, by the names of the model and of the files."""
    experts: set[str] = field(default_factory=set)
    """Paths of experts that a model of transformers holds joined, compressed or not."""

    is_pair: bool = False
    """Whether the model is an encoder and a decoder."""

    @property
    def has_experts(self) -> bool:
        """Whether some of the chosen are experts."""
        return not self.experts.isdisjoint(self.chosen.values())


def bare_model(checkpoint: Checkpoint) -> Any:
    """The model of a checkpoint on meta. Raises `BadFileError` and `UsageError` as loading does."""
    if not architecture.is_known(checkpoint.config) and "auto_map" in checkpoint.config:
        raise UsageError(
            f"{checkpoint.name} runs on code from its own repository, whose layers llmctl does not look into",
            hint="only models of classes that transformers has can be compressed",
        )
    architecture.check(checkpoint.config, name=checkpoint.name, trust_remote_code=False)
    with loader.quiet_transformers():
        config = loader.read_config(checkpoint, loader.LoadRequest(model=checkpoint.name))
        model_class, config = architecture.model_class(config)
        with torch.device("meta"):
            return model_class._from_config(config)  # noqa: SLF001  # what from_pretrained calls


def find(model: Any, held: Mapping[str, Held], wish: Wish) -> Places:
    """Bring the modules of `model` (on meta) together with the tensors `held` by the files."""
    # The rows of this method take any width: groups are looked at below, where the user may choose them.
    selection = select(model, Scheme(body="int8", head=None, embedding=None, skip=wish.skip))
    targets = _targets(model, held)
    _check_whole(model, held, targets)
    candidates, paths = {}, {}
    is_pair = bool(model.config.is_encoder_decoder)
    dense = {path: AS_IT_IS if why == _OF_SELECT else why for path, why in selection.dense.items()}
    places = Places(group_size=None, dense=dense, is_pair=is_pair)
    for name, target in targets.items():
        if len(held[name].shape) < 2 or "bias" in name:
            continue
        place, path = _place(selection, target.name)
        paths[name] = path
        if place is None:
            if not target.is_known:
                places.dense[path] = _UNKNOWN
            continue
        if place.kind == "experts":
            places.experts.add(path)
        reason = _why_not(held[name], name, place, wish, is_converted=target.is_converted)
        if reason:
            places.dense.setdefault(path, reason)
        else:
            candidates[name] = path
    _choose_groups(places, candidates, held, wish)
    _note_dense(model, places, paths, held)
    return places


def refuse_idle(skip: Collection[str], places: Places) -> None:
    """Raise `UsageError` for a pattern that finds no layer."""
    modules = {name.removesuffix(".weight") for name in places.chosen} | places.ignored
    modules |= {*places.chosen.values(), *places.dense}
    for pattern in skip:
        if not any(re.search(pattern, module) for module in modules):
            raise UsageError(
                f"--skip {pattern!r} finds no layer",
                hint=f"layers are called as {min(modules, default='model.layers.0.mlp.up_proj')}",
            )


def _targets(model: Any, held: Mapping[str, Held]) -> dict[str, _Target]:
    """Where each stored tensor goes."""
    conversions = get_model_conversion_mapping(model)
    renamings = [each for each in conversions if isinstance(each, WeightRenaming)]
    converters = [each for each in conversions if isinstance(each, WeightConverter)]
    state = model.state_dict()
    targets = {}
    for name in held:
        target, pattern = rename_source_key(name, renamings, converters, model.base_model_prefix, state)
        is_converted = pattern is not None
        targets[name] = _Target(target, is_converted, is_converted or target in state)
    return targets


def _check_whole(model: Any, held: Mapping[str, Held], targets: Mapping[str, _Target]) -> None:
    """Raise `BadFileError` for weights that are missing, or of another shape than the config asks for."""
    state, found = model.state_dict(), {target.name for target in targets.values()}
    alike: dict[int, list[str]] = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        alike.setdefault(id(parameter), []).append(name)
    if missing := [names[0] for names in alike.values() if found.isdisjoint(names)]:
        raise BadFileError(
            f"the checkpoint lacks weights that its config asks for: {len(missing)} missing, the first "
            f"{missing[0]}",
            hint="the download or export is incomplete, or config.json belongs to another model",
        )
    for stored, target in targets.items():
        wanted = state.get(target.name)
        if not target.is_converted and wanted is not None and tuple(wanted.shape) != held[stored].shape:
            raise BadFileError(
                f"{stored} has the shape {list(held[stored].shape)}, and the config asks for "
                f"{list(wanted.shape)}",
                hint="config.json belongs to another model",
            )


def _place(selection: Selection, target: str) -> tuple[Place | None, str]:
    """The place of the module, or of the experts, that a parameter belongs to, and its path."""
    path = target.removesuffix(".weight")
    for each in (path, path.rpartition(".")[0]):
        if each in selection.places or each in selection.dense:
            return selection.places.get(each), each
    return None, path


def _why_not(held: Held, name: str, place: Place, wish: Wish, *, is_converted: bool) -> str:
    if held.dtype not in _FLOATS:
        return f"it is stored as {held.dtype}"
    if len(held.shape) != 2 or not name.endswith(".weight"):
        return "its experts are stored as one tensor" if place.kind == "experts" else "it is no matrix"
    if place.kind == "conv1d":
        return "other programs take only linear layers, and this is a Conv1D"
    if is_converted and place.kind != "experts":
        return "transformers joins it with others"
    if any(re.search(pattern, name.removesuffix(".weight")) for pattern in wish.skip):
        return SKIPPED
    divisor = METHODS[wish.method].divisor
    return f"{divisor} does not divide its width of {held.shape[1]}" if held.shape[1] % divisor else ""


def _choose_groups(
    places: Places, candidates: Mapping[str, str], held: Mapping[str, Held], wish: Wish
) -> None:
    """Settle the size of groups, and leave dense what it does not divide; experts all or none."""
    size = wish.group_size or _best_size(
        METHODS[wish.method].group_sizes, [held[name] for name in candidates]
    )
    places.group_size = size
    for name, path in candidates.items():
        if size is not None and held[name].shape[1] % size:
            places.dense[path] = f"groups of {size} do not divide its width of {held[name].shape[1]}"
    places.chosen = {name: path for name, path in candidates.items() if path not in places.dense}


def _best_size(sizes: Collection[int], weights: Collection[Held]) -> int | None:
    """The one that fits the most numbers, of equals the first."""

    def fitting(size: int) -> int:
        return sum(math.prod(each.shape) for each in weights if each.shape[1] % size == 0)

    return max(sizes, key=fitting, default=None)


def _note_dense(model: Any, places: Places, paths: Mapping[str, str], held: Mapping[str, Held]) -> None:
    """Programs that load the folder must know every layer that they find dense in it; people, what it takes.

    `paths` are those of the modules, by the names of stored matrices.
    """
    chosen = set(places.chosen.values())
    modules = dict(model.named_modules())
    linear = {path for path, module in modules.items() if isinstance(module, nn.Linear)}
    # Routers and experts are linear layers to others.
    odd = {path for path in places.dense if not isinstance(modules.get(path), nn.Embedding)}
    dense = (linear | odd) - chosen
    stored = {name for name in paths if paths[name] in dense and name.endswith(".weight")}
    places.ignored = dense | {name.removesuffix(".weight") for name in stored}
    for name, path in paths.items():
        if path in places.dense:
            size = bits.num_bytes(held[name].dtype, held[name].shape)
            places.dense_bytes[path] = places.dense_bytes.get(path, 0) + size


def kinds_of(reasons: Mapping[str, str]) -> list[tuple[str, Collection[str]]]:
    """Modules that stay dense, those of one reason together, the most first."""
    by_reason: dict[str, list[str]] = {}
    for path, reason in reasons.items():
        by_reason.setdefault(reason, []).append(path)
    return sorted(by_reason.items(), key=lambda item: -len(item[1]))
