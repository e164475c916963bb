"""What an adapter does to each tensor of its base's files: the plan by which it is loaded and written."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from llmctl.core.errors import BadFileError
from llmctl.lora.checkpoint import Adapter
from llmctl.lora.places import Names, Place
from llmctl.lora.resolve import Resolved, resolve
from llmctl.lora.updates import WHOLE, Part, Update, apply_all


@dataclass(frozen=True, slots=True, kw_only=True)
class Piece:
    """What happens to a tensor, or to some rows of it."""

    updates: tuple[Update, ...]
    part: Part = WHOLE
    """Of the parameter that the updates are for."""
    rows: tuple[int, int] | None = None
    """Of the tensor; None: all."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """One tensor of the merged checkpoint that is not as the base has it."""

    source: str
    """The tensor of the base that it is made from."""
    pieces: tuple[Piece, ...]
    shape: tuple[int, ...] | None = None
    """Where it is not the source's."""

    def apply(self, weight: Tensor, dtype: torch.dtype, *, name: str) -> Tensor:
        """The tensor in `dtype`, of the source's `weight`, which is left alone. Raises `BadFileError`."""
        if not self.pieces:
            return weight.to(dtype)
        if len(self.pieces) == 1 and self.pieces[0].rows is None:
            piece = self.pieces[0]
            return apply_all(weight, piece.updates, piece.part, dtype, name=name)
        changed = weight.to(dtype, copy=True)
        for piece in self.pieces:
            start, end = piece.rows or (0, weight.shape[0])
            changed[start:end] = apply_all(weight[start:end], piece.updates, piece.part, dtype, name=name)
        return changed


@dataclass(frozen=True, slots=True, kw_only=True)
class MergePlan:
    """The merge of one adapter into one base."""

    changes: Mapping[str, Change]
    """By name of the merged checkpoint's tensors; the others are the base's."""
    resolved: Resolved
    config_changes: Mapping[str, Any] = field(default_factory=dict)
    """What the merged model's config says otherwise than the base's, in the part that is about the text."""

    @property
    def added(self) -> tuple[str, ...]:
        """Tensors that the base's files do not have."""
        return tuple(name for name, change in self.changes.items() if change.source != name)


def plan_merge(adapter: Adapter, model: Any, tensors: Mapping[str, tuple[int, ...] | None]) -> MergePlan:
    """What `adapter` does to the files of a base with `tensors` by shape, None where it is not known.

    `model` is the base's class on the meta device. Raises `BadFileError` as `resolve` does, and for weights
    that the files hold in an order that llmctl cannot change.
    """
    names = Names(model)
    resolved = resolve(adapter, model, names, tensors)
    made = _Planner(resolved, names.places(tensors), tensors)
    made.plan()
    return MergePlan(
        changes=made.changes,
        resolved=resolved,
        config_changes=_config_changes(resolved, model),
    )


class _Planner:
    def __init__(
        self,
        resolved: Resolved,
        places: Mapping[str, Sequence[Place]],
        tensors: Mapping[str, tuple[int, ...] | None],
    ) -> None:
        self._resolved, self._places, self._tensors = resolved, places, tensors
        self.changes: dict[str, Change] = {}

    def plan(self) -> None:
        pieces: dict[str, list[Piece]] = defaultdict(list)
        stored: set[str] = set()
        for tensor, places in self._places.items():
            for place in places:
                owner = self._resolved.owners.get(place.parameter, place.parameter)
                stored.add(owner)
                if updates := self._resolved.parameters.get(owner, ()):
                    pieces[tensor].append(self._piece(tensor, place, updates))
        for tensor, updates in self._resolved.tensors.items():
            pieces[tensor].append(Piece(updates=updates))
        for tensor, found in pieces.items():
            self.changes[tensor] = Change(
                source=tensor, pieces=tuple(found), shape=self._shape(tensor, found)
            )
        self._add_untied(stored)
        if missing := sorted(self._resolved.parameters.keys() - stored):
            raise BadFileError(
                f"the adapter changes {missing[0]}, which the base's files do not hold",
                hint="the base is incomplete, or its config.json belongs to another model",
            )

    def _piece(self, tensor: str, place: Place, updates: tuple[Update, ...]) -> Piece:
        part = place.part
        is_whole = part == WHOLE
        if part is None or not (is_whole or all(update.works_on_parts for update in updates)):
            raise BadFileError(
                f"the adapter changes {place.parameter}, which the base's files keep in {tensor} in another "
                "order: llmctl cannot merge into that",
                hint="merge with peft's merge_and_unload, which takes the memory for the whole model",
            )
        wanted, found = _part_shape(updates[-1].shape, part), self._tensors[tensor]
        is_resized = is_whole and updates[-1].shape != found and place.rows is None
        if found is not None and not is_resized and wanted != _rows_shape(found, place.rows):
            raise BadFileError(
                f"the tensor {tensor} of the base is {list(found)}, and its part of {place.parameter} should "
                f"be {list(wanted)}",
                hint="config.json belongs to another model",
            )
        return Piece(updates=updates, part=part, rows=place.rows)

    def _shape(self, tensor: str, pieces: Sequence[Piece]) -> tuple[int, ...] | None:
        if len(pieces) == 1 and pieces[0].rows is None and pieces[0].part == WHOLE:
            shape = pieces[0].updates[-1].shape
            return shape if shape != self._tensors[tensor] else None
        return None

    def _add_untied(self, stored: set[str]) -> None:
        """A weight of its own for whom the files have none, since it shared one."""
        here = {
            place.parameter: tensor
            for tensor, places in self._places.items()
            for place in places
            if place.part == WHOLE and place.rows is None
        }
        of_tied = [here[name] for name in self._resolved.untied if name in here]
        for name in self._resolved.untied:
            if name in here or not of_tied:
                continue
            updates = self._resolved.parameters.get(name, ())
            shape = updates[-1].shape if updates else None
            pieces = (Piece(updates=updates),) if updates else ()
            self.changes[name] = Change(source=of_tied[0], pieces=pieces, shape=shape)
            stored.add(name)


def _part_shape(shape: tuple[int, ...], part: Part) -> tuple[int, ...]:
    left = shape if part.expert is None else shape[1:]
    if part.rows is None:
        return left
    dim = max(len(left) - 2, 0)
    return (*left[:dim], part.rows[1] - part.rows[0], *left[dim + 1 :])


def _rows_shape(shape: tuple[int, ...], rows: tuple[int, int] | None) -> tuple[int, ...]:
    return shape if rows is None else (min(rows[1], shape[0]) - rows[0], *shape[1:])


def _config_changes(resolved: Resolved, model: Any) -> dict[str, Any]:
    """A table that has grown, and one that the head does not share any more."""
    changes: dict[str, Any] = {}
    table = model.get_input_embeddings()
    names = [name for name, each in model.named_parameters() if each is table.weight]
    for name in names:
        updates = resolved.parameters.get(name, ())
        if updates and updates[-1].shape[0] != table.weight.shape[0]:
            changes["vocab_size"] = updates[-1].shape[0]
    if resolved.untied:
        changes["tie_word_embeddings"] = False
    return changes
