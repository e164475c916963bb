"""Whether an adapter holds tensors for all that its configuration names."""

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from llmctl.core.errors import BadFileError
from llmctl.lora.checkpoint import Adapter
from llmctl.lora.targets import ALL_LINEAR, Targets

_NUMBER = re.compile(r"(?<=\.)\d+(?=\.)")


@dataclass(frozen=True, slots=True, kw_only=True)
class Present:
    """What is there of base and adapter."""

    adapter: Adapter
    targets: Targets
    layers: Sequence[str]
    """Modules of the base that can be targeted, by the model's names and by the files'."""
    modules: Sequence[str]
    """All modules of the base."""
    covered: frozenset[str]
    """Those of them that the adapter has matrices for."""
    parameters: frozenset[str]
    """Of the base, those that the adapter changes."""


def check_complete(present: Present) -> None:
    """Raise `BadFileError` for modules that are targeted as others are that the adapter has, and for names of
    the configuration that no tensor is for.
    """
    folder = present.adapter.folder
    if missing := _missing(present):
        more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        raise BadFileError(
            f"{folder} lacks the matrices of {missing[0]}{more}, which its adapter_config.json targets",
            hint="the adapter was not saved as a whole, or belongs to a base with fewer layers",
        )
    for name in _unmet(present):
        raise BadFileError(
            f"{folder} holds nothing for {name}, which its adapter_config.json names",
            hint="the adapter was not saved as a whole",
        )


def _missing(present: Present) -> list[str]:
    """Layers without matrices whose like, in other layers, have some; towers of their own may have none."""
    kinds = {_NUMBER.sub("*", module) for module in present.covered}
    is_all = present.adapter.config.modules == ALL_LINEAR
    return sorted(
        module
        for module in present.layers
        if module not in present.covered
        and _NUMBER.sub("*", module) in kinds
        and (not is_all or "." in module)
        and present.targets.has_module(module)
    )


def _unmet(present: Present) -> Iterator[str]:
    """What the configuration names, and no tensor is for."""
    adapter, config = present.adapter, present.adapter.config
    if isinstance(config.modules, tuple) and adapter.low_rank:
        spelled = {module for module, _ in adapter.low_rank} | present.covered
        for end in config.modules:
            # A module that is saved whole or left out by another field has none, and is targeted no more.
            layers = (each for each in present.layers if _has([each], end))
            if not _has(spelled, end) and any(present.targets.has_module(each) for each in layers):
                yield f"{end} (target_modules)"
    for end in config.saved:
        # PEFT names both "classifier" and "score" for whatever classifies.
        is_there = any(module.endswith(end) for module in present.modules)
        if is_there and not any(end in name for name in adapter.full):
            yield f"{end} (modules_to_save)"
    for end in config.parameters:
        if not any(name.endswith(end) for name in present.parameters):
            yield f"{end} (target_parameters)"
    if config.tokens and not adapter.tokens:
        yield f"{', '.join(filter(None, config.tokens)) or 'its tokens'} (trainable_token_indices)"


def _has(modules: Iterable[str], end: str) -> bool:
    return any(each == end or each.endswith(f".{end}") for each in modules)
