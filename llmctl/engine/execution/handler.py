"""Runs any transformers model of attending layers over many sequences at once, packed in one row: tier A.

The code of the model is not touched: `drive` hands queries, keys and values of each layer to a backend, which
keeps them in blocks. Which tier a model belongs to is the business of `tiers`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from llmctl.engine.attention.interface import Backend, KVLayer
from llmctl.engine.execution.drive import AttentionCall, Driven, Recorder, UndrivableError
from llmctl.engine.execution.step import Step
from llmctl.engine.execution.storage import KVShape


class StepHandler(Protocol):
    """What the engine knows of a model: one step after another, one thread at a time."""

    def forward(self, step: Step) -> Tensor:
        """Logits [m, V] of the rows `step.wanted`, in the model's dtype."""

    def copy_state(self, source: int, target: int) -> None:
        """Let the sequence of state slot `target` go on from where that of `source` is."""

    def release(self) -> None:
        """Leave the model as it was, and forget all sequences."""


@dataclass(frozen=True, slots=True)
class Attending:
    """A listener for one step: keys and values go to the layer's blocks, and what attends is the backend."""

    driven: Driven
    backend: Backend
    layers: Mapping[int, KVLayer]
    sources: Mapping[int, int]
    step: Step

    def attend(self, call: AttentionCall) -> Tensor:
        """See `Listener.attend`."""
        return self.attend_as(layer_number(call), call)

    def attend_as(self, number: int, call: AttentionCall) -> Tensor:
        """Attend as layer `number`, whatever the module calls itself."""
        q = call.q
        if (temperature := self.driven.temperatures.get(call.module)) is not None:
            q = (q * temperature.of(self.step.positions.flatten())).to(q.dtype)
        if (source := self.sources.get(number)) is not None:
            return self.backend.attend(q, None, None, self.layers[source], self.step, call.scoring)
        return self.backend.attend(q, call.k, call.v, self.layers[number], self.step, call.scoring)


class Handler:
    """Tier A; see `StepHandler`."""

    def __init__(
        self, model: Any, backend: Backend, layers: Mapping[int, KVLayer], sources: Mapping[int, int]
    ) -> None:
        """`layers` by number of the layer; `sources` says whose keys a layer without own ones reads.

        The model attends through the backend until `release`. Raises `UndrivableError`.
        """
        self._driven = Driven(model)
        self._backend, self._layers, self._sources = backend, layers, sources

    def forward(self, step: Step) -> Tensor:
        """See `StepHandler.forward`."""
        output = self._run(step, None, **self._driven.rows(step.wanted))
        logits: Tensor = output.logits[0]
        return logits if self._driven.has_head_rows else logits[step.wanted]

    def hidden(self, step: Step) -> Tensor:
        """The last layer's output of every row, normed, [T, hidden]: what embeddings are made of."""
        found: Tensor = self._run(step, self._driven.model.base_model).last_hidden_state[0]
        return found

    def copy_state(self, source: int, target: int) -> None:
        """Nothing is kept outside of blocks."""

    def release(self) -> None:
        """See `StepHandler.release`."""
        self._driven.release()

    def _run(self, step: Step, part: Any, **options: Any) -> Any:
        attending = Attending(self._driven, self._backend, self._layers, self._sources, step)
        return self._driven(
            attending,
            model=part,
            input_ids=step.ids,
            position_ids=step.positions,
            use_cache=False,
            **options,
        )


def layer_number(call: AttentionCall) -> int:
    """What the attention module calls itself."""
    number = getattr(call.module, "layer_idx", None)
    if not isinstance(number, int) or number < 0:
        raise UndrivableError(f"{type(call.module).__name__} does not say which layer it is")
    return number


def shape_of(call: AttentionCall) -> KVShape:
    """What the layer keeps of one token."""
    return KVShape(num_heads=len(call.k), key_size=call.k.shape[-1], value_size=call.v.shape[-1])


def kv_shapes(model: Any) -> dict[int, KVShape]:
    """What every attention layer keeps of one token, found by running one token through the model.

    Raises `UndrivableError` for classes whose attention does not come through the hook.
    """
    driven, recorder = Driven(model), Recorder()
    try:
        if "position_ids" not in driven.accepted:
            raise UndrivableError(f"{type(model).__name__} takes no position_ids")
        one = torch.zeros(1, 1, dtype=torch.long, device=model.device)
        driven(recorder, input_ids=one, position_ids=one, use_cache=False)
    finally:
        driven.release()
    numbers = [layer_number(call) for call in recorder.calls]
    if not numbers:
        raise UndrivableError(f"{type(model).__name__} does not attend through AttentionInterface")
    if len(set(numbers)) < len(numbers):
        raise UndrivableError(f"{type(model).__name__} attends more than once in a layer")
    return {number: shape_of(call) for number, call in zip(numbers, recorder.calls, strict=True)}
