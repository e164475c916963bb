"""The sampler against a slow reference in plain Python, written from the order in `SamplingParams`."""

import math
from collections import Counter
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from llmctl.core.errors import BadFileError
from llmctl.core.types import SamplingParams
from llmctl.engine.generate.sampler import Sampler, likeliest

LOGITS = (2.0, 1.0, 0.5, 0.0, -1.0, -3.0)


class SpySampler(Sampler):
    """Shows the probabilities that it last drew from."""

    probabilities: Sequence[float] = ()

    def _draw(self, scores: torch.Tensor) -> int:
        self.probabilities = scores.double().softmax(-1).tolist()
        return super()._draw(scores)


def made(
    params: SamplingParams, size: int, *, prompt: Sequence[int] = (), said: Sequence[int] = ()
) -> SpySampler:
    """A sampler that has said `said` because it could say nothing else."""
    sampler = SpySampler(params, torch.tensor(prompt, dtype=torch.long), size)
    for token_id in said:
        only = torch.full((size,), -torch.inf)
        only[token_id] = 0.0
        assert sampler.sample(only) == token_id
    return sampler


def softmax(scores: Sequence[float]) -> list[float]:
    top = max(scores)
    weights = [math.exp(score - top) for score in scores]
    return [weight / sum(weights) for weight in weights]


def penalised(
    logits: Sequence[float], params: SamplingParams, prompt: Sequence[int], said: Sequence[int]
) -> list[float]:
    scores = []
    for token_id, score in enumerate(logits):
        if token_id in (*prompt, *said):
            score = score / params.repetition_penalty if score > 0 else score * params.repetition_penalty
        if token_id in said:
            score -= params.presence_penalty
        scores.append(score - params.frequency_penalty * said.count(token_id))
    return scores


def reference(scores: Sequence[float], params: SamplingParams) -> list[float]:
    """Probabilities after temperature, min-p, top-k and top-p; tokens as likely as the k-th stay."""
    scores = [score / params.temperature for score in scores]
    probabilities = softmax(scores)
    kept = [each for each, share in enumerate(probabilities) if share >= params.min_p * max(probabilities)]
    if params.top_k:
        least = sorted((scores[each] for each in kept), reverse=True)[: params.top_k][-1]
        kept = [each for each in kept if scores[each] >= least]
    probabilities = softmax([score if each in kept else -math.inf for each, score in enumerate(scores)])
    if params.top_p < 1:
        nucleus, total = [], 0.0
        for each in sorted(kept, key=lambda each: (-scores[each], each)):
            if total < params.top_p:
                nucleus.append(each)
            total += probabilities[each]
        kept = nucleus
    return softmax([score if each in kept else -math.inf for each, score in enumerate(scores)])


def is_borderline(scores: Sequence[float], params: SamplingParams) -> bool:
    """Whether rounding may decide about a token."""
    probabilities = softmax([score / params.temperature for score in scores])
    if any(abs(share / max(probabilities) - params.min_p) < 1e-4 for share in probabilities):
        return True
    ordered = sorted(reference(scores, SamplingParams(**_before_top_p(params))), reverse=True)
    sums = [sum(ordered[:end]) for end in range(1, len(ordered) + 1)]
    return params.top_p < 1 and any(abs(total - params.top_p) < 1e-4 for total in sums)


def _before_top_p(params: SamplingParams) -> dict[str, Any]:
    return {"temperature": params.temperature, "min_p": params.min_p, "top_k": params.top_k}


