"""Deltas into answers of completions, whole and streamed: many prompts, echo, log-probabilities."""

from typing import Any

from llmctl.core.types import Delta
from llmctl.services.openai.answers import Completion
from llmctl.services.openai.calls import Echo
from llmctl.services.openai.completions import CompletionAnswer, CompletionStream
from tests.services.openai.given import HEAD, completion, end, events, piece, token

Said = tuple[Delta, int]


def answered(*deltas: Delta | Said, echoes: tuple[Echo, ...] = (), **fields: Any) -> dict[str, Any]:
    answer = CompletionAnswer(completion(**fields), HEAD, echoes=echoes)
    for delta, prompt in map(_numbered, deltas):
        answer.push(delta, prompt=prompt)
    whole = answer.whole()
    Completion.model_validate(whole)
    return whole


def streamed(*deltas: Delta | Said, echoes: tuple[Echo, ...] = (), **fields: Any) -> list[dict[str, Any]]:
    stream = CompletionStream(completion(stream=True, **fields), HEAD, echoes=echoes)
    sent = [stream.push(delta, prompt=prompt) for delta, prompt in map(_numbered, deltas)]
    said = events(b"".join(sent) + stream.end())
    for each in said:
        Completion.model_validate(each)
    return said


def _numbered(delta: Delta | Said) -> Said:
    return (delta, 0) if isinstance(delta, Delta) else delta


def test_an_answer_is_one_object() -> None:
    answer = answered(piece("upon"), end(4, 2, text=" a"))
    (choice,) = answer["choices"]
    assert choice == {"index": 0, "text": "upon a", "logprobs": None, "finish_reason": "stop"}
    assert answer["object"] == "text_completion"
    assert answer["usage"] == {"prompt_tokens": 4, "completion_tokens": 2, "total_tokens": 6}


def test_a_stream_ends_with_a_reason_and_no_text() -> None:
    said = streamed(
        piece("upon"), piece(" a"), end(4, 3, text=" time"), stream_options={"include_usage": True}
    )
    *chunks, usage = said
    choices = [each["choices"][0] for each in chunks]
    assert [each["text"] for each in choices] == ["upon", " a", " time", ""]
    assert [each["finish_reason"] for each in choices] == [None, None, None, "stop"]
    assert (usage["choices"], usage["usage"]["total_tokens"]) == ([], 7)


MANY: tuple[Said, ...] = (
    (piece("b0", index=0), 1),
    (piece("a1", index=1), 0),
    (piece("a0", index=0), 0),
    (end(2, 1, index=0), 1),
    (piece("b1", index=1), 1),
    (end(5, 1, index=0), 0),
    (end(5, 1, index=1), 0),
    (end(2, 1, index=1), 1),
)


def test_choices_of_many_prompts_are_in_their_order() -> None:
    answer = answered(*MANY, prompt=["a", "b"], n=2)
    assert [(each["index"], each["text"]) for each in answer["choices"]] == [
        (0, "a0"),
        (1, "a1"),
        (2, "b0"),
        (3, "b1"),
    ]
    assert answer["usage"] == {"prompt_tokens": 7, "completion_tokens": 4, "total_tokens": 11}


def test_choices_of_many_prompts_stream_at_once() -> None:
    said = streamed(*MANY, prompt=["a", "b"], n=2, stream_options={"include_usage": True})
    texts: dict[int, str] = {}
    for each in said[:-1]:
        (choice,) = each["choices"]
        texts[choice["index"]] = texts.get(choice["index"], "") + choice["text"]
    assert texts == {0: "a0", 1: "a1", 2: "b0", 3: "b1"}
    assert said[-1]["usage"]["total_tokens"] == 11


def test_reasoning_is_text_where_there_are_no_turns() -> None:
    deltas = Delta(reasoning="Hm. ", token_ids=(1,)), piece("Yes"), end()
    assert answered(*deltas)["choices"][0]["text"] == "Hm. Yes"
    assert "".join(each["choices"][0]["text"] for each in streamed(*deltas)) == "Hm. Yes"


ECHO = (Echo(text="Once up", first_token="Once"),)
PROMPT = (token(" up", -2.0, others=[(" in", -0.5), (" up", -2.0)]),)
TOKENS = (
    piece("", prompt_logprobs=PROMPT, logprobs=(token("on"),)),
    piece("on a", logprobs=(token(" a", -1.0, others=[(" a", -1.0), (" the", -3.0)]),)),
    end(2, 3),
)
LEGACY: dict[str, list[Any]] = {
    "tokens": ["Once", " up", "on", " a"],
    "token_logprobs": [None, -2.0, -0.5, -1.0],
    "top_logprobs": [None, {" in": -0.5, " up": -2.0}, {"on": -0.5}, {" a": -1.0, " the": -3.0}],
    "text_offset": [0, 4, 7, 9],
}


