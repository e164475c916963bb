"""Log-probabilities of given tokens are those of the model's own forward, in any company."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from llmctl.core.errors import ContextOverflowError, UsageError
from llmctl.core.progress import SilentProgress
from llmctl.engine.pooling.likelihood import Likelihood, LikelihoodScorer
from llmctl.loading.loader import LoadedModel, LoadRequest, load
from tests import tiny
from tests.engine.pooling import made

QUESTIONS = (("The sky is", " blue"), ("2 + 2 =", " 5, or not"), ("", "x"), ([7, 8], [9, 10, 11]))


def loaded(folder: Path) -> LoadedModel:
    return load(LoadRequest(model=str(folder)), SilentProgress())


def opened(model: LoadedModel, budget: int | None = None) -> LikelihoodScorer:
    return LikelihoodScorer(model, budget=budget)


@pytest.fixture(scope="module", params=["qwen3", "falcon"])
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    folder = tiny.folder(tmp_path_factory.mktemp("models") / "tiny", request.param)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LLMCTL_CACHE_HOME", str(folder.parent / "cache"))
        yield loaded(folder)


def plain(model: LoadedModel, prompt: Any, continuation: Any) -> torch.Tensor:
    before = model.tokenizer.encode(prompt) if isinstance(prompt, str) else prompt
    after = continuation
    if isinstance(continuation, str):
        after = model.tokenizer.encode(continuation, add_special_tokens=False)
    with torch.no_grad():
        logits = model.model(torch.tensor([[*before, *after]])).logits[0]
    scores = logits.log_softmax(-1)[len(before) - 1 : -1]
    return torch.stack([row[token] for row, token in zip(scores, after, strict=True)])


def check(found: Likelihood, want: torch.Tensor) -> None:
    torch.testing.assert_close(torch.tensor(found.logprobs), want, atol=1e-5, rtol=1e-5)
    assert found.total == pytest.approx(float(want.sum()), abs=1e-4)


@pytest.mark.parametrize("budget", [None, 5, 16])
def test_each_token_is_as_likely_as_the_model_alone_finds_it(model: LoadedModel, budget: int | None) -> None:
    want = [plain(model, *each) for each in QUESTIONS]
    scorer = opened(model, budget)
    for found, one in zip(scorer.score(QUESTIONS), want, strict=True):
        check(found, one)
    for found, one in zip(scorer.score(QUESTIONS[::-1]), want[::-1], strict=True):
        check(found, one)
    scorer.release()


def test_the_tokens_come_with_their_numbers(model: LoadedModel) -> None:
    scorer = opened(model)
    (found,) = scorer.score([([1, 2], [3, 4])])
    scorer.release()
    assert found.token_ids == (3, 4)
    assert len(found.logprobs) == 2


def test_empty_and_long_ones_are_refused(model: LoadedModel) -> None:
    scorer = opened(model)
    with pytest.raises(UsageError, match="input 0 is empty"):
        scorer.score([("hi", "")])
    with pytest.raises(UsageError, match="input 1 is empty"):
        scorer.score([("hi", "x"), ([], "x")])
    with pytest.raises(ContextOverflowError, match=r"input 0 has 301 tokens, .* at most 256"):
        scorer.score([([1] * 300, "x")])
    scorer.release()


def test_a_model_with_encoder_and_decoder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="reads and writes apart"):
        opened(loaded(tiny.folder(tmp_path, "t5")))


def test_the_likeliest_continuation_is_what_the_demo_says() -> None:
    demo = load(LoadRequest(model="demo"), made.SilentProgress())
    scorer = opened(demo)
    text = demo.tokenizer.apply_chat_template(
        [{"role": "user", "content": "What is the capital of Peru?"}],
        add_generation_prompt=True,
        tokenize=False,
    )
    before = demo.tokenizer.encode(text, add_special_tokens=False)
    towns = ("Lima", "Paris", "Tokyo")
    found = scorer.score([(before, f"The capital of Peru is {town}.") for town in towns])
    scorer.release()
    totals = {town: each.total for town, each in zip(towns, found, strict=True)}
    assert max(totals, key=lambda town: totals[town]) == "Lima"
    assert totals["Lima"] > -0.5
