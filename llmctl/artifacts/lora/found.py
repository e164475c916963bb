"""What differs between a base and a target, and how an adapter can hold each difference."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from enum import Enum
from typing import Any

from torch import nn
from transformers.pytorch_utils import Conv1D

from llmctl.artifacts.lora.bases import FLOATS
from llmctl.artifacts.lora.equal import is_equal
from llmctl.artifacts.lora.heads import LoneHead, lone_head
from llmctl.artifacts.lora.shapes import check_shapes
from llmctl.artifacts.stream.source import Source
from llmctl.core.errors import BadFileError
from llmctl.core.progress import Progress
from llmctl.lora.places import Names, Place
from llmctl.lora.updates import WHOLE
from llmctl.lora.vocabulary import vocabulary


class Kind(Enum):
    """How an adapter holds one difference."""

    LAYER = "layer"
    TABLE = "table"
    WHOLE = "whole"


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """One tensor that differs."""

    kind: Kind
    parameter: str
    """Its name in the model, else, of an expert that the model joins, in the files."""
    dtype: str
    """The target's."""
    shape: tuple[int, ...]
    """The target's."""
    is_transposed: bool = False
    """Whether the base stores [inputs, outputs]."""
    shared: tuple[str, ...] = ()
    """Other parameters of the model that are the same weight."""
    source: str | None = None
    """The tensor of the target that it becomes, where that has another name."""
    is_wrapped: bool = False
    """Whether PEFT has the module wrapped, since it has matrices too."""

    @property
    def module(self) -> str:
        """Without the parameter's own name."""
        return self.parameter.rpartition(".")[0]

    @property
    def spelled(self) -> str:
        """The name by which PEFT saves it whole."""
        own = self.parameter.rpartition(".")[2]
        return f"{self.module}.base_layer.{own}" if self.is_wrapped else self.parameter

    @property
    def is_bias(self) -> bool:
        """Whether it is one that `bias` stands for."""
        return self.parameter.endswith(".bias")

    @property
    def saved_modules(self) -> tuple[str, ...]:
        """What `modules_to_save` must name."""
        return tuple(name.rpartition(".")[0] for name in (self.parameter, *self.shared))

    def rank(self, most: int) -> int:
        """The rank of its matrices."""
        return min(most, *self.shape)


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """All that differs."""

    changes: Mapping[str, Change]
    """By tensor of the files, which both have by one name."""
    left_out: tuple[str, ...]
    """What differs, or is on one side alone, and no adapter can hold."""
    num_same: int
    places: Mapping[str, Sequence[Place]]
    """What of the model the base's tensors are."""

    def of(self, *kinds: Kind) -> list[Change]:
        """Those of some kinds."""
        return [each for each in self.changes.values() if each.kind in kinds]


def compare(base: Source, target: Source, model: Any, progress: Progress) -> Found:
    """Read both and look at what differs; `model` is the base's class on the meta device.

    Raises `BadFileError` for two that are not of one shape.
    """
    common = [name for name in base.names if name in target.entries]
    if not common:
        raise BadFileError(
            f"{base.name} and {target.name} have no tensor of one name, so they are no base and its target",
            hint="name two checkpoints of one architecture",
        )
    sorter = _Sorter(base, target, model)
    check_shapes(base, target, sorter.places, sorter.vocabulary)
    progress.stage("compare", total_bytes=sum(base.entry(name).num_bytes for name in common))
    different = []
    for name in common:
        if not is_equal(base, name, target, name):
            different.append(name)
        progress.advance(base.entry(name).num_bytes)
    head = lone_head(base, target, model, sorter.places)
    changes, left_out = sorter.sort(different, head)
    alone = [
        name
        for name in (*base.names, *target.names)
        if (name in base.entries) is not (name in target.entries) and (head is None or name != head.tensor)
    ]
    return Found(
        changes=changes,
        left_out=(*left_out, *alone),
        num_same=len(common) - len(different),
        places=sorter.places,
    )


