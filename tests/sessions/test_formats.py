"""Conversations as markdown and JSON: readable, lossless, and strict about what is read."""

import json
import re
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmctl.core.errors import BadFileError
from llmctl.core.types import ROLES, Message, Role
from llmctl.sessions.formats import from_json, label, to_json, to_markdown
from llmctl.sessions.store import Session, Turn


def session(**details: Any) -> Session:
    given = {"name": "rome", "title": "Where?", "model": "demo", "num_turns": 2, **details}
    return Session(id=7, created=1.7e9, updated=1.7e9 + 60, **given)


def turns(*said: tuple[Role, str] | tuple[Role, str, dict[str, Any]]) -> list[Turn]:
    """Turns of a session, numbered from 1."""
    made = []
    for number, (role, content, *rest) in enumerate(said, start=1):
        details = {"is_retracted": False, **cast(dict[str, Any], rest[0] if rest else {})}
        made.append(
            Turn(id=number, session_id=7, created=1.7e9 + number, role=role, content=content, **details)
        )
    return made


def read(value: Any) -> tuple[str | None, list[tuple[str, str]]]:
    loaded = from_json(value, where="talk.json")
    assert len(loaded.reasonings) == len(loaded.messages)
    return loaded.system, [(message.role, message.content) for message in loaded.messages]


# Markdown


def test_markdown_has_a_front_line_and_a_heading_for_each_turn() -> None:
    text = to_markdown(session(), turns(("system", "Be brief."), ("user", "Where?"), ("assistant", "Italy.")))
    lines = text.splitlines()
    assert lines[0] == "# rome"
    assert re.fullmatch(r"2023-11-1\d \d\d:\d\d · demo · session 7", lines[2])
    assert text.split("\n", 4)[4] == "## System\n\nBe brief.\n\n## User\n\nWhere?\n\n## Assistant\n\nItaly.\n"


def test_reasoning_stands_quoted_before_the_answer() -> None:
    text = to_markdown(session(), turns(("assistant", "Italy.", {"reasoning": "Rome,\n\nso # Italy"})))
    assert text.endswith("## Assistant\n\n> Reasoning:\n>\n> Rome,\n>\n> so # Italy\n\nItaly.\n")


@pytest.mark.parametrize(
    ("details", "heading"),
    [
        ({"finish_reason": "stop"}, "## Assistant"),
        ({"finish_reason": "cancelled"}, "## Assistant (stopped)"),
        ({"finish_reason": "length"}, "## Assistant (cut off at the token limit)"),
        ({"is_retracted": True}, "## Assistant (undone)"),
        ({"is_retracted": True, "finish_reason": "cancelled"}, "## Assistant (stopped) (undone)"),
    ],
)
def test_a_heading_says_what_became_of_the_answer(details: dict[str, Any], heading: str) -> None:
    assert f"\n{heading}\n" in to_markdown(session(), turns(("assistant", "x", details)))


@pytest.mark.parametrize(
    ("content", "closing"),
    [
        ("no fence", ""),
        ("```python\nx = 1", "\n```"),
        ("```python\nx = 1\n```", ""),
        ("````\n```\nx", "\n````"),
        ("````\n```\nx\n````", ""),
        ("~~~\n```\nx", "\n~~~"),
        ("```\nx\n```\n\n```\ny", "\n```"),
        ("```\nx\n``` not a closing\ny", "\n```"),
        ("    ```\nindented", ""),
        ("inline ```x", ""),
        ("```x``` inline", ""),
        ("```\r\nx\r\n```\r\ndone", ""),
        ("# a heading\n## User\ntext", ""),
    ],
)
def test_content_stays_as_it_is_but_for_a_block_left_open(content: str, closing: str) -> None:
    text = to_markdown(session(), turns(("assistant", content), ("user", "next")))
    assert f"## Assistant\n\n{content}{closing}\n\n## User\n\nnext\n" in text


@pytest.mark.parametrize(
    ("details", "expected"),
    [({}, "rome"), ({"name": None}, "Where?"), ({"name": None, "title": ""}, "Session 7")],
)
def test_a_session_is_called_by_the_best_there_is(details: dict[str, Any], expected: str) -> None:
    assert label(session(**details)) == expected
    assert to_markdown(session(**details), []).startswith(f"# {expected}\n")


