"""Templates that want more than a prompt needs, and a program that renders them with little memory.

Run as `python -m tests.prompts.hostile SECONDS`: a JSON list of what came of each.
"""

import json
import resource
import sys
import time
from pathlib import Path

DAG = "{% set n = namespace(x=[1], y=[1]) %}{% for i in range(60) %}{% set n.x = [n.x, n.x] %}{% set n.y = [n.y, n.y] %}{% endfor %}"  # noqa: E501
DICTS = "{% set n = namespace(x=1) %}{% for i in range(60) %}{% set n.x = {'a': n.x, 'b': n.x} %}{% endfor %}"
TUPLES = "{% set n = namespace(x=(1,)) %}{% for i in range(60) %}{% set n.x = (n.x, n.x) %}{% endfor %}"
BIG = "{% set b = 'x' * 900000 %}"
KEEP = BIG + "{% set n = namespace(x=[]) %}{% for i in range(99999) %}{% set n.x = [n.x, "
END = "] %}{% endfor %}"
DOUBLE = "{% set n = namespace(x='xx') %}{% for i in range(60) %}{% set n.x = "
MANY = "{% for i in range(99999) %}"

TIME = {
    "nested loops": MANY + "{% for b in range(99999) %}{% endfor %}{% endfor %}",
    "a filtered loop": MANY + "{% for b in range(99999) if b < 0 %}{% endfor %}{% endfor %}",
    "the length of a loop": MANY + "{% for b in range(99999) %}{{ loop.last }}{% endfor %}{% endfor %}",
    "a macro that calls itself twice": (
        "{% macro f(n) %}{% if n %}{{ f(n - 1) }}{{ f(n - 1) }}{% endif %}{% endmacro %}{{ f(40) }}"
    ),
    "a macro without end": "{% macro f() %}{{ f() }}{{ f() }}{% endmacro %}{{ f() }}",
    "a loop without end": "{% for a in [1, 2] recursive %}{{ loop([1, 2]) }}{% endfor %}",
    "a block in itself": "{% block a %}{{ self.a() }}{{ self.a() }}{% endblock %}",
    "blocks that double": "{% block b0 %}x{% endblock %}"
    + "".join(
        f"{{% block b{i} %}}{{{{ self.b{i - 1}() }}}}{{{{ self.b{i - 1}() }}}}{{% endblock %}}"
        for i in range(1, 40)
    ),
    "callers that double": (
        "{% macro f() %}{{ caller() }}{{ caller() }}{% endmacro %}"
        + "{% call f() %}" * 24
        + "x"
        + "{% endcall %}" * 24
    ),
    "a chain of maps": MANY + "{{ range(99999)" + "|map('string')" * 50 + "|list|length }}{% endfor %}",
    "a chain of attributes": MANY
    + "{{ range(99999)"
    + "|map(attribute='real')" * 50
    + "|list }}{% endfor %}",
    "sorting": MANY + "{{ range(60000)|sort|length }}{% endfor %}",
    "grouping": MANY + "{{ range(60000)|groupby('real')|length }}{% endfor %}",
    "searching": "{% set b = range(60000)|list %}{{ b|select('in', b)|list|length }}",
    "a slow filter": "{{ ('a ' * 400000)|title }}",
    "tags": "{{ ('<!--' * 200000)|striptags }}",
    "links": "{{ ('a.' * 400000)|urlize }}",
}
SIZE = {
    "output": MANY + "x" * 1100 + "{% endfor %}",
    "a captured text": "{% set t %}" + MANY + "x" * 60000 + "{% endfor %}{% endset %}",
    "an empty loop's text": (
        "{% set t %}"
        + MANY
        + "{% for x in [] %}{% else %}"
        + "x" * 50000
        + "{% endfor %}{% endfor %}{% endset %}"
    ),
    "a text times a number": "{{ 'x' * 10 ** 10 }}",
    "a constant text times a number": "{{ 'x' * 10000000000 }}",
    "a list times a number": "{{ [0] * 10000000000 }}",
    "a number times a tuple": "{{ 10000000000 * (1, 2) }}",
    "doubling by +": DOUBLE + "n.x + n.x %}{% endfor %}",
    "doubling by ~": DOUBLE + "n.x ~ n.x %}{% endfor %}",
    "a list doubled": DOUBLE.replace("'xx'", "[1]") + "n.x + n.x %}{% endfor %}",
    "growth by the filter replace": DOUBLE + "n.x|replace('x', 'xxxxx') %}{% endfor %}",
    "growth by the method replace": DOUBLE + "n.x.replace('x', 'xxxxx') %}{% endfor %}",
    "growth between letters": BIG + "{{ b.replace('', b) }}",
    "growth by escapes": BIG + "{{ b|replace('x', '<')|e|e|e|e }}",
    "growth of what is marked as safe": DOUBLE + "n.x|safe + ('<' ~ n.x) %}{% endfor %}",
    "center": "{{ 'x'|center(1000000000) }}",
    "center in map": "{{ ['x']|map('center', 1000000000)|list }}",
    "center around a block": "{% filter center(10000000000) %}x{% endfilter %}",
    "center around a captured text": "{% set x | center(10000000000) %}x{% endset %}",
    "a method's width": "{{ 'x'.zfill(10000000000) }}",
    "a format's width": "{{ '{:>10000000000}'.format(1) }}",
    "a format's nested width": "{{ '{:>{}}'.format(1, 10000000000) }}",
    "a format's width inside an argument": "{{ '{:>{0[0]}}'.format([10000000000]) }}",
    "a format of a map": "{{ '{x:>10000000000}'.format_map({'x': 1}) }}",
    "a safe format": "{{ ('{:>10000000000}'|safe).format('<') }}",
    "a format with its account forged": "{{ '{:>10000000000}'.format.write(namespace(), (1,), {}) }}",
    "a percent width": "{{ '%10000000000d' % 1 }}",
    "a percent width as an argument": "{{ '%*d' % (10000000000, 1) }}",
    "a percent precision": "{{ '%.1000000000f' % 1.5 }}",
    "a percent width behind a name": "{{ '%(a)10000000000d' % {'a': 1} }}",
    "a percent width behind odd brackets": "{{ '%((a))10000000000d' % {'(a)': 1} }}",
    "many percent widths": "{{ ('%999d' * 100000) % ((1,) * 50000) }}",
    "the filter format": "{{ '%10000000000d'|format(1) }}",
    "a power": "{{ (2 ** 10000) ** 10000000 }}",
    "squares": "{% set n = namespace(x=7) %}{% for i in range(90) %}{% set n.x = n.x * n.x %}{% endfor %}",
    "digits": "{{ 1|round(1000000000) }}",
    "digits rounded down": "{{ 1|round(100000000, 'floor') }}",
    "digits before the point": "{{ 5|round(-1000000000) }}",
    "a range": "{% for i in range(10000000000) %}{% endfor %}",
    "indented lines": "{{ ('x\n' * 400000)|indent(900000) }}",
    "lines indented by a text": BIG + "{{ ('x\n' * 400000)|indent(b) }}",
    "joined letters": BIG + "{{ b.join(b) }}",
    "joined items": BIG + "{{ (['x'] * 50000)|join(b) }}",
    "joined one by one": "{{ 'x'.join(range(99999)|map('string')|map('center', 90000)) }}",
    "indented JSON": "{{ [1]|tojson(indent=1000000000) }}",
    "JSON with a long separator": BIG + "{{ ([1] * 50000)|tojson(separators=(b, 'y')) }}",
    "JSON indented by a text": BIG + "{{ ([1] * 50000)|tojson(indent=b) }}",
    "tabs": "{{ ('\t' * 900000).expandtabs(900000) }}",
    "tabs by name": "{{ ('\t' * 900).expandtabs(tabsize=1000000000) }}",
    "wrapped words": BIG + "{{ ('a ' * 4000)|wordwrap(1, wrapstring=b) }}",
    "pieces": "{{ [1]|slice(1000000000)|list }}",
    "bytes": "{{ 'x'.encode() * 10000000000 }}",
    "bytes of a number": "{{ (1).to_bytes(10000000000) }}",
    "letters for letters": BIG + "{{ 'xxx'.translate({120: b}) }}",
    "a date's pattern": "{{ strftime_now('%c' * 100000) }}",
    "filler": "{{ lipsum(n=100000) }}",
    "a long number": "{{ " + "9" * 50000 + " }}",
    "a long template": "x" * 200000,
}
KEPT = {
    "texts": KEEP + "b ~ i" + END,
    "parts": KEEP + "b[1:]" + END,
    "what was split off": KEEP + "b.partition('x')" + END,
    "words": KEEP + "('xy ' * 20000).split()" + END,
    "lists": KEEP + "range(60000)|list" + END,
    "sets": "{% set d = dict.fromkeys(range(60000)) %}" + KEEP + "d.keys() - [1]" + END,
    "fillings": KEEP + "[1]|batch(60000, 'x')|list" + END,
    "variables of joined texts": BIG + "".join(f"{{% set a{i} = b ~ 1 %}}" for i in range(2000)),
    "variables of sums": BIG + "".join(f"{{% set a{i} = b + 'a' %}}" for i in range(2000)),
    "variables of parts": BIG + "".join(f"{{% set a{i} = b[1:] %}}" for i in range(2000)),
    "variables of capitals": BIG + "".join(f"{{% set a{i} = b|upper %}}" for i in range(2000)),
}
DEEP = {
    "written": DAG + "{{ n.x }}",
    "as JSON": DAG + "{{ n.x|tojson }}",
    "as text": DAG + "{{ n.x|string }}",
    "joined": DAG + "{{ n.x ~ '' }}",
    "compared": DAG + "{{ n.x == n.y }}",
    "searched": DAG + "{{ n.x in [n.y] }}",
    "tested": DAG + "{{ n.x is eq(n.y) }}",
    "tested in a filter": DAG + "{{ [n.x]|select('eq', n.y)|list }}",
    "looked up": DAG + "{{ [n.x].index(n.y) }}",
    "formatted": DAG + "{{ '{}'.format(n.x) }}",
    "formatted as it is written": DAG + "{{ '{0!r}'.format(n.x) }}",
    "formatted by percent": DAG + "{{ '%s' % (n.x,) }}",
    "raised": DAG + "{{ raise_exception(n.x) }}",
    "in a macro's arguments": ("{% macro f() %}{{ varargs|tojson }}{% endmacro %}" + DAG + "{{ f(n.x) }}"),
    "in groups": DAG + "{% for g in [[1, n.x], [1, n.x]]|groupby(0) %}{{ g.list|tojson }}{% endfor %}",
    "in pairs": DICTS + "{% for pair in n.x.items() %}{{ pair }}{% endfor %}",
    "in a format's map": DICTS + "{{ '%(a)s' % n.x }}",
    "as a key": TUPLES + "{{ {n.x: 1} }}",
    "as a subscript": TUPLES + "{{ {}[n.x] }}",
    "as an argument": TUPLES + "{{ {}.get(n.x) }}",
    "nested to the ground": (
        "{% set n = namespace(x=[]) %}" + MANY + "{% set n.x = [n.x] %}{% endfor %}{{ n.x }}"
    ),
}
CODE = {
    "brackets": "{{ " + "(" * 30000 + "1" + ")" * 30000 + " }}",
    "lists": "{{ " + "[" * 30000 + "]" * 30000 + " }}",
    "conditions": "{% if 1 %}" * 3000 + "{% endif %}" * 3000,
    "loops": "{% for a in [1] %}" * 60 + "{% endfor %}" * 60,
    "attributes": "{{ a" + ".a" * 30000 + " }}",
    "negations": "{{ " + "not " * 15000 + "1 }}",
    "filters": "{{ 1" + "|e" * 30000 + " }}",
    "escapes": "{% autoescape true %}{{ '<' }}{% endautoescape %}",
    "what is not there": "{% include 'x' %}",
    "changes to what is said": "{{ dict.update(messages[0], {'role': 'system'}) }}",
}
GROUPS = {"time": TIME, "size": SIZE, "kept": KEPT, "deep": DEEP, "code": CODE}
MEMORY = 1 << 30


def main() -> None:
    """Render all of them and print what came of each: seconds, error and peak memory by name."""
    from llmctl.core.errors import BadFileError
    from llmctl.core.types import Message
    from llmctl.prompts import budget
    from llmctl.prompts.render import render
    from llmctl.prompts.template import ChatTemplate

    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    budget.SECONDS = float(sys.argv[1])
    ended = {}
    for group, templates in GROUPS.items():
        for name, text in templates.items():
            told, started = "", time.thread_time()
            try:
                render(
                    ChatTemplate(text, "hostile"), (Message(role="user", content="hello"),), special_tokens={}
                )
            except BadFileError as error:
                told = error.message
            ended[f"{group}: {name}"] = (time.thread_time() - started, told, _peak())
    sys.stdout.write(json.dumps(ended))


def _peak() -> int:
    """MiB that the process held at most; 0 where nobody tells."""
    # Not `getrusage`: a process is born with the peak of the one that started it.
    status = Path("/proc/self/status")
    lines = status.read_text().splitlines() if status.is_file() else []
    return next((int(line.split()[1]) >> 10 for line in lines if line.startswith("VmHWM")), 0)


if __name__ == "__main__":
    main()
