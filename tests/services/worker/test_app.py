"""A worker over HTTP, with models without weights: routes, errors, and clients that leave."""

import asyncio
import threading
from collections.abc import Iterator, Sequence

import pytest

from llmctl.core.errors import BusyError, NotFoundError
from llmctl.services.http.guard import Keys
from llmctl.services.worker.hosted import Hosted
from tests.services.worker.fakes import FakeText, hosted, hosted_vectors
from tests.services.worker.serving import HELLO, Served, events, until

ENDLESS = [{"role": "user", "content": "~"}]
CHAT, COMPLETIONS = "/v1/chat/completions", "/v1/completions"


@pytest.fixture(scope="module")
def text() -> FakeText:
    return FakeText()


@pytest.fixture(scope="module")
def worker(text: FakeText) -> Iterator[Served]:
    with Served(lambda: [hosted(text, aliases=("org/alias",)), hosted_vectors()]) as served:
        yield served


def test_models_are_listed_under_all_their_names(worker: Served) -> None:
    told = worker.client.get("/v1/models").json()
    assert told["object"] == "list"
    assert [card["id"] for card in told["data"]] == ["fake", "org/alias", "vectors"]
    assert {card["object"] for card in told["data"]} == {"model"}
    assert all(isinstance(card["created"], int) and card["owned_by"] for card in told["data"])


@pytest.mark.parametrize("name", ["fake", "org/alias", "org%2Falias"])
def test_a_model_is_told_by_its_name(worker: Served, name: str) -> None:
    told = worker.client.get(f"/v1/models/{name}").json()
    assert (told["id"], told["root"]) == (name.replace("%2F", "/"), "fake")


def test_a_model_that_is_not_there_is_told_as_that(worker: Served) -> None:
    response = worker.client.get("/v1/models/org/other")
    assert response.status_code == 404
    assert response.json()["error"]["code"] == "model_not_found"


@pytest.mark.parametrize("path", [CHAT, COMPLETIONS, "/v1/embeddings", "/tokenize", "/detokenize"])
def test_an_unknown_model_is_refused_with_those_that_are_there(worker: Served, path: str) -> None:
    bodies = {
        CHAT: {"messages": HELLO},
        COMPLETIONS: {"prompt": "x"},
        "/v1/embeddings": {"input": "x"},
        "/tokenize": {"prompt": "x"},
        "/detokenize": {"tokens": [1]},
    }
    error = worker.error(404, path, model="gpt-4", **bodies[path])
    assert (error["code"], error["param"]) == ("model_not_found", "model")
    assert "there is fake, org/alias, vectors" in error["message"]


@pytest.mark.parametrize("body", [{}, {"model": None}, {"model": 5}, {"model": ["fake"]}])
@pytest.mark.parametrize("path", [CHAT, COMPLETIONS])
def test_a_body_without_a_model_is_refused_by_name(
    worker: Served, path: str, body: dict[str, object]
) -> None:
    error = worker.error(400, path, messages=HELLO, prompt="x", **body)
    assert error["type"] == "invalid_request_error"
    told = worker.error(400, path, **({"messages": HELLO} if path == CHAT else {"prompt": "x"}), **body)
    assert told["param"] == "model"


def test_an_answer_is_given_by_the_name_that_was_asked_for(worker: Served) -> None:
    told = worker.json(CHAT, model="org/alias", messages=HELLO)
    assert told["model"] == "org/alias"
    assert told["choices"][0]["message"]["content"] == "abc"
    assert told["usage"]["completion_tokens"] == 3


def test_a_stream_has_a_role_text_and_one_end_for_each_choice(worker: Served) -> None:
    options = {"include_usage": True}
    response = worker.post(CHAT, model="fake", messages=HELLO, n=3, stream=True, stream_options=options)
    assert response.headers["content-type"].startswith("text/event-stream")
    chunks = events(response)
    assert chunks[-1]["choices"] == []
    assert chunks[-1]["usage"]["completion_tokens"] == 9
    for index in range(3):
        own = [choice for each in chunks for choice in each["choices"] if choice["index"] == index]
        assert own[0]["delta"]["role"] == "assistant"
        assert "".join(choice["delta"].get("content", "") for choice in own) == "abc"
        assert [choice["finish_reason"] for choice in own if choice["finish_reason"]] == ["stop"]


def test_all_prompts_of_a_list_run_together(worker: Served, text: FakeText) -> None:
    text.most_open = 0
    told = worker.json(COMPLETIONS, model="fake", prompt=["x", "y", "z"], n=2, echo=True)
    assert [choice["text"] for choice in told["choices"]] == ["xabc"] * 2 + ["yabc"] * 2 + ["zabc"] * 2
    assert [choice["index"] for choice in told["choices"]] == list(range(6))
    assert text.most_open == 3


def test_a_stream_of_several_prompts_tells_their_choices_apart(worker: Served) -> None:
    chunks = events(
        worker.post(COMPLETIONS, model="fake", prompt=[[120], [121]], n=2, echo=True, stream=True)
    )
    texts = [""] * 4
    for chunk in chunks:
        texts[chunk["choices"][0]["index"]] += chunk["choices"][0]["text"]
    assert texts == ["xabc", "xabc", "yabc", "yabc"]


def test_counts_in_each_chunk_begin_with_the_whole_prompt(worker: Served) -> None:
    options = {"include_usage": True, "continuous_usage_stats": True}
    chunks = events(
        worker.post(COMPLETIONS, model="fake", prompt=["xy", "z"], stream=True, stream_options=options)
    )
    assert chunks[0]["usage"]["prompt_tokens"] == 3


