"""Jacobi decoding: guess a block of tokens, check all of it in one forward, keep what the model would say.

The answer is `single`'s at temperature 0, up to rounding, in fewer forwards where guesses come true: for
models that were trained for it (CLLM), and for text that repeats itself. Guesses never decide anything.
"""

import inspect
import logging
from collections.abc import Generator, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from transformers.cache_utils import DynamicCache, DynamicLayer, DynamicSlidingWindowLayer

from llmctl.core.types import Delta
from llmctl.engine.detokenize import Vocabulary
from llmctl.engine.generate import answer, single
from llmctl.engine.generate.answer import NewToken, token_logprob
from llmctl.engine.generate.job import Job
from llmctl.engine.generate.sampler import GREEDY_BELOW, Sampler
from llmctl.engine.generate.stepper import CACHE_NAMES, is_of_transformers

log = logging.getLogger(__name__)


def generate(model: Any, vocabulary: Vocabulary, job: Job) -> Generator[Delta, None, None]:
    """As `single.generate`, `job.block_length` tokens a forward; those that hold follow quickly.

    Where it cannot work (see `obstacle`), `single` does and the log says so.
    """
    if reason := obstacle(model, job):
        log.info("no Jacobi decoding, one token a step instead: %s", reason)
        return single.generate(model, vocabulary, job)
    return answer.stream(vocabulary, job, _tokens(model, vocabulary, job))


def obstacle(model: Any, job: Job) -> str | None:
    """Why `job` cannot be decoded in blocks with `model`, None when it can."""
    if job.sampling.temperature >= GREEDY_BELOW:
        return f"it is for temperature 0, and this is {job.sampling.temperature:g}"
    if not is_of_transformers(model) or _cache_name(model) is None:
        return f"{type(model).__name__} takes no cache that can be cut"
    layers = DynamicCache(config=model.config).layers
    is_stateful = getattr(model, "_is_stateful", False)
    if is_stateful or any(type(layer) not in _CUTTABLE for layer in layers):
        return f"{type(model).__name__} keeps a state that cannot go back"
    return None


# Kept whole by `_Checker`, the sliding ones can be cut as well.
_CUTTABLE = (DynamicLayer, DynamicSlidingWindowLayer)


def _tokens(model: Any, vocabulary: Vocabulary, job: Job) -> Iterator[NewToken]:
    check = _Checker(model)
    guesser = _Guesser(job.prompt_ids)
    sampler: Sampler | None = None
    unfed: Sequence[int] = job.prompt_ids
    predicted: list[int] = []
    num_left = job.max_new_tokens
    while True:
        # No position beyond the last token's exists: the context may end there.
        guesses = guesser.completed(predicted, min(job.block_length, num_left) - 1)
        logits = check(unfed, guesses)
        sampler = sampler or Sampler(
            job.sampling,
            torch.tensor(job.prompt_ids, device=logits.device),
            logits.shape[-1],
            end_ids=job.end_ids,
            bad_words=job.bad_words,
        )
        num_new = 0
        for row in logits:
            token_id = sampler.sample(row)
            logprob = token_logprob(vocabulary, row, token_id, job.sampling.logprobs)
            yield NewToken(token_id=token_id, logprob=logprob)
            guesser.learn(token_id)
            num_new += 1
            if num_new > len(guesses) or guesses[num_new - 1] != token_id:
                break
        # The last new token is not fed yet, all before it were guessed right.
        check.forget(len(guesses) - (num_new - 1))
        unfed = [token_id]
        predicted = logits[num_new:].argmax(-1).tolist()
        num_left -= num_new


class _Guesser:
    """Guesses what follows: what the last forward predicted, then what came after the same token before."""

    def __init__(self, prompt_ids: Sequence[int]) -> None:
        self._last = prompt_ids[0]
        self._followers: dict[int, int] = {}
        for token_id in prompt_ids[1:]:
            self.learn(token_id)

    def learn(self, token_id: int) -> None:
        """The text goes on with `token_id`."""
        self._followers[self._last] = token_id
        self._last = token_id

    def completed(self, guesses: Sequence[int], length: int) -> list[int]:
        """`guesses` of the tokens to come, cut or filled up to `length`."""
        text = [self._last, *guesses[: max(length, 0)]]
        while len(text) <= length:
            text.append(self._followers.get(text[-1], text[-1]))
        return text[1:]


class _Checker:
    """A model with a cache that is cut back where guesses were wrong."""

    def __init__(self, model: Any) -> None:
        self._model = model
        # Made without the configuration it keeps all positions, those beyond a sliding window too.
        self._cache = DynamicCache()
        self._kept = {str(_cache_name(model)): self._cache}
        self._can_keep = "logits_to_keep" in inspect.signature(model.forward).parameters

    def __call__(self, ids: Sequence[int], guesses: Sequence[int]) -> Tensor:
        """The logits [1 + guesses, V] behind the last of `ids` and behind each guess; all of it is fed."""
        fed = torch.tensor([[*ids, *guesses]], device=self._model.device)
        num_rows = len(guesses) + 1
        options = {**self._kept, **({"logits_to_keep": num_rows} if self._can_keep else {})}
        with torch.no_grad():
            output = self._model(input_ids=fed, use_cache=True, return_dict=True, **options)
        logits: Tensor = output.logits[0, -num_rows:]
        return logits

    def forget(self, count: int) -> None:
        """Take back the last `count` ids that were fed."""
        if count:
            self._cache.crop(-count)


def _cache_name(model: Any) -> str | None:
    accepted = inspect.signature(model.forward).parameters
    return next((name for name in CACHE_NAMES[:2] if name in accepted), None)
