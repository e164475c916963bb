"""The metered sandbox against jinja's own: the same text, and hardly more time."""

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jinja2
import pytest
from jinja2.sandbox import ImmutableSandboxedEnvironment

from llmctl.core.types import Message
from llmctl.prompts.render import Inputs, render
from llmctl.prompts.template import ChatTemplate

DATA: dict[str, Any] = {
    "word": "Hello <b>",
    "number": 7,
    "half": 1.5,
    "none": None,
    "items": [3, 1, 2],
    "people": [{"name": "Ann", "age": 3}, {"name": "bob", "age": 1}, {"name": "Ann", "age": 2}],
    "nested": {"a": [1, {"b": "c"}], "d": {}},
}
EXPRESSIONS = """
word + '!' + word
word ~ number ~ none ~ items ~ half ~ missing
'a' + 'b' * number
number + 1 + half
items + [4] + items
(1, 2) + (3,)
number - 1 - half
number * half // 2
number % 4, '%s and %5.2f' % (word, half), '%(a)s' % nested
2 ** 10
-number, +half
word | upper ~ word | lower | title | capitalize
word | replace('l', 'L') | replace('L', 'l', 1)
word.replace('l', 'LL'), word.split('l'), word.strip('H'), word.partition(' '), word.startswith('He')
', '.join(['a', 'b']), '-'.join(word), ','.join(items | map('string'))
word | center(20), word | indent(2), word | truncate(5), word | wordcount, word | length
word[1:], word[::-1], items[1:], items[::-1], word[0], items[-1], nested['a'][1].b
'{:>5} {!r}'.format(word, 1), '{0!r} {0:>9}'.format(word), '{a:.1f}'.format(a=half)
'{:<3}|{:^5}|'.format('a', 'b')
('{}'|safe).format('<'), ('<'|safe) + '<', '<' + ('<'|safe), ('%s'|safe) % '<', '<' | e, ('<'|safe).join('<>')
items | sort, items | sum, items | max, items | min, items | first, items | last, items | reverse | list
people | map(attribute='name') | join('; '), people | join(', ', attribute='age')
people | selectattr('age', 'gt', 1) | map(attribute='age') | list
people | rejectattr('name', 'equalto', 'Ann') | list | length
people | groupby('name') | map('first') | list
people | sort(attribute='age') | map(attribute='age') | list
items | map('string') | select('in', ['1', '2']) | list
items | batch(2) | list, items | slice(2) | list, [1, 1, 2] | unique | list
nested | dictsort | length, nested.items() | list | length, nested.keys() | list
nested | items | list | length
nested | string | length, half | round(1), half | int, '3' | int + 1, number | float, -3 | abs
missing | default('none'), none | default('x', true), missing is defined, none is none, word is string
items is iterable, nested is mapping, number is odd, number is divisibleby 7, 1 in items, 'x' not in word
items == [3, 1, 2], items < [4], number == 7.0, word != none, 1 < number < 9, items in [items]
number is eq 7, number is gt(half), number is in [7]
word if number > 3 else none, none or 'y', word and number, not items
dict(a=1), dict.fromkeys(items, 0), namespace(a=1).a, range(3) | list, cycler('a', 'b').next()
{'a': 1, 2: items}, [items, word], (word,), {word: word}
word | tojson, nested | tojson, items | tojson(indent=2)
word.missing, nested.missing, missing
""".strip().splitlines()
STATEMENTS = (
    "{% for a in items %}{{ loop.index }}{{ a }}{{ loop.last }}{{ loop.length }}{% else %}none{% endfor %}",
    "{% for a in items if a > 1 %}{{ a }}{{ loop.revindex }}{% else %}none{% endfor %}",
    "{% for a in [] %}{{ a }}{% else %}none{% endfor %}",
    "{% for k, v in nested.items() recursive %}{{ k }}{% if v is mapping %}{{ loop(v.items()) }}{% endif %}"
    "{% endfor %}",
    "{% for a in items %}{% if loop.changed(a > 1) %}{{ a }}{% endif %}{{ loop.previtem }}{% endfor %}",
    "{% for a in items %}{{ loop.cycle(1, 2) }}{{ loop.nextitem }}{{ loop.depth }}{% endfor %}",
    "{% macro f(a, b=2) %}{{ a }}{{ b }}{{ varargs }}{{ kwargs }}{{ caller() if caller }}{% endmacro %}"
    "{{ f(1) }}{{ f(1, 3, 4, c=5) }}{% call f(9) %}called{% endcall %}",
    "{% set n = namespace(x='') %}{% for a in items %}{% set n.x = n.x + a | string %}{% endfor %}{{ n.x }}",
    "{% set x %}  captured {{ word }}{% endset %}[{{ x }}]{% filter upper %}b{{ word }}{% endfilter %}",
    "{% block b %}block {{ word }}{% endblock %}{{ self.b() }}{% with c = 1 %}{{ c }}{% endwith %}",
    "{% if items %}a{% elif none %}b{% else %}c{% endif %}  \n  {%- if none -%}x{%- endif %}\n{# gone #}y",
)
TEMPLATES = (*STATEMENTS, *("{{ " + expression + " }}" for expression in EXPRESSIONS))
HELLO = (Message(role="user", content="hello"),)


def as_jinja_writes(text: str, **variables: Any) -> str:
    environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True)

    environment.filters["tojson"] = lambda value, **how: json.dumps(value, ensure_ascii=False, **how)
    return environment.from_string(text).render(**variables)


@pytest.mark.parametrize("text", TEMPLATES)
def test_a_template_writes_what_it_writes_in_jinja(text: str) -> None:
    want = as_jinja_writes(text, **DATA)
    got = render(ChatTemplate(text, "t"), HELLO, special_tokens={}, inputs=Inputs(variables=DATA))
    assert got == want


def seconds(work: Callable[[], object]) -> float:
    started = time.thread_time()
    for _ in range(3):
        work()
    return time.thread_time() - started


@pytest.mark.parametrize("name", ["qwen2.5", "smollm2", "mistral-v3"])
def test_an_honest_template_takes_hardly_longer(shared: Path, name: str) -> None:
    text = (shared / "assets" / "tokenizers" / name / "chat_template.jinja").read_text(encoding="utf-8")
    messages = [
        Message(role="assistant" if place % 2 else "user", content="hello world " * 20) for place in range(51)
    ]
    plain = [{"role": message.role, "content": message.content} for message in messages]
    compiled = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[jinja2.ext.loopcontrols]
    ).from_string(text)

    def jinja() -> object:
        return compiled.render(messages=plain, tools=None, bos_token="<s>", eos_token="</s>")

    def ours() -> object:
        tokens = {"bos_token": "<s>", "eos_token": "</s>"}
        return render(ChatTemplate(text, "t"), messages, special_tokens=tokens, add_generation_prompt=False)

    assert ours() == jinja()
    rounds = [(seconds(ours), seconds(jinja)) for _ in range(30)]
    # Measured: 0.5 to 1.15 times jinja's.
    assert min(our for our, _ in rounds) < 1.5 * min(its for _, its in rounds)
