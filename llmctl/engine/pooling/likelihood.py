"""How likely a causal model finds given tokens: their log-probabilities, for texts beside each other."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from llmctl.core.errors import UsageError
from llmctl.engine.pooling import forward
from llmctl.engine.pooling.inputs import Input, Inputs, Item
from llmctl.loading.loader import LoadedModel
from llmctl.loading.pooled import LoadedPooled

_BUDGET = {"cpu": 512}
_BUDGET_ELSEWHERE = 2048
"""Tokens that run together, each of which may need the scores of the whole vocabulary."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Likelihood:
    """Of one continuation after its prompt."""

    token_ids: tuple[int, ...]
    logprobs: tuple[float, ...]
    """Natural logarithms, one for each of `token_ids`."""

    @property
    def total(self) -> float:
        """The logarithm of the probability of the whole continuation."""
        return sum(self.logprobs)


class LikelihoodScorer:
    """Scores continuations with a model that was loaded to generate, and owns it until `release`."""

    def __init__(self, loaded: LoadedModel, *, budget: int | None = None) -> None:
        """`budget` is tokens that run together. Raises `UsageError` for models with encoder and decoder."""
        if loaded.model.config.is_encoder_decoder:
            raise UsageError(
                f"{loaded.name} reads and writes apart, so it cannot score texts", hint="take a causal model"
            )
        self._loaded = LoadedPooled.of(loaded)
        self._inputs = Inputs(self._loaded)
        model = loaded.model
        self._forward = forward.choose(
            model,
            max_tokens=loaded.context_length,
            budget=budget or _BUDGET.get(model.device.type, _BUDGET_ELSEWHERE),
            is_rounded=self._loaded.is_rounded,
        )

    def score(self, pairs: Sequence[tuple[Input, Input]]) -> list[Likelihood]:
        """How likely each continuation is after its prompt; both are texts or token ids, tokenised apart.

        Raises `UsageError` for empty ones, `ContextOverflowError`.
        """
        items, firsts = [], []
        for index, (prompt, continuation) in enumerate(pairs):
            before = self._inputs.ids(prompt, index, special=True)
            after = self._inputs.ids(continuation, index, special=False)
            items.append(self._inputs.fitting(Item(ids=(*before, *after)), index))
            firsts.append(len(before))
        found: dict[int, Likelihood] = {}
        for batch in self._forward.plan([len(item) for item in items], self._forward.budget):
            with torch.no_grad():
                rows = self._forward.logprobs(
                    [items[each] for each in batch], [firsts[each] for each in batch]
                )
            for each, row in zip(batch, rows, strict=True):
                found[each] = Likelihood(
                    token_ids=items[each].ids[firsts[each] :], logprobs=tuple(row.tolist())
                )
        return [found[index] for index in range(len(items))]

    def release(self) -> None:
        """Leave the model as it was."""
        self._forward.release()
