"""Where the files of a checkpoint keep each parameter of the model: by other names, in pieces, or joined.

transformers turns the one into the other while it loads; where that only moves numbers it is read backwards.
"""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from transformers.conversion_mapping import get_model_conversion_mapping
from transformers.core_model_loading import (
    WeightConverter,
    WeightRenaming,
    dot_natural_key,
    rename_source_key,
)

from llmctl.lora.updates import WHOLE, Part

_MOVES = (
    (),
    ("MergeModulelist",),
    ("MergeModulelist", "Concatenate"),
    ("Concatenate",),
    ("Chunk",),
    ("Split",),
)
"""Conversions of transformers that only move numbers, by the names of their steps."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """One parameter, or a part of it, in one tensor of the files."""

    parameter: str
    part: Part | None
    """Which part of the parameter stands there; None: in an order that llmctl does not know."""
    rows: tuple[int, int] | None = None
    """The rows of the tensor where it stands; None: it is the whole tensor."""


class Names:
    """The names of a model's parameters, as its class on the meta device has them, and of its files."""

    def __init__(self, model: Any) -> None:
        self._parameters = dict(model.named_parameters(remove_duplicate=False))
        self._modules = {parameter.rpartition(".")[0] for parameter in self._parameters}
        conversions = get_model_conversion_mapping(model)
        self._renamings = [each for each in conversions if isinstance(each, WeightRenaming)]
        self._converters = [each for each in conversions if isinstance(each, WeightConverter)]
        self._by_pattern = {pattern: each for each in self._converters for pattern in each.source_patterns}
        self._prefix = model.base_model_prefix
        self._known = model.state_dict()

    def module(self, name: str) -> str | None:
        """The module of the model that an adapter calls `name`; None where there is none.

        Adapters of older versions have older names, those of the bare model lack its prefix.
        """
        renamed = self._renamed(f"{name}.weight", with_converters=False)[0].removesuffix(".weight")
        candidates = (name, f"{self._prefix}.{name}", name.removeprefix(f"{self._prefix}."), renamed)
        return next((each for each in candidates if each in self._modules), None)

    def parameter(self, name: str) -> str | None:
        """The parameter of the model that an adapter calls `name`; None where there is none."""
        module, _, own = name.rpartition(".")
        found = self.module(module)
        full = f"{found}.{own}" if found is not None else name
        return full if full in self._parameters else None

    def places(self, tensors: Iterable[str]) -> dict[str, list[Place]]:
        """What of the model stands in each tensor of the files; tensors of no use to it are left out."""
        found: dict[str, list[Place]] = defaultdict(list)
        pieces: dict[tuple[str, str], list[str]] = defaultdict(list)
        for tensor in sorted(tensors, key=dot_natural_key):
            parameter, pattern = self._renamed(tensor)
            if parameter not in self._known and tensor in self._known:
                parameter, pattern = tensor, None
            if parameter not in self._known:
                continue
            if pattern is None:
                found[tensor].append(Place(parameter=parameter, part=WHOLE))
            else:
                pieces[parameter, pattern].append(tensor)
        for (parameter, pattern), names in pieces.items():
            for tensor, places in self._converted(parameter, pattern, names):
                found[tensor] += places
        return dict(found)

    def _renamed(self, name: str, *, with_converters: bool = True) -> tuple[str, str | None]:
        converters = self._converters if with_converters else []
        renamed, pattern = rename_source_key(name, self._renamings, converters, self._prefix, self._known)
        return str(renamed), pattern

    def _converted(
        self, parameter: str, pattern: str, names: Sequence[str]
    ) -> Iterable[tuple[str, list[Place]]]:
        """The places in tensors of one pattern that end up in `parameter`, and those beside it."""
        converter = self._by_pattern[pattern]
        steps = tuple(type(step).__name__ for step in converter.operations)
        targets = self._targets(parameter, converter)
        if steps not in _MOVES or any(target not in self._parameters for target in targets):
            return [(name, [Place(parameter=each, part=None) for each in targets]) for name in names]
        if steps in (("Chunk",), ("Split",)):
            return [(name, self._beside(targets, converter)) for name in names]
        has_experts, rows = "MergeModulelist" in steps, self._rows(parameter, pattern, converter, steps)
        if rows == (0, 0):
            return [(name, [Place(parameter=parameter, part=None)]) for name in names]
        return [
            (name, [Place(parameter=parameter, part=Part(index if has_experts else None, rows))])
            for index, name in enumerate(names)
        ]

    def _targets(self, parameter: str, converter: Any) -> list[str]:
        first, *others = converter.target_patterns
        return [parameter, *(parameter.replace(first, each) for each in others)]

    def _beside(self, targets: Sequence[str], converter: Any) -> list[Place]:
        """Several parameters, one below the other in one tensor."""
        places, start = [], 0
        for target in targets:
            count = self._parameters[target].shape[0]
            is_known = converter.operations[0].dim == 0
            places.append(
                Place(parameter=target, part=WHOLE if is_known else None, rows=(start, start + count))
            )
            start += count
        return places

    def _rows(
        self, parameter: str, pattern: str, converter: Any, steps: Sequence[str]
    ) -> tuple[int, int] | None:
        """The rows of the parameter, or of each expert, that tensors of `pattern` hold; (0, 0): not rows."""
        sources = list(converter.source_patterns)
        if "Concatenate" not in steps or len(sources) == 1:
            return None
        shape, dim = self._parameters[parameter].shape, converter.operations[-1].dim
        is_rows = dim % len(shape) == max(len(shape) - 2, 0) if len(shape) != 2 else dim % 2 == 0
        if not is_rows or shape[dim] % len(sources):
            return (0, 0)
        each: int = shape[dim] // len(sources)
        index = sources.index(pattern)
        return (index * each, (index + 1) * each)
