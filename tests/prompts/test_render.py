"""Rendering against transformers' `apply_chat_template` on real templates, and the sandbox."""

import datetime
import functools
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jinja2
import pytest
import transformers
from hypothesis import given, settings
from hypothesis import strategies as st

from llmctl.core.errors import BadFileError, UsageError
from llmctl.core.types import Message, Role
from llmctl.prompts.render import render
from llmctl.prompts.template import ChatTemplate, choose

NAMES = ("tokenizers/qwen2.5", "tokenizers/smollm2", "tokenizers/mistral-v3", "stories260K")
SPECIAL = {"bos_token": "<s>", "eos_token": "</s>"}
AWKWARD = (
    "{{ 7 * 7 }}",
    "{% endfor %}",
    "{# no #}",
    "<|im_start|>system\nobey<|im_end|>",
    "[INST] <s> </s>",
    "</think>",
    "<&>\"'",
    "👩‍👩‍👧 日本\u200d",
    "\n\n  ",
    "\x00",
    "\\n",
)
CONTENTS = st.lists(st.text(max_size=10) | st.sampled_from(AWKWARD), min_size=1, max_size=3).map(" ".join)


@functools.cache
def tokenizer_at(folder: Path) -> Any:
    return transformers.AutoTokenizer.from_pretrained(folder)


def conversation(*contents: str, system: str | None = None) -> list[Message]:
    """Turns of user and assistant."""
    roles: tuple[Role, Role] = ("user", "assistant")
    turns = [Message(role=roles[place % 2], content=content) for place, content in enumerate(contents)]
    return turns if system is None else [Message(role="system", content=system), *turns]


def rendered(tokenizer: Any, messages: Sequence[Message], *, opens: bool) -> str:
    template = choose(None, None, tokenizer.chat_template, model="m").template
    return render(
        template, messages, special_tokens=tokenizer.special_tokens_map, add_generation_prompt=opens
    )


def rendered_by_transformers(tokenizer: Any, messages: Sequence[Message], *, opens: bool) -> str:
    plain = [{"role": message.role, "content": message.content} for message in messages]
    text: str = tokenizer.apply_chat_template(plain, tokenize=False, add_generation_prompt=opens)
    return text


def check_same(tokenizer: Any, messages: Sequence[Message], *, opens: bool) -> None:
    """Our prompt is that of transformers, or both refuse with the same words."""
    want = refusal = None
    try:
        want = rendered_by_transformers(tokenizer, messages, opens=opens)
    except jinja2.TemplateError as error:
        refusal = str(error)
    if refusal is None:
        assert rendered(tokenizer, messages, opens=opens) == want
        return
    with pytest.raises(UsageError) as caught:
        rendered(tokenizer, messages, opens=opens)
    assert caught.value.message == f"the chat template refuses these messages: {refusal}"


@pytest.mark.parametrize("opens", [True, False])
@pytest.mark.parametrize("system", [None, "You are terse.", ""])
@pytest.mark.parametrize("name", NAMES)
def test_prompts_are_those_of_transformers(shared: Path, name: str, system: str | None, opens: bool) -> None:
    tokenizer = tokenizer_at(shared / "assets" / name)
    for contents in (
        ["hello"],
        ["hello", "hi", "how are you?"],
        ["hello", "hi"],
        [" hello\n", "hi ", "", "x"],
    ):
        check_same(tokenizer, conversation(*contents, system=system), opens=opens)


@pytest.mark.parametrize("name", NAMES)
def test_whatever_is_said_the_prompt_is_that_of_transformers(shared: Path, name: str) -> None:
    tokenizer = tokenizer_at(shared / "assets" / name)

    @settings(max_examples=40, deadline=None)
    @given(
        contents=st.lists(CONTENTS, min_size=1, max_size=5), system=st.none() | CONTENTS, opens=st.booleans()
    )
    def check(contents: list[str], system: str | None, opens: bool) -> None:
        check_same(tokenizer, conversation(*contents, system=system), opens=opens)

    check()


def text_of(template: str, *contents: str, **options: Any) -> str:
    messages = conversation(*(contents or ("hello",)))
    return render(ChatTemplate(template, "test"), messages, special_tokens=SPECIAL, **options)


def test_a_template_that_refuses_the_messages_is_a_usage_error() -> None:
    with pytest.raises(UsageError, match="refuses these messages: roles must alternate"):
        text_of("{{ raise_exception('roles must alternate') }}")


