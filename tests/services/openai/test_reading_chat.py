"""Bodies of chat into requests of the seam, or errors that name the field."""

from typing import Any

import pytest

from llmctl.core.types import Message
from tests.services.openai.given import ASKED, DEFAULT, chat, refusal


def test_what_is_left_out_or_null_is_the_models_own() -> None:
    call = chat(temperature=None, n=None, stop=None, stream=None, seed=None, logprobs=None, tools=None)
    assert call == chat()
    assert call.request.sampling == DEFAULT
    assert not call.delivery.streams


@pytest.mark.parametrize(
    ("field", "value", "own", "expected"),
    [
        ("temperature", 0, "temperature", 0.0),
        ("top_p", 0.5, "top_p", 0.5),
        ("top_k", 5, "top_k", 5),
        ("top_k", -1, "top_k", 0),
        ("min_p", 0.1, "min_p", 0.1),
        ("repetition_penalty", 1.2, "repetition_penalty", 1.2),
        ("presence_penalty", -1, "presence_penalty", -1.0),
        ("frequency_penalty", 2, "frequency_penalty", 2.0),
        ("logit_bias", {"7": -100, "3": 1}, "logit_bias", ((3, 1.0), (7, -100.0))),
        ("logit_bias", {}, "logit_bias", ()),
        ("n", 3, "n", 3),
        ("seed", 7, "seed", 7),
        ("seed", -1, "seed", 2**63 - 1),
        ("stop", "x", "stop", ("x",)),
        ("stop", ["x", "y"], "stop", ("x", "y")),
        ("stop", [], "stop", ()),
        ("stop_token_ids", [2, 3], "stop_token_ids", (2, 3)),
        ("bad_words", ["x"], "bad_words", ("x",)),
        ("allowed_token_ids", [1, 2], "allowed_token_ids", (1, 2)),
        ("min_tokens", 4, "min_tokens", 4),
        ("ignore_eos", True, "ignore_eos", True),
        ("max_tokens", 5, "max_new_tokens", 5),
        ("max_completion_tokens", 5, "max_new_tokens", 5),
        ("prompt_logprobs", 2, "prompt_logprobs", 2),
        ("logprobs", True, "logprobs", 0),
        ("logprobs", False, "logprobs", None),
    ],
)
def test_a_sampling_parameter_is_taken(field: str, value: Any, own: str, expected: Any) -> None:
    assert getattr(chat(**{field: value}).request.sampling, own) == expected


def test_likeliest_tokens_are_taken_with_log_probabilities_alone() -> None:
    assert chat(logprobs=True, top_logprobs=4).request.sampling.logprobs == 4
    assert refusal(chat, top_logprobs=4).param == "top_logprobs"
    assert refusal(chat, logprobs=False, top_logprobs=0).param == "top_logprobs"
    error = refusal(chat, logprobs=True, top_logprobs=21)
    assert (error.param, "top_logprobs must be at least 0" in error.message) == ("top_logprobs", True)


def test_the_newer_name_of_the_limit_wins() -> None:
    assert chat(max_tokens=5, max_completion_tokens=7).request.sampling.max_new_tokens == 7
    assert chat(max_tokens=5, max_completion_tokens=5).request.sampling.max_new_tokens == 5
    assert refusal(chat, max_tokens=0, max_completion_tokens=7).param == "max_tokens"


@pytest.mark.parametrize(
    ("field", "value", "told"),
    [
        ("temperature", -1, "temperature must be at least 0 and at most 100, not -1"),
        ("temperature", "hot", "temperature must be a number, not 'hot'"),
        ("temperature", 1e400, "temperature must be at least 0 and at most 100, not inf"),
        ("temperature", float("nan"), "temperature must be at least 0 and at most 100, not nan"),
        ("top_k", -2, "top_k must be at least 0, not -2"),
        ("n", 0, "n must be at least 1 and at most 128, not 0"),
        ("n", True, "n must be a whole number, not True"),
        ("seed", 2**63, "seed must be at least 0"),
        ("max_tokens", 0, "max_tokens must be at least 1, not 0"),
        ("max_completion_tokens", -5, "max_completion_tokens must be at least 1, not -5"),
        ("logit_bias", {"a": 1}, "logit_bias: 'a' is no token id"),
        ("logit_bias", {"1": 101}, "logit_bias of token 1 must be at least -100"),
        ("stop", [""], "stop must be a string or a list of strings that are not empty"),
        ("stop", ["x"] * 65, "stop must hold at most 64 strings, not 65"),
        ("stop", "x" * 1001, "stop must have at most 1000 characters each, not 1001"),
        ("stop_token_ids", [-1], "stop_token_ids must be a list of token ids"),
        ("ignore_eos", 1, "ignore_eos must be true or false, not 1"),
        ("stream", "yes", "stream must be a valid boolean, not 'yes'"),
        ("logprobs", 3, "logprobs must be a valid boolean, not 3"),
        ("priority", 2**40, "priority must be less than"),
        ("user", 5, "user must be a valid string, not 5"),
        ("reasoning_effort", "huge", "reasoning_effort must be 'none', 'minimal'"),
        ("chat_template_kwargs", [], "chat_template_kwargs must be a valid dictionary, not []"),
        ("model", None, "model is missing"),
        ("messages", None, "messages is missing"),
        ("messages", [], "messages must not be empty"),
        ("messages", "Hi", "messages must be a valid list, not 'Hi'"),
    ],
)
def test_a_wrong_value_is_refused_by_name(field: str, value: Any, told: str) -> None:
    error = refusal(chat, **{field: value})
    assert error.param == field
    assert error.message.startswith(told)
    assert error.http_status == 400


