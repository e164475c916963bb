"""Many requests at once over one model: `add`, then `step` while `has_work`. One thread, no asyncio.

What a step computes is decided by `scheduler`, computed by `runner`, chosen from by `sampling`; here tokens
become deltas of the requests that asked for them.
"""

import itertools
import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

from torch import Tensor

from llmctl.core.backend import Load
from llmctl.core.errors import DoesNotFitError, LlmctlError, UsageError
from llmctl.core.types import Delta, TokenLogprob
from llmctl.engine.execution.runner import Runner
from llmctl.engine.generate.answer import Answer, NewToken, named, token_logprob
from llmctl.engine.generate.job import Job
from llmctl.engine.pace import Pace
from llmctl.engine.sampling.batch import BatchSampler, Chosen, RowState
from llmctl.engine.scheduling.scheduler import Scheduler
from llmctl.engine.scheduling.sequence import Sequence as Running
from llmctl.engine.scheduling.work import Share, Work
from llmctl.engine.tiers import Tier
from llmctl.loading import devices
from llmctl.loading.loader import LoadedModel

log = logging.getLogger(__name__)

Item = Delta | LlmctlError
_FAULTS = (
    ArithmeticError,
    AttributeError,
    LookupError,
    RuntimeError,
    TypeError,
    ValueError,
)
"""What a model's own code may raise: it ends the requests of the step, not the engine."""


@dataclass(slots=True, eq=False)
class Request:
    """A job on its way through the engine."""

    job: Job
    samples: list["Sample"]
    prompt_logprobs: list[TokenLogprob] = field(default_factory=list)
    """Of the prompt's tokens from the second on, as far as computed."""
    num_noted: int = 0
    """Tokens of the prompt whose follower was noted there."""


@dataclass(slots=True, eq=False)
class Sample:
    """One answer of a request."""

    index: int
    request: Request
    sequence: Running
    answer: Answer
    row: RowState


@dataclass(frozen=True, slots=True)
class Event:
    """What a step brought for a request."""

    request: Request
    item: Item
    is_last: bool
    """Whether nothing more comes for the request."""


