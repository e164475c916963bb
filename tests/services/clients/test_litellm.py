"""litellm against a fleet, by both of its routes to such servers."""

import asyncio
from importlib.util import find_spec
from typing import Any

import pytest

from tests.services.clients.fleet import ANSWER, ASKED, MESSAGES, MODEL, Fleet

pytestmark = [
    pytest.mark.heavy,
    pytest.mark.skipif(find_spec("litellm") is None, reason="litellm is not installed"),
    # The library's own.
    pytest.mark.filterwarnings("ignore"),
]


@pytest.fixture(autouse=True)
def _stays_at_home(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LITELLM_LOCAL_MODEL_COST_MAP", "True")


@pytest.fixture(params=["openai", "hosted_vllm"])
def ask(request: pytest.FixtureRequest, fleet: Fleet) -> dict[str, Any]:
    """What goes to each call."""
    model = f"{request.param}/{MODEL}"
    return {"model": model, "api_base": fleet.url, "api_key": "any", "temperature": 0, "num_retries": 0}


def test_an_answer_is_whole(ask: dict[str, Any]) -> None:
    import litellm

    answer = litellm.completion(**ask, messages=MESSAGES, max_tokens=64)
    assert answer.choices[0].message.content == ANSWER
    assert answer.choices[0].finish_reason == "stop"
    assert answer.usage.total_tokens == 26


def test_a_stream_is_built_up(ask: dict[str, Any]) -> None:
    import litellm

    stream = litellm.completion(**ask, messages=MESSAGES, stream=True, stream_options={"include_usage": True})
    chunks = list(stream)
    assert "".join(each.choices[0].delta.content or "" for each in chunks if each.choices) == ANSWER
    whole = litellm.stream_chunk_builder(chunks, messages=MESSAGES)
    assert whole.choices[0].message.content == ANSWER
    assert whole.usage.completion_tokens == 8


def test_async_calls_are_answered(ask: dict[str, Any]) -> None:
    import litellm

    async def work() -> list[str]:
        whole = await litellm.acompletion(**ask, messages=MESSAGES)
        stream = await litellm.acompletion(**ask, messages=MESSAGES, stream=True)
        pieces = [each.choices[0].delta.content or "" async for each in stream]
        return [whole.choices[0].message.content, "".join(pieces)]

    assert asyncio.run(work()) == [ANSWER] * 2


def test_texts_are_continued(fleet: Fleet) -> None:
    import litellm

    answer = litellm.text_completion(
        model=f"text-completion-openai/{MODEL}",
        api_base=fleet.url,
        api_key="any",
        prompt="The capital of France is",
        max_tokens=3,
        temperature=0,
    )
    assert "Paris" in answer.choices[0].text


def test_errors_are_those_of_their_kind(ask: dict[str, Any]) -> None:
    import litellm

    long = [{"role": "user", "content": "word " * 3000}]
    with pytest.raises(litellm.ContextWindowExceededError):
        litellm.completion(**ask, messages=long)
    with pytest.raises(litellm.BadRequestError):
        litellm.completion(**ask, messages=MESSAGES, top_p=9)
    gone = ask["model"].replace(MODEL, "gone")
    with pytest.raises(litellm.NotFoundError):
        litellm.completion(**ask | {"model": gone}, messages=MESSAGES)
    with pytest.raises(litellm.BadRequestError, match="cannot give vectors"):
        litellm.embedding(model=ask["model"], input=[ASKED], api_base=ask["api_base"], api_key="any")


def test_a_wrong_key_is_an_authentication_error(ask: dict[str, Any], fleet: Fleet) -> None:
    import litellm

    worker = f"{fleet.one('worker').url}/v1"
    with pytest.raises(litellm.AuthenticationError):
        litellm.completion(**ask | {"api_base": worker}, messages=MESSAGES)
