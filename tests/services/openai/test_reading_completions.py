"""Bodies of completions, embeddings and of the tokenizer into calls."""

from typing import Any

import pytest

from llmctl.services.openai import reading
from llmctl.services.openai.calls import TokenCheckCall
from tests.services.openai.given import ASKED, DEFAULT, completion, refusal


@pytest.mark.parametrize(
    ("prompt", "prompts"),
    [
        ("Once", ["Once"]),
        ("", [""]),
        (["Once", "Twice"], ["Once", "Twice"]),
        ([1, 2, 3], [(1, 2, 3)]),
        ([[1, 2], [3]], [(1, 2), (3,)]),
    ],
)
def test_a_prompt_is_text_or_ids_one_or_many(prompt: Any, prompts: list[Any]) -> None:
    assert [each.prompt for each in completion(prompt=prompt).requests] == prompts


@pytest.mark.parametrize(
    ("prompt", "param"),
    [
        (None, "prompt"),
        (5, "prompt"),
        ({}, "prompt"),
        ([], "prompt"),
        (["Once", 5], "prompt[1]"),
        ([5, "Once"], "prompt[1]"),
        ([1, True], "prompt[1]"),
        ([1, -2], "prompt[1]"),
        ([1, 2.0], "prompt[1]"),
        ([[1], []], "prompt[1]"),
        ([[1], [1, "x"]], "prompt[1][1]"),
        ([[[1]]], "prompt[0][0]"),
        ([None], "prompt[0]"),
        (["x"] * 2049, "prompt"),
        ("\ud800", "prompt"),
        (["x", "\udc00"], "prompt[1]"),
    ],
)
def test_a_wrong_prompt_is_refused_by_its_place(prompt: Any, param: str) -> None:
    assert refusal(completion, prompt=prompt).param == param


def test_the_limit_is_16_unless_null_says_that_there_is_none() -> None:
    def limit(**fields: Any) -> int | None:
        return completion(**fields).requests[0].sampling.max_new_tokens

    assert (limit(), limit(max_tokens=None), limit(max_tokens=40)) == (16, None, 40)
    assert refusal(completion, min_tokens=20).message == "min_tokens must be at most 16 (max_tokens), not 20"
    assert refusal(completion, max_tokens=-1).message == "max_tokens must be at least 1, not -1"
    assert refusal(completion, max_tokens=False).param == "max_tokens"


def test_no_tokens_may_be_wanted() -> None:
    call = completion(max_tokens=0, echo=True, logprobs=1)
    assert (call.is_prompt_only, call.requests[0].sampling.max_new_tokens) == (True, 1)
    assert refusal(completion, max_tokens=0, min_tokens=1).param == "min_tokens"


def test_an_echo_has_log_probabilities_too() -> None:
    call = completion(echo=True, logprobs=3)
    assert (call.echoes, call.logprobs, call.requests[0].sampling.prompt_logprobs) == (True, 3, 3)
    assert completion(echo=True).requests[0].sampling.prompt_logprobs is None
    both = completion(echo=True, logprobs=3, prompt_logprobs=5)
    assert (both.prompt_logprobs, both.requests[0].sampling.prompt_logprobs) == (5, 5)
    assert completion(echo=True, logprobs=3, stream=True).logprobs == 3
    assert refusal(completion, echo=True, logprobs=True).param == "logprobs"
    assert refusal(completion, echo=True, logprobs=3, prompt_logprobs="x").param == "prompt_logprobs"


def test_the_best_of_many_is_not_chosen() -> None:
    assert completion(best_of=2, n=2).n == 2
    error = refusal(completion, best_of=3, n=2)
    assert (error.param, error.message) == ("best_of", "best_of must be n (2), not 3")
    assert refusal(completion, best_of="x").param == "best_of"


def test_answers_are_not_too_many() -> None:
    assert len(completion(prompt=["x"] * 16, n=128).requests) == 16
    assert refusal(completion, prompt=["x"] * 17, n=128).param == "n"


