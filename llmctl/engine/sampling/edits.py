"""Changes of single logits in many rows: penalties, bias, bans. Only the entries that change are touched.

Shapes: c rows of scores over a vocabulary of V tokens; s entries.
"""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from llmctl.core.types import SamplingParams
from llmctl.engine.sampling.constraints import Constraints
from llmctl.engine.sampling.seen import Seen


def penalise(scores: Tensor, rows: Sequence[tuple[int, SamplingParams, Seen]]) -> None:
    """Lower what was met in some rows of `scores` [c, V], float32, in place."""
    sizes = [len(seen.ids) for _, _, seen in rows]

    def spread(values: Iterable[float]) -> Tensor:
        return _tensor(np.repeat(np.array(list(values), dtype=np.float32), sizes), scores)

    where = (
        _tensor(np.repeat([row for row, _, _ in rows], sizes), scores),
        _tensor(np.concatenate([seen.ids for _, _, seen in rows]), scores),
    )
    counts = _tensor(np.concatenate([seen.counts for _, _, seen in rows]), scores)
    repetition = spread(params.repetition_penalty for _, params, _ in rows)
    found = scores[where]
    found = torch.where(found > 0, found / repetition, found * repetition)
    found = found - spread(params.presence_penalty for _, params, _ in rows) * (counts > 0)
    scores[where] = found - spread(params.frequency_penalty for _, params, _ in rows) * counts


class Edits:
    """The constraints of a request, with what never changes of them as arrays."""

    def __init__(self, constraints: Constraints) -> None:
        self.constraints = constraints
        self.bias_ids = np.array([token_id for token_id, _ in constraints.bias], dtype=np.int64)
        self.bias = np.array([value for _, value in constraints.bias], dtype=np.float32)
        allowed = constraints.allowed_ids
        self.allowed_ids = None if allowed is None else np.unique(np.array(allowed, dtype=np.int64))


def constrain(scores: Tensor, rows: Sequence[tuple[int, Edits, Sequence[int]]]) -> None:
    """Add the bias of some rows of `scores` [c, V], float32, and ban what must not follow, in place.

    Of each row: its number, what it asks for, its answer so far.
    """
    for row, edits, _ in rows:
        if len(edits.bias):
            scores[row, _tensor(edits.bias_ids, scores)] += _tensor(edits.bias, scores)
        if edits.allowed_ids is not None:
            allowed = _tensor(edits.allowed_ids, scores)
            kept = scores[row, allowed]
            scores[row] = -torch.inf
            scores[row, allowed] = kept
    banned = [(row, token_id) for row, edits, said in rows for token_id in edits.constraints.forbidden(said)]
    if banned:
        places, ids = np.array(banned, dtype=np.int64).T.copy()
        scores[_tensor(places, scores), _tensor(ids, scores)] = -torch.inf


def _tensor(array: NDArray[Any], like: Tensor) -> Tensor:
    return torch.from_numpy(array).to(like.device)
