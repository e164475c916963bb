"""The whole engine against plain generation: every class, ragged, in pieces, preempted, prefixes shared."""

import dataclasses
from collections.abc import Iterator
from typing import Any

import pytest
import torch

from llmctl.core.errors import BadFileError, ContextOverflowError, DoesNotFitError, LlmctlError, UsageError
from llmctl.core.types import Delta, SamplingParams
from llmctl.engine.engine import Engine, Request
from llmctl.engine.generate import single
from llmctl.engine.generate.job import Job
from llmctl.engine.opening import EngineOptions, open_engine
from llmctl.engine.sampling.batch import BatchSampler
from llmctl.loading.loader import LoadedModel
from llmctl.loading.planning import hardware
from llmctl.loading.planning.plan import LoadPlan
from tests import tiny
from tests.engine import classes

CONTEXT = 96
GREEDY = SamplingParams(temperature=0.0, max_new_tokens=12)
LENGTHS = (29, 3, 17, 22, 33, 8)
NUM_SHARED = 12
"""Tokens with which every second prompt begins."""


def loaded(model: Any) -> LoadedModel:
    return LoadedModel(
        name="tiny",
        model=model,
        tokenizer=tiny.tokenizer(),
        plan=LoadPlan(device=hardware.cpu(), dtype="float32", num_bytes=0, reasons=()),
        context_length=CONTEXT,
        vocabulary_size=tiny.VOCABULARY_SIZE,
        end_ids=frozenset(),
        default_sampling=SamplingParams(),
    )


def job(ids: tuple[int, ...], **sampling: Any) -> Job:
    params = dataclasses.replace(GREEDY, **sampling)
    length = CONTEXT - len(ids) if params.max_new_tokens is None else params.max_new_tokens
    ends = frozenset(params.stop_token_ids)
    return Job(prompt_ids=ids, sampling=params, end_ids=ends, max_new_tokens=length)


def prompts() -> list[tuple[int, ...]]:
    generator = torch.Generator().manual_seed(4)
    made = [torch.randint(200, (length,), generator=generator).tolist() for length in LENGTHS]
    for ids in made[2::2]:
        ids[:NUM_SHARED] = made[0][:NUM_SHARED]
    return [tuple(ids) for ids in made]


def opened(model: Any, num_blocks: int | None = None, **options: Any) -> Engine:
    """An engine of small steps whose memory holds `num_blocks` blocks of every group."""
    options = {"max_running": 4, "max_step_tokens": 16, "block_size": 4, "quickens": False, **options}
    engine = open_engine(loaded(model), EngineOptions(**options))
    if num_blocks is None or not engine.scheduler.pool.block_bytes:
        return engine
    kv_bytes = sum(engine.scheduler.pool.block_bytes) * num_blocks
    engine.release()
    return open_engine(loaded(model), EngineOptions(kv_bytes=kv_bytes, **options))


def run(engine: Engine) -> Iterator[tuple[Request, Delta | LlmctlError]]:
    while engine.has_work:
        yield from ((event.request, event.item) for event in engine.step())


def answers(engine: Engine, jobs: list[Job], *, pause: int = 0) -> list[list[Delta]]:
    """The deltas of each job; after every one that is added the engine makes `pause` steps.

    After the last one who runs then is preempted.
    """
    heard: dict[Request, list[Delta]] = {}
    for each in jobs:
        heard[engine.add(each)] = []
        for event in [event for _ in range(pause) for event in engine.step()]:
            assert isinstance(event.item, Delta)
            heard[event.request].append(event.item)
    engine.scheduler.preempt_all()
    for request, item in run(engine):
        assert isinstance(item, Delta)
        heard[request].append(item)
    return list(heard.values())


def tokens(deltas: list[Delta]) -> list[int]:
    return [each for delta in deltas for each in delta.token_ids]


def values(deltas: list[Delta]) -> torch.Tensor:
    """Log-probabilities [tokens, top + 1]."""
    return torch.tensor(
        [
            [one.chosen.logprob, *(each.logprob for each in one.top)]
            for each in deltas
            for one in each.logprobs
        ]
    )


@pytest.mark.parametrize("kind", classes.KINDS)
def test_a_mixture_of_requests_is_answered_as_each_alone(kind: str) -> None:
    model = classes.model(kind)
    jobs = [job(ids, logprobs=2) for ids in prompts()]
    want = [list(single.generate(model, tiny.tokenizer(), each)) for each in jobs]
    engine = opened(model, num_blocks=14)
    try:
        got = answers(engine, jobs, pause=3)
        assert engine.tier.letter == classes.tier(kind)[0]
        assert engine.scheduler.num_preemptions
    finally:
        engine.release()
    for mine, alone in zip(got, want, strict=True):
        assert tokens(mine) == tokens(alone)
        torch.testing.assert_close(values(mine), values(alone), rtol=0, atol=2e-5)
        assert mine[-1].finish is not None
        assert alone[-1].finish is not None
        assert mine[-1].finish.usage == alone[-1].finish.usage


