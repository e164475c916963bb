"""Runs whole texts through a model's own forward, padded at the right or in batches of one length.

For encoders, and for decoders that cannot be packed.
"""

import inspect
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from llmctl.engine.pooling.batches import Plan
from llmctl.engine.pooling.inputs import Item


class PlainForward:
    """See `forward.Forward`."""

    def __init__(self, model: Any, plan: Plan, budget: int) -> None:
        """`plan` gives batches that the model gets right; `budget` is tokens of a batch with padding."""
        self._model, self.plan, self.budget = model, plan, budget
        self.name = plan.__name__
        self._padding = padding_id(model)

    def states(self, items: Sequence[Item]) -> Tensor:
        """See `Forward.states`."""
        states: Tensor = self._run(self._model.base_model, items).last_hidden_state
        return torch.cat([own[: len(item)] for own, item in zip(states, items, strict=True)])

    def logits(self, items: Sequence[Item]) -> Tensor:
        """See `Forward.logits`."""
        found: Tensor = self._run(self._model, items).logits
        return found

    def logprobs(self, items: Sequence[Item], firsts: Sequence[int]) -> list[Tensor]:
        """See `PackedForward.logprobs`."""
        logits = self._run(self._model, items).logits
        found = []
        for own, item, first in zip(logits, items, firsts, strict=True):
            scores = own[first - 1 : len(item) - 1].float().log_softmax(-1)
            targets = torch.tensor(item.ids[first:], device=scores.device)[:, None]
            found.append(scores.gather(1, targets)[:, 0])
        return found

    def release(self) -> None:
        """Nothing is kept."""

    def _run(self, model: Any, items: Sequence[Item]) -> Any:
        accepted, device = inspect.signature(model.forward).parameters, self._model.device
        longest = max(map(len, items))
        rows = {
            "input_ids": [_filled(item.ids, longest, self._padding) for item in items],
            "attention_mask": [_filled((1,) * len(item), longest, 0) for item in items],
        }
        # Only where the tokenizer tells: GPT-2 takes zeros for words.
        if all(item.type_ids is not None for item in items):
            rows["token_type_ids"] = [_filled(item.type_ids or (), longest, 0) for item in items]
        given: dict[str, Any] = {
            name: torch.tensor(each, device=device) for name, each in rows.items() if name in accepted
        }
        if "use_cache" in accepted:
            given["use_cache"] = False
        with torch.no_grad():
            return model(**given, return_dict=True)


def padding_id(model: Any) -> int:
    """The token that stands where there is none; RoBERTa and its kin count no positions there."""
    found = getattr(model.config.get_text_config(), "pad_token_id", None)
    return found if isinstance(found, int) and found >= 0 else 0


def _filled(row: Sequence[int], length: int, value: int) -> list[int]:
    return [*row, *[value] * (length - len(row))]
