"""openai-python against a fleet: sync, async, streams, raw answers, helpers, and errors by their classes."""

import asyncio
import threading
import time
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.services.clients.fleet import ANSWER, ASKED, MESSAGES, MODEL, Fleet, part, until
from tests.services.clients.raw import get

if TYPE_CHECKING:
    from openai import AsyncOpenAI, OpenAI

pytestmark = [
    pytest.mark.heavy,
    pytest.mark.skipif(find_spec("openai") is None, reason="openai is not installed"),
]
GREEDY: dict[str, Any] = {"model": MODEL, "temperature": 0}
ASK: dict[str, Any] = {**GREEDY, "messages": MESSAGES}
TEXT = "The capital of France is"


@pytest.fixture
def client(fleet: Fleet) -> "Iterator[OpenAI]":
    from openai import OpenAI

    with OpenAI(base_url=fleet.url, api_key="any", max_retries=0, timeout=60) as made:
        yield made


def asynchronous(fleet: Fleet) -> "AsyncOpenAI":
    from openai import AsyncOpenAI

    return AsyncOpenAI(base_url=fleet.url, api_key="any", max_retries=0, timeout=60)


# Chat


def test_an_answer_is_whole(client: "OpenAI") -> None:
    answer = client.chat.completions.create(**ASK)
    (choice,) = answer.choices
    assert choice.message.content == ANSWER
    assert choice.message.role == "assistant"
    assert choice.finish_reason == "stop"
    assert answer.object == "chat.completion"
    assert answer.usage is not None
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens
    assert answer._request_id
    # Present, though null: the protocol says so.
    assert "logprobs" in choice.model_fields_set
    assert "refusal" in choice.message.model_fields_set
    # Nothing that the client does not know by its type.
    assert not choice.message.model_extra


def test_a_stream_adds_up(client: "OpenAI") -> None:
    chunks = list(client.chat.completions.create(**ASK, stream=True, stream_options={"include_usage": True}))
    *pieces, last = chunks
    assert "".join(each.choices[0].delta.content or "" for each in pieces) == ANSWER
    assert pieces[0].choices[0].delta.role == "assistant"
    assert [each.choices[0].finish_reason for each in pieces if each.choices[0].finish_reason] == ["stop"]
    assert last.choices == []
    assert last.usage == client.chat.completions.create(**ASK).usage
    assert {each.id for each in chunks} == {chunks[0].id}


def test_async_clients_are_answered_together(fleet: Fleet) -> None:
    async def one(client: "AsyncOpenAI", *, streams: bool) -> str:
        if not streams:
            return (await client.chat.completions.create(**ASK)).choices[0].message.content or ""
        stream = await client.chat.completions.create(**ASK, stream=True)
        return "".join([each.choices[0].delta.content or "" async for each in stream])

    async def work() -> list[str]:
        async with asynchronous(fleet) as client:
            return await asyncio.gather(*(one(client, streams=bool(number % 2)) for number in range(32)))

    # Sums of a batch differ in their last digits, and with them, rarely, a word.
    assert asyncio.run(work()).count(ANSWER) >= 30


def test_raw_answers_have_the_headers(client: "OpenAI") -> None:
    raw = client.chat.completions.with_raw_response.create(**ASK, extra_headers={"X-Request-Id": "mine-1"})
    assert raw.status_code == 200
    assert raw.headers["x-request-id"] == "mine-1"
    assert raw.parse().choices[0].message.content == ANSWER
    with client.chat.completions.with_streaming_response.create(**ASK, stream=True) as response:
        lines = [line for line in response.iter_lines() if line]
    assert response.headers["content-type"].startswith("text/event-stream")
    assert lines[-1] == "data: [DONE]"


def test_the_helper_of_streams_follows(client: "OpenAI") -> None:
    with client.chat.completions.stream(
        **ASK, logprobs=True, stream_options={"include_usage": True}
    ) as stream:
        events = [event.type for event in stream]
        final = stream.get_final_completion()
    assert events.count("content.delta") >= 5
    assert events.count("content.done") == 1
    assert events.count("logprobs.content.done") == 1
    assert final.choices[0].message.content == ANSWER
    assert final.choices[0].finish_reason == "stop"
    assert final.usage is not None
    told = final.choices[0].logprobs
    assert told is not None
    assert "".join(each.token for each in told.content or []).startswith(ANSWER)


def test_the_helper_of_async_streams_follows(fleet: Fleet) -> None:
    async def work() -> str | None:
        async with asynchronous(fleet) as client, client.chat.completions.stream(**ASK, n=2) as stream:
            async for _ in stream:
                pass
            return (await stream.get_final_completion()).choices[1].message.content

    assert asyncio.run(work()) == ANSWER