# JSON out and in


def test_json_holds_everything_that_is_known() -> None:
    details = {
        "reasoning": "r",
        "model": "demo",
        "endpoint": "http://127.0.0.1:1",
        "finish_reason": "length",
        "prompt_tokens": 0,
        "completion_tokens": 2,
        "first_token_s": 0.0,
        "total_s": 1.5,
    }
    value = to_json(session(), turns(("system", "S"), ("user", "q"), ("assistant", "a", details)))
    assert list(value) == [
        "llmctl_session",
        "id",
        "name",
        "title",
        "model",
        "created",
        "updated",
        "system",
        "messages",
    ]
    assert (value["system"], value["created"][:8]) == ("S", "2023-11-")
    question, answer = value["messages"]
    assert list(question) == ["role", "content", "created"]
    assert answer.pop("created").startswith("2023-11-")
    assert answer == {"role": "assistant", "content": "a", **details}


def test_the_system_message_is_the_last_that_was_not_taken_back() -> None:
    said = turns(
        ("system", "old", {"is_retracted": True}),
        ("user", "q"),
        ("system", "new"),
        ("system", "newest", {"is_retracted": True}),
    )
    value = to_json(session(), said)
    assert value["system"] == "new"
    assert [message["content"] for message in value["messages"]] == ["old", "q", "newest"]
    assert read(value) == ("new", [("user", "q")])


SAID = st.tuples(
    st.sampled_from(ROLES),
    st.text(),
    st.fixed_dictionaries({"is_retracted": st.booleans(), "reasoning": st.text()}),
)


@given(st.lists(SAID, min_size=1, max_size=6))
def test_what_is_written_is_what_is_read(said: list[tuple[Role, str, dict[str, Any]]]) -> None:
    made = turns(*said)
    live = [turn for turn in made if not turn.is_retracted]
    systems = [turn for turn in live if turn.role == "system"]
    value = json.loads(json.dumps(to_json(session(), made)))
    if not live or (len(live) == len(systems) == 1 and not systems[0].content):
        with pytest.raises(BadFileError, match="at least one message"):
            read(value)
        return
    loaded = from_json(value, where="talk.json")
    kept = [turn for turn in live if not systems or turn is not systems[-1]]
    assert loaded.system == (systems[-1].content if systems else None)
    assert loaded.messages == tuple(Message(role=turn.role, content=turn.content) for turn in kept)
    assert loaded.reasonings == tuple(turn.reasoning for turn in kept)


U, A = {"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}
S = {"role": "system", "content": "s"}
FASTCHAT = {
    "template_name": "one_shot",
    "system_message": "Be kind.",
    "roles": ["Human", "Assistant"],
    "messages": [["Human", "example"], ["Assistant", "shot"], ["Human", "q"], ["Assistant", "a"]],
    "offset": 2,
}


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ([U], (None, [("user", "q")])),
        ([S, U, A], ("s", [("user", "q"), ("assistant", "a")])),
        ([U, S], (None, [("user", "q"), ("system", "s")])),
        ([S], ("s", [])),
        ({"messages": [S, U]}, ("s", [("user", "q")])),
        ({"messages": [U], "system": "s"}, ("s", [("user", "q")])),
        ({"messages": [U], "model": "demo"}, (None, [("user", "q")])),
        ([{"role": "tool", "content": ""}], (None, [("tool", "")])),
        ({"llmctl_session": 1, "messages": [U], "system": None}, (None, [("user", "q")])),
        (FASTCHAT, ("Be kind.", [("user", "q"), ("assistant", "a")])),
        (
            {**FASTCHAT, "offset": 0, "system_message": ""},
            (None, [*[("user", "example"), ("assistant", "shot")], *[("user", "q"), ("assistant", "a")]]),
        ),
        (
            {**FASTCHAT, "messages": [["Human", "q"], ["Assistant", None]], "offset": 0},
            ("Be kind.", [("user", "q")]),
        ),
        ({"roles": ["a", "b"], "messages": [["b", "hi"]]}, (None, [("assistant", "hi")])),
    ],
)
def test_other_forms_are_read(value: Any, expected: tuple[str | None, list[tuple[str, str]]]) -> None:
    assert read(value) == expected


