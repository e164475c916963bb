"""Plain generation for one sequence at a time: the model's own forward, its own cache, one token a step.

It stays as the oracle that the batching engine is compared with.
"""

import inspect
import time
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from llmctl.core.types import (
    Candidate,
    Delta,
    Finish,
    FinishReason,
    SamplingParams,
    Timings,
    TokenLogprob,
    Usage,
)
from llmctl.engine.detokenize import Detokenizer, StopStrings, Vocabulary
from llmctl.engine.sampler import Sampler, likeliest

CACHE_NAMES = ("cache", "past_key_values", "cache_params", "state")
"""The names under which models take and return what they keep; `cache` since transformers 5.24."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One sequence to generate."""

    prompt_ids: tuple[int, ...]
    sampling: SamplingParams
    end_ids: frozenset[int]
    """Tokens that end the answer, the model's own and the request's."""
    max_new_tokens: int
    """At least 1; prompt and answer together fit into the context."""
    is_continuation: bool = False
    """Whether the answer goes on from the prompt's text instead of standing by itself."""


def generate(model: Any, vocabulary: Vocabulary, job: Job) -> Generator[Delta, None, None]:
    """Generate `job`, a delta for every token; the last one carries `finish`.

    Closing the iterator ends the work. Raises what torch raises when memory runs out.
    """
    started = time.perf_counter()
    text = _AnswerText(vocabulary, job)
    first_token_s = 0.0
    for count, (token_id, logprob) in enumerate(_tokens(model, vocabulary, job), start=1):
        now = time.perf_counter() - started
        first_token_s = first_token_s or now
        piece, reason = text.push(token_id), _reason_to_end(job, text, token_id, count)
        finish = None
        if reason is not None:
            piece += text.finish()
            finish = Finish(
                # The last held characters may complete a stop string.
                reason="stop" if text.is_stopped else reason,
                usage=Usage(prompt_tokens=len(job.prompt_ids), completion_tokens=count),
                timings=Timings(first_token_s=first_token_s, total_s=now),
            )
        yield Delta(text=piece, token_ids=(token_id,), logprobs=(logprob,) if logprob else (), finish=finish)
        if finish is not None:
            return


class _AnswerText:
    """Ids in, showable text out: detokenizer, then stop strings."""

    def __init__(self, vocabulary: Vocabulary, job: Job) -> None:
        self._end_ids = job.end_ids
        self._detokenizer = Detokenizer(vocabulary, after=job.prompt_ids if job.is_continuation else ())
        self._stops = StopStrings(job.sampling.stop)

    @property
    def is_stopped(self) -> bool:
        return self._stops.is_hit

    def push(self, token_id: int) -> str:
        # An end token that is no special one would else leave its spelling in the answer.
        piece = "" if token_id in self._end_ids else self._detokenizer.push(token_id)
        return self._stops.push(piece)

    def finish(self) -> str:
        return self._stops.push(self._detokenizer.finish()) + self._stops.finish()


def _reason_to_end(job: Job, text: _AnswerText, token_id: int, count: int) -> FinishReason | None:
    if token_id in job.end_ids or text.is_stopped:
        return "stop"
    return "length" if count >= job.max_new_tokens else None


def _tokens(model: Any, vocabulary: Vocabulary, job: Job) -> Iterator[tuple[int, TokenLogprob | None]]:
    """Endless new tokens, with log-probabilities when the request asks."""
    step = _Stepper(model)
    prompt_ids = torch.tensor(job.prompt_ids, device=model.device)
    logits = step(prompt_ids)
    sampler = Sampler(job.sampling, prompt_ids, len(logits))
    while True:
        token_id = sampler.sample(logits)
        yield token_id, _logprob(vocabulary, logits, token_id, job.sampling.logprobs)
        logits = step(prompt_ids.new_tensor([token_id]))


def _logprob(vocabulary: Vocabulary, logits: Tensor, token_id: int, count: int | None) -> TokenLogprob | None:
    if count is None:
        return None
    candidates = [
        Candidate(
            token_id=each, token=vocabulary.decode([each], clean_up_tokenization_spaces=False), logprob=value
        )
        for each, value in likeliest(logits, token_id, count)
    ]
    return TokenLogprob(chosen=candidates[0], top=tuple(candidates[1:]))


class _Stepper:
    """A model with the cache of one sequence; feeding ids [T] gives the last position's logits [V].

    A model that hands back no cache is fed the whole sequence at every step: slow, but right.
    """

    def __init__(self, model: Any) -> None:
        self._model = model
        self._kept: dict[str, Any] = {}
        self._fed = torch.empty(0, dtype=torch.long, device=model.device)
        """What `_kept` does not hold."""
        accepted = inspect.signature(model.forward).parameters
        # A model's output answers to the other names too, its forward does not.
        self._names = [name for name in CACHE_NAMES if name in accepted] or CACHE_NAMES
        # The head over a long prompt would cost vocabulary x prompt numbers for one row that is used.
        self._options = {"logits_to_keep": 1} if "logits_to_keep" in accepted else {}

    def __call__(self, ids: Tensor) -> Tensor:
        self._fed = torch.cat([self._fed, ids])
        with torch.inference_mode():
            output = self._model(
                input_ids=self._fed[None], use_cache=True, return_dict=True, **self._kept, **self._options
            )
        name = next((name for name in self._names if output.get(name) is not None), None)
        self._kept = {name: output[name]} if name is not None else {}
        if self._kept:
            self._fed = self._fed[:0]
        logits: Tensor = output.logits[0, -1]
        return logits
