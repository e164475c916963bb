"""New tokens into deltas: text, stop strings, the reason to end, usage and times; the same for all ways."""

import time
from collections.abc import Generator, Iterator
from dataclasses import dataclass

from torch import Tensor

from llmctl.core.types import Candidate, Delta, Finish, FinishReason, Timings, TokenLogprob, Usage
from llmctl.engine.detokenize import Detokenizer, StopStrings, Vocabulary
from llmctl.engine.generate.job import Job
from llmctl.engine.sampler import likeliest


@dataclass(frozen=True, slots=True, kw_only=True)
class NewToken:
    """A token of the answer."""

    token_id: int
    logprob: TokenLogprob | None = None
    """When the request asks."""
    is_forced_end: bool = False
    """Whether it ends the answer only because the answer has its full length."""


def stream(vocabulary: Vocabulary, job: Job, tokens: Iterator[NewToken]) -> Generator[Delta, None, None]:
    """A delta for each of the endless `tokens`, until `job` ends; the last one carries `finish`.

    A token is asked for when its delta is. Closing the stream drops `tokens`.
    """
    started = time.perf_counter()
    text = _AnswerText(vocabulary, job)
    first_token_s = 0.0
    for count, token in enumerate(tokens, start=1):
        now = time.perf_counter() - started
        first_token_s = first_token_s or now
        piece, reason = text.push(token.token_id), _reason_to_end(job, text, token, count)
        finish = None
        if reason is not None:
            piece += text.finish()
            finish = Finish(
                # The last held characters may complete a stop string.
                reason="stop" if text.is_stopped else reason,
                usage=Usage(prompt_tokens=len(job.prompt_ids), completion_tokens=count),
                timings=Timings(first_token_s=first_token_s, total_s=now),
            )
        logprobs = (token.logprob,) if token.logprob else ()
        yield Delta(text=piece, token_ids=(token.token_id,), logprobs=logprobs, finish=finish)
        if finish is not None:
            return


def token_logprob(
    vocabulary: Vocabulary, logits: Tensor, token_id: int, count: int | None
) -> TokenLogprob | None:
    """The log-probability of `token_id` under `logits` [V] and of the `count` likeliest; None for None."""
    if count is None:
        return None
    candidates = [
        Candidate(
            token_id=each, token=vocabulary.decode([each], clean_up_tokenization_spaces=False), logprob=value
        )
        for each, value in likeliest(logits, token_id, count)
    ]
    return TokenLogprob(chosen=candidates[0], top=tuple(candidates[1:]))


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


def _reason_to_end(job: Job, text: _AnswerText, token: NewToken, count: int) -> FinishReason | None:
    if text.is_stopped:
        return "stop"
    if token.token_id in job.end_ids and not token.is_forced_end:
        return "stop"
    return "length" if count >= job.max_new_tokens else None
