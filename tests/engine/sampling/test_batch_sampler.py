"""The sampler of many rows against the one of a single sequence, and both against what they promise."""

import functools
import math
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from hypothesis import example, given, settings
from hypothesis import strategies as st

from llmctl.core.errors import BadFileError, LlmctlError, UsageError
from llmctl.core.types import SamplingParams
from llmctl.engine.generate.sampler import Sampler, likeliest, weights
from llmctl.engine.sampling import batch, draw
from llmctl.engine.sampling.batch import BatchSampler, Chosen, RowState
from llmctl.engine.sampling.constraints import Constraints
from llmctl.engine.sampling.seen import Seen
from llmctl.engine.sampling.words import spellings
from tests import tiny

Word = tuple[int, ...]
NEUTRAL = SamplingParams()
SIZE = 24
IDS = st.integers(0, SIZE - 1)


@dataclass(frozen=True)
class Asked:
    """A request as both samplers take it."""

    params: SamplingParams = NEUTRAL
    prompt: tuple[int, ...] = (1,)
    end_ids: frozenset[int] = frozenset()
    bad_words: tuple[Word, ...] = ()

    def alone(self, size: int) -> Sampler:
        prompt = torch.tensor(self.prompt, dtype=torch.long)
        return Sampler(self.params, prompt, size, end_ids=self.end_ids, bad_words=self.bad_words)

    def row(self, sampler: BatchSampler) -> RowState:
        return sampler.row(self.params, self.prompt, end_ids=self.end_ids, bad_words=self.bad_words)


Outcome = int | tuple[type[LlmctlError], str]


def outcome_alone(sampler: Sampler, logits: torch.Tensor) -> Outcome:
    try:
        return sampler.sample(logits)
    except LlmctlError as error:
        return type(error), error.message


def outcome(chosen: Chosen | LlmctlError) -> Outcome:
    return chosen.token_id if isinstance(chosen, Chosen) else (type(chosen), chosen.message)


def tokens_together(
    asked: Sequence[Asked], steps: Sequence[torch.Tensor], which: Sequence[int] | None = None
) -> list[list[Outcome]]:
    """What each request gets in each of `steps`, logits [m, V]; request i reads row `which[i]`."""
    size = steps[0].shape[-1]
    sampler = BatchSampler(size)
    rows = [each.row(sampler) for each in asked]
    places = range(len(asked)) if which is None else which
    return [[outcome(each) for each in sampler.choose(logits, places, rows)] for logits in steps]


def tokens_alone(
    asked: Sequence[Asked], steps: Sequence[torch.Tensor], which: Sequence[int] | None = None
) -> list[list[Outcome]]:
    singles = [each.alone(steps[0].shape[-1]) for each in asked]
    places = range(len(asked)) if which is None else which
    return [
        [outcome_alone(single, logits[place]) for single, place in zip(singles, places, strict=True)]
        for logits in steps
    ]


# Equal to the sampler of one sequence


