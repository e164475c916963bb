"""Trained models through the engine: what plain generation says, alone and in company, in any numbers."""

import contextlib
import json
import random
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from llmctl.core.progress import SilentProgress
from llmctl.core.types import Delta, SamplingParams
from llmctl.demo.heldout import cases
from llmctl.engine.engine import Engine, Request
from llmctl.engine.generate import single
from llmctl.engine.generate.job import Job
from llmctl.engine.opening import EngineOptions, open_engine
from llmctl.loading.loader import LoadedModel, LoadRequest, load
from llmctl.loading.planning.plan import PlanRequest

NUM_TOGETHER = 32


@cache
def loaded(model: str, dtype: str = "float32", quantization: str | None = None) -> LoadedModel:
    plan = PlanRequest(device="cpu", dtype=dtype, quantization=quantization)
    return load(LoadRequest(model=model, plan=plan), SilentProgress())


def job(model: LoadedModel, ids: list[int], **sampling: Any) -> Job:
    params = SamplingParams(**{"temperature": 0.0, "max_new_tokens": 48, **sampling})
    assert params.max_new_tokens is not None
    return Job(
        prompt_ids=tuple(ids), sampling=params, end_ids=model.end_ids, max_new_tokens=params.max_new_tokens
    )


@contextlib.contextmanager
def opened(model: LoadedModel, **options: Any) -> Iterator[Engine]:
    engine = open_engine(model, EngineOptions(max_running=NUM_TOGETHER, quickens=False, **options))
    try:
        yield engine
    finally:
        engine.release()


def answers(engine: Engine, jobs: list[Job]) -> list[tuple[str, list[int]]]:
    """Text and tokens of each answer."""
    heard: dict[Request, list[Delta]] = {engine.add(each): [] for each in jobs}
    while engine.has_work:
        for event in engine.step():
            assert isinstance(event.item, Delta)
            heard[event.request].append(event.item)
    return [told(deltas) for deltas in heard.values()]


def told(deltas: list[Delta]) -> tuple[str, list[int]]:
    return "".join(each.text for each in deltas), [one for each in deltas for one in each.token_ids]


def alone(model: LoadedModel, jobs: list[Job]) -> list[tuple[str, list[int]]]:
    return [told(list(single.generate(model.model, model.tokenizer, each))) for each in jobs]


def questions(model: LoadedModel, **sampling: Any) -> list[Job]:
    """Conversations of the demo's held-out set, each up to its last question."""
    chosen = random.Random(3).sample(cases(), NUM_TOGETHER)
    texts = [
        model.tokenizer.apply_chat_template(list(case.messages), tokenize=False, add_generation_prompt=True)
        for case in chosen
    ]
    return [job(model, model.tokenizer.encode(text, add_special_tokens=False), **sampling) for text in texts]


def test_the_demo_says_the_same_bytes_as_plain_generation_alone_and_thirty_two_at_once() -> None:
    model = loaded("demo")
    jobs = questions(model)
    want = alone(model, jobs)
    with opened(model) as engine:
        assert answers(engine, jobs) == want
        assert [answers(engine, [each])[0] for each in jobs[:4]] == want[:4]


def test_stories260k_tells_its_golden_stories_in_company(shared: Path) -> None:
    model = loaded(str(shared / "assets/stories260K"))
    golden = json.loads((shared / "assets/golden/stories260K.run_c.json").read_text())["cases"]
    jobs = [job(model, model.tokenizer.encode(case["prompt"]), max_new_tokens=200) for case in golden]
    want = alone(model, jobs)
    copies = NUM_TOGETHER // len(jobs) or 1
    with opened(model, max_step_tokens=NUM_TOGETHER) as engine:
        assert answers(engine, jobs * copies) == want * copies


def test_seeded_answers_of_the_demo_are_the_same_alone_and_in_any_company() -> None:
    model = loaded("demo")
    jobs = questions(model, temperature=0.9, top_p=0.95, seed=7)
    want = alone(model, jobs)
    with opened(model) as engine:
        assert answers(engine, jobs) == want
        assert [answers(engine, [each])[0] for each in jobs] == want


def error(model: LoadedModel, jobs: list[Job], exact: list[Tensor], *, is_eager: bool) -> float:
    """The mean difference of teacher-forced log-probabilities of the prompts' tokens from the exact ones."""
    found = eager(model, jobs) if is_eager else forced(model, jobs)
    return float(torch.cat([(a - b).abs() for a, b in zip(found, exact, strict=True)]).mean())


def eager(model: LoadedModel, jobs: list[Job]) -> list[Tensor]:
    """Log-probabilities of each prompt's tokens from the second on, each prompt by itself."""
    found = []
    for each in jobs:
        ids = torch.tensor([each.prompt_ids])
        with torch.no_grad():
            logits = model.model(ids).logits[0, :-1].float().log_softmax(-1)
        found.append(logits.gather(1, ids[0, 1:, None])[:, 0])
    return found


def forced(model: LoadedModel, jobs: list[Job]) -> list[Tensor]:
    """The same by the engine, all prompts at once."""
    with opened(model, max_step_tokens=64) as engine:
        requests = [engine.add(each) for each in jobs]
        heard: dict[Request, list[float]] = {each: [] for each in requests}
        while engine.has_work:
            for event in engine.step():
                assert isinstance(event.item, Delta)
                heard[event.request] += [one.chosen.logprob for one in event.item.prompt_logprobs]
    return [torch.tensor(heard[each]) for each in requests]


@pytest.mark.parametrize("quantization", [None, "int8"])
def test_rounding_in_company_is_no_worse_than_plain_bfloat16(quantization: str | None) -> None:
    exact_model, model = loaded("demo"), loaded("demo", "bfloat16", quantization)
    jobs = questions(model, prompt_logprobs=0, max_new_tokens=1)
    exact = eager(exact_model, jobs)
    plain = error(loaded("demo", "bfloat16") if quantization is None else model, jobs, exact, is_eager=True)
    assert error(model, jobs, exact, is_eager=False) <= 2 * plain


@pytest.mark.parametrize("quantization", [None, "int8"])
def test_the_demo_chooses_the_same_tokens_in_company(quantization: str | None) -> None:
    model = loaded("demo", "bfloat16", quantization)
    asked = questions(model)
    said = [answer for _, answer in alone(model, asked)]
    # Each token is chosen behind the same ones: one that differs changes no other.
    jobs = [
        job(model, [*each.prompt_ids, *answer], prompt_logprobs=1, max_new_tokens=1)
        for each, answer in zip(asked, said, strict=True)
    ]
    likeliest: dict[Request, list[int]] = {}
    with opened(model, max_step_tokens=64) as engine:
        for each in jobs:
            likeliest[engine.add(each)] = []
        while engine.has_work:
            for event in engine.step():
                assert isinstance(event.item, Delta)
                likeliest[event.request] += [one.top[0].token_id for one in event.item.prompt_logprobs]
    pairs = [
        pair
        for found, answer in zip(likeliest.values(), said, strict=True)
        for pair in zip(found[-len(answer) :], answer, strict=True)
    ]
    assert sum(a == b for a, b in pairs) >= 0.98 * len(pairs)
