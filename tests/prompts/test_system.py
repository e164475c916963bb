"""System messages for templates that have no place for them."""

from pathlib import Path

import pytest
import transformers

from llmctl.core.types import ImagePart, Message, TextPart
from llmctl.prompts.library import names
from llmctl.prompts.system import fit_system, takes_system
from llmctl.prompts.template import ChatTemplate, by_name

SYSTEM = Message(role="system", content="Be brief.")
QUESTION = Message(role="user", content="hello")
TURNS = "{% for m in messages %}[{{ m.role }}:{{ m.content }}]{% endfor %}"
DROPS = "{% for m in messages if m.role != 'system' %}[{{ m.role }}:{{ m.content }}]{% endfor %}"
REFUSES = (
    "{% if messages[0].role == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}"
    + TURNS
)


@pytest.mark.parametrize("text", [DROPS, REFUSES])
def test_a_system_message_without_a_place_is_put_before_the_question_and_said_so(text: str) -> None:
    fitted = fit_system(ChatTemplate(text, "mine"), (SYSTEM, QUESTION), special_tokens={})
    assert fitted.messages == (Message(role="user", content="Be brief.\n\nhello"),)
    (note,) = fitted.notes
    assert note == "the chat template (mine) has no system message: it was put before the first question"


@pytest.mark.parametrize("text", [DROPS, REFUSES, TURNS])
def test_without_a_system_message_nothing_is_changed(text: str) -> None:
    fitted = fit_system(ChatTemplate(text, "mine"), (QUESTION,), special_tokens={})
    assert fitted.messages == (QUESTION,)
    assert fitted.notes == ()


def test_a_template_with_a_place_keeps_it() -> None:
    fitted = fit_system(ChatTemplate(TURNS, "mine"), (SYSTEM, QUESTION), special_tokens={})
    assert fitted.messages == (SYSTEM, QUESTION)
    assert fitted.notes == ()


def test_an_empty_system_message_is_left_out_without_a_word() -> None:
    nothing = Message(role="system", content="")
    fitted = fit_system(ChatTemplate(REFUSES, "mine"), (nothing, QUESTION), special_tokens={})
    assert fitted.messages == (QUESTION,)
    assert fitted.notes == ()


def test_images_stay_behind_the_system_message() -> None:
    asked = Message(role="user", content="what?", parts=(TextPart("what?"), ImagePart("cat.png")))
    (merged,) = fit_system(ChatTemplate(DROPS, "mine"), (SYSTEM, asked), special_tokens={}).messages
    assert merged.parts == (TextPart("Be brief.\n\n"), TextPart("what?"), ImagePart("cat.png"))


@pytest.mark.parametrize("text", ["{{ 1 / 0 }}", "{% for %}", "{{ raise_exception('never') }}"])
def test_a_template_that_always_fails_is_left_to_say_so_itself(text: str) -> None:
    fitted = fit_system(ChatTemplate(text, "mine"), (SYSTEM, QUESTION), special_tokens={})
    assert fitted.messages == (SYSTEM, QUESTION)


def test_of_fastchats_templates_two_drop_it() -> None:
    dropping = {name for name in names() if not takes_system(by_name(name), {})}
    assert dropping == {"gemma", "yuan"}


@pytest.mark.parametrize("name", ["qwen2.5", "smollm2", "mistral-v3"])
def test_real_templates_have_a_place_for_it(shared: Path, name: str) -> None:
    tokenizer = transformers.AutoTokenizer.from_pretrained(shared / "assets" / "tokenizers" / name)
    template = ChatTemplate(tokenizer.chat_template, "tokenizer")
    assert takes_system(template, tokenizer.special_tokens_map)