def test_all_that_a_client_may_ask_of_sampling_is_done(client: "OpenAI") -> None:
    create = client.chat.completions.create
    ask: dict[str, Any] = {"model": MODEL, "messages": MESSAGES}
    seeded = [create(**ask, temperature=1.3, seed=7, max_tokens=12).choices[0].message for _ in range(2)]
    assert seeded[0].content == seeded[1].content
    assert len(create(**ask, n=3, max_tokens=4).choices) == 3
    short = create(**ASK, max_completion_tokens=3)
    assert (short.choices[0].finish_reason, short.usage and short.usage.completion_tokens) == ("length", 3)
    assert create(**ASK, stop=[" is"]).choices[0].message.content == "The capital of France"
    told = create(**ASK, logprobs=True, top_logprobs=3).choices[0].logprobs
    assert told is not None
    assert told.content is not None
    assert [len(each.top_logprobs) for each in told.content] == [3] * len(told.content)
    first = client.post("/../tokenize", body={"model": MODEL, "prompt": "The"}, cast_to=object)
    (the,) = first["tokens"]  # type: ignore[index]
    barred = create(**ASK, logit_bias={str(the): -100}).choices[0].message.content or ""
    assert not barred.startswith("The")
    extra = {"top_k": 1, "min_p": 0.0, "repetition_penalty": 1.0, "ignore_eos": True, "min_tokens": 20}
    long = create(**ask, max_tokens=20, extra_body=extra)
    assert long.usage is not None
    assert long.usage.completion_tokens == 20
    assert create(**ASK, frequency_penalty=1.5, presence_penalty=1.5, top_p=0.9).choices[0].message.content


@pytest.mark.parametrize(
    "messages",
    [
        [{"role": "user", "content": [{"type": "text", "text": ASKED}]}],
        [{"role": "user", "content": ASKED, "name": None}],
        [{"role": "developer", "content": "You answer."}, *MESSAGES],
        [*MESSAGES, {"role": "assistant", "content": ANSWER, "refusal": None}, *MESSAGES],
    ],
)
def test_messages_of_all_shapes_are_read(client: "OpenAI", messages: list[Any]) -> None:
    answer = client.chat.completions.create(**GREEDY, messages=messages, max_tokens=20)
    assert answer.choices[0].message.content


def test_explicit_nulls_are_the_same_as_nothing(client: "OpenAI") -> None:
    nulls = ("logprobs", "seed", "stop", "n", "tools", "response_format", "user", "max_tokens", "top_p")
    answer = client.chat.completions.create(**ASK, extra_body=dict.fromkeys(nulls))
    assert answer.choices[0].message.content == ANSWER


def test_an_answer_that_was_begun_is_continued(client: "OpenAI") -> None:
    begun = [*MESSAGES, {"role": "assistant", "content": TEXT}]
    extra = {"continue_final_message": True, "add_generation_prompt": False}
    answer = client.chat.completions.create(**GREEDY, messages=begun, extra_body=extra)
    assert (answer.choices[0].message.content or "").strip() == "Paris."


def test_closing_a_stream_ends_the_work(client: "OpenAI", fleet: Fleet) -> None:
    long = {"ignore_eos": True}
    stream = client.chat.completions.create(**ASK, stream=True, max_tokens=900, extra_body=long)
    next(iter(stream))
    stream.close()
    assert until(lambda: num_running(fleet) == 0) < 1.0


def num_running(fleet: Fleet) -> int:
    key = f"Authorization: Bearer {fleet.token}"
    pages = [get(each.port, "/metrics", key).body.decode() for each in fleet.parts("worker")]
    lines = [line for page in pages for line in page.splitlines()]
    return sum(int(float(x.split()[-1])) for x in lines if x.startswith("vllm:num_requests_running{"))


# Texts, models, vectors


def test_texts_are_continued(client: "OpenAI") -> None:
    create = client.completions.create
    ask: dict[str, Any] = {**GREEDY, "max_tokens": 3}
    one = create(**ask, prompt=TEXT)
    assert one.object == "text_completion"
    assert "Paris" in one.choices[0].text
    several = create(**ask, prompt=[TEXT, "A word"], n=2)
    assert [each.index for each in several.choices] == [0, 1, 2, 3]
    ids = client.post("/../tokenize", body={"model": MODEL, "prompt": TEXT}, cast_to=object)
    by_ids = create(**ask, prompt=ids["tokens"])  # type: ignore[index]
    assert by_ids.choices[0].text == one.choices[0].text
    pieces = list(create(**ask, prompt=TEXT, stream=True, stream_options={"include_usage": True}))
    assert "".join(each.choices[0].text for each in pieces[:-1]) == one.choices[0].text
    assert pieces[-1].usage == one.usage


def test_texts_are_scored(client: "OpenAI") -> None:
    answer = client.completions.create(**GREEDY, prompt=TEXT, max_tokens=1, echo=True, logprobs=1)
    (choice,) = answer.choices
    assert choice.text.startswith(TEXT)
    told = choice.logprobs
    assert told is not None
    assert told.token_logprobs is not None
    assert told.token_logprobs[0] is None
    assert "".join(told.tokens or []) == choice.text
    assert told.text_offset is not None
    assert told.text_offset == sorted(told.text_offset)


