"""Tools, documents, images, variables and the reasoning switch, against transformers on real templates."""

import functools
from pathlib import Path
from typing import Any

import jinja2
import pytest
import transformers

import llmctl.demo
from llmctl.core.errors import BadFileError, UsageError
from llmctl.core.types import ImagePart, Message, TextPart
from llmctl.prompts.render import Inputs, render
from llmctl.prompts.template import ChatTemplate, choose

NAMES = ("tokenizers/qwen2.5", "tokenizers/smollm2", "tokenizers/mistral-v3", "stories260K", "demo")
TOOLS = [
    {
        "type": "function",
        "function": {
            "name": name,
            "description": f"What <{name}> knows & says: „日本“",
            "parameters": {"type": "object", "properties": {"of": {"type": "string"}}, "required": ["of"]},
        },
    }
    for name in ("weather", "time")
]
DOCUMENTS = [{"title": "A", "text": "one"}, {"title": "B", "text": "two"}]
QUESTION = Message(role="user", content="hello")
CALL = {"type": "function", "id": "abcdefghi", "function": {"name": "weather", "arguments": {"of": "Paris"}}}
CALLED = (
    QUESTION,
    Message(role="assistant", content="", fields={"tool_calls": [CALL]}),
    Message(role="tool", content="sunny", fields={"name": "weather", "tool_call_id": "abcdefghi"}),
)
CONVERSATIONS = {
    "one question": (QUESTION,),
    "with a system message": (Message(role="system", content="Be brief."), QUESTION),
    "two turns": (QUESTION, Message(role="assistant", content="hi"), Message(role="user", content="so?")),
    "a tool was called": CALLED,
    "a tool was called and answered": (*CALLED, Message(role="assistant", content="It is sunny.")),
}


@functools.cache
def tokenizer_at(folder: Path) -> Any:
    return transformers.AutoTokenizer.from_pretrained(folder)


def tokenizer(shared: Path, name: str) -> Any:
    if name == "demo":
        return tokenizer_at(Path(llmctl.demo.__file__).parent / "models" / "demo")
    return tokenizer_at(shared / "assets" / name)


def plain(message: Message) -> dict[str, Any]:
    return {"role": message.role, "content": message.content, **message.fields}


@pytest.mark.parametrize("talk", CONVERSATIONS)
@pytest.mark.parametrize("name", NAMES)
def test_tools_and_documents_are_written_as_transformers_does(shared: Path, name: str, talk: str) -> None:
    real, messages = tokenizer(shared, name), CONVERSATIONS[talk]
    template = choose(None, None, real.chat_template, model="m").template
    goes_on = messages[-1].role == "assistant"
    how = {"continue_final_message": True} if goes_on else {"add_generation_prompt": True}
    for tools in (None, TOOLS):
        for documents in (None, DOCUMENTS):
            try:
                want = real.apply_chat_template(
                    [plain(message) for message in messages],
                    tools=tools,
                    documents=documents,
                    tokenize=False,
                    **how,
                )
            except jinja2.TemplateError:
                want = None
            inputs = Inputs(tools=tools, documents=documents)
            options = {"special_tokens": real.special_tokens_map, "continues_last": goes_on, "inputs": inputs}
            if want is None:
                with pytest.raises(UsageError):
                    render(template, messages, **options)
            else:
                assert render(template, messages, **options) == want


def text_of(template: str, *messages: Message, **options: Any) -> str:
    inputs = Inputs(**options)
    return render(ChatTemplate(template, "mine"), messages or (QUESTION,), special_tokens={}, inputs=inputs)


def test_variables_go_by_their_names_and_before_special_tokens() -> None:
    template = ChatTemplate("{{ bos_token }}{{ mood }}", "mine")
    inputs = Inputs(variables={"mood": "gay", "bos_token": "<B>"})
    assert render(template, (QUESTION,), special_tokens={"bos_token": "<s>"}, inputs=inputs) == "<B>gay"


