"""Measures the engine over one model, and `generate` of transformers in turn with it, in one run.

Rows: decode by batch, prefill, first token, a closed loop of clients, memory; on request the long runs of
`long_runs`. What is compared with is one sequence in bfloat16, whatever the row's batch and numbers are.
"""

import contextlib
import gc
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import psutil
import torch

from llmctl.bench import long_runs
from llmctl.bench.driving import Mix, MixSpeed, Prompts, Together, mixed, prefill_rate
from llmctl.bench.plain import Plain
from llmctl.bench.rows import TOKENS_A_SECOND, Row
from llmctl.bench.shapes import SHAPES, STACKS
from llmctl.bench.sources import DENSE, RandomSource, Source
from llmctl.bench.turns import best_rates
from llmctl.core.errors import UsageError
from llmctl.core.progress import Progress, SilentProgress
from llmctl.engine.opening import EngineOptions, open_engine
from llmctl.loading import memory
from llmctl.loading.loader import LoadedModel
from llmctl.loading.planning import hardware

CONTEXT = 115
"""Tokens of the prompts that sequences decode after, and of those that are computed together."""
PACKED = 16
"""Prompts that are computed together."""
STEPS = 16
"""Of decoding in one turn."""
_TURNS_IN_A_ROW = 4
"""After so many the sequences begin anew: the context stays about what is told."""
_ROOM = STEPS * _TURNS_IN_A_ROW
OURS, THEIRS = "ours", "theirs"


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What is measured, and for how long."""

    dtypes: tuple[str, ...]
    """`DENSE` and keys of `quant.methods.METHODS`."""
    batches: tuple[int, ...] = ()
    """Sequences that decode together."""
    insists: bool = True
    """Whether batches that the model cannot run are a mistake; otherwise they are left out."""
    prefills: tuple[int, ...] = ()
    """Lengths of prompts that are computed alone."""
    mix: Mix | None = None
    long: tuple[str, ...] = ()
    """Keys of `long_runs.RUNS`."""
    has_rival: bool = False
    """Whether transformers is measured as well."""
    seconds: float = 5.0
    """For the turns of one row; it ends with the turn in which they are over, but not before the second."""

    @property
    def num_rows(self) -> int:
        """Comparisons, those of the long runs too."""
        is_packed = bool(self.prefills)
        a_dtype = len(self.batches) + len(self.prefills) + is_packed + (self.mix is not None)
        return len(self.dtypes) * (a_dtype + len(self.long))

    @property
    def longest(self) -> int:
        """Tokens of the longest sequence, prompt and answer."""
        decode = CONTEXT + _ROOM + 2 * max((*self.batches, PACKED))
        mix = self.mix.prompt + self.mix.output if self.mix is not None else 0
        prefill = max(self.prefills, default=0) + 1
        return max(decode, mix, prefill, *(long_runs.RUNS[name].longest for name in self.long))

    @property
    def most_running(self) -> int:
        """Sequences at a time."""
        return max((*self.batches, PACKED, self.mix.num_clients if self.mix is not None else 1))


def measure(request: Request, source: Source, progress: Progress) -> Iterator[Row]:
    """The rows, one dtype after the other, as they are found.

    Raises `UsageError` for a context that the model does not have, and what loading raises.
    """
    pace = Pace(progress, request.num_rows)
    _warm_up()
    before = _held_bytes(source.kind)
    rival = Plain(source.loaded(DENSE, progress).model) if request.has_rival else None
    if rival is not None:
        progress.stage("warm up transformers")
        rival.generate([(1,) * 8], 4)
    rival_bytes = _held_bytes(source.kind) - before if rival is not None else None
    for number, dtype in enumerate(request.dtypes):
        before = _held_bytes(source.kind)
        loaded = source.loaded(dtype, progress)
        _check_context(loaded, request.longest)
        progress.stage(f"open the engine, {dtype}")
        with contextlib.closing(_Bench(request, loaded, rival, dtype, is_first=number == 0)) as bench:
            yield from bench.rows(pace)
            yield bench.memory(_held_bytes(source.kind) - before, rival_bytes)
        del loaded, bench
        gc.collect()


@dataclass(slots=True)
class Pace:
    """Tells where a run is, and when it will be over if it goes on like that."""

    progress: Progress
    num_rows: int
    clock: Callable[[], float] = time.perf_counter
    _num_done: int = 0
    _began: float | None = None

    def next(self, what: str) -> None:
        """The next row begins."""
        now = self.clock()
        self._began = now if self._began is None else self._began
        left = ""
        if self._num_done:
            seconds = (now - self._began) / self._num_done * (self.num_rows - self._num_done)
            left = f", {_about(seconds)} left"
        self._num_done += 1
        self.progress.stage(f"{what} ({self._num_done} of {self.num_rows}{left})")


def _about(seconds: float) -> str:
    return f"about {seconds / 60:.0f} min" if seconds >= 90 else f"about {seconds:.0f} s"


class _Bench:
    """One engine under measurement."""

    def __init__(
        self, request: Request, loaded: LoadedModel, rival: Plain | None, dtype: str, *, is_first: bool
    ) -> None:
        self._request, self._rival, self._dtype = request, rival, dtype
        self._is_first = is_first
        self._prompts = Prompts(loaded.vocabulary_size)
        options = EngineOptions(context_length=request.longest, max_running=request.most_running)
        self._engine = open_engine(loaded, options)
        self._loaded = loaded
        self._kv_bytes = 0
        self._most_together = 1

    def close(self) -> None:
        """Free the engine's memory."""
        self._engine.release()

    def rows(self, pace: Pace) -> Iterator[Row]:
        """All but memory. Raises `UsageError` for batches of a model that runs them one by one."""
        request = self._request
        most, tier = self._engine.scheduler.limits.max_running, self._engine.tier
        if request.insists and most < max(request.batches, default=1):
            raise UsageError(
                f"--batch {max(request.batches)}: {self._loaded.name} runs {tier}",
                hint=f"give --batch {most}",
            )
        for batch in (each for each in request.batches if each <= most):
            pace.next(f"decode of {batch}, {self._dtype}")
            yield self._decode(batch)
        for length in request.prefills:
            pace.next(f"a prompt of {length}, {self._dtype}")
            yield from self._prefill(1, length)
        if request.prefills:
            pace.next(f"{PACKED} prompts of {CONTEXT}, {self._dtype}")
            yield from self._prefill(PACKED, CONTEXT)
        if request.mix is not None:
            pace.next(f"{request.mix.num_clients} clients, {self._dtype}")
            yield from self._mix(request.mix)
        for name in request.long:
            run = long_runs.RUNS[name]
            pace.next(f"{run.title}, {self._dtype}")
            subject = long_runs.Subject(engine=self._engine, prompts=self._prompts, dtype=self._dtype)
            yield from run.measure(subject)

    def memory(self, num_bytes: int, rival_bytes: int | None) -> Row:
        """What the process took for the model and its keys and values, which end with the biggest batch."""
        return Row(
            what="memory",
            dtype=self._dtype,
            batch=self._most_together,
            unit="bytes",
            ours=float(num_bytes),
            theirs=None if rival_bytes is None else float(rival_bytes),
            details={"kv_bytes": self._kv_bytes},
        )

    def _decode(self, batch: int) -> Row:
        self._most_together = max(self._most_together, batch)
        together = Together(self._engine, self._prompts, batch=batch, context=CONTEXT, room=_ROOM)
        found = self._turns(lambda: together.rate(STEPS), lambda plain: self._decoded(plain, 1))
        self._kv_bytes = max(self._kv_bytes, self._engine.scheduler.pool.used_bytes)
        together.end()
        return self._row(
            "decode",
            batch,
            found,
            prompt=CONTEXT,
            details={"context_end": CONTEXT + _ROOM, **self._padded(batch)},
        )

    def _padded(self, batch: int) -> Mapping[str, float]:
        """What transformers makes of the whole batch at once, for what it is worth: once a run."""
        if self._rival is None or batch == 1 or not self._is_first:
            return {}
        return {"theirs_together": round(self._decoded(self._rival, batch), 2)}

    def _decoded(self, plain: Plain, batch: int) -> float:
        return plain.generate(self._prompts.several(batch, CONTEXT), STEPS + 1).decode_rate

    def _prefill(self, batch: int, length: int) -> Iterator[Row]:
        def theirs(plain: Plain) -> float:
            return length / plain.generate(self._prompts.several(1, length), 1).first_token_s

        found = self._turns(lambda: prefill_rate(self._engine, self._prompts.several(batch, length)), theirs)
        yield self._row("prefill", batch, found, prompt=length)
        if batch == 1:
            times = {side: length / rate for side, rate in found.items()}
            yield self._row("first token", batch, times, prompt=length, unit="s")

    def _mix(self, mix: Mix) -> Iterator[Row]:
        seen: list[MixSpeed] = []

        def ours() -> float:
            self._most_together = max(self._most_together, mix.num_clients)
            seen.append(mixed(self._engine, self._prompts, mix))
            return seen[-1].output_rate

        found = self._turns(
            ours,
            lambda plain: plain.generate(self._prompts.several(1, mix.prompt), mix.output).decode_rate,
        )
        first_s = min(each.first_token_s for each in seen)
        yield self._row(
            "mix",
            mix.num_clients,
            found,
            prompt=mix.prompt,
            details={"output": mix.output, "first_token_s": round(first_s, 4)},
        )

    def _turns(self, ours: Callable[[], float], theirs: Callable[[Plain], float]) -> dict[str, float]:
        sides, rival = {OURS: ours}, self._rival
        if rival is not None:
            sides[THEIRS] = lambda: theirs(rival)
        return best_rates(sides, seconds=self._request.seconds)

    def _row(
        self,
        what: str,
        batch: int,
        found: Mapping[str, float],
        *,
        prompt: int,
        unit: str = TOKENS_A_SECOND,
        details: Mapping[str, float] | None = None,
    ) -> Row:
        return Row(
            what=what,
            dtype=self._dtype,
            batch=batch,
            unit=unit,
            ours=found[OURS],
            theirs=found.get(THEIRS),
            details={"prompt": prompt, **(details or {})},
        )


def _check_context(loaded: LoadedModel, longest: int) -> None:
    if longest > loaded.context_length:
        raise UsageError(
            f"{loaded.name} takes {loaded.context_length} tokens, and a row would need {longest}",
            hint="give shorter --prefill, --mix or fewer --batch and --long",
        )


def _warm_up() -> None:
    """Let the libraries take what they take once, lest it counts as the first model's."""
    source = RandomSource(shape=SHAPES["demo"], stack=STACKS["demo"], device=hardware.cpu())
    engine = open_engine(source.loaded(DENSE, SilentProgress()), EngineOptions(context_length=64))
    prefill_rate(engine, Prompts(STACKS["demo"].vocabulary_size).several(2, 8))
    engine.release()


def _held_bytes(kind: str) -> int:
    """Memory of this process on a kind of device; of the host's what no file backs."""
    gc.collect()
    memory.trim()
    if kind == "cuda":
        return int(torch.cuda.memory_allocated())
    found = psutil.Process().memory_info()
    return int(found.rss - getattr(found, "shared", 0))
