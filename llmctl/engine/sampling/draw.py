"""Draws a token in each of many rows after min-p, top-k and top-p, as `generate.sampler` does in one.

Weights are whole numbers (`sampler.weights`): their sums are exact in any order, so that neither company nor
a shortcut changes a token. Shapes: r rows, V tokens, C columns that stand for tokens in the order of ids.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from llmctl.core.types import SamplingParams
from llmctl.engine.generate.sampler import WHOLE, weights

NARROW = 1024
"""Up to this top-k the few tokens are found first, and the rest is done with them alone."""
_SPARE = 64
"""So many more are looked at, because all that are as likely as the k-th stay."""


@dataclass(frozen=True, slots=True)
class Draw:
    """One row."""

    params: SamplingParams
    random: float
    """In [0, 1)."""


def draw(scores: Tensor, draws: Sequence[Draw]) -> list[int]:
    """A token for each row of `scores` [r, V]: float32, at temperature, the largest of each row 0."""
    size, numbers = scores.shape[-1], range(len(draws))
    few = [each for each in numbers if 0 < draws[each].params.top_k <= min(NARROW, size - 1)]
    whole = [each for each in numbers if _keeps_all(draws[each].params, size)]
    found = dict(zip(whole, _of_all(scores, draws, whole), strict=True))
    for each, token in zip(few, _of_few(scores, draws, few), strict=True):
        if token is not None:
            found[each] = token
    others = [each for each in numbers if each not in found]
    found |= zip(others, _of_some(scores, draws, others), strict=True)
    return [found[each] for each in numbers]


def _keeps_all(params: SamplingParams, size: int) -> bool:
    return params.top_p >= 1 and params.min_p == 0 and not 0 < params.top_k < size


def _of_few(scores: Tensor, draws: Sequence[Draw], group: Sequence[int]) -> list[int | None]:
    """Draw in rows of small top-k; None where too many tokens are as likely as the k-th to look at few."""
    if not group:
        return []
    own = [draws[each] for each in group]
    size, device = scores.shape[-1], scores.device
    width = min(size, max(each.params.top_k for each in own) + _SPARE)
    values, ids = _rows(scores, group).topk(width)
    least = values.gather(1, torch.tensor([[each.params.top_k - 1] for each in own], device=device))
    is_overflown = (values[:, -1] >= least[:, 0]).tolist() if width < size else [False] * len(own)
    least = torch.maximum(least, _least_likely(own, device))
    ids, order = ids.sort(-1)
    values = values.gather(1, order)
    values = values.masked_fill(values < least, -torch.inf)
    tokens = _drawn(_nucleus(values, _needed(values, own)), own, ids)
    return [None if is_spoilt else token for is_spoilt, token in zip(is_overflown, tokens, strict=True)]


def _of_all(scores: Tensor, draws: Sequence[Draw], group: Sequence[int]) -> list[int]:
    """Draw in rows where nothing is filtered."""
    return _drawn(_rows(scores, group), [draws[each] for each in group], None) if group else []


def _of_some(scores: Tensor, draws: Sequence[Draw], group: Sequence[int]) -> list[int]:
    """Draw in rows with any filters."""
    if not group:
        return []
    own = [draws[each] for each in group]
    scores = _rows(scores, group)
    least = _least_likely(own, scores.device)
    top_k = [each.params.top_k for each in own]
    if any(top_k):
        least = torch.maximum(least, _kth(scores, top_k))
    if all(each.params.top_p >= 1 for each in own):
        scores, ids = _packed(scores, least)
        return _drawn(scores, own, ids)
    # Without a bound there is nothing to mask, and it takes a while.
    if float(least.max()) > -math.inf:
        scores = scores.masked_fill(scores < least, -torch.inf)
    needed = _needed(scores, own)
    scores, ids = _packed(scores, torch.maximum(least, needed.least))
    return _drawn(_nucleus(scores, needed), own, ids)


def _drawn(scores: Tensor, draws: Sequence[Draw], ids: Tensor | None) -> list[int]:
    """The token drawn in each row of `scores` [r, C]; `ids` [r, C] says which they are, if not all."""
    sums = weights(scores).cumsum(-1)
    total = sums[:, -1:]
    random = _column([each.random for each in draws], scores.device)
    point = torch.minimum((random * total.double()).long(), total - 1)
    columns = torch.searchsorted(sums, point, right=True)
    tokens: list[int] = (columns if ids is None else ids.gather(1, columns))[:, 0].tolist()
    return tokens


def _least_likely(draws: Sequence[Draw], device: torch.device) -> Tensor:
    """[r, 1]: the lowest score that min-p lets stay."""
    values = [math.log(each.params.min_p) if each.params.min_p > 0 else -math.inf for each in draws]
    return _column(values, device).float()


def _kth(scores: Tensor, top_k: Sequence[int]) -> Tensor:
    """[r, 1]: the lowest score that top-k lets stay."""
    size = scores.shape[-1]
    places = [[size - k if 0 < k < size else 0] for k in top_k]
    return _rising(scores).gather(1, torch.tensor(places, device=scores.device))


@dataclass(frozen=True, slots=True)
class _Needed:
    """What the tokens that stay after top-p must weigh together."""

    weight: Tensor
    """[r, 1]."""
    least: Tensor
    """[r, 1]: a score below which no token is needed."""


def _needed(scores: Tensor, draws: Sequence[Draw]) -> _Needed:
    total = weights(scores).sum(-1, keepdim=True)
    share = _column([each.params.top_p for each in draws], scores.device)
    weight = torch.where(share < 1, (share * total.double()).ceil().long(), total)
    # All tokens below weigh less together than what may go, each rounded up by less than 1.
    size = scores.shape[-1]
    most = (0.99 * (total - weight - size).double() / (size * float(WHOLE))).clamp(min=0)
    return _Needed(weight, most.log().float())


def _packed(scores: Tensor, least: Tensor) -> tuple[Tensor, Tensor | None]:
    """[r, C] the scores of at least `least` [r, 1] side by side, and [r, C] whose they are.

    -inf fills up, and stands in the place of others where packing is not worth it and ids are None.
    """
    is_kept = scores >= least
    counts = is_kept.sum(-1)
    width = int(counts.max())
    if 2 * width > scores.shape[-1]:
        return scores.masked_fill(~is_kept, -torch.inf), None
    rows, ids = is_kept.nonzero(as_tuple=True)
    places = torch.arange(len(rows), device=scores.device) - (counts.cumsum(0) - counts)[rows]
    packed = scores.new_full((len(scores), width), -torch.inf)
    packed[rows, places] = scores[rows, ids]
    packed_ids = ids.new_zeros(packed.shape)
    packed_ids[rows, places] = ids
    return packed, packed_ids


def _nucleus(scores: Tensor, needed: _Needed) -> Tensor:
    """top-p, by scores in rising order: which token each belongs to does not matter."""
    rising = _rising(scores)
    sums = weights(rising).cumsum(-1)
    # A token stays as long as those above it weigh less than needed.
    first = torch.searchsorted(sums, sums[:, -1:] - needed.weight, right=True)
    least = rising.gather(1, first)
    is_above, is_level = scores > least, scores == least
    # Of those as likely as the last one that stays, the first stay.
    room = scores.shape[-1] - first - is_above.sum(-1, keepdim=True)
    is_kept = is_above | (is_level & (is_level.cumsum(-1, dtype=torch.int32) <= room))
    return scores.masked_fill(~is_kept, -torch.inf)


def _rising(scores: Tensor) -> Tensor:
    """In rising order."""
    if scores.device.type != "cpu":
        return scores.sort(dim=-1).values
    # Many times as fast as torch on the CPU, which sorts positions along.
    rising = scores.clone(memory_format=torch.contiguous_format)
    rising.numpy().sort(axis=-1)
    return rising


def _rows(scores: Tensor, group: Sequence[int]) -> Tensor:
    return scores if len(group) == len(scores) else scores[torch.tensor(group, device=scores.device)]


def _column(values: Sequence[float], device: torch.device) -> Tensor:
    """[r, 1], float64."""
    return torch.tensor(values, dtype=torch.float64, device=device)[:, None]