class _Sorter:
    def __init__(self, base: Source, target: Source, model: Any) -> None:
        self._base, self._target, self._model = base, target, model
        self._parameters = dict(model.named_parameters(remove_duplicate=False))
        self.vocabulary = vocabulary(model)
        self.places = Names(model).places(base.names)

    def sort(self, names: list[str], head: LoneHead | None) -> tuple[dict[str, Change], list[str]]:
        """What an adapter holds of the tensors `names` and of a head, and what it cannot."""
        changes: dict[str, Change] = {}
        left_out = []
        for name in names:
            if head is not None and name == head.tensor:
                continue
            change = self._change(name)
            if change is None:
                left_out.append(name)
            else:
                changes[name] = change
        if head is not None and head.source is not None:
            self._add_head(changes, head.tensor, head.parameter, head.source)
        self._add_companions(changes)
        return self._with_wrapped(changes), left_out

    def _add_companions(self, changes: dict[str, Change]) -> None:
        """The other parameters of modules that are saved whole: PEFT loads such a module as one."""
        there = {each.parameter for each in changes.values()}
        tensors = {own[0].parameter: tensor for tensor, own in self.places.items() if len(own) == 1}
        for each in [each for each in changes.values() if each.kind is Kind.WHOLE and not each.is_bias]:
            for own, _ in self._model.get_submodule(each.module).named_parameters(recurse=False):
                parameter = f"{each.module}.{own}"
                tensor = tensors.get(parameter)
                if parameter in there or tensor is None or tensor not in self._target.entries:
                    continue
                entry = self._target.entry(tensor)
                changes[tensor] = Change(
                    kind=Kind.WHOLE, parameter=parameter, dtype=entry.dtype, shape=entry.shape
                )

    def _add_head(self, changes: dict[str, Change], tensor: str, parameter: str, source: str) -> None:
        """A head that is saved whole has a weight of its own, so that changes of a table are not its."""
        for name, each in changes.items():
            shared = tuple(other for other in each.shared if other != parameter)
            changes[name] = replace(each, shared=shared)
        entry = self._target.entry(source)
        changes[tensor] = Change(
            kind=Kind.WHOLE, parameter=parameter, dtype=entry.dtype, shape=entry.shape, source=source
        )

    def _with_wrapped(self, changes: dict[str, Change]) -> dict[str, Change]:
        wrapped = {each.module for each in changes.values() if each.kind is not Kind.WHOLE}
        return {
            name: replace(each, is_wrapped=each.kind is Kind.WHOLE and each.module in wrapped)
            for name, each in changes.items()
        }

    def _change(self, name: str) -> Change | None:
        """How the difference of one tensor is held; None: not at all."""
        one, other = self._base.entry(name), self._target.entry(name)
        if one.dtype not in FLOATS or other.dtype not in FLOATS:
            return None
        places = self.places.get(name, [])
        if len(places) != 1 or places[0].part != WHOLE or places[0].rows is not None:
            return self._of_file(name)
        parameter = places[0].parameter
        weight = self._parameters.get(parameter)
        if weight is None:
            return None
        shared = tuple(
            each for each, found in self._parameters.items() if found is weight and each != parameter
        )
        layer = self._model.get_submodule(parameter.rpartition(".")[0])
        is_table, is_layer = isinstance(layer, nn.Embedding), isinstance(layer, nn.Linear | Conv1D)
        whole = Change(
            kind=Kind.WHOLE, parameter=parameter, dtype=other.dtype, shape=other.shape, shared=shared
        )
        is_matrix = parameter.endswith(".weight") and len(other.shape) == 2 and one.shape == other.shape
        # Tables that are read by something else than tokens have a call of their own, which PEFT's lack.
        if is_table and type(layer) is not nn.Embedding and parameter not in self.vocabulary:
            is_matrix = False
        if is_matrix and (is_table or is_layer):
            kind = Kind.TABLE if is_table else Kind.LAYER
            return replace(whole, kind=kind, is_transposed=isinstance(layer, Conv1D))
        is_resized = (is_table or is_layer) and one.shape[1:] == other.shape[1:]
        if parameter.endswith(".bias") or is_resized:
            return whole
        # Saved with its module, of which it must be all.
        is_alone = not list(layer.children()) and all(
            own in ("weight", "bias") for own, _ in layer.named_parameters()
        )
        return whole if is_alone and one.shape == other.shape else None

    def _of_file(self, name: str) -> Change | None:
        """An expert's layer, which the model has in one parameter with others."""
        one, other = self._base.entry(name), self._target.entry(name)
        places = self.places.get(name, [])
        is_expert = len(places) == 1 and places[0].part is not None and places[0].part.expert is not None
        if not is_expert or one.shape != other.shape or len(one.shape) != 2 or not name.endswith(".weight"):
            return None
        return Change(kind=Kind.LAYER, parameter=name, dtype=other.dtype, shape=other.shape)
