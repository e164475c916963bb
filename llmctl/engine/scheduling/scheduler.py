"""Decides which tokens of which sequences the next step computes. Plain Python.

Who runs goes on, in the order of rank, decoding sequences first; who waits is admitted while tokens and
memory last. When memory runs out the last in rank is preempted: it gives all back and computes its tokens
anew later. The first in rank is never preempted and always goes on, so every sequence ends.
"""

import itertools
from bisect import insort
from collections.abc import Mapping
from collections.abc import Sequence as SequenceOf
from dataclasses import replace
from operator import attrgetter

from llmctl.core.errors import BusyError
from llmctl.engine.scheduling.blocks import BlockPool
from llmctl.engine.scheduling.limits import Limits
from llmctl.engine.scheduling.policy import LayerPolicy
from llmctl.engine.scheduling.room import Room
from llmctl.engine.scheduling.sequence import Sequence, State
from llmctl.engine.scheduling.tables import Tables
from llmctl.engine.scheduling.waiting import WaitingLine
from llmctl.engine.scheduling.work import Share, Work

_MAX_OVERTAKEN = 8
"""So many that came later may be admitted before the oldest has its turn, whatever its priority."""
_PATIENCE = 32
"""Half of the steps after which more is tried when memory has run out once; twice as many each time."""
_MAX_PREEMPTIONS = 3
"""One that was preempted so often goes before all others until it ends."""


