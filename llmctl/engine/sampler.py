"""Chooses the next token of one sequence from the model's logits.

Order: repetition, presence and frequency penalty; temperature; min-p; top-k; top-p. Shapes: logits [V].
"""

import math

import torch
from torch import Tensor

from llmctl.core.errors import BadFileError
from llmctl.core.types import SamplingParams

GREEDY_BELOW = 1e-5
"""Temperatures under this are greedy, as in FastChat and vLLM."""


class Sampler:
    """The sampling state of one request: what was said, and its own stream of random numbers.

    Random numbers are drawn on the CPU in float64, one a token, so that a seed means the same on every
    device and in any company.
    """

    def __init__(self, params: SamplingParams, prompt_ids: Tensor, vocabulary_size: int) -> None:
        """`prompt_ids` [T] on the device of the logits."""
        self._params = params
        self._in_prompt = torch.zeros(vocabulary_size, dtype=torch.bool, device=prompt_ids.device)
        self._in_prompt[prompt_ids] = True
        self._counts = torch.zeros(vocabulary_size, dtype=torch.int32, device=prompt_ids.device)
        self._random = torch.Generator()
        if params.seed is None:
            self._random.seed()
        else:
            self._random.manual_seed(params.seed)

    def sample(self, logits: Tensor) -> int:
        """The next token's id, counted as said.

        Raises `BadFileError` when the model gives no numbers: any token would be as good as random.
        """
        scores = self._penalised(logits.float())
        best = scores.max()
        if not math.isfinite(best):
            raise BadFileError(
                f"the model's scores for the next token are not numbers (the largest is {float(best)})",
                hint="its weights are damaged, or overflow in this dtype: try --dtype float32",
            )
        if self._params.temperature < GREEDY_BELOW:
            token_id = int(scores.argmax())
        else:
            # Counted from the largest, no score overflows when a low temperature stretches it.
            stretched = (scores - best) / self._params.temperature
            token_id = self._draw(_filtered(stretched, self._params))
        self._counts[token_id] += 1
        return token_id

    def _penalised(self, logits: Tensor) -> Tensor:
        params = self._params
        if params.repetition_penalty != 1.0:
            seen = self._in_prompt | (self._counts > 0)
            penalty = params.repetition_penalty
            logits = torch.where(seen, torch.where(logits > 0, logits / penalty, logits * penalty), logits)
        if params.presence_penalty:
            logits = logits - params.presence_penalty * (self._counts > 0)
        if params.frequency_penalty:
            logits = logits - params.frequency_penalty * self._counts
        return logits

    def _draw(self, scores: Tensor) -> int:
        cumulative = scores.cpu().double().softmax(-1).cumsum(-1)
        point = torch.rand((), generator=self._random, dtype=torch.float64) * cumulative[-1]
        return int(torch.searchsorted(cumulative, point, right=True).clamp(max=len(cumulative) - 1))


def likeliest(logits: Tensor, token_id: int, count: int) -> list[tuple[int, float]]:
    """(id, log-probability) under the raw logits: `token_id` first, then the `count` likeliest in order."""
    logprobs = logits.float().log_softmax(-1)
    values, ids = logprobs.topk(min(count, len(logprobs)))
    return [(token_id, float(logprobs[token_id])), *zip(ids.tolist(), values.tolist(), strict=True)]


def _filtered(scores: Tensor, params: SamplingParams) -> Tensor:
    if params.min_p > 0:
        probabilities = scores.softmax(-1)
        scores = scores.masked_fill(probabilities < params.min_p * probabilities.max(), -torch.inf)
    if 0 < params.top_k < len(scores):
        scores = scores.masked_fill(scores < scores.topk(params.top_k).values[-1], -torch.inf)
    if params.top_p < 1:
        ordered, ids = scores.sort(descending=True, stable=True)
        probabilities = ordered.softmax(-1)
        # A token goes when those before it already reach top_p; the first always stays.
        is_spare = probabilities.cumsum(-1) - probabilities >= params.top_p
        scores = scores.masked_fill(torch.zeros_like(is_spare).scatter(0, ids, is_spare), -torch.inf)
    return scores
