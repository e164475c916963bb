"""The templates by name against FastChat's own prompts, and what a bad row is told."""

from pathlib import Path
from typing import Any

import pytest

from llmctl.core.errors import BadFileError, NotFoundError, UsageError
from llmctl.core.types import ImagePart, Message, TextPart
from llmctl.prompts.library import find, names, read_rows
from llmctl.prompts.render import render
from llmctl.prompts.template import by_name
from tests.prompts.oracle import CONVERSATIONS, DEVIATIONS, ONE_TURN, PIRATE, TWO_TURNS, templates


def prompt(name: str, *messages: Message, **options: Any) -> str:
    return render(by_name(name), messages, special_tokens={}, **options)


def as_tuple(value: Any) -> tuple[Any, ...]:
    return (value,) if isinstance(value, str) else tuple(value or ())


def test_all_templates_that_fastchat_can_render_are_here(shared: Path) -> None:
    assert len(templates(shared)) == 101
    assert set(names()) >= set(templates(shared))


@pytest.mark.parametrize("name", sorted(templates().keys() - DEVIATIONS.keys()))
def test_prompts_are_fastchats_byte_for_byte(name: str) -> None:
    for which, messages in CONVERSATIONS.items():
        assert prompt(name, *messages) == templates()[name][which]


def test_few_templates_deviate_and_each_has_a_reason(shared: Path) -> None:
    assert len(DEVIATIONS) <= 8
    for name, (which, reason) in DEVIATIONS.items():
        assert len(reason.split()) > 5
        differing = {
            one for one in CONVERSATIONS if prompt(name, *CONVERSATIONS[one]) != templates(shared)[name][one]
        }
        assert differing == {which}
    assert prompt("deepseek-coder", PIRATE, *ONE_TURN).startswith("You are a pirate.\n### Instruction:")


def test_roles_stop_rules_and_system_messages_are_fastchats(shared: Path) -> None:
    for name, theirs in templates(shared).items():
        ours = find(name)
        assert list(ours.roles) == theirs["roles"]
        assert ours.stop == as_tuple(theirs["stop_str"])
        assert ours.stop_token_ids == as_tuple(theirs["stop_token_ids"])
        assert list(ours.seed) == [said for _, said in theirs["seed_messages"]]
        assert ours.default_system == theirs["system_message"] or name in DEVIATIONS
        assert ours.source == "FastChat 0.2.36"


def test_every_template_writes_what_is_said_and_nothing_of_the_answer_to_come() -> None:
    for name in names():
        text = prompt(name, *TWO_TURNS)
        assert text.count("What's the weather?") == 1, name
        assert text.startswith(prompt(name, *TWO_TURNS, add_generation_prompt=False)), name


def test_every_answer_can_be_continued() -> None:
    messages = (*ONE_TURN, Message(role="assistant", content="The capital "))
    for name in names():
        text = prompt(name, *messages, continues_last=True)
        expected = "The capital" if dict(find(name).fields)["trims"] else "The capital "
        assert text.endswith(expected), name
        before = text.removesuffix(expected)
        # What opens an answer opens a continued one; a blank behind a colon is the answer's own there.
        assert before.rstrip().endswith(prompt(name, *ONE_TURN).rstrip()), name


def test_an_empty_system_message_takes_the_place_of_the_templates_own() -> None:
    nobody = Message(role="system", content="")
    assert prompt("vicuna_v1.1", nobody, *ONE_TURN) == " USER: Hello! ASSISTANT:"
    assert prompt("llama-2", nobody, *ONE_TURN) == "[INST] Hello! [/INST]"


def test_chatglm_counts_its_rounds_and_cllm_sees_the_last_one_alone() -> None:
    assert "[Round 1]\n问：What" in prompt("chatglm", *TWO_TURNS)
    assert "[Round 2]\n\n问：What" in prompt("chatglm2", *TWO_TURNS)
    assert "Hello!" not in prompt("cllm", *TWO_TURNS)


def test_yuan2_keeps_the_letters_that_fastchat_strips() -> None:
    assert prompt("yuan2", Message(role="user", content="hello in")) == "hello in<sep>"


def test_rwkv_has_no_empty_line_inside_a_turn() -> None:
    said = Message(role="user", content="a\r\nb\n\nc")
    assert prompt("falcon", said) == "User: a\nb\nc\n\nAssistant:"


@pytest.mark.parametrize(
    ("message", "reason"),
    [
        (Message(role="tool", content="42"), "no place for a tool message"),
        (Message(role="system", content="late"), "one system message, before all others"),
        (
            Message(role="user", content="x", parts=(TextPart("x"), ImagePart("cat.png"))),
            "text and no images",
        ),
    ],
)
def test_what_a_template_by_name_cannot_write_is_refused(message: Message, reason: str) -> None:
    with pytest.raises(UsageError, match=reason):
        prompt("zephyr", *ONE_TURN, message)


@pytest.mark.parametrize("name", ["vicuna_v1.1", "VICUNA_V1.1", "tinyllama"])
def test_case_does_not_matter_where_nothing_else_differs(name: str) -> None:
    assert find(name).name.casefold() == name.casefold()


def test_an_unknown_name_is_answered_with_near_ones() -> None:
    with pytest.raises(NotFoundError, match="no template is called 'vicuna_v1'") as caught:
        find("vicuna_v1")
    assert "vicuna_v1.1" in str(caught.value.hint)
    with pytest.raises(NotFoundError) as caught:
        find("%%%%")
    assert "FastChat" in str(caught.value.hint)


ROW = 'source = "x"\n[[template]]\nname = "a"\nroles = ["u", "a"]\n'


@pytest.mark.parametrize(
    ("text", "finding"),
    [
        ("[[template", "here.toml is not valid TOML"),
        (ROW + 'usr = "x"', "here.toml, template 'a': unknown key 'usr'"),
        (ROW + "user = 1", "here.toml, template 'a': user has the wrong type: 1"),
        (ROW + 'trims = "yes"', "here.toml, template 'a': trims has the wrong type: 'yes'"),
        (ROW + ROW.partition("\n")[2], "here.toml: two templates are called 'a'"),
    ],
)
def test_a_bad_row_is_told_by_file_row_and_key(text: str, finding: str) -> None:
    with pytest.raises(BadFileError, match=finding):
        read_rows(text, where="here.toml")


def test_a_rows_own_source_goes_before_the_files() -> None:
    assert read_rows(ROW + 'source = "y"', where="here.toml")["a"].source == "y"


def test_the_source_and_licence_of_the_texts_stand_beside_them() -> None:
    text = (Path(names.__code__.co_filename).parent / "data" / "SOURCES.md").read_text(encoding="utf-8")
    assert "FastChat 0.2.36" in text
    assert "Apache-2.0" in text
