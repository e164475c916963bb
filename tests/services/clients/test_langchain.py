"""langchain-openai against a fleet."""

import asyncio
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import pytest

from tests.services.clients.fleet import ANSWER, ASKED, MODEL, Fleet

if TYPE_CHECKING:
    from langchain_openai import ChatOpenAI

pytestmark = [
    pytest.mark.heavy,
    pytest.mark.skipif(find_spec("langchain_openai") is None, reason="langchain-openai is not installed"),
]


def chat(fleet: Fleet, **more: Any) -> "ChatOpenAI":
    from langchain_openai import ChatOpenAI

    ask = {"model": MODEL, "base_url": fleet.url, "api_key": "any", "temperature": 0, "max_retries": 0}
    return ChatOpenAI(**ask | more)


def test_an_answer_has_its_counts(fleet: Fleet) -> None:
    answer = chat(fleet, max_tokens=64).invoke([("system", "Answer."), ("human", ASKED)])
    assert answer.content
    answer = chat(fleet).invoke(ASKED)
    assert answer.content == ANSWER
    assert answer.usage_metadata is not None
    assert answer.usage_metadata["total_tokens"] == 26
    assert answer.response_metadata["finish_reason"] == "stop"


def test_a_stream_adds_up(fleet: Fleet) -> None:
    pieces = list(chat(fleet, stream_usage=True).stream(ASKED))
    assert len(pieces) > 5
    whole = sum(pieces[1:], pieces[0])
    assert whole.content == ANSWER
    assert whole.usage_metadata is not None
    assert whole.usage_metadata["output_tokens"] == 8
    assert whole.response_metadata["finish_reason"] == "stop"


def test_many_are_asked_at_once(fleet: Fleet) -> None:
    assert [each.content for each in chat(fleet).batch([ASKED] * 6)].count(ANSWER) >= 5

    async def work() -> list[str]:
        model = chat(fleet)
        pieces = [each.content async for each in model.astream(ASKED)]
        return [str((await model.ainvoke(ASKED)).content), "".join(map(str, pieces))]

    assert asyncio.run(work()) == [ANSWER] * 2


def test_parameters_arrive(fleet: Fleet) -> None:
    short = chat(fleet, max_tokens=3, seed=1, stop=["zzz"], top_p=0.9, n=1, presence_penalty=0.1)
    assert short.invoke(ASKED).response_metadata["finish_reason"] == "length"
    told = chat(fleet, logprobs=True, top_logprobs=2).invoke(ASKED).response_metadata["logprobs"]
    assert "".join(each["token"] for each in told["content"]).startswith(ANSWER)
    parts = [("human", [{"type": "text", "text": ASKED}])]
    assert chat(fleet).invoke(parts).content == ANSWER


def test_texts_are_continued(fleet: Fleet) -> None:
    from langchain_openai import OpenAI

    model = OpenAI(model=MODEL, base_url=fleet.url, api_key="any", temperature=0, max_tokens=3)
    assert "Paris" in model.invoke("The capital of France is")
    assert "Paris" in "".join(model.stream("The capital of France is"))


def test_what_cannot_be_done_is_a_bad_request(fleet: Fleet) -> None:
    from langchain_core.exceptions import ContextOverflowError
    from langchain_core.tools import tool
    from langchain_openai import OpenAIEmbeddings
    from openai import BadRequestError

    @tool
    def add(a: int, b: int) -> int:
        """Add two numbers."""
        return a + b

    with pytest.raises(ContextOverflowError):
        chat(fleet).invoke("word " * 3000)
    with pytest.raises(BadRequestError, match="tools"):
        chat(fleet).bind_tools([add]).invoke("What is 1 + 1?")
    vectors = OpenAIEmbeddings(
        model=MODEL, base_url=fleet.url, api_key="any", check_embedding_ctx_length=False, max_retries=0
    )
    with pytest.raises(BadRequestError, match="cannot give vectors"):
        vectors.embed_query("hi")