def test_reasoning_is_read_beside_its_message() -> None:
    loaded = from_json([U, {**A, "reasoning": "because"}], where="x")
    assert loaded.reasonings == ("", "because")


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (None, ["no conversation", "null"]),
        (5, ["no conversation", "5"]),
        ("text", ["no conversation", "text"]),
        ({}, ["no conversation", "{}"]),
        ({"prompt": "x"}, ["no conversation", "prompt"]),
        ([], ["at least one message"]),
        ({"messages": []}, ["at least one message"]),
        ({"messages": None}, ["at least one message", "null"]),
        ({"messages": {"role": "user"}}, ["at least one message"]),
        ({"messages": [U], "system": 5}, ["system must be text", "5"]),
        ([{**U, "retracted": True}], ["message 0", "retracted", "not supported"]),
        (["hi"], ["message 0", "role", "content", "hi"]),
        ([U, {"role": "user"}], ["message 1", "content"]),
        ([{**U, "name": "x"}], ["message 0", "'name' is not supported"]),
        ([{**U, "role": "owner"}], ["message 0", "owner", "user, assistant"]),
        ([{**U, "role": ["user"]}], ["message 0", "role must be"]),
        ([{**U, "content": [{"type": "text"}]}], ["message 0", "content must be text"]),
        ([{**U, "content": None}], ["message 0", "content must be text", "null"]),
        ([{**U, "reasoning": 1}], ["message 0", "reasoning must be text", "1"]),
        ({"llmctl_session": 2, "messages": [U]}, ["format 2", "reads 1"]),
        ({"llmctl_session": "x", "messages": [U]}, ["format", "x"]),
        ({"llmctl_session": 1, "messages": [{**U, "shape": 1}]}, ["message 0", "shape"]),
        ({"llmctl_session": 1, "messages": [{**U, "retracted": "yes"}]}, ["message 0", "retracted", "yes"]),
        ({**FASTCHAT, "roles": ["one"]}, ["roles", "one"]),
        ({**FASTCHAT, "roles": ["a", "a"]}, ["roles", "two names"]),
        ({**FASTCHAT, "roles": [1, 2]}, ["roles", "two names"]),
        ({**FASTCHAT, "messages": "x"}, ["messages must be a list"]),
        (
            {**FASTCHAT, "messages": [["Human", "q"], ["Robot", "a"]], "offset": 0},
            ["message 1", "Robot", "Human"],
        ),
        ({**FASTCHAT, "messages": [["Human", None], ["Assistant", "a"]], "offset": 0}, ["message 0", "null"]),
        ({**FASTCHAT, "messages": [["Human", ["q", ["image"]]]], "offset": 0}, ["message 0", "image"]),
        ({**FASTCHAT, "messages": [["Human"]], "offset": 0}, ["message 0"]),
        ({**FASTCHAT, "offset": 5}, ["offset", "0 to 4", "5"]),
        ({**FASTCHAT, "offset": -1}, ["offset", "-1"]),
        ({**FASTCHAT, "offset": True}, ["offset", "true"]),
        ({**FASTCHAT, "offset": "2"}, ["offset", '"2"']),
        ({**FASTCHAT, "system_message": None}, ["system_message", "null"]),
        ({**FASTCHAT, "offset": 4, "system_message": ""}, ["at least one message"]),
    ],
)
def test_anything_else_is_refused_naming_where_and_what(value: Any, words: list[str]) -> None:
    with pytest.raises(BadFileError) as caught:
        from_json(value, where="talk.json")
    assert caught.value.message.startswith("talk.json")
    assert [word for word in words if word not in caught.value.message] == []
    assert len(caught.value.message) < 300


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["messages", "roles", "offset", "system", "role", "content", "llmctl_session"]),
            inner,
        )
    ),
)


@given(JSON)
def test_no_value_does_anything_but_load_or_be_refused(value: Any) -> None:
    try:
        loaded = from_json(value, where="talk.json")
    except BadFileError as error:
        message = error.message
    else:
        assert loaded.messages or loaded.system
        message = "talk.json"
    assert message.startswith("talk.json")