def test_lengths_that_exclude_each_other_are_told_in_the_clients_words() -> None:
    error = refusal(chat, max_completion_tokens=5, min_tokens=9)
    assert error.message == "min_tokens must be at most 5 (max_completion_tokens), not 9"
    assert error.hint == "give a smaller one, or a larger max_completion_tokens"
    assert error.param == "min_tokens"


def test_a_misspelt_field_is_told_its_neighbour() -> None:
    error = refusal(chat, temprature=1)
    assert (error.param, error.message) == ("temprature", "temprature is no field here")
    assert error.hint == "did you mean 'temperature'?"
    assert (refusal(chat, nothing_like_it=1).hint or "").startswith("known: add_generation_prompt, ")
    assert refusal(chat, stream=True, stream_options={"usage": True}).param == "stream_options.usage"


def test_a_large_value_does_not_come_back() -> None:
    for error in (
        refusal(chat, stop=[["x" * 100_000]]),
        refusal(chat, **{"y" * 100_000: 1}),
        refusal(chat, tools=["x" * 100_000]),
        refusal(chat, messages="x" * 100_000),
    ):
        assert len(error.message) + len(error.param) + len(error.hint or "") < 2000


def test_a_stream_and_what_it_tells() -> None:
    call = chat(stream=True, stream_options={"include_usage": True, "continuous_usage_stats": True})
    assert (call.delivery.streams, call.delivery.includes_usage, call.delivery.counts_usage) == (
        True,
        True,
        True,
    )
    assert not chat(stream=True, stream_options={"include_obfuscation": False}).delivery.includes_usage
    assert refusal(chat, stream_options={"include_usage": True}).param == "stream_options"
    assert refusal(chat, stream=True, prompt_logprobs=1).param == "prompt_logprobs"


def test_priority_is_taken() -> None:
    assert chat(priority=-3).request.priority == -3


# Messages


def said(*messages: dict[str, Any]) -> tuple[Message, ...]:
    return chat(messages=list(messages)).request.messages


def test_a_developer_is_the_system() -> None:
    assert said({"role": "developer", "content": "Be brief."}, *ASKED) == (
        Message(role="system", content="Be brief."),
        Message(role="user", content="Hi"),
    )


def test_parts_of_text_become_one_text() -> None:
    parts = [{"type": "text", "text": "one"}, {"type": "text", "text": "two"}]
    assert said({"role": "user", "content": parts}) == (Message(role="user", content="one\ntwo"),)


def test_what_clients_send_back_of_an_answer_is_taken() -> None:
    answer: dict[str, Any] = {
        "role": "assistant",
        "content": "Yes.",
        "refusal": None,
        "annotations": [],
        "audio": None,
        "function_call": None,
        "tool_calls": None,
    }
    assert said(*ASKED, answer, *ASKED)[1] == Message(role="assistant", content="Yes.")
    refused = {"role": "assistant", "content": None, "refusal": "I cannot."}
    assert said(*ASKED, refused)[1] == Message(role="assistant", content="I cannot.")


def test_names_reasoning_and_tools_are_kept_for_the_template() -> None:
    call = {"id": "c1", "type": "function", "function": {"name": "now", "arguments": '{"zone": "UTC"}'}}
    messages = said(
        {"role": "user", "content": "When?", "name": "Ann"},
        {"role": "assistant", "content": None, "reasoning_content": "Look.", "tool_calls": [call]},
        {"role": "tool", "content": "12:00", "tool_call_id": "c1"},
    )
    assert messages[0].fields == {"name": "Ann"}
    asked = {"id": "c1", "type": "function", "function": {"name": "now", "arguments": {"zone": "UTC"}}}
    assert messages[1].fields == {"reasoning_content": "Look.", "tool_calls": [asked]}
    assert messages[2].fields == {"tool_call_id": "c1"}
    assert [each.content for each in messages] == ["When?", "", "12:00"]


