"""Stands in for the model and its memory in tests of the scheduler: computes steps, checks what they read.

Every place of a block holds a name of all tokens that its keys and values would depend on.
"""

from collections.abc import Sequence as SequenceOf

from llmctl.engine.scheduling.blocks import BlockPool
from llmctl.engine.scheduling.limits import Limits
from llmctl.engine.scheduling.policy import LayerPolicy, first_needed
from llmctl.engine.scheduling.scheduler import Scheduler
from llmctl.engine.scheduling.sequence import Sequence, State
from llmctl.engine.scheduling.work import Share, Work

FULL = LayerPolicy("full")


def sliding(window: int) -> LayerPolicy:
    return LayerPolicy("sliding", window=window)


def chunked(chunk: int) -> LayerPolicy:
    return LayerPolicy("chunked", chunk=chunk)


class Memory:
    """Blocks and state slots, and the scheduler that gives them away."""

    def __init__(
        self,
        limits: Limits,
        policies: SequenceOf[LayerPolicy],
        block_bytes: SequenceOf[int],
        budget: int,
        max_blocks: SequenceOf[int] | None = None,
    ) -> None:
        self.limits, self.policies = limits, policies
        self.pool = BlockPool(block_bytes, budget, max_blocks)
        self.scheduler = Scheduler(limits, self.pool, policies)
        self.places: dict[tuple[int, int], list[int]] = {}
        self.states: dict[int, int] = {}
        self.num_steps = 0
        self.num_hits = 0
        self.num_copies = 0
        self.all: list[Sequence] = []
        self._names: dict[Sequence, list[int]] = {}

    def add(self, sequence: Sequence) -> Sequence:
        self.scheduler.add(sequence)
        self.all += [sequence, *sequence.siblings]
        return sequence

    def step(self) -> Work:
        """One step with all its checks; the token chosen depends on the sequence and its length."""
        scheduler = self.scheduler
        work = scheduler.next()
        assert work.spans or not scheduler.has_work
        self.check_work(work)
        self.compute(work)
        self.num_copies += len(work.copies)
        self.num_hits += sum(0 < span.start == span.sequence.num_cached for span in work.spans)
        samples = [each for span in work.spans for each in span.samples]
        assert len(set(samples)) == len(samples)
        scheduler.done(work, {each: (len(each.ids) * 7 + each.arrival) % 3 for each in samples})
        self.num_steps += 1
        self.check_books()
        return work

    def drain(self, max_steps: int = 100_000) -> None:
        """Step until all is done, and see that nothing is left."""
        for _ in range(max_steps):
            if not self.scheduler.has_work:
                break
            self.step()
        assert not self.scheduler.has_work, "somebody starves"
        assert all(each.is_ended for each in self.all)
        self.check_empty()

    def check_empty(self) -> None:
        assert self.pool.used_bytes == 0
        assert [self.pool.num_used(group) for group in range(len(self.policies))] == [0] * len(self.policies)
        assert self.scheduler.num_running == self.scheduler.num_waiting == 0
        assert sorted(self.scheduler._slots) == list(range(self.limits.max_running))

    def name(self, sequence: Sequence, position: int) -> int:
        """Of the tokens up to `position` and the salt."""
        names = self._names.setdefault(sequence, [])
        while len(names) <= position:
            names.append(hash((names[-1] if names else sequence.salt, sequence.ids[len(names)])))
        return names[position]

    def compute(self, work: Work) -> None:
        """Copy, give up, write, then read what attention and recurrent layers would."""
        for source, target in work.state_copies:
            self.states[target] = self.states[source]
        for group, source, target in work.copies:
            self.places[group, target] = list(self.places[group, source])
        for where in work.discarded:
            self.places.pop(where, None)
        for span in work.spans:
            self._write(span)
        used = sum(self.pool.block_bytes[group] for group, _ in self.places)
        assert used <= self.pool.taken_bytes <= self.pool.budget_bytes
        for span in work.spans:
            self._read(span)

    def _write(self, span: Share) -> None:
        size = self.limits.block_size
        for position in range(span.start, span.start + span.count):
            for group, table in enumerate(span.sequence.tables):
                block = table[position // size]
                assert 0 <= block < self.pool.max_blocks[group]
                place = self.places.setdefault((group, block), [0] * size)
                place[position % size] = self.name(span.sequence, position)

    def _read(self, span: Share) -> None:
        size, sequence, stop = self.limits.block_size, span.sequence, span.start + span.count
        for group, policy in enumerate(self.policies):
            table = sequence.tables[group]
            for position in range(first_needed(policy, span.start), stop):
                kept = self.places[group, table[position // size]][position % size]
                assert kept == self.name(sequence, position), "attention reads what another sequence wrote"
        if sequence.state_slot is not None:
            if span.start:
                assert self.states[sequence.state_slot] == self.name(sequence, span.start - 1)
            self.states[sequence.state_slot] = self.name(sequence, stop - 1)

    def check_work(self, work: Work) -> None:
        limits, sequences = self.limits, [span.sequence for span in work.spans]
        assert len(set(sequences)) == len(sequences) <= limits.max_running
        is_alone = limits.whole_prefill and len(sequences) == 1
        assert work.num_tokens <= limits.max_step_tokens or is_alone
        for span in work.spans:
            assert span.sequence.state is State.RUNNING
            assert span.count >= 1
            assert span.start == span.sequence.num_computed
            assert span.count == 1 or span.start == 0 or not limits.whole_prefill
        targets = [target for _, target in work.state_copies]
        assert len(set(targets)) == len(targets)
        for each in work.preempted:
            assert each.state is State.WAITING
            assert each not in sequences
            assert each.tables == []
        assert self.pool.used_bytes <= self.pool.budget_bytes

    def check_books(self) -> None:
        """What is in use is in tables, as often as it is referred to; nothing is held that nobody sees."""
        running = [each for each in self.all if each.state is State.RUNNING]
        assert len(running) == self.scheduler.num_running <= self.limits.max_running
        for group, policy in enumerate(self.policies):
            held = [block for each in running for block in each.tables[group] if block >= 0]
            assert self.pool.num_used(group) == len(set(held))
            assert all(self.pool.num_references(group, block) == held.count(block) for block in set(held))
            for each in running:
                self._check_table(each.tables[group], policy, each.num_computed)
        if self.limits.has_states:
            slots = [each.state_slot for each in running]
            assert len(set(slots)) == len(slots)
        waiting = [each for each in self.all if each.state in (State.WAITING, State.NEW)]
        assert all(not each.tables and each.state_slot is None for each in waiting)

    def _check_table(self, table: list[int], policy: LayerPolicy, num_computed: int) -> None:
        size = self.limits.block_size
        assert len(table) == -(-num_computed // size)
        first = first_needed(policy, num_computed) // size
        assert table[:first] == [-1] * first
        assert min(table[first:], default=0) >= 0


def sequence(name: str, ids: list[int], *, samples: int = 1, **options: object) -> Sequence:
    """A sequence with `samples - 1` siblings."""
    made = [Sequence(id=f"{name}.{each}", ids=list(ids), **options) for each in range(samples)]  # type: ignore[arg-type]
    made[0].siblings = made[1:]
    return made[0]
