"""Jacobi decoding against plain greedy generation: the same tokens, in no more forwards."""

import dataclasses
import functools
import logging
import random
import weakref
from collections.abc import Iterator, Sequence
from typing import Any

import pytest
import torch
import transformers
from hypothesis import given, settings
from hypothesis import strategies as st

from llmctl.core.types import Delta, SamplingParams
from llmctl.engine.generate import jacobi, single
from llmctl.engine.generate.job import Job
from tests import tiny

GREEDY = SamplingParams(temperature=0.0)
TOKENIZER = tiny.tokenizer()
PROMPT = tuple(TOKENIZER.encode("Hello, wörld! How are you?"))
MODEL = functools.cache(tiny.model)
STATEFUL = (
    "mamba",
    "mamba2",
    "falcon_mamba",
    "rwkv",
    "recurrent_gemma",
    "jamba",
    "falcon_h1",
    "lfm2",
    "qwen3_next",
)


def job(
    sampling: SamplingParams = GREEDY,
    *,
    prompt_ids: Sequence[int] = PROMPT,
    end_ids: Sequence[int] = (),
    max_new_tokens: int = 24,
    block_length: int = 8,
) -> Job:
    return Job(
        prompt_ids=tuple(prompt_ids),
        sampling=sampling,
        end_ids=frozenset(end_ids),
        max_new_tokens=max_new_tokens,
        block_length=block_length,
    )


def timeless(deltas: Iterator[Delta]) -> list[Delta]:
    """All of a stream but its times."""
    return [
        dataclasses.replace(
            each,
            finish=each.finish and dataclasses.replace(each.finish, timings=None),  # type: ignore[arg-type]
        )
        for each in deltas
    ]


def both(model: Any, given_job: Job) -> tuple[list[Delta], list[Delta]]:
    """What Jacobi decoding and plain generation make of a job."""
    assert jacobi.obstacle(model, given_job) is None
    return (
        timeless(jacobi.generate(model, TOKENIZER, given_job)),
        timeless(single.generate(model, TOKENIZER, given_job)),
    )


def tokens(deltas: Sequence[Delta]) -> list[int]:
    return [each for delta in deltas for each in delta.token_ids]


