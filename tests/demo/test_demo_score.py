"""The shipped demo model on the held-out set: at least 90 % over all and 80 % in each skill, greedily."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from llmctl.demo import MODELS
from llmctl.demo.evaluate import answerer, load
from llmctl.demo.heldout import AnswerMany, has, score_many


@pytest.fixture(scope="module")
def answer() -> Iterator[AnswerMany]:
    """The demo model in float32 on the CPU, plain transformers, one thread (quickest on a busy machine)."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield answerer(*load(MODELS["demo"], torch.float32))
    torch.set_num_threads(before)


def test_held_out_score(answer: AnswerMany) -> None:
    """The bar of the model card."""
    scores = score_many(answer)
    assert scores["all"] >= 0.90, scores
    assert min(scores.values()) >= 0.80, scores


def test_capital_of_france(answer: AnswerMany) -> None:
    """The one question every newcomer asks."""
    (text,) = answer([[{"role": "user", "content": "What is the capital of France?"}]])
    assert has(text, "Paris")
    assert "\n" not in text.strip()


def test_a_context_of_a_thousand_tokens(answer: AnswerMany) -> None:
    """A name told at the start is known at the end of a context of about a thousand tokens."""
    talk = [
        {"role": "user", "content": "My name is Matilda."},
        {"role": "assistant", "content": "Nice to meet you, Matilda."},
    ]
    for number in range(32):
        talk.append({"role": "user", "content": f"What is {number % 9} + 2?"})
        talk.append({"role": "assistant", "content": f"{number % 9} + 2 = {number % 9 + 2}."})
    talk.append({"role": "user", "content": "What is my name?"})
    (text,) = answer([talk])
    assert has(text, "Matilda")