def test_models_are_listed_and_found(client: "OpenAI") -> None:
    assert [each.id for each in client.models.list()] == [MODEL]
    assert client.models.retrieve(MODEL).owned_by


def test_vectors_of_a_model_that_writes_are_refused(client: "OpenAI") -> None:
    from openai import BadRequestError

    with pytest.raises(BadRequestError, match="cannot give vectors"):
        client.embeddings.create(model=MODEL, input="hi")


# Errors


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"temperature": -1}, "temperature"),
        ({"n": 0}, "n"),
        ({"messages": []}, "messages"),
        ({"tools": [{"type": "function", "function": {"name": "f", "parameters": {}}}]}, "tools"),
        ({"response_format": {"type": "json_object"}}, "response_format"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"extra_body": {"temprature": 1}}, "temprature"),
        (
            {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}]},
            None,
        ),
    ],
)
def test_wrong_requests_are_bad_requests(client: "OpenAI", fields: dict[str, Any], param: str | None) -> None:
    from openai import BadRequestError

    for streams in ({}, {"stream": True}):
        with pytest.raises(BadRequestError) as caught:
            client.chat.completions.create(**{**ASK, **fields, **streams})
        assert caught.value.status_code == 400
        assert param is None or caught.value.param == param
        assert caught.value.type == "invalid_request_error"


def test_a_given_form_is_refused_by_the_helper_too(client: "OpenAI") -> None:
    from openai import BadRequestError
    from pydantic import BaseModel

    class Town(BaseModel):
        name: str

    with pytest.raises(BadRequestError, match="response_format"):
        client.chat.completions.parse(**ASK, response_format=Town)


def test_too_long_a_prompt_has_the_code_that_clients_know(client: "OpenAI") -> None:
    from openai import BadRequestError

    with pytest.raises(BadRequestError) as caught:
        client.chat.completions.create(model=MODEL, messages=[{"role": "user", "content": "word " * 3000}])
    assert caught.value.code == "context_length_exceeded"


def test_what_is_not_there_is_not_found(client: "OpenAI") -> None:
    from openai import NotFoundError

    with pytest.raises(NotFoundError) as caught:
        client.chat.completions.create(model="gone", messages=MESSAGES)  # type: ignore[arg-type]
    assert caught.value.code == "model_not_found"
    with pytest.raises(NotFoundError):
        client.models.retrieve("some/model/gone")
    with pytest.raises(NotFoundError):
        client.responses.create(model=MODEL, input=ASKED)


def test_a_wrong_key_is_an_authentication_error(fleet: Fleet) -> None:
    from openai import AuthenticationError, OpenAI

    worker = f"{fleet.one('worker').url}/v1"
    with OpenAI(base_url=worker, api_key="wrong", max_retries=0) as client:
        with pytest.raises(AuthenticationError) as caught:
            client.models.list()
        assert caught.value.code == "invalid_api_key"
    with OpenAI(base_url=worker, api_key=fleet.token) as client:
        assert client.chat.completions.create(**ASK).choices[0].message.content == ANSWER


def test_a_gateway_without_workers_is_unavailable(tmp_path: Path) -> None:
    from openai import InternalServerError, OpenAI

    with (
        part(tmp_path, "api", "--controller", "http://127.0.0.1:9") as url,
        OpenAI(base_url=f"{url}/v1", api_key="any", max_retries=0) as client,
    ):
        with pytest.raises(InternalServerError) as caught:
            client.chat.completions.create(**ASK)
        assert caught.value.status_code == 503
        assert int(caught.value.response.headers["retry-after"]) >= 1
        assert client.models.list().data == []


def test_a_full_queue_is_a_rate_limit_and_tried_again(tmp_path: Path) -> None:
    from openai import OpenAI, RateLimitError

    with part(tmp_path, "worker", MODEL, "--max-running", "1", "--max-waiting", "0") as url:
        until(lambda: get(int(url.rpartition(":")[2]), "/ready").status == 200)
        with OpenAI(base_url=f"{url}/v1", api_key="any", max_retries=0, timeout=60) as client:
            long = {"ignore_eos": True}
            stream = client.chat.completions.create(**ASK, stream=True, max_tokens=1000, extra_body=long)
            next(iter(stream))
            with pytest.raises(RateLimitError) as caught:
                client.chat.completions.create(**ASK)
            assert int(caught.value.response.headers["retry-after"]) >= 1
            closing = threading.Timer(0.5, stream.close)
            closing.start()
            begin = time.monotonic()
            patient = client.with_options(max_retries=3)
            assert patient.chat.completions.create(**ASK).choices[0].message.content == ANSWER
            assert time.monotonic() - begin < 10
            closing.join()