# Quarters and powers of two: sums and products are exact, so that ties are ties in every precision.
PARAMS = st.builds(
    SamplingParams,
    temperature=st.sampled_from([0.5, 1.0, 2.0]) | st.floats(0.1, 5),
    top_p=st.just(1.0) | st.floats(0.01, 1),
    top_k=st.integers(0, 14),
    min_p=st.just(0.0) | st.floats(0, 1),
    repetition_penalty=st.sampled_from([0.5, 1.0, 1.0, 2.0, 4.0]),
    presence_penalty=st.sampled_from([-2.0, 0.0, 0.0, 0.25, 1.5]),
    frequency_penalty=st.sampled_from([-1.0, 0.0, 0.0, 0.5, 2.0]),
    seed=st.integers(0, 2**63 - 1),
)
SIZE = 10
QUARTERS = st.integers(-40, 40).map(lambda number: number / 4)
SOME_LOGITS = st.lists(QUARTERS | st.just(-math.inf), min_size=SIZE, max_size=SIZE).filter(
    lambda logits: max(logits) > -math.inf
)
IDS = st.lists(st.integers(0, SIZE - 1), max_size=5)


@settings(max_examples=150, deadline=None)
@given(logits=SOME_LOGITS, params=PARAMS, prompt=IDS, said=IDS)
def test_tokens_are_drawn_with_the_documented_probabilities(
    logits: list[float], params: SamplingParams, prompt: list[int], said: list[int]
) -> None:
    scores = penalised(logits, params, prompt, said)
    assume(not is_borderline(scores, params))
    sampler = made(params, SIZE, prompt=prompt, said=said)
    token_id = sampler.sample(torch.tensor(logits))
    want = reference(scores, params)
    assert sampler.probabilities == pytest.approx(want, abs=1e-5)
    assert [share > 0 for share in sampler.probabilities] == [share > 0 for share in want]
    assert want[token_id] > 0


@settings(max_examples=100, deadline=None)
@given(logits=SOME_LOGITS, params=PARAMS, prompt=IDS, said=IDS)
def test_temperature_zero_takes_the_likeliest_token_after_penalties(
    logits: list[float], params: SamplingParams, prompt: list[int], said: list[int]
) -> None:
    greedy = SamplingParams(
        temperature=0.0,
        repetition_penalty=params.repetition_penalty,
        presence_penalty=params.presence_penalty,
        frequency_penalty=params.frequency_penalty,
    )
    scores = penalised(logits, greedy, prompt, said)
    chosen = made(greedy, SIZE, prompt=prompt, said=said).sample(torch.tensor(logits))
    assert scores[chosen] == max(scores)


HUGE = st.floats(allow_nan=False, allow_infinity=False, width=32) | st.sampled_from(
    [3.4e38, -3.4e38, 0.0, -math.inf]
)


@settings(max_examples=200, deadline=None)
@given(
    logits=st.lists(HUGE, min_size=2, max_size=SIZE).filter(lambda logits: max(logits) > -math.inf),
    temperature=st.sampled_from([1e-5, 0.01, 1.0, 100.0]),
    top_p=st.sampled_from([0.001, 0.5, 1.0]),
    min_p=st.sampled_from([0.0, 0.5, 1.0]),
    seed=st.integers(0, 2**63 - 1),
)
def test_extreme_logits_never_draw_an_impossible_token(
    logits: list[float], temperature: float, top_p: float, min_p: float, seed: int
) -> None:
    params = SamplingParams(temperature=temperature, top_p=top_p, min_p=min_p, seed=seed)
    sampler = made(params, len(logits))
    token_id = sampler.sample(torch.tensor(logits, dtype=torch.float32))
    assert sum(sampler.probabilities) == pytest.approx(1)
    assert sampler.probabilities[token_id] > 0
    assert logits[token_id] > -math.inf


@pytest.mark.parametrize(
    ("params", "kept"),
    [
        (SamplingParams(), {0, 1, 2, 3, 4, 5}),
        (SamplingParams(top_k=2), {0, 1}),
        (SamplingParams(top_k=6), {0, 1, 2, 3, 4, 5}),
        (SamplingParams(top_k=99), {0, 1, 2, 3, 4, 5}),
        (SamplingParams(top_p=0.5), {0}),
        (SamplingParams(top_p=0.6), {0, 1}),
        (SamplingParams(min_p=0.3), {0, 1}),
        (SamplingParams(min_p=1.0), {0}),
        (SamplingParams(top_p=0.9, top_k=2), {0, 1}),
        # At temperature 4 the likeliest has a third: two more are needed for 0.6.
        (SamplingParams(top_p=0.6, temperature=4.0), {0, 1, 2}),
        (SamplingParams(min_p=0.3, temperature=4.0), {0, 1, 2, 3, 4}),
    ],
)
def test_a_filter_keeps_exactly_the_tokens_that_it_should(params: SamplingParams, kept: set[int]) -> None:
    sampler = made(params, len(LOGITS))
    sampler.sample(torch.tensor(LOGITS))
    assert {each for each, share in enumerate(sampler.probabilities) if share} == kept