@pytest.fixture(name="model", scope="module")
def _model() -> Any:
    return tiny.model()


def test_a_prompt_that_begins_like_an_earlier_one_is_not_computed_again(model: Any) -> None:
    first, second = prompts()[0], prompts()[2]
    engine = opened(model)
    answers(engine, [job(first)])
    request = engine.add(job(second))
    got = [item for _, item in run(engine)]
    engine.release()
    assert request.samples[0].sequence.num_cached == NUM_SHARED
    alone = opened(model)
    assert [each.token_ids for each in got if isinstance(each, Delta)] == [
        each.token_ids for each in answers(alone, [job(second)])[0]
    ]
    alone.release()


def test_a_seeded_request_says_the_same_alone_and_in_company(model: Any) -> None:
    random = {"temperature": 1.2, "top_p": 0.9, "seed": 5}
    jobs = [job(ids, **random) for ids in prompts()]
    engine = opened(model)
    together = [tokens(each) for each in answers(engine, jobs)]
    alone = [tokens(answers(engine, [each])[0]) for each in jobs]
    engine.release()
    assert together == alone
    plain = [tokens(list(single.generate(model, tiny.tokenizer(), each))) for each in jobs]
    assert together == plain


@pytest.mark.parametrize("kind", ["llama", "mamba2", "bloom"])
def test_several_answers_share_a_prompt_and_each_has_its_seed(kind: str) -> None:
    model, ids = classes.model(kind), prompts()[3]
    engine = opened(model)
    engine.add(job(ids, n=6, temperature=1.0, seed=11))
    heard: dict[int, list[int]] = {index: [] for index in range(6)}
    ends = []
    for _, item in run(engine):
        assert isinstance(item, Delta)
        heard[item.index] += item.token_ids
        ends += [item.index] if item.finish else []
    want = [tokens(answers(engine, [job(ids, temperature=1.0, seed=11 + index)])[0]) for index in range(6)]
    engine.release()
    assert list(heard.values()) == want
    assert sorted(ends) == list(range(6))


def test_the_prompts_own_tokens_are_told_with_their_probabilities(model: Any) -> None:
    ids = prompts()[0]
    engine = opened(model)
    answers(engine, [job(ids)])
    (deltas,) = answers(engine, [job(ids, prompt_logprobs=1)])
    engine.release()
    (first, *others) = deltas
    logits = model(torch.tensor([ids])).logits[0].detach().log_softmax(-1)
    want = [float(logits[place, token]) for place, token in enumerate(ids[1:])]
    assert [each.chosen.token_id for each in first.prompt_logprobs] == list(ids[1:])
    torch.testing.assert_close(
        torch.tensor([each.chosen.logprob for each in first.prompt_logprobs]),
        torch.tensor(want),
        rtol=0,
        atol=2e-5,
    )
    assert not any(each.prompt_logprobs for each in others)


def test_a_prompt_can_be_computed_for_its_probabilities_alone(model: Any) -> None:
    engine = opened(model)
    ((delta,),) = answers(engine, [job(prompts()[1], prompt_logprobs=0, max_new_tokens=0)])
    engine.release()
    assert len(delta.prompt_logprobs) == 2
    assert delta.finish is not None
    assert (delta.finish.reason, delta.finish.usage.completion_tokens) == ("length", 0)  # type: ignore[union-attr]


def test_a_cancelled_request_frees_its_memory_at_once(model: Any) -> None:
    engine = opened(model, caches_prefixes=False)
    request = engine.add(job(prompts()[0], n=3))
    engine.step()
    engine.step()
    assert engine.scheduler.pool.used_bytes
    engine.cancel(request)
    assert not engine.scheduler.pool.used_bytes
    assert not engine.has_work
    engine.release()


def test_an_answer_without_a_limit_ends_with_the_context(model: Any) -> None:
    engine = opened(model)
    (deltas,) = answers(engine, [job(prompts()[0], max_new_tokens=None)])
    engine.release()
    assert len(tokens(deltas)) == CONTEXT - LENGTHS[0]
    assert deltas[-1].finish is not None
    assert deltas[-1].finish.reason == "length"


