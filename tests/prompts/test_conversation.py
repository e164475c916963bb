"""The conversation as a value, and FastChat's own way of driving one."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmctl.core.errors import UsageError
from llmctl.core.types import ImagePart, Message, TextPart
from llmctl.prompts.conversation import Conversation, ConversationFacade
from llmctl.prompts.library import find
from tests.prompts.oracle import DEVIATIONS, TWO_TURNS, templates

MESSAGES = st.lists(
    st.builds(Message, role=st.sampled_from(["user", "assistant"]), content=st.text(max_size=5)), max_size=5
)


def facade(name: str) -> ConversationFacade:
    """The oracle's conversation: three turns and an open one."""
    made = ConversationFacade(find(name))
    for place, message in enumerate(TWO_TURNS):
        made.append_message(made.roles[place % 2], message.content)
    made.append_message(made.roles[1], None)
    return made


@given(turns=MESSAGES, system=st.none() | st.text(max_size=5))
def test_a_conversation_is_its_messages(turns: list[Message], system: str | None) -> None:
    head = [] if system is None else [Message(role="system", content=system)]
    assert list(Conversation.of([*head, *turns]).messages) == [*head, *turns]


@given(turns=MESSAGES, said=st.text(max_size=5))
def test_dropping_undoes_appending_and_the_first_value_stays(turns: list[Message], said: str) -> None:
    before = Conversation.of(turns)
    after = before.append("user", said)
    assert after.turns[-1] == Message(role="user", content=said)
    assert after.drop() == before == Conversation.of(turns)
    assert before.drop(99).turns == ()


@pytest.mark.parametrize(
    ("turns", "merged"),
    [
        (["user:hi"], ["user:Be brief.\n\nhi"]),
        (["user:hi", "assistant:yes", "user:so"], ["user:Be brief.\n\nhi", "assistant:yes", "user:so"]),
        (["assistant:yes"], ["user:Be brief.", "assistant:yes"]),
        ([], ["user:Be brief."]),
    ],
)
def test_a_system_message_is_merged_into_the_first_question(turns: list[str], merged: list[str]) -> None:
    conversation = Conversation(system="Be brief.")
    for turn in turns:
        role, _, said = turn.partition(":")
        conversation = conversation.append("user" if role == "user" else "assistant", said)
    found = conversation.merge_system()
    assert found.system is None
    assert [f"{message.role}:{message.content}" for message in found.turns] == merged


def test_merging_keeps_images_where_they_are() -> None:
    asked = Message(role="user", content="what?", parts=(ImagePart("cat.png"), TextPart("what?")))
    (merged,) = Conversation(system="Be brief.", turns=(asked,)).merge_system().turns
    assert merged.parts == (TextPart("Be brief.\n\n"), *asked.parts)
    assert merged.content == "Be brief.\n\nwhat?"


def test_without_a_system_message_merging_changes_nothing() -> None:
    talk = Conversation(turns=TWO_TURNS)
    assert talk.merge_system() == talk
    assert talk.with_system("").merge_system() == talk


def test_the_facade_answers_as_fastchat_does(shared: Path) -> None:
    for name, theirs in templates(shared).items():
        made = facade(name)
        assert made.get_prompt() == theirs["prompt_2turn"]
        assert made.to_gradio_chatbot() == theirs["gradio_pairs"]
        assert made.offset == theirs["offset"]
        assert made.stop_str == theirs["stop_str"]
        assert made.stop_token_ids == (theirs["stop_token_ids"] or None)
        assert made.to_openai_api_messages() == theirs["openai_messages"] or name in DEVIATIONS


def test_another_system_message_is_set_as_in_fastchat(shared: Path) -> None:
    for name in templates(shared).keys() - DEVIATIONS.keys():
        made = ConversationFacade(find(name))
        made.set_system_message("You are a pirate.")
        assert made.get_system_message() == "You are a pirate."
        made.append_message(made.roles[0], "Hello!")
        made.append_message(made.roles[1], None)
        assert made.get_prompt() == templates(shared)[name]["prompt_1turn_custom_system"]


def test_an_answer_is_put_in_the_open_turn_and_a_copy_stays_behind() -> None:
    made = facade("vicuna_v1.1")
    behind = made.copy()
    made.update_last_message("Sunny.")
    assert made.get_prompt().endswith("ASSISTANT: Sunny.</s>")
    assert behind.get_prompt().endswith("ASSISTANT:")
    assert made.dict()["messages"][-1] == ["ASSISTANT", "Sunny."]
    assert made.dict()["template_name"] == "vicuna_v1.1"


def test_the_examples_of_a_template_can_be_taken_out() -> None:
    made = facade("one_shot")
    assert "birthday" in made.get_prompt()
    made.messages = made.messages[made.offset :]
    assert "birthday" not in made.get_prompt()


def test_a_role_that_the_template_has_not_is_named() -> None:
    made = ConversationFacade(find("zephyr"))
    made.append_message("USER", "hi")
    with pytest.raises(UsageError, match="template zephyr has no role 'USER'"):
        made.get_prompt()


def test_an_open_question_cannot_be_answered() -> None:
    made = ConversationFacade(find("zephyr"))
    made.append_message(made.roles[0], None)
    with pytest.raises(UsageError, match="nothing to answer"):
        made.get_prompt()
