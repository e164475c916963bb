"""From the states of a text's tokens to one vector: the ways of pooling, all in float32."""

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from llmctl.engine.pooling.inputs import Item
from llmctl.loading.facts.pooling import Mode, Recipe


def pool(states: Tensor, items: Sequence[Item], recipe: Recipe) -> Tensor:
    """float32 [n, modes * H] of states [T, H], which are those of all items one after another."""
    rows = states.float().split([len(item) for item in items])  # type: ignore[no-untyped-call]
    pairs = zip(rows, items, strict=True)
    return torch.stack(
        [torch.cat([_WAYS[mode](own, item.num_prompt) for mode in recipe.modes]) for own, item in pairs]
    )


def _weighted_mean(states: Tensor, first: int) -> Tensor:
    weights = torch.arange(first + 1, len(states) + 1, device=states.device, dtype=states.dtype)
    return weights @ states[first:] / weights.sum()


_WAYS: Mapping[Mode, Callable[[Tensor, int], Tensor]] = {
    "cls": lambda states, _: states[0],
    "last": lambda states, _: states[-1],
    "max": lambda states, first: states[first:].amax(0),
    "mean": lambda states, first: states[first:].mean(0),
    "mean_sqrt_len": lambda states, first: states[first:].sum(0) / (len(states) - first) ** 0.5,
    "weighted_mean": _weighted_mean,
}
"""From states [L, H] and the first row that counts to a vector [H]."""
