"""New tokens into deltas: text, stop strings, the reason to end, usage and times; the same for all ways."""

import time
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass

from torch import Tensor

from llmctl.core.types import Candidate, Delta, Finish, FinishReason, Timings, TokenLogprob, Usage
from llmctl.engine.detokenize import Detokenizer, StopStrings, Vocabulary
from llmctl.engine.generate.job import Job
from llmctl.engine.generate.sampler import likeliest


@dataclass(frozen=True, slots=True, kw_only=True)
class NewToken:
    """A token of the answer."""

    token_id: int
    logprob: TokenLogprob | None = None
    """When the request asks."""
    is_forced_end: bool = False
    """Whether it is an end token that nobody chose: the answer has its full length."""
    is_last: bool = False
    """Whether there is no room for a further one."""


def stream(vocabulary: Vocabulary, job: Job, tokens: Iterator[NewToken]) -> Generator[Delta, None, None]:
    """A delta for each of the endless `tokens`, until `job` ends; the last one carries `finish`.

    A token is asked for when its delta is. Closing the stream drops `tokens`.
    """
    answer = Answer(vocabulary, job)
    for token in tokens:
        delta = answer.push(token)
        yield delta
        if delta.finish is not None:
            return


class Answer:
    """What has been generated for a job; its clock runs from the beginning."""

    def __init__(self, vocabulary: Vocabulary, job: Job) -> None:
        self._job = job
        self._text = _AnswerText(vocabulary, job)
        self._started = time.perf_counter()
        self._first_token_s = 0.0
        self._num_tokens = 0

    def push(self, token: NewToken) -> Delta:
        """The delta of the next token; when it carries `finish` there must be no further one."""
        self._first_token_s = self._first_token_s or time.perf_counter() - self._started
        self._num_tokens += 1
        piece, finish = self._text.push(token.token_id), None
        reason = _reason_to_end(self._job, self._text, token, self._num_tokens)
        if reason is not None:
            piece += self._text.finish()
            # The last held characters may complete a stop string.
            finish = self._finish("stop" if self._text.is_stopped else reason)
        logprobs = (token.logprob,) if token.logprob else ()
        return Delta(text=piece, token_ids=(token.token_id,), logprobs=logprobs, finish=finish)

    def end(self) -> Delta:
        """The only delta of an answer without any token."""
        return Delta(finish=self._finish("length"))

    def _finish(self, reason: FinishReason) -> Finish:
        usage = Usage(prompt_tokens=len(self._job.prompt_ids), completion_tokens=self._num_tokens)
        total_s = time.perf_counter() - self._started
        timings = Timings(first_token_s=self._first_token_s or total_s, total_s=total_s)
        return Finish(reason=reason, usage=usage, timings=timings)


def token_logprob(
    vocabulary: Vocabulary, logits: Tensor, token_id: int, count: int | None
) -> TokenLogprob | None:
    """The log-probability of `token_id` under `logits` [V] and of the `count` likeliest; None for None."""
    return None if count is None else named(vocabulary, likeliest(logits, token_id, count))


def named(vocabulary: Vocabulary, logprobs: Sequence[tuple[int, float]]) -> TokenLogprob:
    """(id, log-probability) of the chosen token and then of the likeliest, with their texts."""
    chosen, *top = (
        Candidate(
            token_id=each, token=vocabulary.decode([each], clean_up_tokenization_spaces=False), logprob=value
        )
        for each, value in logprobs
    )
    return TokenLogprob(chosen=chosen, top=tuple(top))


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
    return "length" if token.is_last or count >= job.max_new_tokens else None