@pytest.fixture
def forwards(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The number of ids in each forward of any Llama from now on."""
    sizes: list[int] = []
    whole = transformers.LlamaForCausalLM.forward

    @functools.wraps(whole)
    def counted(self: Any, input_ids: Any = None, **options: Any) -> Any:
        sizes.append(input_ids.shape[1])
        return whole(self, input_ids=input_ids, **options)

    monkeypatch.setattr(transformers.LlamaForCausalLM, "forward", counted)
    return sizes


def random_jobs(kind: str, count: int) -> Iterator[Job]:
    """Prompts of all lengths, half of them with end tokens that are likely to come."""
    draw = random.Random(kind)
    for number in range(count):
        prompt_ids = draw.choices(range(tiny.VOCABULARY_SIZE), k=draw.randint(1, 40))
        end_ids = draw.sample(range(tiny.VOCABULARY_SIZE), 12) if number % 2 else ()
        length, block_length = draw.randint(1, 24), draw.choice([1, 2, 5, 16, 32])
        yield job(prompt_ids=prompt_ids, end_ids=end_ids, max_new_tokens=length, block_length=block_length)


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("kind", ["llama", "qwen2", "gemma"])
def test_two_hundred_random_prompts_are_answered_as_plain_generation_does(kind: str, seed: int) -> None:
    # Tied, a random model says again what it has read, so that some guesses come true.
    model = tiny.model(kind, seed=seed, tie_word_embeddings=bool(seed))
    reasons = set()
    for each in random_jobs(f"{kind} {seed}", 34):
        got, want = both(model, each)
        assert got == want
        reasons.add(got[-1].finish and got[-1].finish.reason)
    assert reasons == {"stop", "length"}


@pytest.mark.parametrize("kind", [kind for kind in tiny.CONFIGS if kind not in STATEFUL])
def test_every_model_with_a_cache_that_can_be_cut_says_the_same(kind: str) -> None:
    got, want = both(MODEL(kind), job(max_new_tokens=40))
    assert got == want


@pytest.mark.parametrize("kind", STATEFUL)
def test_models_whose_state_cannot_go_back_are_run_plainly_and_this_is_told(
    kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    model = MODEL(kind)
    with caplog.at_level(logging.INFO, logger="llmctl"):
        got = timeless(jacobi.generate(model, TOKENIZER, job()))
    assert got == timeless(single.generate(model, TOKENIZER, job()))
    assert f"one token a step instead: {type(model).__name__}" in caplog.text


def test_a_temperature_is_answered_plainly_and_this_is_told(caplog: pytest.LogCaptureFixture) -> None:
    made = job(SamplingParams(temperature=0.7, seed=3))
    with caplog.at_level(logging.INFO, logger="llmctl"):
        got = timeless(jacobi.generate(MODEL("llama"), TOKENIZER, made))
    assert got == timeless(single.generate(MODEL("llama"), TOKENIZER, made))
    assert "it is for temperature 0, and this is 0.7" in caplog.text


def test_code_of_a_models_repository_is_run_plainly() -> None:
    class Own(transformers.LlamaForCausalLM):  # type: ignore[misc]
        pass

    reason = jacobi.obstacle(Own(tiny.config()), job())
    assert reason == "Own takes no cache that can be cut"


@pytest.mark.parametrize(
    "penalty",
    [
        {"repetition_penalty": 1.3},
        {"presence_penalty": 1.5, "frequency_penalty": 0.5},
        {"stop": ("\x1b", "e", "t")},
    ],
)
@pytest.mark.parametrize("block_length", [3, 32])
def test_penalties_and_stop_strings_hold(penalty: dict[str, Any], block_length: int) -> None:
    made = job(SamplingParams(temperature=0.0, **penalty), max_new_tokens=60, block_length=block_length)
    got, want = both(MODEL("qwen2"), made)
    assert got == want
    assert tokens(got) != tokens(both(MODEL("qwen2"), dataclasses.replace(made, sampling=GREEDY))[1])


def test_logprobs_are_those_of_plain_generation() -> None:
    made = job(SamplingParams(temperature=0.0, logprobs=3))
    got, want = (list(way.generate(MODEL("llama"), TOKENIZER, made)) for way in (jacobi, single))
    for one, other in zip(got, want, strict=True):
        for (mine,), (theirs,) in [(one.logprobs, other.logprobs)]:
            assert [each.token_id for each in mine.top] == [each.token_id for each in theirs.top]
            assert mine.chosen.logprob == pytest.approx(theirs.chosen.logprob, abs=1e-4)


@settings(max_examples=60, deadline=None)
@given(
    prompt_ids=st.lists(st.integers(0, tiny.VOCABULARY_SIZE - 1), min_size=1, max_size=12),
    block_length=st.integers(1, 40),
    length=st.integers(1, 30),
)
def test_any_block_and_any_length_give_the_same(
    prompt_ids: list[int], block_length: int, length: int
) -> None:
    made = job(prompt_ids=prompt_ids, block_length=block_length, max_new_tokens=length)
    got, want = both(MODEL("gpt2"), made)
    assert got == want
    assert len(got) == length


def repeating() -> Any:
    """A Llama that says A B C A B C ... after any prompt: the table of the next token is its head."""
    model = tiny.model("llama", hidden_size=288, head_dim=8, num_hidden_layers=1, tie_word_embeddings=False)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.fill_(1.0 if "norm" in name else 0.0)
        ids = torch.arange(tiny.VOCABULARY_SIZE)
        model.model.embed_tokens.weight[ids, ids] = 1.0
        model.lm_head.weight[65 + (ids + 1) % 3, ids] = 1.0
    return model


def test_a_model_that_repeats_itself_needs_fewer_forwards_than_tokens(forwards: list[int]) -> None:
    model, made = repeating(), job(max_new_tokens=96, block_length=16)
    got = tokens(list(jacobi.generate(model, TOKENIZER, made)))
    num_forwards = len(forwards)
    assert got == tokens(list(single.generate(model, TOKENIZER, made)))
    assert got[:6] == got[3:9]
    assert len(forwards) - num_forwards == 96
    assert 96 / 16 <= num_forwards <= 96 / 16 + 3


def by_place() -> Any:
    """A GPT-2 whose tokens depend on their place alone, and never come twice: no guess helps but its own."""
    model = tiny.model("gpt2", n_embd=256, n_layer=1, tie_word_embeddings=False)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.fill_(1.0 if name.endswith("ln_f.weight") else 0.0)
        model.transformer.wpe.weight.copy_(torch.eye(256))
        model.lm_head.weight[:256].copy_(torch.eye(256))
    return model


def test_what_the_last_forward_predicted_is_the_next_guess() -> None:
    model, calls = by_place(), []
    model.register_forward_hook(lambda *_: calls.append(1))
    made = job(prompt_ids=[250], max_new_tokens=170, block_length=16)
    assert tokens(list(jacobi.generate(model, TOKENIZER, made))) == list(range(170))
    # Every other forward has a block of fresh guesses, and settles one token.
    assert len(calls) == 2 * 170 / 17


@pytest.mark.parametrize("kind", ["llama", "falcon"])
def test_there_are_never_more_forwards_than_tokens(kind: str) -> None:
    model, sizes = tiny.model(kind), []
    model.register_forward_hook(lambda *_: sizes.append(1))
    assert len(tokens(list(jacobi.generate(model, TOKENIZER, job(max_new_tokens=50))))) == 50
    assert 0 < len(sizes) <= 50


def test_nothing_is_fed_beyond_the_end_of_the_context() -> None:
    model = tiny.model("gpt2", n_positions=len(PROMPT) + 9)
    made = job(max_new_tokens=10, block_length=32)
    got, want = both(model, made)
    assert got == want


def test_a_forward_is_made_only_when_its_tokens_are_asked_for(forwards: list[int]) -> None:
    deltas = jacobi.generate(repeating(), TOKENIZER, job(max_new_tokens=64, block_length=16))
    assert forwards == []
    next(deltas)
    assert forwards == [len(PROMPT) + 15]
    for _ in range(40):
        next(deltas)
    num_forwards = len(forwards)
    assert num_forwards <= 6
    deltas.close()
    assert len(forwards) == num_forwards


def test_an_end_token_inside_a_block_ends_the_answer_there() -> None:
    made = job(end_ids=[66], max_new_tokens=64, block_length=16)
    got, want = both(repeating(), made)
    assert got == want
    assert len(got) <= 3
    finish = got[-1].finish
    assert finish is not None
    assert (finish.reason, finish.usage.completion_tokens) == ("stop", len(got))


def test_closing_the_stream_frees_the_cache() -> None:
    model = tiny.model()
    caches: list[weakref.ref[Any]] = []
    model.register_forward_hook(lambda _, __, output: caches.append(weakref.ref(output.past_key_values)))
    deltas = jacobi.generate(model, TOKENIZER, job())
    next(deltas)
    assert caches[0]() is not None
    deltas.close()
    assert [cache() for cache in caches] == [None]


def test_a_long_prompt_is_not_given_to_the_head() -> None:
    model, rows = tiny.model(), []
    model.lm_head.register_forward_hook(lambda _, args, __: rows.append(args[0].shape[1]))
    list(jacobi.generate(model, TOKENIZER, job(max_new_tokens=10, block_length=4)))
    assert max(rows) == 4