def test_special_tokens_and_priority_are_taken() -> None:
    (request,) = completion(add_special_tokens=False, priority=4).requests
    assert (request.adds_special_tokens, request.priority) == (False, 4)
    assert completion().requests[0].adds_special_tokens


# Embeddings


def embedding(**fields: Any) -> Any:
    return reading.embedding_call({"model": "m", "input": "x", **fields})


def test_inputs_of_vectors_are_texts_or_ids() -> None:
    assert embedding(input=["a", "b"]).inputs == ("a", "b")
    assert embedding(input=[[1, 2]]).inputs == ((1, 2),)
    call = embedding(encoding_format="base64", dimensions=8, user="me")
    assert (call.inputs, call.is_base64, call.dimensions) == (("x",), True, 8)
    assert not embedding(encoding_format=None).is_base64


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("encoding_format", "hex"),
        ("dimensions", 0),
        ("dimensions", "x"),
        ("input", []),
        ("model", 5),
        ("user", 5),
    ],
)
def test_a_wrong_field_of_vectors_is_refused_by_name(field: str, value: Any) -> None:
    assert refusal(embedding, **{field: value}).param == field


# Tokens


def test_a_text_or_a_conversation_is_cut_into_tokens() -> None:
    text = reading.tokenize_call({"prompt": "Hi", "return_token_strs": True})
    assert (text.model, text.text, text.adds_special_tokens, text.tells_tokens) == (None, "Hi", True, True)
    assert not reading.tokenize_call({"prompt": "Hi", "add_special_tokens": False}).adds_special_tokens
    chat = reading.tokenize_call({"model": "m", "messages": ASKED, "add_generation_prompt": False})
    assert (chat.text, chat.opens_answer, chat.continues_last) == (None, False, False)
    assert chat.messages is not None
    assert chat.messages[0].content == "Hi"
    told = {"messages": ASKED, "chat_template_kwargs": {"enable_thinking": True}}
    assert reading.tokenize_call(told).reasons is True


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({}, "prompt"),
        ({"prompt": "Hi", "messages": ASKED}, "prompt"),
        ({"prompt": "Hi", "continue_final_message": True}, "continue_final_message"),
        ({"messages": ASKED, "add_special_tokens": True}, "add_special_tokens"),
        ({"messages": ASKED, "tools": [1]}, "tools"),
        ({"prompt": "\ud800"}, "prompt"),
    ],
)
def test_a_wrong_question_for_tokens_is_refused_by_name(body: dict[str, Any], param: str) -> None:
    assert refusal(reading.tokenize_call, body=body).param == param


def test_ids_become_text() -> None:
    assert reading.detokenize_call({"tokens": [1, 2]}).ids == (1, 2)
    assert reading.detokenize_call({"tokens": []}).ids == ()
    assert refusal(reading.detokenize_call, body={"tokens": "x"}).param == "tokens"
    assert refusal(reading.detokenize_call, body={"tokens": [1, "x"]}).param == "tokens[1]"


def test_fits_are_asked_for_as_fastchat_does() -> None:
    asked = {"prompts": [{"model": "m", "prompt": "Hi", "max_tokens": 5}]}
    assert reading.token_checks(asked) == (TokenCheckCall(model="m", prompt="Hi", max_tokens=5),)
    wrong = {"prompts": [{"model": "m", "prompt": "Hi", "max_tokens": -5}]}
    assert refusal(reading.token_checks, body=wrong).param == "prompts[0].max_tokens"


def test_the_models_own_limit_does_not_bind_a_completion() -> None:
    from dataclasses import replace

    own = replace(DEFAULT, max_new_tokens=8)
    call = reading.completion_calls({"model": "m", "prompt": "x", "max_tokens": None}, own)
    assert call.requests[0].sampling.max_new_tokens is None
    assert reading.chat_request({"model": "m", "messages": ASKED}, own).request.sampling.max_new_tokens == 8
