"""Walks checkpoints step by step: while one step is computed the next is read and the last is written.

Read-ahead and write-behind are bounded in bytes: memory is what the computation takes, and little more.
"""

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from llmctl.artifacts.stream.job import Job
from llmctl.artifacts.stream.source import Source
from llmctl.artifacts.stream.writer import METADATA, Shard, ShardFile, Step, index_of
from llmctl.loading import contents, memory

_AHEAD_BYTES = 96 << 20
"""A tensor above it is read when the one before is done, and written before the next is computed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Made:
    """What a step came to."""

    tensors: Sequence[Tensor]
    """In the order of `Step.writes`."""
    facts: Mapping[str, Any] = field(default_factory=dict)
    """What JSON can hold, to be kept with the shard."""


Compute = Callable[[Step, Sequence[Tensor]], Made]
"""From a step and the tensors that it reads, which are its own and may be changed."""


def transform(
    shards: Sequence[Shard],
    sources: Sequence[Source],
    compute: Compute,
    job: Job,
    *,
    metadata: Mapping[str, str] = METADATA,
) -> dict[str, Mapping[str, Any]]:
    """Write the shards that `job` has not yet; returns the facts of every step by its name.

    The index of several shards is written too. What `compute`, reading and writing raise comes through.
    """
    missing = [shard for shard in shards if shard.name not in job.finished]
    job.progress.stage("write", total_bytes=sum(shard.num_bytes for shard in shards))
    job.progress.advance(sum(shard.num_bytes for shard in shards if shard.name in job.finished))
    with memory.frugal(), _Reading(missing, sources) as reading:
        for shard in missing:
            facts = {}
            with (
                ShardFile(job.folder / shard.name, shard.planned, metadata) as file,
                _Writing(file) as writing,
            ):
                for step in shard.steps:
                    made = compute(step, reading.take())
                    writing.put(step, made.tensors)
                    facts[step.name] = made.facts
                    del made
                    job.progress.advance(step.num_bytes)
            job.finish_shard(shard.name, facts)
    if len(shards) > 1:
        job.write_text(contents.INDEX, index_of(shards))
    return {name: facts for shard in shards for name, facts in job.finished[shard.name].items()}


class _Reading:
    """One thread that reads the steps in order, as far ahead as `_AHEAD_BYTES`."""

    def __init__(self, shards: Sequence[Shard], sources: Sequence[Source]) -> None:
        self._steps = deque(step for shard in shards for step in shard.steps)
        self._sources = sources
        self._ahead: deque[tuple[int, Future[list[Tensor]]]] = deque()
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="read")

    def __enter__(self) -> "_Reading":
        self._fill()
        return self

    def __exit__(self, *error: object) -> None:
        self._pool.shutdown(wait=True, cancel_futures=True)

    def take(self) -> list[Tensor]:
        """What the next step reads."""
        if not self._ahead:
            self._submit()
        _, future = self._ahead.popleft()
        tensors = future.result()
        self._fill()
        return tensors

    def _fill(self) -> None:
        while self._steps:
            size = self._size(self._steps[0])
            if size + sum(each for each, _ in self._ahead) > _AHEAD_BYTES:
                return
            self._submit()

    def _submit(self) -> None:
        step = self._steps.popleft()
        self._ahead.append((self._size(step), self._pool.submit(self._read, step)))

    def _size(self, step: Step) -> int:
        return sum(self._sources[index].entry(name).num_bytes for index, name in step.reads)

    def _read(self, step: Step) -> list[Tensor]:
        return [self._sources[index].read(name) for index, name in step.reads]


class _Writing:
    """One thread that writes what was computed, at most `_AHEAD_BYTES` behind."""

    def __init__(self, file: ShardFile) -> None:
        self._file = file
        self._behind: deque[tuple[int, Future[None]]] = deque()
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="write")

    def __enter__(self) -> "_Writing":
        return self

    def __exit__(self, kind: type[BaseException] | None, *rest: object) -> None:
        self._pool.shutdown(wait=True, cancel_futures=kind is not None)
        if kind is None:
            self._settle(0)

    def put(self, step: Step, tensors: Sequence[Tensor]) -> None:
        """Write the tensors of a step, now or soon. Raises what writing an earlier one raised."""
        assert len(tensors) == len(step.writes), (step.name, len(tensors))
        for planned, tensor in zip(step.writes, tensors, strict=True):
            future = self._pool.submit(self._file.write, planned.name, tensor)
            self._behind.append((planned.num_bytes, future))
        self._settle(_AHEAD_BYTES)

    def _settle(self, num_bytes: int) -> None:
        """Wait until no more than that many bytes are to be written."""
        while self._behind and sum(size for size, _ in self._behind) > num_bytes:
            self._behind[0][1].result()
            self._behind.popleft()
        if not num_bytes:
            for _, future in self._behind:
                future.result()