def test_tokens_come_as_often_as_they_are_likely() -> None:
    draws = 3000
    sampler = made(SamplingParams(temperature=1.5, top_k=5, seed=7), len(LOGITS))
    counts = Counter(sampler.sample(torch.tensor(LOGITS)) for _ in range(draws))
    for token_id, share in enumerate(reference(LOGITS, SamplingParams(temperature=1.5, top_k=5))):
        spread = 4 * math.sqrt(draws * share * (1 - share))
        assert abs(counts[token_id] - draws * share) <= spread


def drawn(seed: int | None, count: int = 40) -> list[int]:
    sampler = made(SamplingParams(temperature=5.0, seed=seed), len(LOGITS))
    return [sampler.sample(torch.tensor(LOGITS)) for _ in range(count)]


def test_the_smallest_random_number_does_not_draw_an_impossible_first_token(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(torch, "rand", lambda *_, **__: torch.zeros((), dtype=torch.float64))
    assert made(SamplingParams(), 3).sample(torch.tensor([-torch.inf, 0.0, 0.0])) == 1


def test_the_same_seed_draws_the_same_and_another_seed_another() -> None:
    assert drawn(1) == drawn(1)
    assert len({tuple(drawn(seed)) for seed in (0, 1, 2, 2**63 - 1)}) == 4


def test_without_a_seed_every_request_draws_anew() -> None:
    assert drawn(None) != drawn(None)


def test_drawing_leaves_the_random_numbers_of_others_alone() -> None:
    before = torch.random.get_rng_state()
    drawn(3)
    drawn(None)
    assert torch.equal(torch.random.get_rng_state(), before)


def test_bfloat16_logits_are_sampled_as_the_numbers_that_they_are() -> None:
    logits = torch.tensor(LOGITS).bfloat16()
    coarse, exact = (made(SamplingParams(top_p=0.9, seed=1), len(LOGITS)) for _ in range(2))
    assert [coarse.sample(logits) for _ in range(30)] == [exact.sample(logits.float()) for _ in range(30)]
    assert coarse.probabilities == exact.probabilities


def test_an_equal_token_is_repeated_less_the_more_often_it_was_said() -> None:
    params = SamplingParams(frequency_penalty=1.0)
    sampler = made(params, 3, said=[1, 1, 2])
    sampler.sample(torch.zeros(3))
    first, second, third = sampler.probabilities
    assert first > third > second


def test_the_likeliest_are_in_order_behind_the_chosen_one() -> None:
    logits = torch.tensor([0.0, 3.0, 1.0, 2.0])
    logprobs = [math.log(share) for share in softmax([0.0, 3.0, 1.0, 2.0])]
    found = likeliest(logits, 0, 2)
    assert [token_id for token_id, _ in found] == [0, 1, 3]
    assert [value for _, value in found] == pytest.approx([logprobs[0], logprobs[1], logprobs[3]])
    assert len(likeliest(logits, 0, 20)) == 5
    ((token_id, value),) = likeliest(logits, 2, 0)
    assert token_id == 2
    assert value == pytest.approx(logprobs[2])


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_scores_that_are_no_numbers_are_an_error_and_not_a_token(bad: float) -> None:
    sampler = Sampler(SamplingParams(temperature=0), torch.tensor([0]), 3)
    with pytest.raises(BadFileError, match="not numbers"):
        sampler.sample(torch.tensor([0.0, bad, 1.0]))
