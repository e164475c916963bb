"""How a model runs many texts at once, with results that do not depend on the company: interface and choice.

Packed where the engine's self-check allows it, else padded where the model is found to be right with padding,
else texts of one length together.
"""

import logging
from collections.abc import Sequence
from typing import Any, Protocol

import torch
from torch import Tensor

from llmctl.engine import tiers
from llmctl.engine.checking import selfcheck
from llmctl.engine.execution import layout
from llmctl.engine.execution.drive import UndrivableError
from llmctl.engine.execution.layout import Layout
from llmctl.engine.generate.stepper import is_of_transformers
from llmctl.engine.pooling import batches
from llmctl.engine.pooling.batches import Plan
from llmctl.engine.pooling.inputs import Item
from llmctl.engine.pooling.packed import PackedForward
from llmctl.engine.pooling.plain import PlainForward, padding_id
from llmctl.loading import architecture
from llmctl.loading.loader import vocabulary_size

log = logging.getLogger(__name__)

# Its attention is another one for long rows, padded ones included.
_ONE_LENGTH = ("big_bird",)
_CHECKED_LENGTHS = (9, 4, 7)
_TOLERANCE, _ROUNDED_TOLERANCE = 1e-3, 3e-2
"""Of the root mean square; the larger one where numbers are rounded to fewer than 32 bits."""


class Forward(Protocol):
    """Runs whole texts. One thread at a time."""

    name: str
    """The way, in a word."""
    budget: int
    """Tokens of a batch, where a text alone has no more."""

    @property
    def plan(self) -> Plan:
        """Makes batches that may run together."""

    def states(self, items: Sequence[Item]) -> Tensor:
        """The last layer's output [T, H] for the tokens of all items of a batch, one item after another."""

    def logits(self, items: Sequence[Item]) -> Tensor:
        """[n, labels] of a classifier."""

    def logprobs(self, items: Sequence[Item], firsts: Sequence[int]) -> list[Tensor]:
        """float32 [L - first] for each item of a causal model: how likely its tokens from `first` (1 or more)
        on were, each after those before it."""

    def release(self) -> None:
        """Leave the model as it was."""


def choose(model: Any, *, max_tokens: int, budget: int, is_rounded: bool) -> Forward:
    """The fastest way that is right for `model`, whose texts have up to `max_tokens`; the log names it."""
    packable = _packable(model, max_tokens)
    if isinstance(packable, Layout):
        found: Forward = PackedForward(model, packable, budget)
        reason = "the engine's self-check passed"
    else:
        plan, reason = _plan(model, is_rounded=is_rounded)
        found, reason = PlainForward(model, plan, budget), f"{packable}; {reason}"
    log.info("%s: texts run %s, %d tokens at a time (%s)", type(model).__name__, found.name, budget, reason)
    return found


def _packable(model: Any, max_tokens: int) -> Layout | str:
    """What the model keeps in packed rows, or why it cannot be packed."""
    config = model.config
    if not is_of_transformers(model):
        return "its code comes from its repository"
    if not architecture.continues_text(config.to_dict()):
        return "no decoder"
    if _is_classifier(model) and not _has_generic_classifier(model):
        return "its classifier is its own"
    if (reason := tiers.long_rope(config, max_tokens)) is not None:
        return reason
    verdict = selfcheck.check(config)
    if verdict.letter != "A":
        return verdict.reason
    try:
        return layout.layout(model, "A")
    except UndrivableError as error:
        return str(error)


def _is_classifier(model: Any) -> bool:
    return hasattr(model, "num_labels")


def _has_generic_classifier(model: Any) -> bool:
    from transformers.modeling_layers import GenericForSequenceClassification

    return isinstance(model, GenericForSequenceClassification)


def _plan(model: Any, *, is_rounded: bool) -> tuple[Plan, str]:
    """Which batches the model gets right, found by trying, and what was found."""
    if _is_classifier(model):
        if model.config.is_encoder_decoder:
            return batches.single, "its classifier counts ends of texts over the whole batch"
        if getattr(model.config.get_text_config(), "pad_token_id", None) is None:
            return batches.single, "it has no padding token"
    if model.config.model_type in _ONE_LENGTH:
        return batches.equal, "its attention depends on the padded length"
    difference = _difference(model)
    if difference <= (_ROUNDED_TOLERANCE if is_rounded else _TOLERANCE):
        return batches.padded, "padding changes nothing"
    return batches.equal, f"padding changes its output by {difference:.0e}"


def _difference(model: Any) -> float:
    """How far apart states, or a classifier's logits, are with and without padding, by their size."""
    generator = torch.Generator().manual_seed(0)
    size, padding = vocabulary_size(model), padding_id(model)
    items = [
        Item(ids=tuple((each + (each == padding)) % size for each in row.tolist()))
        for row in (torch.randint(size, (length,), generator=generator) for length in _CHECKED_LENGTHS)
    ]
    plain = PlainForward(model, batches.padded, sum(_CHECKED_LENGTHS))
    run = plain.logits if _is_classifier(model) else plain.states
    alone = torch.cat([run([item]) for item in items]).float()
    together = run(items).float()
    difference = (together - alone).square().mean() / alone.square().mean().clamp_min(1e-12)
    return float(difference.sqrt())
