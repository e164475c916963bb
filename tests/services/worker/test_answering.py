"""The requests of a call run together, and end together."""

import asyncio
from contextlib import aclosing

import pytest
from prometheus_client import CollectorRegistry

from llmctl.core.errors import BusyError, LlmctlError
from llmctl.core.types import CompletionRequest, Delta, SamplingParams
from llmctl.services.http.metrics import ModelMetrics
from llmctl.services.openai.calls import Echo
from llmctl.services.worker.answering import Run, deltas_of, echoes
from tests.services.worker.fakes import FakeText, hosted


def prompts(*texts: str | tuple[int, ...], n: int = 1) -> tuple[CompletionRequest, ...]:
    """A request for each."""
    return tuple(CompletionRequest(prompt=text, sampling=SamplingParams(n=n)) for text in texts)


async def all_of(model: FakeText, requests: tuple[CompletionRequest, ...]) -> list[tuple[int, Delta]]:
    """Everything that comes."""
    async with aclosing(deltas_of(model, requests)) as deltas:
        return [item async for item in deltas]


@pytest.mark.parametrize("count", [1, 2, 20])
def test_every_prompt_gets_its_whole_answer(count: int) -> None:
    model = FakeText()
    found = asyncio.run(all_of(model, prompts(*["x"] * count)))
    for number in range(count):
        own = [delta for each, delta in found if each == number]
        assert "".join(delta.text for delta in own) == "abc"
        assert [delta.finish is not None for delta in own] == [False] * 3 + [True]
    assert (model.most_open, model.num_open) == (count, 0)


@pytest.mark.parametrize("texts", [("!",), ("x", "!", "~x"), ("~x", "~x", "!")])
@pytest.mark.parametrize("error", [LlmctlError("it failed"), BusyError("full"), ZeroDivisionError()])
def test_a_failure_of_one_ends_all(texts: tuple[str, ...], error: LlmctlError) -> None:
    model = FakeText(error=error)
    ends = asyncio.run(asyncio.wait_for(_outcome(model, texts), 5))
    assert ends is error
    assert model.num_open == 0


async def _outcome(model: FakeText, texts: tuple[str, ...]) -> BaseException | None:
    try:
        await all_of(model, prompts(*texts))
    except (LlmctlError, ZeroDivisionError) as error:
        return error
    return None


@pytest.mark.parametrize("texts", [("~x",), ("~x", "~y", "z")])
def test_whoever_stops_listening_ends_the_work(texts: tuple[str, ...]) -> None:
    async def main() -> tuple[int, int]:
        model = FakeText()
        deltas = deltas_of(model, prompts(*texts))
        await anext(deltas)
        before = model.num_open
        await deltas.aclose()
        return before, model.num_open

    assert asyncio.run(main()) == (len(texts), 0)


@pytest.mark.parametrize("texts", [("~x",), ("~x", "~y")])
def test_a_cancelled_answer_ends_the_work(texts: tuple[str, ...]) -> None:
    async def main() -> int:
        model = FakeText()
        task = asyncio.create_task(all_of(model, prompts(*texts)))
        await asyncio.sleep(0.05)
        assert model.num_open == len(texts)
        task.cancel()
        await asyncio.wait((task,))
        return model.num_open

    assert asyncio.run(main()) == 0


def test_numbers_are_kept_of_every_choice() -> None:
    registry = CollectorRegistry()

    async def main() -> None:
        run = Run(hosted(), prompts("x", "y", n=2), ModelMetrics(registry))
        await run.whole(lambda number, delta: None, dict)

    asyncio.run(main())
    told = {"model_name": "fake"}
    assert registry.get_sample_value("vllm:time_to_first_token_seconds_count", told) == 4
    assert registry.get_sample_value("vllm:inter_token_latency_seconds_count", told) == 8
    assert registry.get_sample_value("vllm:e2e_request_latency_seconds_count", told) == 4
    stopped = {**told, "finished_reason": "stop"}
    assert registry.get_sample_value("vllm:request_success_total", stopped) == 4


@pytest.mark.parametrize("is_told", [False, True])
def test_an_echo_is_the_prompts_text(is_told: bool) -> None:
    found = asyncio.run(echoes(hosted(), prompts("xyz", (104, 105)), is_told=is_told))
    firsts = ("x", "h") if is_told else ("", "")
    assert found == [Echo(text="xyz", first_token=firsts[0]), Echo(text="hi", first_token=firsts[1])]