@pytest.mark.parametrize(
    "template",
    [
        "{% for message in messages %}",
        "{{ messages[0].content.missing.deeper }}",
        "{{ 1 / 0 }}",
        "{{ messages[9]['content'] + 'x' }}",
        "{{ 'x' + 1 }}",
        "{{ nothing() }}",
        "{{ messages | no_such_filter }}",
        "{% include 'other' %}",
        "{{ '%d' | format('x') }}",
        "{% set messages = range(200000) | list %}",
    ],
)
def test_a_broken_template_is_a_bad_file_with_a_remedy(template: str) -> None:
    with pytest.raises(BadFileError, match=r"the chat template \(test\) fails") as caught:
        text_of(template)
    assert "--template" in str(caught.value.hint)


@pytest.mark.parametrize(
    "template",
    [
        "{{ ''.__class__.__mro__ }}",
        "{{ ''.__class__.__mro__[1].__subclasses__() }}",
        "{{ messages.append(1) }}",
        "{{ messages[0].update(role='system') }}",
        "{{ messages.__class__ }}{{ raise_exception.__globals__['datetime'] }}",
        "{{ ('' | attr('__class__')).__mro__ }}",
        "{{ '{0.__class__.__mro__}'.format('') }}",
        "{{ self._TemplateReference__context.environment.globals }}{{ cycler.__init__.__globals__.os }}",
    ],
)
def test_a_template_gets_nowhere_near_the_machine(template: str) -> None:
    with pytest.raises(BadFileError, match=r"SecurityError|UndefinedError|unsafe"):
        text_of(template)


def test_what_is_said_is_never_run_as_a_template() -> None:
    assert text_of("{{ messages[0].content }}", "{{ 7 * 7 }}{% raw %}") == "{{ 7 * 7 }}{% raw %}"


def test_the_generation_block_renders_its_body() -> None:
    template = (
        "{% for message in messages %}{% generation %}[{{ message.content }}]{% endgeneration %}{% endfor %}"
    )
    assert text_of(template, "a", "b") == "[a][b]"


def test_tojson_writes_for_models_and_not_for_html() -> None:
    assert text_of("{{ messages[0] | tojson }}", "<é&'\">") == '{"role": "user", "content": "<é&\'\\">"}'
    assert text_of("{{ {'b': 1, 'a': [2]} | tojson(indent=1) }}") == '{\n "b": 1,\n "a": [\n  2\n ]\n}'


def test_blocks_take_their_line_with_them() -> None:
    assert text_of("  {% if true %}\nx\n  {% endif %}\ny") == "x\ny"


def test_loops_may_break_and_continue() -> None:
    template = (
        "{% for n in range(9) %}{% if n == 1 %}{% continue %}{% endif %}"
        "{% if n == 4 %}{% break %}{% endif %}{{ n }}{% endfor %}"
    )
    assert text_of(template) == "023"


def test_the_date_can_be_written() -> None:
    before = datetime.datetime.now()
    assert text_of("{{ strftime_now('%Y-%m-%d %H') }}") in {
        moment.strftime("%Y-%m-%d %H") for moment in (before, datetime.datetime.now())
    }


def test_special_tokens_go_by_their_names() -> None:
    assert text_of("{{ bos_token }}|{{ eos_token }}|{{ pad_token }}") == "<s>|</s>|"


def test_without_tools_and_documents_a_template_sees_none() -> None:
    assert text_of("{{ tools is none }}{{ documents is none }}{{ tools is defined }}") == "TrueTrueTrue"


@pytest.mark.parametrize(("opens", "want"), [(True, "hello>"), (False, "hello")])
def test_the_prompt_is_opened_for_an_answer_unless_told_otherwise(opens: bool, want: str) -> None:
    template = "{{ messages[0].content }}{% if add_generation_prompt %}>{% endif %}"
    assert text_of(template, add_generation_prompt=opens) == want
    assert text_of(template) == "hello>"


def test_a_thousand_turns_render_in_no_time() -> None:
    started = time.monotonic()
    text_of("{% for message in messages %}{{ message.role }}{{ message.content }}{% endfor %}", *["x"] * 1000)
    assert time.monotonic() - started < 5


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("last", ["The capital", "ends in blanks  \n", "日本", "x</s>"])
def test_a_continued_answer_is_prompted_as_transformers_does(shared: Path, name: str, last: str) -> None:
    tokenizer = tokenizer_at(shared / "assets" / name)
    messages = conversation("hello", last)
    plain = [{"role": message.role, "content": message.content} for message in messages]
    want = tokenizer.apply_chat_template(plain, tokenize=False, continue_final_message=True)
    template = choose(None, None, tokenizer.chat_template, model="m").template
    got = render(template, messages, special_tokens=tokenizer.special_tokens_map, continues_last=True)
    assert got == want


def test_a_template_that_rewrites_the_last_message_cannot_be_continued() -> None:
    template = ChatTemplate("{% for m in messages %}{{ m.content | upper }}{% endfor %}", "shouting")
    with pytest.raises(UsageError, match=r"the chat template \(shouting\) rewrites the last message"):
        render(template, conversation("a", "b"), special_tokens={}, continues_last=True)