def test_log_probabilities_are_parallel_lists_and_the_first_of_an_echo_is_null() -> None:
    (choice,) = answered(*TOKENS, echoes=ECHO, echo=True, logprobs=2)["choices"]
    assert choice["text"] == "Once upon a"
    assert choice["logprobs"] == LEGACY
    for one, offset in zip(LEGACY["tokens"][2:], LEGACY["text_offset"][2:], strict=True):
        assert choice["text"][offset:].startswith(one) or one == "on"


def test_a_stream_tells_the_same_log_probabilities() -> None:
    said = [each["choices"][0] for each in streamed(*TOKENS, echoes=ECHO, echo=True, logprobs=2)]
    assert [each["text"] for each in said] == ["Once up", "", "on a", ""]
    told = [each["logprobs"] for each in said if each["logprobs"] is not None]
    joined: dict[str, list[Any]] = {key: [one for each in told for one in each[key]] for key in LEGACY}
    assert joined == LEGACY


def test_every_choice_repeats_the_prompt() -> None:
    deltas = (
        piece("a", index=1, prompt_logprobs=PROMPT, logprobs=(token("a"),)),
        piece("b", index=0, logprobs=(token("b"),)),
        end(2, 1, index=0),
        end(2, 1, index=1),
    )
    whole = answered(*deltas, echoes=ECHO, echo=True, logprobs=0, n=2)["choices"]
    assert [each["text"] for each in whole] == ["Once upb", "Once upa"]
    assert [each["logprobs"]["tokens"] for each in whole] == [["Once", " up", "b"], ["Once", " up", "a"]]
    assert whole[0]["logprobs"]["top_logprobs"] == [None, {" up": -2.0}, {"b": -0.5}]
    said = [each["choices"][0] for each in streamed(*deltas, echoes=ECHO, echo=True, logprobs=0, n=2)]
    echoed = [each["index"] for each in said if each["text"] == "Once up"]
    assert sorted(echoed) == [0, 1]
    assert all(
        each["logprobs"]["token_logprobs"] == [None, -2.0] for each in said if each["text"] == "Once up"
    )


def test_an_echo_alone_has_no_answer() -> None:
    deltas = piece("on", prompt_logprobs=PROMPT, logprobs=(token("on"),)), end(2, 1, text="x")
    answer = answered(*deltas, echoes=ECHO, echo=True, logprobs=1, max_tokens=0)
    (choice,) = answer["choices"]
    assert (choice["text"], choice["finish_reason"]) == ("Once up", "length")
    assert choice["logprobs"]["tokens"] == ["Once", " up"]
    assert answer["usage"] == {"prompt_tokens": 2, "completion_tokens": 0, "total_tokens": 2}
    said = streamed(*deltas, echoes=ECHO, echo=True, logprobs=1, max_tokens=0)
    assert [each["choices"][0]["text"] for each in said] == ["Once up", ""]


def test_nothing_is_answered_when_nothing_is_wanted() -> None:
    said = streamed(piece("on"), piece("x"), end(2, 1), max_tokens=0)
    assert [each["choices"][0]["text"] for each in said] == [""]
    assert answered(piece("on"), end(2, 1), max_tokens=0)["choices"][0]["text"] == ""


def test_offsets_are_where_tokens_are_in_the_text() -> None:
    # Special tokens and parts of a character take no place, and a token may lack its space.
    echo = (Echo(text="Hi 👍 there", first_token="<s>"),)
    prompt = tuple(token(each) for each in ("Hi", "\ufffd", "\ufffd", "there"))
    (choice,) = answered(
        piece("!", prompt_logprobs=prompt, logprobs=(token("!"),)), end(), echoes=echo, echo=True, logprobs=0
    )["choices"]
    assert choice["logprobs"]["text_offset"] == [0, 0, 2, 2, 5, 10]


def test_log_probabilities_of_the_prompt_come_with_each_choice() -> None:
    deltas = (piece("a", prompt_logprobs=PROMPT), 0), (end(), 0), (piece("b"), 1), (end(), 1)
    first, second = answered(*deltas, prompt=["a", "b"], prompt_logprobs=1)["choices"]
    assert first["prompt_logprobs"][0] is None
    assert set(first["prompt_logprobs"][1]) == {"3"}
    assert second["prompt_logprobs"] == [None]


def test_the_likeliest_of_tokens_with_one_text_counts() -> None:
    told = token("x", -4.0, others=[("\ufffd", -0.1), ("\ufffd", -3.0)])
    (choice,) = answered(piece("x", logprobs=(told,)), end(), logprobs=2)["choices"]
    assert choice["logprobs"]["top_logprobs"] == [{"x": -4.0, "\ufffd": -0.1}]