def test_vectors_are_given_for_texts_and_for_ids(worker: Served) -> None:
    told = worker.json("/v1/embeddings", model="vectors", input=["ab", "abc"], dimensions=1)
    assert [each["embedding"] for each in told["data"]] == [[2.0], [3.0]]
    assert told["usage"] == {"prompt_tokens": 7, "total_tokens": 7}
    assert worker.json("/v1/embeddings", model="vectors", input=[1, 2])["data"][0]["embedding"] == [2.0, 2.0]


@pytest.mark.parametrize(
    ("path", "body", "word"),
    [
        ("/v1/embeddings", {"model": "fake", "input": "x"}, "/v1/chat/completions"),
        (CHAT, {"model": "vectors", "messages": HELLO}, "/v1/embeddings"),
        (COMPLETIONS, {"model": "vectors", "prompt": "x"}, "/v1/embeddings"),
    ],
)
def test_what_a_model_cannot_do_is_told_with_what_it_can(
    worker: Served, path: str, body: dict[str, object], word: str
) -> None:
    assert word in worker.error(400, path, **body)["message"]


def test_tokens_and_their_text_are_told(worker: Served) -> None:
    told = worker.json("/tokenize", model="fake", prompt="hi", return_token_strs=True)
    assert told == {"count": 2, "max_model_len": 100, "tokens": [104, 105], "token_strs": ["<h>", "<i>"]}
    assert worker.json("/tokenize", model="fake", messages=HELLO)["token_strs"] is None
    assert worker.json("/detokenize", model="fake", tokens=[104, 105]) == {"prompt": "hi"}


def test_several_models_ask_for_a_name(worker: Served) -> None:
    assert worker.error(400, "/tokenize", prompt="x")["param"] == "model"


def test_the_token_check_is_fastchats(worker: Served) -> None:
    asked = [
        {"model": "fake", "prompt": "x" * 90, "max_tokens": 10},
        {"model": "fake", "prompt": "x" * 90, "max_tokens": 11},
        {"model": "vectors", "prompt": "x"},
    ]
    assert worker.json("/api/v1/token_check", prompts=asked) == {
        "prompts": [
            {"fits": True, "tokenCount": 90, "contextLength": 100},
            {"fits": False, "tokenCount": 90, "contextLength": 100},
            {"fits": True, "tokenCount": 1, "contextLength": 50},
        ]
    }


@pytest.mark.parametrize("is_stream", [False, True])
@pytest.mark.parametrize("path", [CHAT, COMPLETIONS])
def test_who_leaves_ends_the_work_at_once(worker: Served, path: str, is_stream: bool) -> None:
    more = {"messages": ENDLESS} if path == CHAT else {"prompt": ["~a", "~b"]}
    with worker.asked(path, model="fake", stream=is_stream, **more) as connection:
        until(lambda: worker.num_running == (1 if path == CHAT else 2))
        if is_stream:
            assert connection.recv(100).startswith(b"HTTP/1.1 200")
    assert until(lambda: worker.num_running == 0) < 1


def test_a_full_queue_says_when_to_come_back(worker: Served, text: FakeText) -> None:
    text.error = BusyError("512 requests wait already", retry_after_s=3)
    for is_stream in (False, True):
        response = worker.post(COMPLETIONS, model="fake", prompt="!", stream=is_stream)
        assert (response.status_code, response.headers["retry-after"]) == (429, "3")
        assert response.json()["error"]["type"] == "rate_limit_error"


def test_the_metrics_name_the_models(worker: Served) -> None:
    told = worker.client.get("/metrics").text
    assert 'vllm:num_requests_running{model_name="fake"} 0.0' in told
    assert 'vllm:num_requests_waiting{model_name="vectors"} 0.0' in told


def test_the_description_names_every_route(worker: Served) -> None:
    paths = worker.client.get("/openapi.json").json()["paths"]
    assert {CHAT, COMPLETIONS, "/v1/embeddings", "/v1/models/{id}", "/api/v1/token_check"} <= paths.keys()


def test_keys_guard_all_but_health() -> None:
    with Served(lambda: [hosted()], keys=Keys.of(["secret"])) as served:
        assert served.client.get("/ready").status_code == 200
        assert served.client.get("/v1/models").status_code == 401
        shown = {"Authorization": "Bearer secret"}
        assert served.client.get("/v1/models", headers=shown).status_code == 200


def test_a_worker_answers_while_its_models_are_loading() -> None:
    go_on = threading.Event()

    def load() -> Sequence[Hosted]:
        assert go_on.wait(20)
        return [hosted()]

    with Served(load, is_awaited=False) as served:
        assert served.client.get("/ready").status_code == 503
        response = served.post(CHAT, model="fake", messages=HELLO)
        assert response.status_code == 503
        assert int(response.headers["retry-after"]) >= 1
        assert "being loaded" in response.json()["error"]["message"]
        go_on.set()
        until(lambda: served.client.get("/ready").status_code == 200)


def test_models_that_do_not_load_are_the_workers_failure() -> None:
    def load() -> Sequence[Hosted]:
        raise NotFoundError("no such folder")

    failed = threading.Event()
    served = Served(load, is_awaited=False)
    served.worker._on_failure = failed.set
    with served:
        assert failed.wait(20)
        assert isinstance(served.worker.failure, NotFoundError)


def test_the_end_frees_the_models() -> None:
    text = FakeText()
    with Served(lambda: [hosted(text)]):
        assert not text.is_closed
    assert text.is_closed


def test_models_that_come_when_the_worker_was_told_to_end_are_no_failure() -> None:
    go_on = threading.Event()

    def load() -> Sequence[Hosted]:
        assert go_on.wait(20)
        raise NotFoundError("no such folder")

    with Served(load, is_awaited=False) as served:
        served.worker._on_failure = lambda: pytest.fail("it was told")
        asyncio.run(served.worker.drain())
        go_on.set()
    assert served.worker.failure is None
