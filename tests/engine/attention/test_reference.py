"""The reference itself, against the definition written out another way."""

import math

import pytest
import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from llmctl.engine.attention.interface import Scoring, first_seen
from llmctl.engine.attention.reference import ReferenceBackend, visible
from tests.engine.attention.made import Policy, Sizes, case_of

REFERENCE = ReferenceBackend()
POLICIES = [Policy(), Policy(window=5), Policy(chunk=6), Policy(window=1), Policy(chunk=1)]


@pytest.mark.parametrize("policy", POLICIES)
def test_what_is_visible_is_as_the_interface_says(policy: Policy) -> None:
    seen = visible(policy, torch.arange(30), torch.arange(30))
    for i in range(30):
        for j in range(30):
            expected = j <= i
            if policy.window:
                expected = expected and j > i - policy.window
            if policy.chunk:
                expected = expected and j // policy.chunk == i // policy.chunk
            assert bool(seen[i, j]) == expected
        assert first_seen(policy, i) == int(seen[i].int().argmax())


@pytest.mark.parametrize("policy", POLICIES)
def test_a_whole_prompt_is_as_sdpa_has_it(policy: Policy) -> None:
    case = case_of([(0, 23)], policy, block_size=4)
    mask = visible(policy, torch.arange(23), torch.arange(23))
    expected = scaled_dot_product_attention(
        case.q[None], case.k[None], case.v[None], attn_mask=mask, scale=0.3, enable_gqa=True
    )[0].transpose(0, 1)
    torch.testing.assert_close(case.attend(REFERENCE, Scoring(0.3)), expected, rtol=1e-5, atol=1e-5)


def one_by_one(q: Tensor, keys: Tensor, values: Tensor, scoring: Scoring, sink: float) -> list[float]:
    """One query [D] over keys [L, D], in plain Python."""
    scores = [float(q @ key) * scoring.scale for key in keys]
    if scoring.softcap is not None:
        scores = [scoring.softcap * math.tanh(score / scoring.softcap) for score in scores]
    weights = [math.exp(score) for score in scores]
    total = sum(weights) + math.exp(sink)
    return [
        sum(w * float(value) for w, value in zip(weights, column, strict=True)) / total for column in values.T
    ]


@pytest.mark.parametrize("softcap", [None, 0.8])
@pytest.mark.parametrize("has_sinks", [False, True])
def test_softcap_and_sinks_are_as_their_formulas(softcap: float | None, has_sinks: bool) -> None:
    case = case_of([(0, 9)], sizes=Sizes(value_size=8), block_size=4)
    sinks = torch.randn(4) if has_sinks else None
    scoring = Scoring(0.2, softcap, sinks)
    got = case.attend(REFERENCE, scoring)
    for row in range(9):
        for head in range(4):
            keys, values = case.k[head // 2, : row + 1], case.v[head // 2, : row + 1]
            sink = -math.inf if sinks is None else float(sinks[head])
            expected = one_by_one(case.q[head, row], keys, values, scoring, sink)
            torch.testing.assert_close(got[row, head], torch.tensor(expected), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("block_size", [1, 4, 16])
def test_a_sequence_in_steps_is_the_same_as_at_once(policy: Policy, block_size: int) -> None:
    whole = case_of([(0, 20)], policy, block_size=block_size)
    expected = whole.attend(REFERENCE, Scoring(0.3))
    for start, stop in ((7, 12), (19, 20)):
        later = case_of([(start, stop - start)], policy, block_size=block_size)
        table = later.step.groups[0].tables[0]
        for position in range(first_seen(policy, start), start):
            block, offset = int(table[position // block_size]), position % block_size
            later.layer.keys[block, :, offset] = whole.k[:, position]
            later.layer.values[block, :, offset] = whole.v[:, position]
        new = (each[:, start:stop] for each in (whole.q, whole.k, whole.v))
        got = REFERENCE.attend(*new, later.layer, later.step, Scoring(0.3))
        torch.testing.assert_close(got, expected[start:stop], rtol=1e-5, atol=1e-5)
