"""How large a template's text operations would become, reckoned before they run.

Only those that grow faster than what they are given; everything else is measured when it is done.
"""

import re
from collections.abc import Callable
from typing import Any

from markupsafe import Markup

from llmctl.prompts.budget import SLOT, Budget

_MOST_BITS = 16_384
"""Of a whole number: no prompt counts further."""
_MOST_DECIMALS = 300
_WIDEST = 1_000
"""Characters that one field of a format may ask for."""
_INDENT_MOST = 64
_CONVERSION = re.compile(r"%(?:\([^()]*\))?[-+ #0]*(\*|\d+)?(?:\.(\*|\d+)?)?")
_NESTED_KEY = re.compile(r"%\([^)]*\(")
_NUMBER = re.compile(r"\d+")
_LONGEST_ESCAPE = 5
_SLOW = 65_536
"""Characters for filters that take far longer than others over each."""


def add(budget: Budget, left: Any, right: Any) -> None:
    """Account for `left + right`."""
    if isinstance(left, str) and isinstance(right, str):
        budget.take((len(left) + len(right)) * _escaping(left, right))
    elif isinstance(left, (list, tuple)) and isinstance(right, (list, tuple)):
        budget.take(SLOT * (len(left) + len(right)))


def multiply(budget: Budget, left: Any, right: Any) -> None:
    """Account for `left * right`."""
    if isinstance(left, int) and isinstance(right, int):
        _check_bits(budget, left.bit_length() + right.bit_length())
        return
    for one, times in ((left, right), (right, left)):
        if isinstance(one, (str, list, tuple)) and isinstance(times, int):
            budget.take(len(one) * max(times, 0) * (1 if isinstance(one, str) else SLOT))


def power(budget: Budget, left: Any, right: Any) -> None:
    """Account for `left ** right`."""
    if isinstance(left, int) and isinstance(right, int):
        _check_bits(budget, left.bit_length() * max(right, 0))


def subtract(budget: Budget, left: Any, right: Any) -> None:
    """Account for `left - right`, a new set where `left` is one."""
    if not isinstance(left, (int, float)):
        budget.keep(left)


def percent(budget: Budget, left: Any, right: Any) -> None:
    """Account for `left % right`, which formats where `left` is a text."""
    if isinstance(left, str):
        _printf(budget, left, right)


def _escaping(*texts: Any) -> int:
    """How much longer texts may become when they meet: one that is marked as safe has others escaped."""
    return _LONGEST_ESCAPE if any(isinstance(text, Markup) for text in texts) else 1


OPERATORS: dict[str, Callable[[Budget, Any, Any], None]] = {
    "+": add,
    "-": subtract,
    "*": multiply,
    "**": power,
    "%": percent,
}


def _check_bits(budget: Budget, bits: int) -> None:
    if bits > _MOST_BITS:
        budget.refuse(f"a number of more than {_MOST_BITS:,} bits")


def _printf(budget: Budget, text: str, values: Any) -> None:
    if _NESTED_KEY.search(text):
        budget.refuse("a format with brackets in brackets")
    size, weight = len(text), budget.weigh(values)
    for found in _CONVERSION.finditer(text):
        for width in found.groups():
            size += spec_width(budget, width) if width else 0
        size += weight
    budget.take(size * _escaping(text))


def spec_width(budget: Budget, spec: str) -> int:
    """The widest that a format specification asks for; refused where it is unknown or beyond all use."""
    widest = max((int(digits[:9]) for digits in _NUMBER.findall(spec)), default=0)
    if widest > _WIDEST or "*" in spec:
        budget.refuse(f"a field wider than {_WIDEST:,} characters")
    return widest


# Filters and methods by name. `text` is what they work on, the rest their arguments.


def _replace(budget: Budget, text: Any, old: Any = "", new: Any = "", count: Any = -1) -> None:
    text, old, new = str(text), str(old), str(new)
    times = text.count(old)
    if isinstance(count, int) and count >= 0:
        times = min(times, count)
    budget.take(len(text) + times * len(new))


def _join(budget: Budget, values: Any, between: Any = "", *_: Any, **__: Any) -> None:
    budget.take((budget.weigh(values) + len(str(between)) * len(values)) * _escaping(between))


def _indent(budget: Budget, text: Any, width: Any = 4, *_: Any, **__: Any) -> None:
    text = str(text)
    budget.take(len(text) + (text.count("\n") + 1) * (len(width) if isinstance(width, str) else int(width)))


def _format(budget: Budget, text: Any, *values: Any, **named: Any) -> None:
    _printf(budget, str(text), named or values)


def _round(budget: Budget, _: Any, precision: Any = 0, *__: Any, **___: Any) -> None:
    if not isinstance(precision, (int, float)) or abs(precision) > _MOST_DECIMALS:
        budget.refuse(f"a number of more than {_MOST_DECIMALS} digits")


def _to_json(budget: Budget, _: Any, *positional: Any, **named: Any) -> None:
    if not positional and not named:
        return
    options = (*positional, *named.values())
    indents = [option for option in options if type(option) is int]
    texts = [len(part) for option in options if isinstance(option, (list, tuple, str)) for part in option]
    if any(indent > _INDENT_MOST for indent in indents) or sum(texts) > _INDENT_MOST:
        budget.refuse(f"JSON indented or separated by more than {_INDENT_MOST} characters")


def _slow(budget: Budget, value: Any, *positional: Any, **named: Any) -> None:
    if (weight := budget.weigh(value)) > _SLOW:
        budget.refuse("a slow filter's text", weight, _SLOW)
    # What they put between words or into links.
    budget.take(
        weight * (1 + sum(len(part) for part in (*positional, *named.values()) if isinstance(part, str)))
    )


def _expand_tabs(budget: Budget, text: str, tabsize: Any = 8) -> None:
    budget.take(len(text) + text.count("\t") * int(tabsize))


FILTERS: dict[str, Callable[..., None]] = {
    "replace": _replace,
    "join": _join,
    "indent": _indent,
    "format": _format,
    "round": _round,
    "tojson": _to_json,
    **dict.fromkeys(("title", "wordcount", "wordwrap", "striptags", "urlize", "xmlattr", "pprint"), _slow),
}
METHODS: dict[str, Callable[..., None]] = {
    "replace": _replace,
    "expandtabs": _expand_tabs,
}
WIDE = frozenset(["batch", "center", "slice", "truncate", "wordwrap"])
"""Filters whose numbers are widths and counts."""
SHALLOW = frozenset(
    [
        "attr",
        "batch",
        "count",
        "d",
        "default",
        "first",
        "items",
        "last",
        "length",
        "list",
        "map",
        "reject",
        "rejectattr",
        "reverse",
        "select",
        "selectattr",
        "slice",
    ]
)
"""Filters that look at a structure's places and not into them."""
DEEP_TESTS = frozenset(
    [
        "!=",
        "<",
        "<=",
        "==",
        ">",
        ">=",
        "eq",
        "equalto",
        "ge",
        "greaterthan",
        "gt",
        "in",
        "le",
        "lessthan",
        "lt",
        "ne",
    ]
)
"""Tests that compare, at the length of what they compare."""
