"""Runs models that nothing is known of, one sequence after another through the cache they bring: tier C."""

import inspect
from typing import Any

import torch
from torch import Tensor

from llmctl.engine.execution.step import Span, Step
from llmctl.engine.generate.stepper import Stepper


class OwnCacheHandler:
    """See `handler.StepHandler`. A span that starts at 0 forgets what its slot held; no other has two tokens.

    The model keeps what it likes, in memory that nobody counts: slots are few.
    """

    def __init__(self, model: Any) -> None:
        self._model = model
        self._steppers: dict[int, Stepper] = {}

    def forward(self, step: Step) -> Tensor:
        """See `StepHandler.forward`."""
        assert step.states is not None
        rows = step.wanted.tolist()
        found: dict[int, Tensor] = {}
        for span, slot in zip(step.spans, step.states.tolist(), strict=True):
            found |= self._feed(span, slot, step.ids[0], {row for row in rows if _holds(span, row)})
        if not rows:
            return torch.empty(0, 0, device=step.ids.device)
        return torch.stack([found[row] for row in rows])

    def copy_state(self, source: int, target: int) -> None:
        """Not offered: a cache of the model's own cannot be shared in general."""
        raise NotImplementedError

    def release(self) -> None:
        """See `StepHandler.release`."""
        self._steppers.clear()

    def _feed(self, span: Span, slot: int, ids: Tensor, wanted: set[int]) -> dict[int, Tensor]:
        if span.start == 0:
            self._steppers[slot] = _ToldStepper(self._model)
        stepper = self._steppers[slot]
        last = span.row + span.count - 1
        if wanted <= {last}:
            return {last: stepper(ids[span.row : last + 1])}
        # Only the logits behind what is fed are to be had, so it is fed by the token: slow, but right.
        return {row: stepper(ids[row : row + 1]) for row in range(span.row, last + 1)}


class _ToldStepper(Stepper):
    """Says where the tokens stand: by themselves, models whose first layer is recurrent count from 0."""

    def __init__(self, model: Any) -> None:
        super().__init__(model)
        self._is_told_positions = "position_ids" in inspect.signature(model.forward).parameters


def _holds(span: Span, row: int) -> bool:
    return span.row <= row < span.row + span.count
