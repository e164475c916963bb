"""Hostile templates are stopped: in time, in little memory, in any thread, and with a clear error."""

import json
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmctl.core.errors import BadFileError, LlmctlError
from llmctl.core.types import Message
from llmctl.prompts import budget
from llmctl.prompts.render import Inputs, render
from llmctl.prompts.template import ChatTemplate
from tests.prompts.hostile import GROUPS, TIME

ROOT = Path(__file__).parent.parent.parent
HELLO = (Message(role="user", content="hello"),)
SECONDS = 0.1
SLACK = 1.5
"""Seconds of a single step, and of compiling, on a slow machine."""
PEAK = 200
"""MiB of the whole process."""
NAMES = [f"{group}: {name}" for group, templates in GROUPS.items() for name in templates]


def run(text: str, *messages: Message, **options: Any) -> str:
    return render(ChatTemplate(text, "hostile"), messages or HELLO, special_tokens={}, **options)


@pytest.fixture(scope="module")
def ended() -> dict[str, tuple[float, str, int]]:
    command = [sys.executable, "-m", "tests.prompts.hostile", str(SECONDS)]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    found: dict[str, tuple[float, str, int]] = json.loads(result.stdout)
    return found


@pytest.mark.parametrize("name", NAMES)
def test_a_hostile_template_is_stopped_in_time_and_in_little_memory(
    ended: dict[str, tuple[float, str, int]], name: str
) -> None:
    seconds, told, peak = ended[name]
    assert told.startswith("the chat template (hostile) fails: ")
    assert len(told) < 500
    assert "MemoryError" not in told
    assert seconds < SECONDS + SLACK
    assert peak < PEAK


def test_the_error_names_what_and_how_much_and_the_remedy() -> None:
    told = "too costly: it makes a text or list of 10,000,000, the limit is 1,0"
    with pytest.raises(BadFileError, match=told) as caught:
        run("{{ 'x' * 10000000 }}")
    assert "--template" in str(caught.value.hint)


def test_in_a_thread_beside_others_it_takes_about_two_seconds() -> None:
    told: list[str] = []

    def work() -> None:
        try:
            run(TIME["nested loops"])
        except BadFileError as error:
            told.append(error.message)

    started = time.process_time()
    thread = threading.Thread(target=work)
    thread.start()
    assert run("{{ messages[0].content }}") == "hello"
    thread.join()
    assert told == ["the chat template (hostile) fails: too costly: it takes more than 2 seconds"]
    assert time.process_time() - started < 3.5


@pytest.mark.parametrize("name", ["time: nested loops", "time: a slow filter", "size: doubling by +"])
def test_a_long_conversation_gives_a_hostile_template_little_more(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(budget, "SECONDS", SECONDS)
    group, _, which = name.partition(": ")
    started = time.thread_time()
    with pytest.raises(BadFileError):
        run(GROUPS[group][which], Message(role="user", content="x" * 1_000_000))
    assert time.thread_time() - started < 2 + SLACK


def test_a_long_conversation_is_no_attack() -> None:
    template = (
        "{% set ns = namespace(text='') %}{% for m in messages %}"
        "{% set ns.text = ns.text + '<' + m.role + '>' + m.content | trim %}{% endfor %}{{ ns.text }}"
    )
    said = Message(role="user", content="word " * 1000)
    assert len(run(template, *[said] * 500)) == 500 * len("<user>" + said.content.strip())


def test_long_documents_and_tools_are_no_attack() -> None:
    documents = [{"title": "long", "text": "word " * 500_000}]
    text = run("{{ documents | tojson }}{{ documents[0].text | upper }}", inputs=Inputs(documents=documents))
    assert len(text) > 5_000_000


def test_a_template_that_was_stopped_does_not_hold_up_the_next() -> None:
    with pytest.raises(BadFileError):
        run("{{ 'x' * 10000000 }}")
    assert run("{{ 'x' * 10 }}") == "x" * 10


PIECES = st.sampled_from(
    [
        "{% for a in messages %}",
        "{% for a in range(300) %}",
        "{% for a in x recursive %}",
        "{% endfor %}",
        "{% if x %}",
        "{% else %}",
        "{% endif %}",
        "{% set x = [x, x] %}",
        "{% set x = x ~ x %}",
        "{% set x = x * 9 %}",
        "{% set x = messages %}",
        "{% set n = namespace(x=x) %}",
        "{% set n.x = n.x + n.x %}",
        "{% macro f(y=x) %}",
        "{% endmacro %}",
        "{{ f(x) }}",
        "{{ f }}",
        "{{ x }}",
        "{{ x | tojson }}",
        "{{ x | list | join(',') }}",
        "{{ loop.index }}",
        "{{ loop(x) }}",
        "{{ x.items() }}",
        "{{ x[0] }}",
        "{{ x[::-1] }}",
        "{{ '%s' % x }}",
        "{{ '{}'.format(x) }}",
        "{{ x | sort }}",
        "{{ x | safe | e }}",
        "{{ x | map('upper') | first }}",
        "{{ x is in [x] }}",
        "{{ x < x }}",
        "{{ 1 / x }}",
        "{{ x.y.z }}",
        "{{ messages[0].content.split(x) }}",
        "{% break %}",
        "{% generation %}",
        "{% endgeneration %}",
        "{% block b %}",
        "{% endblock %}",
        "{% call f() %}",
        "{% endcall %}",
        "text",
        "{{",
        "%}",
        "\x00",
    ]
)


@settings(max_examples=150, deadline=None)
@given(
    pieces=st.lists(PIECES, max_size=14),
    x=st.sampled_from(["", "ab", 3, -1.5, None, True, [], [1], {"a": [1]}]),
)
def test_whatever_a_template_says_it_gives_text_or_our_error(pieces: list[str], x: Any) -> None:
    started = time.thread_time()
    try:
        text = run("".join(pieces), inputs=Inputs(variables={"x": x}))
    except LlmctlError:
        pass
    else:
        assert isinstance(text, str)
    assert time.thread_time() - started < 2 + SLACK
