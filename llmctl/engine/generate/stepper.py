"""A model with what it keeps of one sequence, so that a step costs one token. Shapes: ids [T], logits [V]."""

import inspect
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

CACHE_NAMES = ("cache", "past_key_values", "cache_params", "state")
"""The names under which models take and return what they keep; `cache` since transformers 5.24."""


class Stepper:
    """Feeding ids gives the logits behind the last of them.

    A model that hands back no cache is fed the whole sequence at every step: slow, but right.
    """

    def __init__(
        self,
        model: Any,
        *,
        ids_name: str = "input_ids",
        given: Mapping[str, Any] | None = None,
        cache: object = None,
    ) -> None:
        """`ids_name` is the forward's argument for the ids, `given` are arguments that every step repeats.

        `cache` is an empty one to begin with; None lets the model make its own.
        """
        self._model = model
        self._ids_name = ids_name
        self._num_kept = 0
        self._fed = torch.empty(0, dtype=torch.long, device=model.device)
        """What `_kept` does not hold."""
        accepted = inspect.signature(model.forward).parameters
        # A model's output answers to the other names too, its forward does not.
        self._names = [name for name in CACHE_NAMES if name in accepted] or CACHE_NAMES
        self._kept = {self._names[0]: cache} if cache is not None else {}
        # The head over a long prompt would cost vocabulary x prompt numbers for one row that is used.
        self._options = {"logits_to_keep": 1} if "logits_to_keep" in accepted else {}
        self._options |= given or {}
        self._is_told_positions = "position_ids" in accepted

    def __call__(self, ids: Tensor) -> Tensor:
        """Feed `ids`, at least one."""
        self._fed = torch.cat([self._fed, ids])
        with torch.no_grad():
            output = self._model(
                **{self._ids_name: self._fed[None]},
                use_cache=True,
                return_dict=True,
                **self._kept,
                **self._options,
                **self._positions(),
            )
        name = next((name for name in self._names if output.get(name) is not None), None)
        self._kept = {name: output[name]} if name is not None else {}
        if self._kept:
            self._num_kept += len(self._fed)
            self._fed = self._fed[:0]
        logits: Tensor = output.logits[0, -1]
        return logits

    def _positions(self) -> dict[str, Tensor]:
        """Where `_fed` stands.

        Some count from 0 at every step by themselves: ChatGLM's code, and hybrids such as Bamba and MiniMax,
        which ask a recurrent first layer for the length so far.
        """
        if not self._is_told_positions:
            return {}
        places = torch.arange(self._num_kept, self._num_kept + len(self._fed), device=self._fed.device)
        return {"position_ids": places[None]}


def is_of_transformers(model: Any) -> bool:
    """Whether the class of `model` is transformers' own, not code of a model's repository."""
    return type(model).__module__.startswith("transformers.")