class Engine:
    """One model under continuous batching."""

    def __init__(self, loaded: LoadedModel, scheduler: Scheduler, runner: Runner, *, tier: Tier) -> None:
        """Made by `opening.open_engine`."""
        self.scheduler, self.tier = scheduler, tier
        self._loaded, self._runner = loaded, runner
        self._sampler = BatchSampler(loaded.vocabulary_size)
        self._samples: dict[Running, Sample] = {}
        self._numbers = itertools.count(1)
        self._pace = Pace()
        self._num_prompt_tokens = self._num_generated = 0

    @property
    def has_work(self) -> bool:
        """Whether a step would do anything."""
        return self.scheduler.has_work

    @property
    def load(self) -> Load:
        """How busy it is; may be read from any thread."""
        scheduler = self.scheduler
        return Load(
            num_running=scheduler.num_running,
            num_waiting=scheduler.num_waiting,
            max_running=scheduler.limits.max_running,
            kv_used=scheduler.pool.used_bytes / max(1, scheduler.pool.budget_bytes),
            tokens_per_s=self._pace.per_second,
            num_prompt_tokens=self._num_prompt_tokens,
            num_generated_tokens=self._num_generated,
            num_preemptions=scheduler.num_preemptions,
            num_prefix_queries=scheduler.num_prefix_queries,
            num_prefix_hits=scheduler.num_prefix_hits,
        )

    def add(self, job: Job, *, salt: tuple[str | int, ...] = ()) -> Request:
        """Let a job wait for its turn. Raises what `Scheduler.add` raises, and `UsageError` for wrong ids."""
        self._check(job)
        request = Request(job, [])
        request.samples += [self._sample(request, index, salt) for index in range(job.sampling.n)]
        first, *others = (sample.sequence for sample in request.samples)
        first.siblings = others
        self.scheduler.add(first)
        self._samples |= {sample.sequence: sample for sample in request.samples}
        return request

    def cancel(self, request: Request) -> None:
        """End all that is left of a request; its memory is free at once."""
        for sample in request.samples:
            self.scheduler.cancel(sample.sequence.id)
            self._samples.pop(sample.sequence, None)

    def step(self) -> list[Event]:
        """Compute the next tokens, and tell what came of them."""
        work = self.scheduler.next()
        if not work.spans:
            return []
        try:
            chosen = self._chosen(work, self._runner.run(work))
        except _FAULTS as error:
            return self._not_computed(work, error)
        return list(self._events(work, chosen))

    def release(self) -> None:
        """Forget all requests, give the memory back and leave the model as it was."""
        self._samples.clear()
        self._runner.release()

    def _check(self, job: Job) -> None:
        size = self._loaded.vocabulary_size
        if not job.prompt_ids:
            raise UsageError("the prompt is empty: the model needs at least one token to go on from")
        if not 0 <= min(job.prompt_ids) <= max(job.prompt_ids) < size:
            raise UsageError(f"the prompt has token ids outside the vocabulary (0 to {size - 1})")

    def _sample(self, request: Request, index: int, salt: tuple[str | int, ...]) -> Sample:
        job = request.job
        seed = job.sampling.seed
        # Samples of one prompt differ, and each can be had again.
        sampling = job.sampling if seed is None else replace(job.sampling, seed=seed + index)
        sequence = Running(
            id=f"{next(self._numbers)}",
            ids=list(job.prompt_ids),
            max_new_tokens=None if job.sampling.max_new_tokens is None else job.max_new_tokens,
            priority=job.priority,
            salt=salt,
            wants_prompt=job.sampling.prompt_logprobs is not None,
        )
        answer = Answer(self._loaded.tokenizer, job)
        row = self._sampler.row(sampling, job.prompt_ids, end_ids=job.end_ids, bad_words=job.bad_words)
        return Sample(index, request, sequence, answer, row)

    # What a step brought

    def _chosen(self, work: Work, logits: Tensor) -> "list[tuple[Sample, Chosen | LlmctlError]]":
        """The next token of each sample that has one now; what the prompts' tokens were like is noted."""
        deciding: list[tuple[int, Sample]] = []
        for row, (share, position) in enumerate(_wanted(work)):
            sample = self._samples.get(share.sequence)
            if sample is not None:
                self._note_prompt(sample, position, logits[row])
            if position == share.stop - 1:
                deciding += [(row, self._samples[each]) for each in share.samples]
        states = [each.row for _, each in deciding]
        chosen = self._sampler.choose(logits, [row for row, _ in deciding], states)
        return [(sample, one) for (_, sample), one in zip(deciding, chosen, strict=True)]

    def _events(self, work: Work, pairs: "list[tuple[Sample, Chosen | LlmctlError]]") -> Iterator[Event]:
        for sample, one in pairs:
            if isinstance(one, LlmctlError) and not sample.sequence.is_ended:
                yield self._failed(sample.request, one)
        tokens = {sample.sequence: one for sample, one in pairs if isinstance(one, Chosen)}
        self._note(work, len(tokens))
        ended = self.scheduler.done(work, {each: one.token_id for each, one in tokens.items()})
        for sequence, one in tokens.items():
            if sequence in self._samples:
                yield self._token(self._samples[sequence], one, is_full=sequence in ended)
        yield from (self._nothing(self._samples[each]) for each in ended if each in self._samples)

    def _note(self, work: Work, num_generated: int) -> None:
        prompts = (share for share in work.spans if share.start < share.sequence.num_prompt_tokens)
        self._num_prompt_tokens += sum(share.count for share in prompts)
        self._num_generated += num_generated
        self._pace.add(num_generated)

    def _token(self, sample: Sample, one: Chosen, *, is_full: bool) -> Event:
        """A further token of an answer, which ends where it is `is_full` if not before."""
        token = NewToken(token_id=one.token_id, logprob=self._named(one.logprobs), is_last=is_full)
        return self._event(sample, sample.answer.push(token))

    def _nothing(self, sample: Sample) -> Event:
        """The end of a request for no token at all, whose prompt is computed now."""
        return self._event(sample, sample.answer.end())

    def _event(self, sample: Sample, delta: Delta) -> Event:
        request = sample.request
        is_last = False
        if delta.finish is not None:
            self.scheduler.finish(sample.sequence)
            del self._samples[sample.sequence]
            is_last = not any(each.sequence in self._samples for each in request.samples)
        logprobs, request.prompt_logprobs = request.prompt_logprobs, []
        delta = replace(delta, index=sample.index, prompt_logprobs=tuple(logprobs))
        return Event(request, delta, is_last)

    def _note_prompt(self, sample: Sample, position: int, logits: Tensor) -> None:
        """Take note of how likely the next token of the prompt was, once."""
        request, ids = sample.request, sample.sequence.ids
        count = request.job.sampling.prompt_logprobs
        if count is None or position + 1 >= len(request.job.prompt_ids) or position < request.num_noted:
            return
        request.num_noted = position + 1
        found = token_logprob(self._loaded.tokenizer, logits, ids[position + 1], count)
        assert found is not None
        request.prompt_logprobs.append(found)

    def _named(self, logprobs: Sequence[tuple[int, float]] | None) -> TokenLogprob | None:
        return None if logprobs is None else named(self._loaded.tokenizer, logprobs)

    def _not_computed(self, work: Work, error: Exception) -> list[Event]:
        """What becomes of a step that failed.

        Where memory ran out less is computed at a time from now on; a single token cannot be helped.
        """
        reason = devices.out_of_memory(error) if isinstance(error, RuntimeError) else None
        if reason is None:
            log.debug("a step failed", exc_info=error)
            told = LlmctlError(
                f"the model failed: {type(error).__name__}: {error}", hint="-vv shows where it happened"
            )
            return [self._failed(each, told) for each in self._requests(work)]
        if self.scheduler.halve(work):
            log.warning(
                "memory ran out in a step of %d tokens, %d sequences: it takes half from now on",
                work.num_tokens,
                len(work.spans),
            )
            return []
        told = DoesNotFitError(
            f"memory ran out while generating: {reason}", hint="shorten the prompt or free memory"
        )
        return [self._failed(each, told) for each in self._requests(work)]

    def _requests(self, work: Work) -> list[Request]:
        """Those that have a part in a step, each once."""
        return list(dict.fromkeys(self._samples[share.sequence].request for share in work.spans))

    def _failed(self, request: Request, error: LlmctlError) -> Event:
        self.cancel(request)
        return Event(request, error, is_last=True)


def _wanted(work: Work) -> Iterator[tuple[Share, int]]:
    """Whose each row of the logits is, and at which position."""
    return ((share, position) for share in work.spans for position in share.wanted_rows(share.start))
