"""The demo model's own deltas through what a server writes and what our own client reads of it."""

import asyncio
import json
from collections.abc import Iterator
from contextlib import aclosing

import pytest

from llmctl.core.progress import SilentProgress
from llmctl.core.types import CompletionRequest, Delta, GenerationRequest, Usage
from llmctl.engine.local import LocalBackend
from llmctl.services.openai.calls import ChatCall, CompletionCall, Echo
from llmctl.services.openai.chat import ChatAnswer, ChatStream
from llmctl.services.openai.completions import CompletionAnswer, CompletionStream
from llmctl.services.upstream.answer import AnswerReader
from llmctl.services.upstream.chunks import ChunkDecoder
from llmctl.services.upstream.faults import Faults
from tests.services.openai.given import HEAD, chat, completion

QUESTION = [{"role": "user", "content": "What is the capital of France?"}]
ANSWER = "The capital of France is Paris."


@pytest.fixture(scope="module")
def demo() -> Iterator[LocalBackend]:
    from llmctl.loading.loader import LoadRequest, load
    from llmctl.loading.planning.plan import PlanRequest

    backend = LocalBackend(load(LoadRequest(model="demo", plan=PlanRequest(device="cpu")), SilentProgress()))
    yield backend
    asyncio.run(backend.close())


def deltas_of(backend: LocalBackend, request: GenerationRequest) -> list[Delta]:
    async def collect() -> list[Delta]:
        async with aclosing(backend.generate(request)) as deltas:
            return [delta async for delta in deltas]

    return asyncio.run(collect())


def read_back(body: bytes, request: GenerationRequest, *, size: int) -> list[Delta]:
    """What our own client makes of `body`, which comes in pieces of `size` bytes."""
    faults = Faults(url="http://127.0.0.1:1/v1", timeout_s=1.0)
    reader, decoder = AnswerReader(faults, request), ChunkDecoder(faults)
    chunks = [each for at in range(0, len(body), size) for each in decoder.feed(body[at : at + size])]
    chunks += decoder.finish()
    found = [reader.read(each) for each in chunks]
    return [*(each for each in (*found, reader.rest()) if each), reader.finish(is_whole=decoder.is_whole)]


def streamed(call: ChatCall | CompletionCall, deltas: list[Delta]) -> bytes:
    stream = ChatStream(call, HEAD) if isinstance(call, ChatCall) else CompletionStream(call, HEAD)
    return b"".join(map(stream.push, deltas)) + stream.end()


def text(deltas: list[Delta]) -> str:
    return "".join(delta.text for delta in deltas)


def usage(deltas: list[Delta]) -> Usage:
    finish = deltas[-1].finish
    assert finish is not None
    assert finish.usage is not None
    return finish.usage


STREAMED = {"stream": True, "stream_options": {"include_usage": True}, "temperature": 0}


@pytest.mark.parametrize("size", [1, 7, 100_000])
def test_a_chat_comes_back_as_it_was_said(demo: LocalBackend, size: int) -> None:
    call = chat(messages=QUESTION, logprobs=True, top_logprobs=2, **STREAMED)
    said = deltas_of(demo, call.request)
    back = read_back(streamed(call, said), call.request, size=size)
    assert text(back) == text(said) == ANSWER
    assert usage(back) == usage(said)
    assert back[-1].finish is not None
    assert back[-1].finish.reason == "stop"
    names = [[one.chosen.token for delta in side for one in delta.logprobs] for side in (said, back)]
    assert names[0] == names[1] != []
    likely = [one.top[0].logprob for delta in back for one in delta.logprobs]
    assert likely == [one.top[0].logprob for delta in said for one in delta.logprobs]


def test_a_chat_is_the_same_whole_and_streamed(demo: LocalBackend) -> None:
    call = chat(messages=QUESTION, temperature=0)
    answer = ChatAnswer(call, HEAD)
    said = deltas_of(demo, call.request)
    for delta in said:
        answer.push(delta)
    back = read_back(json.dumps(answer.whole()).encode(), call.request, size=64)
    assert (text(back), usage(back)) == (ANSWER, usage(said))


def test_a_completion_comes_back_as_it_was_said(demo: LocalBackend) -> None:
    call = completion(prompt="The capital of France", max_tokens=6, logprobs=2, **STREAMED)
    (request,) = call.requests
    said = deltas_of(demo, request)
    back = read_back(streamed(call, said), request, size=50)
    assert text(back) == text(said) != ""
    assert usage(back) == usage(said)
    assert usage(back).completion_tokens <= 6


def test_text_outside_ascii_comes_back(demo: LocalBackend) -> None:
    call = chat(stream=True)
    said = [
        Delta(text=each, token_ids=(1,)) for each in ("Grüß ", "dich\u2028", "\u0085👍🏽\n\n", "data: x\n\n")
    ]
    said.append(deltas_of(demo, chat(max_tokens=1).request)[-1])
    back = read_back(streamed(call, said), call.request, size=3)
    assert text(back) == text(said)


def echo_of(backend: LocalBackend, request: CompletionRequest, prompt: str) -> Echo:
    """What a worker tells of the prompt; here the tokenizer's own view of it."""
    tokenizer = backend._loaded.tokenizer
    return Echo(text=prompt, first_token=tokenizer.decode(backend._prompt_ids(request, None)[:1]))


def test_an_echo_is_scored_as_evaluation_harnesses_read_it(demo: LocalBackend) -> None:
    prompt = "The capital of France is Paris."
    call = completion(prompt=prompt, max_tokens=1, temperature=0, logprobs=1, echo=True)
    (request,) = call.requests
    answer = CompletionAnswer(call, HEAD, echoes=[echo_of(demo, request, prompt)])
    for delta in deltas_of(demo, request):
        answer.push(delta)
    (choice,) = answer.whole()["choices"]
    told = choice["logprobs"]
    counted = usage(deltas_of(demo, request))
    assert len(told["tokens"]) == counted.total_tokens
    assert len({len(each) for each in told.values()}) == 1
    assert told["token_logprobs"][0] is None
    assert all(value <= 0 for value in told["token_logprobs"][1:])
    for one, offset in zip(told["tokens"][: counted.prompt_tokens], told["text_offset"], strict=False):
        assert choice["text"][offset:].startswith(one)


def test_leaving_a_stream_early_is_no_trouble(demo: LocalBackend) -> None:
    call = chat(messages=QUESTION, stream=True)
    stream = ChatStream(call, HEAD)

    async def first() -> bytes:
        async with aclosing(demo.generate(call.request)) as deltas:
            return stream.push(await anext(deltas))

    assert asyncio.run(first()).startswith(b"data: {")
