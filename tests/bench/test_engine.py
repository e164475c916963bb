"""`bench engine` measures what it says, with the engine and transformers in turn. No test looks at a time."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import pytest
import torch

from llmctl.bench import driving, engine, long_runs
from llmctl.bench.driving import Mix, Prompts, Together
from llmctl.bench.engine import CONTEXT, PACKED, STEPS, Pace, Request, measure
from llmctl.bench.plain import Plain
from llmctl.bench.rows import Row
from llmctl.bench.shapes import SHAPES, STACKS
from llmctl.bench.sources import RandomSource
from llmctl.bench.turns import best_rates
from llmctl.core.errors import LlmctlError, UsageError
from llmctl.core.progress import SilentProgress
from llmctl.engine.engine import Engine
from llmctl.engine.opening import EngineOptions, open_engine
from llmctl.loading.loader import LoadedModel
from llmctl.loading.planning.hardware import cpu
from tests.engine import classes
from tests.engine.test_engine import loaded as tiny_loaded

SOURCE = RandomSource(
    shape=SHAPES["demo"], stack=replace(STACKS["demo"], num_layers=1, vocabulary_size=512), device=cpu()
)
MIX = Mix(num_clients=3, prompt=9, output=4)
REQUEST = Request(dtypes=("bf16",), batches=(1, 3), prefills=(20,), mix=MIX, has_rival=True, seconds=0)


def rows(request: Request) -> list[Row]:
    return list(measure(request, SOURCE, SilentProgress()))


@dataclass(frozen=True)
class Measured:
    """The rows of `REQUEST`, and who took turns for each."""

    rows: list[Row]
    sides: list[str]


@pytest.fixture(name="measured", scope="module")
def _measured() -> Measured:
    sides: list[str] = []

    def noted(given: dict[str, Callable[[], float]], **options: float) -> dict[str, float]:
        sides.append(" ".join(given))
        return best_rates(given, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(engine, "best_rates", noted)
        return Measured(rows(REQUEST), sides)


def test_each_row_comes_once_with_what_it_is_about(measured: Measured) -> None:
    assert [(each.what, each.batch, each.unit) for each in measured.rows] == [
        ("decode", 1, "tokens/s"),
        ("decode", 3, "tokens/s"),
        ("prefill", 1, "tokens/s"),
        ("first token", 1, "s"),
        ("prefill", PACKED, "tokens/s"),
        ("mix", 3, "tokens/s"),
        ("memory", 3, "bytes"),
    ]
    assert {each.dtype for each in measured.rows} == {"bf16"}
    by_place = {(each.what, each.batch): each.details for each in measured.rows}
    assert by_place["decode", 1] == {"prompt": CONTEXT, "context_end": CONTEXT + 4 * STEPS}
    assert by_place["decode", 3].keys() == {"prompt", "context_end", "theirs_together"}
    assert by_place["prefill", 1] == {"prompt": 20}
    assert by_place["prefill", PACKED] == {"prompt": CONTEXT}
    assert by_place["mix", 3].keys() == {"prompt", "output", "first_token_s"}
    assert by_place["memory", 3]["kv_bytes"]


def test_both_sides_are_measured_and_compared(measured: Measured) -> None:
    for each in measured.rows:
        if each.what == "memory":
            continue
        assert each.ours > 0
        assert each.theirs is not None
        assert each.theirs > 0
        assert each.ratio is not None


def test_a_ratio_says_how_many_times_as_good() -> None:
    fast = Row(what="decode", dtype="bf16", batch=1, unit="tokens/s", ours=30.0, theirs=20.0)
    quick = Row(what="first token", dtype="bf16", batch=1, unit="s", ours=2.0, theirs=3.0)
    assert fast.ratio == quick.ratio == 1.5
    assert fast.as_dict() == {
        "what": "decode",
        "batch": 1,
        "dtype": "bf16",
        "unit": "tokens/s",
        "ours": 30.0,
        "theirs": 20.0,
        "ratio": 1.5,
    }
    assert replace(fast, theirs=None).as_dict()["ratio"] is None


def test_every_dtype_has_its_own_rows_and_without_a_rival_there_is_no_ratio() -> None:
    found = rows(Request(dtypes=("bf16", "int8"), batches=(2,), seconds=0))
    assert [(each.what, each.dtype) for each in found] == [
        ("decode", "bf16"),
        ("memory", "bf16"),
        ("decode", "int8"),
        ("memory", "int8"),
    ]
    assert all(each.theirs is None and each.ratio is None for each in found)


def test_rows_are_counted_before_they_are_made(measured: Measured) -> None:
    with_parts = [each for each in measured.rows if each.what not in ("memory", "first token")]
    assert REQUEST.num_rows == len(with_parts)
    assert replace(REQUEST, dtypes=("bf16", "nf4"), long=("waiting",)).num_rows == 2 * REQUEST.num_rows + 2


def test_both_take_turns_in_every_row(measured: Measured) -> None:
    assert measured.sides == ["ours theirs"] * REQUEST.num_rows


def test_a_longer_sequence_than_the_model_takes_is_refused() -> None:
    with pytest.raises(UsageError, match="takes 1024 tokens, and a row would need 5001"):
        list(measure(Request(dtypes=("bf16",), prefills=(5000,)), SOURCE, SilentProgress()))


class TinySource:
    """A tiny model of any class."""

    name, kind = "tiny", "cpu"

    def __init__(self, model: str) -> None:
        self._model = model

    def loaded(self, dtype: str, progress: Any) -> LoadedModel:
        del dtype, progress
        return replace(tiny_loaded(classes.model(self._model)), context_length=256)


def test_a_model_that_runs_one_by_one_has_no_batches() -> None:
    with pytest.raises(UsageError, match=r"^--batch 4: .* runs one sequence at a time \(tier C\)"):
        list(
            measure(
                Request(dtypes=("bf16",), batches=(1, 4), seconds=0), TinySource("bloom"), SilentProgress()
            )
        )


# How the engine is driven


@pytest.fixture(name="opened", scope="module")
def _opened() -> Iterator[Engine]:
    made = open_engine(
        SOURCE.loaded("bf16", SilentProgress()), EngineOptions(context_length=512, max_running=4)
    )
    yield made
    made.release()


def test_those_together_all_write_a_token_in_every_step(opened: Engine) -> None:
    together = Together(opened, Prompts(512), batch=4, context=20, room=6)
    assert together.rate(4) > 0
    lengths = {len(each.samples[0].sequence.ids) for each in together._requests}
    # One may have begun a step after the others.
    assert max(lengths) - min(lengths) <= 1
    before = list(together._requests)
    assert together.rate(2) > 0
    assert together._requests == before
    # No room is left: they begin anew.
    together.rate(1)
    assert not set(map(id, together._requests)) & set(map(id, before))
    together.end()
    assert not opened.has_work


def test_clients_come_back_until_all_is_answered(opened: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    jobs: list[Any] = []
    add, most = opened.add, []

    def noted(job: Any) -> Any:
        jobs.append(job)
        request = add(job)
        most.append(opened.scheduler.num_running + opened.scheduler.num_waiting)
        return request

    monkeypatch.setattr(opened, "add", noted)
    found = driving.mixed(opened, Prompts(512), replace(MIX, num_rounds=3))
    assert len(jobs) == 3 * 3
    assert max(most) <= MIX.num_clients + 1
    assert {(len(each.prompt_ids), each.max_new_tokens) for each in jobs} == {(9, 4)}
    assert found.output_rate > 0
    assert found.first_token_s > 0
    assert not opened.has_work


def test_no_prompt_comes_twice() -> None:
    prompts = Prompts(512)
    assert len(set(prompts.several(50, 8))) == 50
    assert all(0 <= token < 512 for token in prompts.draw(1000))


def test_a_request_that_fails_ends_the_measurement(opened: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_: object) -> None:
        raise RuntimeError("broken")

    monkeypatch.setattr(opened._runner, "run", fail)
    with pytest.raises(LlmctlError, match="the model failed: RuntimeError: broken"):
        driving.prefill_rate(opened, Prompts(512).several(1, 5))


def test_transformers_writes_full_answers_whatever_the_model_ends_with() -> None:
    model = SOURCE.loaded("bf16", SilentProgress()).model
    model.generation_config.eos_token_id = list(range(512))
    plain = Plain(model)
    one = plain.generate([(1, 2, 3)], 6)
    assert one.decode_rate > 0
    assert one.first_token_s > 0
    assert plain.generate([(1, 2, 3), (4, 5, 6)], 1).decode_rate == 0


def test_the_engine_and_transformers_compute_the_same_model(opened: Engine) -> None:
    prompt = Prompts(512).draw(12)
    request = opened.add(driving.greedy(prompt, 4))
    while opened.has_work:
        driving.step(opened)
    want = SOURCE.loaded("bf16", SilentProgress()).model.generate(
        torch.tensor([prompt]), max_new_tokens=4, do_sample=False, pad_token_id=0
    )
    assert request.samples[0].sequence.ids == want[0].tolist()


# The long ones, short


@pytest.fixture(name="subject")
def _subject(opened: Engine) -> long_runs.Subject:
    return long_runs.Subject(engine=opened, prompts=Prompts(512), dtype="bf16")


def test_many_wait_while_others_decode(subject: long_runs.Subject) -> None:
    (row,) = long_runs.waiting(subject, count=30)
    assert (row.what, row.batch) == ("waiting", 4)
    assert row.details.keys() == {"waiting", "alone", "scheduler_us", "scheduler_us_alone"}
    assert not subject.engine.has_work


def test_a_context_is_read_in_three_lengths(subject: long_runs.Subject) -> None:
    found = list(long_runs.contexts(subject, length=64))
    assert [each.details["prompt"] for each in found] == [16, 32, 64]
    assert ["seconds_by_arithmetic" in each.details for each in found] == [False, False, True]
    assert all(each.details["decode"] for each in found)


def test_what_grows_with_the_length_and_its_square_is_foretold() -> None:
    cost = lambda n: 3 * n + 0.5 * n * n  # noqa: E731
    assert long_runs.fourfold(cost(8), cost(16)) == pytest.approx(cost(32))


def test_a_long_answer_is_looked_at_in_three_places(subject: long_runs.Subject) -> None:
    (row,) = long_runs.generation(subject, length=40)
    assert row.details.keys() == {"output", "first_tenth", "last_tenth", "last_by_arithmetic"}
    assert row.ours > 0


@pytest.mark.parametrize("name", long_runs.RUNS)
def test_a_long_run_says_how_long_its_sequences_are(name: str) -> None:
    request = Request(dtypes=("bf16",), long=(name,))
    assert (
        request.longest
        >= long_runs.RUNS[name].longest
        >= {"context": 32_000, "generation": 10_000}.get(name, 0)
    )


def test_the_time_that_is_left_is_that_of_the_rows_so_far() -> None:
    told: list[str] = []

    class Told(SilentProgress):
        def stage(self, name: str, *, total_bytes: int | None = None) -> None:
            told.append(name)

    times = iter([0.0, 50.0, 70.0])
    pace = Pace(Told(), 5, clock=lambda: next(times))
    for name in "abc":
        pace.next(name)
    assert told == [
        "a (1 of 5)",
        "b (2 of 5, about 3 min left)",
        "c (3 of 5, about 2 min left)",
    ]