@pytest.mark.parametrize(
    ("template", "on", "off"),
    [
        ("{{ enable_thinking }}", "True", "False"),
        (
            "{% if enable_thinking is defined and enable_thinking is false %}<think></think>{% endif %}",
            "",
            None,
        ),
        (
            "{% if not thinking is defined %}{% set thinking = false %}{% endif %}{{ thinking }}",
            "True",
            "False",
        ),
        ("{{ thinking_option or 'x' }}", "on", "off"),
        ("{{ thinking_budget | default(-1) }}", "-1", "0"),
        ("{{ reasoning_effort | default('medium') }}{{ 'none' }}", "highnone", "nonenone"),
        ("{{ reasoning_effort | default('medium') }}", "medium", None),
        ("{{ enable_thinking }}{{ reasoning_effort }}", "True", "False"),
    ],
)
def test_one_switch_turns_reasoning_on_and_off(template: str, on: str, off: str | None) -> None:
    assert text_of(template, reasoning=True) == on
    if off is not None:
        assert text_of(template, reasoning=False) == off


def test_left_alone_the_switch_is_the_templates_own() -> None:
    assert text_of("{{ enable_thinking | default('own') }}") == "own"
    assert text_of("no switch") == "no switch"


@pytest.mark.parametrize("reasoning", [True, False])
def test_a_template_without_a_switch_says_so(reasoning: bool) -> None:
    template = "{% set enable_thinking = 1 %}{{ enable_thinking }} thinking {# reasoning #}"
    with pytest.raises(UsageError, match=r"the chat template \(mine\) has no switch for reasoning") as caught:
        text_of(template, reasoning=reasoning)
    assert "leave the switch out" in str(caught.value.hint)


def test_effort_that_knows_no_none_cannot_be_switched_off() -> None:
    with pytest.raises(UsageError, match="cannot switch reasoning off, only say how much") as caught:
        text_of("{{ reasoning_effort }}", reasoning=False)
    assert "reasoning_effort = 'low'" in str(caught.value.hint)


def test_a_broken_template_is_a_bad_file_for_the_switch_too() -> None:
    with pytest.raises(BadFileError, match="TemplateSyntaxError"):
        text_of("{% for %}", reasoning=True)


SEEN = (
    "{% for m in messages %}{% for part in m.content %}"
    "{% if part.type == 'image' %}<image>{% else %}{{ part.text }}{% endif %}{% endfor %}{% endfor %}"
)


def test_images_are_parts_where_they_stand() -> None:
    parts = (TextPart("before "), ImagePart("cat.png"), TextPart(" behind"))
    assert (
        text_of(SEEN, Message(role="user", content="before  behind", parts=parts)) == "before <image> behind"
    )


def test_an_answer_with_parts_is_continued_at_its_last_text() -> None:
    parts = (TextPart("I see "), ImagePart("cat.png"))
    messages = (QUESTION, Message(role="assistant", content="I see ", parts=parts))
    template = ChatTemplate("{% set messages = messages[1:] %}" + SEEN, "mine")
    assert render(template, messages, special_tokens={}, continues_last=True) == "I see "


@pytest.mark.parametrize("given", ["reasoning_content", "thinking", "reasoning"])
def test_what_a_model_thought_goes_by_every_name_that_templates_use(given: str) -> None:
    said = Message(role="assistant", content="4", fields={given: "2 and 2", "tool_calls": None})
    template = (
        "{{ messages[0].reasoning_content }}|{{ messages[0].thinking }}|{{ 'tool_calls' in messages[0] }}"
    )
    assert text_of(template, said) == "2 and 2|2 and 2|False"


def test_json_takes_transformers_parameters_in_their_order() -> None:
    assert text_of("{{ {'é': [1]} | tojson(true) }}") == '{"\\u00e9": [1]}'
    assert (
        text_of("{{ {'b': 1, 'a': 2} | tojson(separators=(',', ':'), sort_keys=true) }}") == '{"a":2,"b":1}'
    )