@pytest.mark.parametrize(
    ("message", "param", "told"),
    [
        ({}, "messages[0].role", "is missing"),
        ("Hi", "messages[0]", "must be an object, not 'Hi'"),
        ({"role": "function", "content": "1"}, "messages[0].role", "must be one of system, developer"),
        ({"role": ["user"], "content": "1"}, "messages[0].role", "must be one of system, developer"),
        ({"role": "user"}, "messages[0].content", "is missing"),
        ({"role": "user", "content": None}, "messages[0].content", "is missing"),
        ({"role": "user", "content": 5}, "messages[0].content", "must be a string or a list of parts, not 5"),
        ({"role": "user", "content": []}, "messages[0].content", "must not be empty"),
        ({"role": "user", "content": "\ud800"}, "messages[0].content", "must be valid Unicode"),
        ({"role": "user", "content": ["x"]}, "messages[0].content[0]", "must be an object, not 'x'"),
        ({"role": "user", "content": [{"type": "text"}]}, "messages[0].content[0].text", "is missing"),
        ({"role": "user", "content": "x", "user": 1}, "messages[0].user", "is no field here"),
        (
            {"role": "user", "content": "x", "cache_control": 1},
            "messages[0].cache_control",
            "is no field here",
        ),
        ({"role": "assistant"}, "messages[0].content", "is missing"),
        (
            {"role": "assistant", "content": "", "audio": {"id": "a"}},
            "messages[0].audio",
            "{'id': 'a'} is not",
        ),
        ({"role": "assistant", "tool_calls": [{}]}, "messages[0].tool_calls[0].function", "is missing"),
        (
            {"role": "assistant", "tool_calls": [{"function": {"name": "f", "arguments": "[]"}}]},
            "messages[0].tool_calls[0].function.arguments",
            "must be a JSON object, as text",
        ),
        (
            {
                "role": "assistant",
                "tool_calls": [{"type": "custom", "function": {"name": "f", "arguments": ""}}],
            },
            "messages[0].tool_calls[0].type",
            "must be 'function', not 'custom'",
        ),
    ],
)
def test_a_wrong_message_is_refused_by_its_place(message: Any, param: str, told: str) -> None:
    error = refusal(chat, messages=[message])
    assert error.param == param
    assert error.message.startswith(f"{param} {told}")


@pytest.mark.parametrize("kind", ["image_url", "input_audio", "file"])
def test_what_is_no_text_is_refused(kind: str) -> None:
    parts = [{"type": "text", "text": "Look:"}, {"type": kind, kind: {"url": "x"}}]
    error = refusal(chat, messages=[{"role": "user", "content": parts}])
    assert (error.param, error.hint) == (
        "messages[0].content[1].type",
        "this server reads no images, sounds or files",
    )


# The template


def test_an_answer_can_be_continued() -> None:
    begun = [*ASKED, {"role": "assistant", "content": "Hel"}]
    assert not chat(messages=begun).request.continues_last
    assert chat(messages=begun, continue_final_message=True).request.continues_last
    ours = chat(messages=begun, continue_final_message=True, add_generation_prompt=False)
    assert ours.request.continues_last
    both = {"continue_final_message": True, "add_generation_prompt": True}
    assert refusal(chat, messages=begun, **both).param == "add_generation_prompt"
    assert refusal(chat, continue_final_message=True).param == "continue_final_message"
    assert refusal(chat, add_generation_prompt=False).param == "add_generation_prompt"


def test_the_template_is_told_what_it_reads() -> None:
    request = chat(chat_template_kwargs={"enable_thinking": False, "date": "today"}).request
    assert request.template_kwargs == {"enable_thinking": False, "date": "today"}
    assert request.reasons is False
    assert chat(chat_template_kwargs={"date": "today"}).request.reasons is None
    error = refusal(chat, chat_template_kwargs={"tools": [1]})
    assert error.param == "chat_template_kwargs.tools"


@pytest.mark.parametrize(("effort", "reasons"), [("none", False), ("low", True), ("max", True), (None, None)])
def test_an_effort_switches_reasoning(effort: str | None, reasons: bool | None) -> None:
    request = chat(reasoning_effort=effort).request
    assert request.reasons is reasons
    assert request.template_kwargs.get("reasoning_effort") == effort