class Scheduler:
    """Turns sequences into steps: `next`, compute, `done`, and so on while `has_work`.

    A step costs time in the number of those who run, not in how long they are or how many wait.
    """

    def __init__(self, limits: Limits, pool: BlockPool, policies: SequenceOf[LayerPolicy]) -> None:
        """`policies` of the pool's groups in their order."""
        self.limits, self.pool = limits, pool
        self._wanted = limits
        self._num_good, self._patience = 0, _PATIENCE
        """Steps since memory ran out last, and how many it takes to try more again."""
        self.num_preemptions = 0
        """Ever since, as the following."""
        self.num_prefix_queries = 0
        """Tokens of prompts that were looked up in the prefix cache."""
        self.num_prefix_hits = 0
        """Those of them that lay there."""
        self._tables = Tables(pool, policies, limits)
        self._room = Room(pool, self._tables, limits)
        self._waiting = WaitingLine()
        self._running: list[Sequence] = []
        """By rank."""
        self._known: dict[str, Sequence] = {}
        self._arrivals = itertools.count(1)
        self._slots = list(range(limits.max_running))[::-1]
        self._state_copies: list[tuple[int, int]] = []
        self._num_overtaken = 0
        self._had_step_alone = False
        self._step = 0

    @property
    def has_work(self) -> bool:
        """Whether any sequence has not ended."""
        return bool(self._known)

    @property
    def num_running(self) -> int:
        """Sequences that hold memory."""
        return len(self._running)

    @property
    def num_waiting(self) -> int:
        """Sequences that wait, preempted ones too, but not samples that wait for their prompt."""
        return len(self._waiting)

    def add(self, sequence: Sequence) -> None:
        """Let a new sequence wait for its turn, with its siblings.

        Raises `ContextOverflowError` for a prompt that leaves no room in the context, `DoesNotFitError` where
        memory would not hold the sequence by itself, and `BusyError` where too many wait.
        """
        limit = self.limits.max_waiting
        # Those for whom there is a place wait for no more than the next step.
        num_places = max(0, self.limits.max_running - len(self._running))
        if limit is not None and len(self._waiting) >= limit + num_places:
            raise BusyError(f"{limit} requests wait already, and no more may", hint="try again later")
        for each in (sequence, *sequence.siblings):
            assert each.state is State.NEW, f"{each.id} was added before"
            assert each.id not in self._known, f"{each.id} is another one's"
            each.max_length = self._room.max_length(each)
        for each in (sequence, *sequence.siblings):
            each.arrival = next(self._arrivals)
            self._known[each.id] = each
        sequence.state = State.WAITING
        self._waiting.add(sequence)

    def cancel(self, sequence_id: str) -> bool:
        """End a sequence, and samples that wait for its prompt, wherever it is; False if there is none.

        Its memory is free at once. During a step too: nobody else gets it before the next one.
        """
        sequence = self._known.get(sequence_id)
        if sequence is not None:
            self._end(sequence, State.CANCELLED)
        return sequence is not None

    def finish(self, sequence: Sequence) -> None:
        """End a sequence whose answer is complete; nothing happens to one that has ended."""
        if not sequence.is_ended:
            self._end(sequence, State.FINISHED)

    def halve(self, work: Work) -> bool:
        """A step was not computed for want of memory: allow half of it from now on, and let all begin anew.

        Call it in the place of `done`. False where no less can be computed.
        """
        is_whole = self.limits.whole_prefill and len(work.spans) == 1
        if work.num_tokens == 1 or is_whole:
            return False
        if work.num_tokens == len(work.spans):
            # That many cannot decode together, which says nothing of prompts.
            self.limits = replace(self.limits, max_running=work.num_tokens // 2)
        else:
            most = work.num_tokens // 2
            running = min(self.limits.max_running, most)
            self.limits = replace(self.limits, max_running=running, max_step_tokens=most)
        self._num_good, self._patience = 0, 2 * self._patience
        self.preempt_all()
        return True

    def _grow(self) -> None:
        """Allow twice as much after enough steps without trouble: whoever took the memory may have ended."""
        self._num_good += 1
        if self.limits is self._wanted or self._num_good < self._patience:
            return
        self._num_good, now, wanted = 0, self.limits, self._wanted
        tokens = min(wanted.max_step_tokens, 2 * now.max_step_tokens)
        running = min(wanted.max_running, 2 * now.max_running)
        is_whole = (tokens, running) == (wanted.max_step_tokens, wanted.max_running)
        self.limits = wanted if is_whole else replace(now, max_step_tokens=tokens, max_running=running)

    def preempt_all(self) -> None:
        """Let all who run give their memory back and begin anew."""
        while self._running:
            self._preempt_last()

    def next(self) -> Work:
        """What to compute now; without spans only when there is no work. Call `done` before the next one."""
        work = Work()
        self._step += 1
        head = self._head_for_itself()
        self._had_step_alone = head is not None and self._admit(head, head.num_pending, work)
        if not self._had_step_alone:
            spare = self._go_on(work)
            if spare is not None:
                self._admit_waiting(spare, work)
        work.state_copies, self._state_copies = self._state_copies, []
        work.discarded = self.pool.take_discarded()
        return work

    def done(self, work: Work, tokens: Mapping[Sequence, int]) -> list[Sequence]:
        """Take note that a step is computed, with the token chosen for each of `Share.samples`.

        Gives the sequences that thereby reached `max_length`; they have ended.
        """
        self._grow()
        ended = []
        for span in work.spans:
            sequence = span.sequence
            if sequence.state is not State.RUNNING:
                continue
            is_complete = span.is_wanted
            self._tables.advance(sequence, span.start + span.count)
            if is_complete:
                for each in (sequence, *self._fork(sequence)):
                    if each.max_new_tokens != 0:
                        each.ids.append(tokens[each])
                    if len(each.ids) >= each.max_length:
                        self.finish(each)
                        ended.append(each)
        return ended

    # The parts of a step

    def _go_on(self, work: Work) -> int | None:
        """Let the running ones go on; gives how many tokens are left, None if memory ran out."""
        spare = self.limits.max_step_tokens - sum(each.num_pending == 1 for each in self._running)
        index = 0
        while index < len(self._running):
            sequence = self._running[index]
            is_decoding = sequence.num_pending == 1
            count = 1 if is_decoding else min(sequence.num_pending, spare)
            if count and not self._has_room(sequence, count, work):
                return None
            if count:
                self._compute(sequence, count, work)
            spare -= 0 if is_decoding else count
            index += 1
        return None if work.preempted else spare

    def _has_room(self, sequence: Sequence, count: int, work: Work) -> bool:
        """Preempt what ranks behind a running sequence until it can compute so many tokens.

        Otherwise it is the last one now. It keeps what it has: those before it may yet end.
        """
        stop = sequence.num_computed + count
        while (missing := self._tables.num_missing(sequence, stop)) and not self.pool.can_allocate(missing):
            if self._running[-1] is sequence:
                return False
            work.preempted.append(self._preempt_last())
        return True

    def _compute(self, sequence: Sequence, count: int, work: Work) -> None:
        work.copies += self._tables.extend(sequence, sequence.num_computed + count)
        work.spans.append(Share(sequence, sequence.num_computed, count))

    def _preempt_last(self) -> Sequence:
        sequence = self._running.pop()
        self._release(sequence)
        self.num_preemptions += 1
        sequence.num_preemptions += 1
        sequence.is_urgent |= sequence.num_preemptions >= _MAX_PREEMPTIONS
        sequence.state = State.WAITING
        self._waiting.add(sequence)
        return sequence

    def _admit_waiting(self, spare: int, work: Work) -> None:
        """Let those who wait begin, in their order, while there are tokens, places and memory."""
        while self._waiting and len(self._running) < self.limits.max_running:
            sequence = self._head()
            is_too_long = self.limits.whole_prefill and sequence.num_pending > spare
            if not spare or is_too_long or not self._admit(sequence, spare, work):
                return
            spare -= work.spans[-1].count

    def _head_for_itself(self) -> Sequence | None:
        """Whose turn it is, if its prompt must be computed whole and does not fit beside those who run.

        Every other step at most, lest those who run wait for long.
        """
        is_full = len(self._running) >= self.limits.max_running
        if not self.limits.whole_prefill or not self._waiting or is_full:
            return None
        if self._had_step_alone and self._running:
            return None
        sequence = self._head()
        spare = self.limits.max_step_tokens - len(self._running)
        return sequence if sequence.num_pending > spare else None

    def _head(self) -> Sequence:
        """Whose turn it is: the first in rank, or the oldest when it was overtaken too often."""
        oldest = self._waiting.oldest
        if self._num_overtaken >= _MAX_OVERTAKEN and not oldest.is_urgent:
            self._waiting.remove(oldest)
            oldest.is_urgent = True
            self._waiting.add(oldest)
        return self._waiting.first

    def _admit(self, sequence: Sequence, max_count: int, work: Work) -> bool:
        """Let one that waits begin with up to `max_count` tokens, if memory allows."""
        if not self._room.fits(sequence, self._running, self._step):
            return False
        self._tables.start(sequence)
        count = min(sequence.num_pending, max_count)
        missing = self._tables.num_missing(sequence, sequence.num_computed + count)
        if missing and not self.pool.can_allocate(missing):
            # What it was to share has gone meanwhile.
            self._tables.release(sequence)
            self._room.deny_credit(sequence, self._step)
            return False
        self._num_overtaken = 0 if sequence is self._waiting.oldest else self._num_overtaken + 1
        self._waiting.remove(sequence)
        self._run(sequence)
        if not sequence.num_preemptions:
            sequence.num_cached = sequence.num_computed
            self.num_prefix_queries += len(sequence.ids)
            self.num_prefix_hits += sequence.num_computed
        self._compute(sequence, count, work)
        return True

    # Beginning, branching and ending

    def _run(self, sequence: Sequence) -> None:
        sequence.state = State.RUNNING
        if self.limits.has_states:
            sequence.state_slot = self._slots.pop()
        insort(self._running, sequence, key=attrgetter("rank"))

    def _fork(self, source: Sequence) -> list[Sequence]:
        """Let the siblings of a sequence go on from its blocks; those without a place begin by themselves."""
        siblings = [each for each in source.siblings if not each.is_ended]
        source.siblings = []
        for sibling in siblings:
            if len(self._running) < self.limits.max_running:
                self._tables.fork(source, sibling)
                self._run(sibling)
                if source.state_slot is not None and sibling.state_slot is not None:
                    self._state_copies.append((source.state_slot, sibling.state_slot))
            else:
                sibling.state = State.WAITING
                self._waiting.add(sibling)
        return siblings

    def _end(self, sequence: Sequence, state: State) -> None:
        if sequence.state is State.RUNNING:
            self._running.remove(sequence)
            self._release(sequence)
        elif sequence.state is State.WAITING:
            self._waiting.remove(sequence)
        sequence.state = state
        del self._known[sequence.id]
        for sibling in sequence.siblings:
            if not sibling.is_ended:
                self._end(sibling, state)

    def _release(self, sequence: Sequence) -> None:
        self._tables.release(sequence)
        slot, sequence.state_slot = sequence.state_slot, None
        if slot is not None:
            self._slots.append(slot)
            # Whoever has the slot next begins anew.
            self._state_copies = [each for each in self._state_copies if each[1] != slot]
