"""The demo model answers through HTTP as it does in this process."""

from collections.abc import Iterator

import pytest

from llmctl.core.errors import ContextOverflowError, NotFoundError
from llmctl.core.types import ChatRequest, Message, SamplingParams
from llmctl.services.client import HttpBackend
from tests.server import DemoServer
from tests.services.answers import ask, chat, finish, run, text


@pytest.fixture(scope="module")
def demo() -> Iterator[DemoServer]:
    with DemoServer() as server:
        yield server


def test_the_demo_model_answers_through_http(demo: DemoServer) -> None:
    deltas = ask(demo, request=chat("What is the capital of France?", temperature=0.0))
    assert text(deltas) == "The capital of France is Paris."
    assert len(deltas) > 3
    assert finish(deltas).reason == "stop"
    assert finish(deltas).usage.prompt_tokens > 5


def test_what_a_request_asks_of_the_demo_model_is_done(demo: DemoServer) -> None:
    limited = ask(demo, request=chat("What is the capital of France?", temperature=0.0, max_new_tokens=3))
    assert (finish(limited).reason, finish(limited).usage.completion_tokens) == ("length", 3)
    stopped = ask(demo, request=chat("What is the capital of France?", temperature=0.0, stop=(" is",)))
    assert text(stopped) == "The capital of France"


def test_the_demo_model_goes_on_with_an_answer(demo: DemoServer) -> None:
    asked = Message(role="user", content="What is the capital of France?")
    begun = Message(role="assistant", content="The capital of France is")
    greedy = SamplingParams(temperature=0.0)
    request = ChatRequest(messages=(asked, begun), continues_last=True, sampling=greedy)
    assert text(ask(demo, request=request)).strip() == "Paris."


def test_a_prompt_too_long_for_the_demo_model_is_told_in_numbers(demo: DemoServer) -> None:
    with pytest.raises(ContextOverflowError) as caught:
        ask(demo, request=chat("word " * 3000))
    assert caught.value.context_length == 1024
    assert (caught.value.prompt_tokens or 0) > 1024


def test_the_context_of_the_demo_model_is_known(demo: DemoServer) -> None:
    async def work(backend: HttpBackend) -> tuple[str, int | None]:
        with pytest.raises(NotFoundError):
            backend.with_model("another")
        return backend.info.name, backend.info.context_length

    assert run(work, demo.url) == ("demo", 1024)