def test_an_answer_without_a_limit_ends_where_memory_does(model: Any) -> None:
    engine = opened(model, num_blocks=12)
    (deltas,) = answers(engine, [job(prompts()[0], max_new_tokens=None)])
    engine.release()
    # The last token is never computed.
    assert len(tokens(deltas)) == 12 * 4 + 1 - LENGTHS[0]
    assert deltas[-1].finish is not None
    assert deltas[-1].finish.reason == "length"


def test_a_prompt_beyond_the_context_is_refused(model: Any) -> None:
    engine = opened(model)
    with pytest.raises(ContextOverflowError):
        engine.add(job((1,) * CONTEXT))
    assert not engine.has_work
    engine.release()


def test_a_model_that_gives_no_numbers_for_one_request_fails_that_one_alone() -> None:
    model = tiny.model()
    model.model.embed_tokens.weight.data[77] = torch.nan
    engine = opened(model, caches_prefixes=False)
    good, bad = engine.add(job((1, 2, 3))), engine.add(job((1, 77, 3)))
    heard: dict[Request, list[Delta | LlmctlError]] = {good: [], bad: []}
    for request, item in run(engine):
        heard[request].append(item)
    engine.release()
    assert [type(each) for each in heard[bad]] == [BadFileError]
    assert len(heard[good]) == 12


@pytest.mark.parametrize("step", range(4, 14))
def test_when_memory_runs_out_once_prefixes_are_found_again_in_the_right_blocks(step: int) -> None:
    model, begin = tiny.model(), prompts()[4][:24]
    jobs = [job((*begin, number), max_new_tokens=20) for number in range(4)]
    engine = opened(model, max_step_tokens=256)
    want = [tokens(answers(engine, [each])[0]) for each in jobs]
    engine.release()
    num_steps = 0

    def refuse(*_: Any) -> None:
        nonlocal num_steps
        num_steps += 1
        if num_steps == step:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")

    engine = opened(model, max_step_tokens=256)
    hook = model.register_forward_pre_hook(refuse)
    got = [tokens(each) for each in answers(engine, jobs)]
    hook.remove()
    engine.release()
    assert got == want


def test_memory_that_runs_out_while_tokens_are_chosen_ends_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny.model()
    jobs = [job(ids) for ids in prompts()]
    engine = opened(model)
    want = [tokens(each) for each in answers(engine, jobs)]
    engine.release()
    engine, choose, num_calls = opened(model), BatchSampler.choose, 0

    def refuse(*args: Any) -> Any:
        nonlocal num_calls
        num_calls += 1
        if num_calls == 7:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
        return choose(*args)

    monkeypatch.setattr(BatchSampler, "choose", refuse)
    got = [tokens(each) for each in answers(engine, jobs)]
    engine.release()
    assert got == want


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"kv_bytes": 0}, "kv_bytes is 0"),
        ({"max_running": 0}, "max_running is 0"),
        ({"max_step_tokens": -1}, "max_step_tokens is -1"),
        ({"context_length": 0}, "context_length is 0"),
        ({"context_length": CONTEXT + 1}, "context_length is 97, and tiny takes 96"),
        ({"max_waiting": -1}, "max_waiting is -1"),
        ({"max_running": 8, "max_step_tokens": 4}, "8 sequences cannot decode in a step of 4 tokens"),
    ],
)
def test_options_that_cannot_be_kept_are_refused(options: dict[str, Any], told: str) -> None:
    with pytest.raises(UsageError, match=told):
        opened(tiny.model(), **options)


def test_memory_for_not_a_single_block_is_refused() -> None:
    with pytest.raises(DoesNotFitError, match="hold no 4 tokens"):
        opened(tiny.model(), kv_bytes=1)


def test_a_small_step_is_kept_by_running_fewer_at_a_time() -> None:
    engine = opened(tiny.model(), max_running=None, max_step_tokens=8)
    assert (engine.scheduler.limits.max_running, engine.scheduler.limits.max_step_tokens) == (8, 8)
    engine.release()


def test_when_memory_runs_out_in_a_step_fewer_run_and_all_are_answered() -> None:
    model = tiny.model()
    jobs = [job(ids) for ids in prompts()]
    engine = opened(model)
    want = [tokens(each) for each in answers(engine, jobs)]
    engine.release()

    def refuse(_: Any, args: Any, options: Any) -> None:
        if options["input_ids"].shape[1] > 9:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")

    engine = opened(model)
    hook = model.register_forward_pre_hook(refuse, with_kwargs=True)
    got = [tokens(each) for each in answers(engine, jobs)]
    hook.remove()
    engine.release()
    assert got == want