def often(usual: Any, other: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.just(usual) | st.just(usual) | other


PARAMS = st.builds(
    SamplingParams,
    temperature=st.sampled_from([0.0, 0.7, 1.0]) | st.floats(1e-5, 5),
    top_p=often(1.0, st.floats(0.001, 1)),
    top_k=often(0, st.integers(0, SIZE + 2)),
    min_p=often(0.0, st.floats(0, 1)),
    repetition_penalty=often(1.0, st.floats(0.5, 2)),
    presence_penalty=often(0.0, st.floats(-2, 2)),
    frequency_penalty=often(0.0, st.floats(-2, 2)),
    seed=st.integers(0, 2**63 - 1),
    logprobs=st.none() | st.integers(0, 5),
    logit_bias=often((), st.dictionaries(IDS, st.floats(-100, 100), max_size=4).map(lambda d: (*d.items(),))),
    min_tokens=st.integers(0, 3),
    allowed_token_ids=often(None, st.lists(IDS, min_size=1, max_size=6).map(tuple)),
)
ASKED = st.builds(
    Asked,
    params=PARAMS,
    prompt=st.lists(IDS, min_size=1, max_size=8).map(tuple),
    end_ids=st.frozensets(IDS, max_size=3),
    bad_words=often((), st.lists(st.lists(IDS, min_size=1, max_size=3).map(tuple), max_size=4).map(tuple)),
)


def random_logits(number: int, rows: int, size: int, dtype: torch.dtype, *, grain: float) -> torch.Tensor:
    """[rows, size]; in grains of 1 many are equal."""
    random = torch.Generator().manual_seed(number)
    logits = torch.randn(rows, size, generator=random) * 3
    return (logits / grain).round().mul(grain).to(dtype) if grain else logits.to(dtype)


@settings(max_examples=150, deadline=None)
@given(
    asked=st.lists(ASKED, min_size=1, max_size=40),
    number=st.integers(0, 2**32),
    dtype=st.sampled_from([torch.float32, torch.bfloat16]),
    grain=st.sampled_from([0, 0.25, 1.0]),
    data=st.data(),
)
def test_every_row_gets_the_token_that_it_gets_alone(
    asked: list[Asked], number: int, dtype: torch.dtype, grain: float, data: st.DataObject
) -> None:
    num_rows = data.draw(st.integers(1, len(asked)))
    places = st.lists(st.integers(0, num_rows - 1), min_size=len(asked), max_size=len(asked))
    which = data.draw(st.just(range(len(asked))) | places)
    steps = [random_logits(number + each, len(asked), SIZE, dtype, grain=grain) for each in range(4)]
    assert tokens_together(asked, steps, which) == tokens_alone(asked, steps, which)


LARGE = 6000
FILTERED = (
    {},
    {"top_p": 0.9},
    {"top_p": 0.05},
    {"top_p": 0.999999},
    {"min_p": 0.05},
    {"min_p": 0.001, "top_p": 0.7},
    {"min_p": 1e-12},
    {"top_k": 1},
    {"top_k": 40},
    {"top_k": 40, "top_p": 0.8, "min_p": 0.02},
    {"top_k": draw.NARROW},
    {"top_k": draw.NARROW + 1},
    {"top_k": 5000, "top_p": 0.9},
    {"top_k": LARGE - 1},
    {"top_k": LARGE},
    {"top_k": LARGE + 9, "top_p": 0.3},
    {"temperature": 0.0},
    {"temperature": 0.01, "top_p": 0.5},
    {"temperature": 30.0, "top_p": 0.5, "repetition_penalty": 1.3},
    {"logit_bias": ((0, 50.0),), "top_k": 40},
)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("grain", [0.0, 1.0, 100.0])
def test_a_large_vocabulary_changes_nothing(dtype: torch.dtype, grain: float) -> None:
    # A grain of 100 makes all tokens equally likely: every bound is a tie, and more than are looked at tie.
    asked = [
        Asked(SamplingParams(seed=seed, **each), prompt=tuple(range(seed, LARGE, 100)))  # type: ignore[arg-type]
        for seed, each in enumerate(FILTERED * 2)
    ]
    steps = [random_logits(each, len(asked), LARGE, dtype, grain=grain) for each in range(3)]
    assert tokens_together(asked, steps) == tokens_alone(asked, steps)


def test_rows_that_are_worked_on_in_several_pieces_stay_in_their_order(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(batch._CHUNK, "cpu", 2 * SIZE)
    asked = [Asked(SamplingParams(seed=seed, logprobs=seed % 3)) for seed in range(9)]
    steps = [random_logits(3, 9, SIZE, torch.float32, grain=0)]
    assert tokens_together(asked, steps) == tokens_alone(asked, steps)


@settings(max_examples=30, deadline=None)
@given(
    asked=ASKED.filter(lambda asked: not asked.bad_words),
    others=st.lists(ASKED, max_size=12),
    number=st.integers(0, 2**32),
    data=st.data(),
)
def test_a_seeded_request_gets_the_same_tokens_in_any_company(
    asked: Asked, others: list[Asked], number: int, data: st.DataObject
) -> None:
    steps = [random_logits(number + each, 1, SIZE, torch.bfloat16, grain=0) for each in range(6)]
    want = [outcome for (outcome,) in tokens_together([asked], steps)]
    sampler = BatchSampler(SIZE)
    own, rows = asked.row(sampler), [each.row(sampler) for each in others]
    found: list[Outcome] = []
    for number, logits in enumerate(steps):
        # Others come and go, and its place changes.
        present = [row for row in rows if data.draw(st.booleans())]
        place = data.draw(st.integers(0, len(present)))
        company = [*present[:place], own, *present[place:]]
        filled = random_logits(number, len(company), SIZE, torch.bfloat16, grain=0)
        filled[place] = logits[0]
        found.append(outcome(sampler.choose(filled, range(len(company)), company)[place]))
    assert found == want


@pytest.mark.parametrize("temperature", [0.0, 1.0])
@pytest.mark.parametrize(
    "bad", [[0.0, math.nan] * 12, [0.0, math.inf] * 12, [-math.inf] * SIZE, [math.nan] * SIZE]
)
def test_a_row_that_is_no_numbers_is_refused_alone(bad: list[float], temperature: float) -> None:
    asked = [Asked(SamplingParams(temperature=temperature, seed=seed, logprobs=1)) for seed in range(5)]
    good = random_logits(0, 5, SIZE, torch.float32, grain=0)
    spoilt = good.clone()
    spoilt[2] = torch.tensor(bad)
    sampler = BatchSampler(SIZE)
    rows = [each.row(sampler) for each in asked]
    found = sampler.choose(spoilt, range(5), rows)
    refused = found[2]
    assert isinstance(refused, BadFileError)
    with pytest.raises(BadFileError) as caught:
        asked[2].alone(SIZE).sample(spoilt[2])
    assert (refused.message, refused.hint) == (caught.value.message, caught.value.hint)
    want = [each.alone(SIZE).sample(logits) for each, logits in zip(asked, good, strict=True)]
    del found[2], want[2]
    assert [outcome(each) for each in found] == want


def test_logits_are_left_as_they_were_and_nobody_elses_random_numbers_are_used() -> None:
    asked = [
        Asked(SamplingParams(seed=1, repetition_penalty=2.0, logit_bias=((3, 9.0),), top_p=0.5)),
        Asked(SamplingParams(seed=2)),
    ]
    logits = random_logits(0, 2, SIZE, torch.float32, grain=0)
    before, state = logits.clone(), torch.random.get_rng_state()
    tokens_together(asked, [logits, logits])
    assert torch.equal(logits, before)
    assert torch.equal(torch.random.get_rng_state(), state)


def test_rows_without_a_seed_draw_apart() -> None:
    asked = [Asked(SamplingParams(temperature=5.0))] * 2
    logits = torch.zeros(2, SIZE)
    first, second = zip(*tokens_together(asked, [logits] * 30), strict=True)
    assert first != second


def test_nobody_gets_nothing() -> None:
    assert BatchSampler(SIZE).choose(torch.zeros(0, SIZE), [], []) == []


# Log-probabilities


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_log_probabilities_are_those_of_the_raw_logits(dtype: torch.dtype) -> None:
    counts = [None, 0, 1, 5, 20, 5, 1, None, 99]
    changing = {"repetition_penalty": 1.5, "logit_bias": ((3, 20.0),), "top_k": 2, "temperature": 2.0}
    asked = [Asked(SamplingParams(seed=each, logprobs=count)) for each, count in enumerate(counts)]
    asked += [replace(each, params=replace(each.params, **changing)) for each in asked]  # type: ignore[arg-type]
    logits = random_logits(0, len(asked), SIZE, dtype, grain=1)
    sampler = BatchSampler(SIZE)
    found = sampler.choose(logits, range(len(asked)), [each.row(sampler) for each in asked])
    for each, chosen, row in zip(asked, found, logits, strict=True):
        assert isinstance(chosen, Chosen)
        count = each.params.logprobs
        assert chosen.logprobs == (None if count is None else likeliest(row, chosen.token_id, count))


# Bias and bans, as both samplers know them


def generated(asked: Asked, count: int, number: int, *, grain: float = 0) -> list[int]:
    """Tokens of a request alone, over random logits."""
    sampler = asked.alone(SIZE)
    steps = random_logits(number, count, SIZE, torch.float32, grain=grain)
    return [sampler.sample(logits) for logits in steps]


def contains(tokens: Sequence[int], word: Word) -> bool:
    return any(tuple(tokens[at : at + len(word)]) == word for at in range(len(tokens)))


WORDS = st.lists(st.lists(st.integers(0, 3), min_size=1, max_size=4).map(tuple), min_size=1, max_size=3)


@settings(max_examples=40, deadline=None)
@given(words=WORDS, number=st.integers(0, 2**32))
def test_the_likeliest_token_comes_that_ends_no_bad_word(words: list[Word], number: int) -> None:
    steps = random_logits(number, 40, SIZE, torch.float32, grain=0)
    steps[:, :4] += 10
    sampler = Asked(SamplingParams(temperature=0), prompt=(0, 1), bad_words=tuple(words)).alone(SIZE)
    said: list[int] = []
    for logits in steps:
        ranked = logits.argsort(descending=True).tolist()
        ends = [token for token in ranked if any((*said, token)[-len(word) :] == word for word in words)]
        want = next(token for token in ranked if token not in ends)
        said.append(sampler.sample(logits))
        assert said[-1] == want


@settings(max_examples=30, deadline=None)
@given(words=WORDS, number=st.integers(0, 2**32))
@example(words=[(0, 0)], number=1)
def test_bad_words_are_not_drawn(words: list[Word], number: int) -> None:
    params = SamplingParams(temperature=2.0, seed=number, allowed_token_ids=(0, 1, 2, 3, 9))
    tokens = generated(Asked(params, prompt=(0, 1), bad_words=tuple(words)), 60, number)
    assert not any(contains(tokens, word) for word in words)


def test_a_word_that_the_prompt_begins_is_not_one_of_the_answer() -> None:
    asked = Asked(SamplingParams(temperature=0), prompt=(4,), bad_words=((4, 5),))
    logits = torch.zeros(SIZE)
    logits[5] = 1.0
    assert asked.alone(SIZE).sample(logits) == 5


def test_of_a_token_that_the_model_does_not_know_no_ban_is_needed() -> None:
    asked = Asked(
        SamplingParams(temperature=0, min_tokens=9),
        end_ids=frozenset({SIZE + 3}),
        bad_words=((SIZE,), (2, SIZE)),
    )
    logits = random_logits(0, 1, SIZE, torch.float32, grain=0)
    assert tokens_together([asked], [logits]) == [[int(logits.argmax())]]


@pytest.mark.parametrize("temperature", [0.0, 1.0])
@pytest.mark.parametrize("count", [0, 1, 7])
def test_no_end_token_comes_before_min_tokens(count: int, temperature: float) -> None:
    params = SamplingParams(temperature=temperature, min_tokens=count, seed=1)
    sampler = Asked(params, end_ids=frozenset({2, 3})).alone(SIZE)
    logits = torch.zeros(SIZE)
    logits[2] = logits[3] = 30.0
    tokens = [sampler.sample(logits) for _ in range(10)]
    assert [token in (2, 3) for token in tokens] == [False] * count + [True] * (10 - count)


@pytest.mark.parametrize("temperature", [0.0, 3.0])
def test_only_allowed_tokens_come_and_as_likely_as_they_are(temperature: float) -> None:
    allowed = (3, 17, 4)
    asked = Asked(SamplingParams(temperature=temperature, seed=3, allowed_token_ids=allowed))
    logits = random_logits(0, 1, SIZE, torch.float32, grain=0)
    counts = Counter(token for (token,) in tokens_together([asked], [logits] * 600))
    assert counts.keys() <= set(allowed)
    if temperature:
        shares = (logits[0, list(allowed)] / temperature).softmax(-1).tolist()
        for token, share in zip(allowed, shares, strict=True):
            assert abs(counts[token] - 600 * share) < 5 * math.sqrt(600 * share * (1 - share))


def test_a_bias_is_added_after_the_penalties() -> None:
    params = SamplingParams(temperature=0, repetition_penalty=2.0, logit_bias=((0, 1.5), (1, -100.0)))
    logits = torch.full((1, SIZE), -9.0)
    logits[0, :3] = torch.tensor([2.0, 6.0, 2.4])
    # Token 0 was met: 2 / 2 + 1.5 is above 2.4, and (2 + 1.5) / 2 would be below.
    assert tokens_together([Asked(params, prompt=(0,))], [logits]) == [[0]]


@pytest.mark.parametrize(
    ("params", "end_ids", "bad_words"),
    [
        (SamplingParams(min_tokens=1, allowed_token_ids=(2,)), {2}, ()),
        (SamplingParams(allowed_token_ids=(2, 3)), (), ((2,), (3,))),
        (SamplingParams(temperature=0, allowed_token_ids=(2,)), (), ((2,),)),
    ],
)
def test_who_excludes_all_tokens_is_told_so(
    params: SamplingParams, end_ids: Any, bad_words: tuple[Word, ...]
) -> None:
    asked = Asked(params, end_ids=frozenset(end_ids), bad_words=bad_words)
    beside = Asked(SamplingParams(temperature=0))
    logits = random_logits(0, 2, SIZE, torch.float32, grain=0)
    ((found, other),) = tokens_together([asked, beside], [logits])
    assert found == outcome_alone(asked.alone(SIZE), logits[0])
    assert isinstance(found, tuple)
    assert found[0] is UsageError
    assert found[1].startswith("no token may come next")
    assert other == int(logits[1].argmax())


@pytest.mark.parametrize(
    ("params", "key"),
    [
        (SamplingParams(logit_bias=((0, 1.0), (SIZE, 1.0))), "logit_bias"),
        (SamplingParams(allowed_token_ids=(SIZE, 0)), "allowed_token_ids"),
    ],
)
def test_a_token_outside_the_vocabulary_is_refused_before_anything_is_computed(
    params: SamplingParams, key: str
) -> None:
    for make in (lambda: Asked(params).alone(SIZE), lambda: Asked(params).row(BatchSampler(SIZE))):
        with pytest.raises(UsageError, match=rf"^{key}: token id {SIZE} is outside .*\(0 to {SIZE - 1}\)$"):
            make()


@pytest.mark.parametrize(
    ("params", "end_ids", "bad_words", "is_empty"),
    [
        (SamplingParams(ignore_eos=True, stop_token_ids=(3,)), {1}, (), True),
        (SamplingParams(min_tokens=1), (), (), True),
        (SamplingParams(min_tokens=1), {1}, (), False),
        (SamplingParams(logit_bias=((1, 0.5),)), (), (), False),
        (SamplingParams(allowed_token_ids=(1,)), (), (), False),
        (SamplingParams(), (), ((1, 2),), False),
        (SamplingParams(), (), ((1,),), False),
    ],
)
def test_only_who_asks_is_constrained(
    params: SamplingParams, end_ids: Any, bad_words: tuple[Word, ...], is_empty: bool
) -> None:
    assert Constraints(params, SIZE, end_ids=end_ids, bad_words=bad_words).is_empty is is_empty


# Bad words as tokens


@functools.cache
def tokenizer_at(folder: Path) -> Any:
    return transformers.AutoTokenizer.from_pretrained(folder)


def tokenizers(shared: Path) -> Iterator[Any]:
    assets = shared / "assets"
    for name in ("stories260K", "tokenizers/gpt2", "tokenizers/qwen2.5", "tokenizers/mistral-v3"):
        yield tokenizer_at(assets / name)


@pytest.mark.parametrize("text", ["{}", "The {}", "the\n{} went", "7{}", "a {} {}"])
@pytest.mark.parametrize("word", ["cat", "Lily", "garden"])
def test_a_word_is_found_where_texts_have_it(shared: Path, word: str, text: str) -> None:
    for tokenizer in tokenizers(shared):
        ids = tokenizer.encode(text.format(word, word), add_special_tokens=False)
        assert any(contains(ids, each) for each in spellings(tokenizer, [word])), (
            tokenizer.name_or_path,
            ids,
        )


def test_spellings_of_several_words_are_in_order_and_each_is_there_once() -> None:
    tokenizer = tiny.tokenizer()
    a, b, space = (tokenizer.encode(text, add_special_tokens=False)[0] for text in "ab ")
    assert spellings(tokenizer, ["ab", "ab", "b"]) == ((a, b), (space, a, b), (b,), (space, b))


def test_half_a_character_is_no_word() -> None:
    with pytest.raises(UsageError, match=r"^bad_words: '\\udc80' is not valid Unicode$"):
        spellings(tiny.tokenizer(), ["\udc80"])


# Weights and counts


@settings(max_examples=50, deadline=None)
@given(number=st.integers(0, 2**32), size=st.integers(1, 3000))
def test_weights_have_the_same_sum_in_any_order(number: int, size: int) -> None:
    scores = -random_logits(number, 1, size, torch.float32, grain=0)[0].abs()
    order = torch.randperm(size, generator=torch.Generator().manual_seed(number))
    weighed = weights(scores)
    assert torch.equal(weights(scores[order]), weighed[order])
    assert int(weighed[order].cumsum(-1)[-1]) == int(weighed.sum()) == sum(weighed.tolist())


def test_a_million_equally_likely_tokens_do_not_overflow() -> None:
    (weight,) = weights(torch.zeros(1)).tolist()
    assert 0 < weight * 2**20 < 2**63


def test_the_largest_random_number_draws_a_token_that_is_possible(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "rand", lambda *_, **__: torch.tensor(1 - 2**-53, dtype=torch.float64))
    logits = torch.tensor([[0.0, 0.0, -torch.inf], [0.0, -200.0, -300.0]])
    assert tokens_together([Asked(prompt=()), Asked(prompt=())], [logits]) == [[1, 0]]


@settings(max_examples=50, deadline=None)
@given(prompt=st.lists(st.integers(0, 300)), said=st.lists(st.integers(0, 300), max_size=400))
def test_what_was_met_is_counted(prompt: list[int], said: list[int]) -> None:
    seen = Seen(prompt)
    for token_id in said:
        seen.add(token_id)
    want = Counter(dict.fromkeys(prompt, 0))
    want.update(said)
    assert dict(zip(seen.ids.tolist(), seen.counts.tolist(), strict=True)) == want
    # Room for what was met, not for the vocabulary.
    assert seen.ids.base is not None
    assert len(seen.ids.base) <= 2 * (len(want) + 64)


def test_nothing_is_remembered_for_penalties_that_nobody_asked_for() -> None:
    sampler = BatchSampler(152_000)
    asked = SamplingParams(temperature=0.5, top_p=0.9, seed=1)
    assert sampler.row(asked, range(1000)).seen is None
    spread = sampler.row(replace(asked, presence_penalty=1.0), range(1000)).seen
    assert spread is not None
    assert len(spread.ids) == 0
    repeated = sampler.row(replace(asked, repetition_penalty=1.1), [*range(1000)] * 2).seen
    assert repeated is not None
    assert len(repeated.ids) == 1000


# Cost


@pytest.mark.heavy
@pytest.mark.parametrize(
    ("params", "times"),
    [
        (SamplingParams(temperature=0), 0.6),
        (SamplingParams(temperature=0.7, seed=1), 3),
        (SamplingParams(temperature=0.7, top_p=0.9, seed=1), 10),
        (SamplingParams(temperature=0.7, top_p=0.8, top_k=20, seed=1), 3),
        (SamplingParams(temperature=0, repetition_penalty=1.1), 2),
    ],
    ids=["greedy", "temperature", "top_p", "top_k", "penalty"],
)
def test_thirty_two_rows_cost_some_argmaxes(params: SamplingParams, times: float) -> None:
    logits = random_logits(0, 32, 151_936, torch.bfloat16, grain=0)
    sampler = BatchSampler(151_936)
    rows = [sampler.row(params, range(500)) for _ in range(32)]
    argmax, choose = [], []
    for _ in range(7):
        # Processor time: others are at work on the machine.
        began = time.process_time()
        logits.argmax(-1)
        ended = time.process_time()
        sampler.choose(logits, range(32), rows)
        argmax.append(ended - began)
        choose.append(time.process_time() - ended)
    assert min(choose) <= times * min(argmax)
