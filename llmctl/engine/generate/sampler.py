"""Chooses the next token of one sequence from the model's logits; what `engine.sampling` is compared with.

Order: repetition, presence and frequency penalty; bias; bans; temperature; min-p; top-k; top-p.
Shapes: logits [V].
"""

import math
from collections.abc import Collection, Sequence

import torch
from torch import Tensor

from llmctl.core.errors import BadFileError
from llmctl.core.types import SamplingParams
from llmctl.engine.sampling.constraints import Constraints, Word, nothing_left

GREEDY_BELOW = 1e-5
"""Temperatures under this are greedy, as in FastChat and vLLM."""
WHOLE = 2**42
"""Weight of the likeliest token. A million tokens of this weight have a sum that int64 holds."""


class Sampler:
    """The sampling state of one request: what was said, and its own stream of random numbers.

    Random numbers are drawn on the CPU in float64, one a token, so that a seed means the same on every
    device and in any company.
    """

    def __init__(
        self,
        params: SamplingParams,
        prompt_ids: Tensor,
        vocabulary_size: int,
        *,
        end_ids: Collection[int] = (),
        bad_words: Sequence[Word] = (),
    ) -> None:
        """`prompt_ids` [T] on the device of the logits; the rest, and what is raised: `Constraints`."""
        self._params = params
        self._constraints = Constraints(params, vocabulary_size, end_ids=end_ids, bad_words=bad_words)
        self._said: list[int] = []
        self._in_prompt = torch.zeros(vocabulary_size, dtype=torch.bool, device=prompt_ids.device)
        self._in_prompt[prompt_ids] = True
        self._counts = torch.zeros(vocabulary_size, dtype=torch.int32, device=prompt_ids.device)
        self._random = generator(params.seed)

    def sample(self, logits: Tensor) -> int:
        """The next token's id, counted as said.

        Raises `BadFileError` when the model gives no numbers: any token would be as good as random. Raises
        `UsageError` when bias and bans leave no token.
        """
        scores = self._penalised(logits.float())
        best = scores.max()
        if not math.isfinite(best):
            raise not_numbers(float(best))
        if not self._constraints.is_empty:
            scores = self._constrained(scores)
            best = scores.max()
            if not math.isfinite(best):
                raise nothing_left()
        if self._params.temperature < GREEDY_BELOW:
            token_id = int(scores.argmax())
        else:
            # Counted from the largest, no score overflows when a low temperature stretches it.
            stretched = with_doubles(scores - best) / self._params.temperature
            token_id = self._draw(_filtered(stretched, self._params))
        self._counts[token_id] += 1
        self._said.append(token_id)
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

    def _constrained(self, logits: Tensor) -> Tensor:
        constraints = self._constraints
        logits = logits.clone()
        for token_id, bias in constraints.bias:
            logits[token_id] += bias
        if constraints.allowed_ids is not None:
            banned = torch.ones_like(logits, dtype=torch.bool)
            banned[list(constraints.allowed_ids)] = False
            logits = logits.masked_fill(banned, -torch.inf)
        logits[list(constraints.forbidden(self._said))] = -torch.inf
        return logits

    def _draw(self, scores: Tensor) -> int:
        sums = weights(scores).cumsum(-1)
        total = int(sums[-1])
        random = float(torch.rand((), generator=self._random, dtype=torch.float64))
        return int(torch.searchsorted(sums, min(int(random * total), total - 1), right=True))


def generator(seed: int | None) -> torch.Generator:
    """A request's own stream of random numbers; None: one that never was."""
    random = torch.Generator()
    if seed is None:
        random.seed()
    else:
        random.manual_seed(seed)
    return random


def weights(scores: Tensor) -> Tensor:
    """How likely tokens are beside the one whose score is 0, the largest, as int64 of the shape of `scores`.

    Whole numbers, because their sums are the same in every order: over a whole vocabulary or over the few
    tokens that are left, sorted or not. A token below 1 / 2**43 of the likeliest never comes.
    """
    return scores.double().exp_().mul_(WHOLE).round_().long()


def with_doubles(scores: Tensor) -> Tensor:
    """`scores` on a device that computes in float64."""
    return scores if scores.device.type in ("cpu", "cuda") else scores.cpu()


def not_numbers(best: float) -> BadFileError:
    """The error for logits whose largest is not finite."""
    return BadFileError(
        f"the model's scores for the next token are not numbers (the largest is {best})",
        hint="its weights are damaged, or overflow in this dtype: try --dtype float32",
    )


def likeliest(logits: Tensor, token_id: int, count: int) -> list[tuple[int, float]]:
    """(id, log-probability) under the raw logits: `token_id` first, then the `count` likeliest in order."""
    logprobs = logits.float().log_softmax(-1)
    values, ids = logprobs.topk(min(count, len(logprobs)))
    return [(token_id, float(logprobs[token_id])), *zip(ids.tolist(), values.tolist(), strict=True)]


def _filtered(scores: Tensor, params: SamplingParams) -> Tensor:
    if params.min_p > 0:
        scores = scores.masked_fill(scores < math.log(params.min_p), -torch.inf)
    if 0 < params.top_k < len(scores):
        scores = scores.masked_fill(scores < scores.topk(params.top_k).values[-1], -torch.inf)
    if params.top_p < 1:
        ordered, ids = scores.sort(descending=True, stable=True)
        weighed = weights(ordered)
        sums = weighed.cumsum(-1)
        # A token goes when those before it already reach top_p; the first always stays.
        is_spare = sums - weighed >= math.ceil(params.top_p * int(sums[-1]))
        scores = scores.masked_fill(torch.zeros_like(is_spare).scatter(0, ids, is_spare), -torch.inf)
    return scores
