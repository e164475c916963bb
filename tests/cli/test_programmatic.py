"""`--style programmatic`: a JSON object a line in, one a line out."""

import json
from typing import Any

from tests.conftest import Llmctl

QUESTION = "What is the capital of France?"


def _lines(*fields: Any) -> bytes:
    return b"".join(json.dumps(each).encode() + b"\n" for each in fields)


def _told(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


def test_a_line_in_gives_a_line_out_and_eof_ends(llmctl: Llmctl) -> None:
    ended = llmctl("chat", "--style", "programmatic", stdin=_lines({"prompt": QUESTION, "temperature": 0}))
    assert (ended.code, ended.err) == (0, "")
    (told,) = _told(ended.out)
    assert "Paris" in told["text"]
    assert told["finish_reason"] == "stop"
    assert told["usage"]["completion_tokens"] > 0


def test_no_line_at_all_is_a_clean_end(llmctl: Llmctl) -> None:
    ended = llmctl("chat", "--style", "programmatic", stdin=b"\n\n")
    assert (ended.code, ended.out, ended.err) == (0, "", "")


def test_the_conversation_is_kept_between_prompts_but_not_by_messages(llmctl: Llmctl) -> None:
    alone = {"messages": [{"role": "user", "content": QUESTION}]}
    ended = llmctl(
        "chat", "--style", "programmatic", stdin=_lines({"prompt": QUESTION}, alone, {"prompt": QUESTION})
    )
    first, single, second = _told(ended.out)
    assert first["usage"]["prompt_tokens"] == single["usage"]["prompt_tokens"]
    grown = first["usage"]["prompt_tokens"] + first["usage"]["completion_tokens"]
    assert second["usage"]["prompt_tokens"] > grown


def test_sampling_of_a_line_holds_for_that_line(llmctl: Llmctl) -> None:
    story = {"prompt": "Tell me a story.", "raw": True}
    ended = llmctl("chat", "--style", "programmatic", stdin=_lines({**story, "max_tokens": 3}, story))
    short, long = _told(ended.out)
    assert (short["finish_reason"], short["usage"]["completion_tokens"]) == ("length", 3)
    assert long["usage"]["completion_tokens"] > 3


def test_raw_lines_are_not_templated_and_logprobs_come_along(llmctl: Llmctl) -> None:
    ended = llmctl(
        "chat",
        "--style",
        "programmatic",
        stdin=_lines({"prompt": "One", "raw": True, "logprobs": 1, "max_tokens": 2}),
    )
    (told,) = _told(ended.out)
    assert told["usage"]["prompt_tokens"] <= 3
    assert len(told["logprobs"]) == 2


def test_a_line_cannot_ask_for_several_answers(llmctl: Llmctl) -> None:
    ended = llmctl("chat", "--style", "programmatic", stdin=_lines({"prompt": "x", "n": 2}))
    (told,) = _told(ended.out)
    assert told["error"]["message"].startswith("line 1: n is 2, and a line has one answer")
    assert ended.code == 2


def test_a_bad_line_gives_an_error_in_its_place_and_the_rest_goes_on(llmctl: Llmctl) -> None:
    ended = llmctl(
        "chat",
        "--style",
        "programmatic",
        stdin=b"{broken\n"
        + _lines({"prompt": 5}, {"prompt": "x", "temprature": 1}, [], {"prompt": QUESTION}),
    )
    *bad, good = _told(ended.out)
    assert [line["error"]["code"] for line in bad] == ["bad_file", "usage", "usage", "usage"]
    assert "temperature" in bad[2]["error"]["hint"]
    assert all(f"line {number}" in line["error"]["message"] for number, line in enumerate(bad, start=1))
    assert "Paris" in good["text"]
    assert ended.code == 7


def test_half_a_character_costs_its_own_line_only(llmctl: Llmctl) -> None:
    ended = llmctl(
        "chat", "--style", "programmatic", stdin=b'{"prompt": "\\ud800"}\n' + _lines({"prompt": QUESTION})
    )
    bad, good = _told(ended.out)
    assert "not valid Unicode" in bad["error"]["message"]
    assert "Paris" in good["text"]


def test_the_system_message_holds_for_messages_too_and_raw_refuses_them(llmctl: Llmctl) -> None:
    line = _lines({"messages": [{"role": "user", "content": QUESTION}]})
    (with_system,) = _told(llmctl("chat", "-s", "Be very brief.", "--style", "programmatic", stdin=line).out)
    (without,) = _told(llmctl("chat", "--style", "programmatic", stdin=line).out)
    assert with_system["usage"]["prompt_tokens"] > without["usage"]["prompt_tokens"]
    assert "error" in _told(llmctl("chat", "--raw", "--style", "programmatic", stdin=line).out)[0]


def test_one_parameter_under_two_names_is_refused(llmctl: Llmctl) -> None:
    line = _lines({"prompt": "x", "max_tokens": 3, "max_new_tokens": 4})
    (told,) = _told(llmctl("chat", "--style", "programmatic", stdin=line).out)
    assert "given twice" in told["error"]["message"]
