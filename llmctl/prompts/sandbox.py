"""Jinja for templates that nobody has read: no way to the machine, and an end to time and memory.

Beside what jinja's own sandbox does, every loop, call, filter, operator and output is charged to a `Budget`.
"""

import functools
import types
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import jinja2
from jinja2 import pass_context
from jinja2.ext import loopcontrols
from jinja2.runtime import Context, LoopContext, Macro
from jinja2.sandbox import ImmutableSandboxedEnvironment, SandboxedFormatter
from jinja2.utils import Namespace
from markupsafe import EscapeFormatter, Markup

from llmctl.prompts import growth
from llmctl.prompts.budget import Budget
from llmctl.prompts.meters import METERS, BudgetContext, MeteredCode

MAX_TEMPLATE = 65_536
"""Characters of a template: longer ones would take seconds to compile. The longest in use have 30,000."""
_DENIED = frozenset(("encode", "translate", "maketrans", "to_bytes", "from_bytes", "striptags", "unescape"))
"""Methods that make large things in ways that need an account of their own; no prompt uses them."""


class Sandbox(ImmutableSandboxedEnvironment):
    """The environment of all templates, ours, a user's or a tokenizer's own."""

    context_class = BudgetContext
    intercepted_binops = frozenset(growth.OPERATORS)

    def __init__(self, extensions: Iterable[type[jinja2.ext.Extension]] = ()) -> None:
        super().__init__(
            trim_blocks=True,
            lstrip_blocks=True,
            extensions=[*extensions, loopcontrols],
            # Constants would be reckoned at compile time, where no budget is.
            optimized=False,
        )
        self.code_generator_class = MeteredCode
        self.globals["namespace"] = _Namespace
        self.globals["dict"] = _Dict()
        del self.globals["lipsum"]
        for name in list(self.filters):
            self.add_filter(name, self.filters[name])
        for name in growth.DEEP_TESTS:
            self.tests[name] = _metered(name, self.tests[name])
        self.filters |= METERS

    def add_filter(self, name: str, function: Callable[..., Any]) -> None:
        """A filter of our own, with an account."""
        self.filters[name] = _metered(name, function)

    def run(self, template: jinja2.Template, variables: Mapping[str, Any], budget: Budget) -> str:
        """The text of a template. Raises what jinja raises, and `TooCostlyError`."""
        context = template.new_context(dict(variables))
        assert isinstance(context, BudgetContext)
        context.budget = budget
        return "".join(template.root_render_func(context))

    def is_safe_attribute(self, obj: Any, attr: str, value: Any) -> bool:
        """See jinja."""
        if type(obj) in _HARMLESS:
            # What jinja would say too, after ten times as long.
            return not attr.startswith("_") and attr not in _DENIED
        return (
            type(obj) is not _Format and attr not in _DENIED and super().is_safe_attribute(obj, attr, value)
        )

    def wrap_str_format(self, value: Any) -> Callable[..., str] | None:
        """See jinja."""
        if super().wrap_str_format(value) is None:
            return None
        return _Format(self, value.__self__, is_map=value.__name__ == "format_map")

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        """See jinja."""
        # Two small numbers are what nearly all are.
        if type(left) is not int or type(right) is not int or operator in ("*", "**"):
            growth.OPERATORS[operator](context.budget, left, right)  # type: ignore[attr-defined]
        return self.binop_table[operator](left, right)

    def call(self, context: Context, obj: Any, /, *args: Any, **kwargs: Any) -> Any:
        """See jinja."""
        budget: Budget = context.budget  # type: ignore[attr-defined]
        budget.tick()
        if isinstance(obj, (types.BuiltinMethodType, types.MethodType)):
            args = _checked_method(budget, obj, args, kwargs)
        elif type(obj) is _Format:
            return budget.keep(obj.write(budget, args, kwargs))
        elif type(obj) is not Macro:
            for arg in args:
                budget.check(arg)
        return budget.keep(super().call(context, obj, *args, **kwargs))


def _checked_method(
    budget: Budget, method: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> tuple[Any, ...]:
    """Account for a method of a text, list or number before it is called; its arguments, read once."""
    receiver, name = method.__self__, method.__name__
    if isinstance(receiver, str):
        # Parts of a text are copies.
        budget.tick(len(receiver))
        if name == "join" and len(args) == 1:
            values = args[0] if isinstance(args[0], (list, tuple, str)) else list(args[0])
            growth.FILTERS["join"](budget, values, receiver)
            return (values,)
        if (reckon := growth.METHODS.get(name)) is not None:
            reckon(budget, receiver, *args, **_own(kwargs))
        for arg in args:
            _check_width(budget, arg)
    elif isinstance(receiver, (list, tuple)):
        budget.check(receiver)
    for arg in args:
        budget.check(arg)
    return args


def _own(kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """What the template gave by name, without what jinja adds."""
    return {name: value for name, value in kwargs.items() if name not in ("_loop_vars", "_block_vars")}


def _check_width(budget: Budget, value: Any) -> None:
    if isinstance(value, int) and abs(value) > budget.largest:
        budget.refuse("a width or count", abs(value), budget.largest)


class _Format:
    """A text's `format`, which may only be called where there is a budget."""

    def __init__(self, environment: jinja2.Environment, text: str, *, is_map: bool) -> None:
        self._environment, self._text, self._is_map = environment, text, is_map

    def __call__(self, *args: Any, **kwargs: Any) -> str:
        raise TypeError("format is called by something other than the template")

    def write(self, budget: Budget, args: tuple[Any, ...], kwargs: dict[str, Any]) -> str:
        named = _own(kwargs)
        if self._is_map:
            args, named = (), dict(*args)
        formatter = _MeteredFormatter(self._environment, budget)
        if isinstance(self._text, Markup):
            formatter = _EscapingFormatter(self._environment, budget, escape=self._text.escape)
        return type(self._text)(formatter.vformat(self._text, args, named))


class _MeteredFormatter(SandboxedFormatter):
    def __init__(self, environment: jinja2.Environment, budget: Budget, **escape: Any) -> None:
        super().__init__(environment, **escape)
        self._budget = budget

    def convert_field(self, value: Any, conversion: Any) -> Any:
        self._budget.take(self._budget.weigh(value))
        return super().convert_field(value, conversion)

    def format_field(self, value: Any, format_spec: str) -> str:
        growth.spec_width(self._budget, format_spec)
        self._budget.take(self._budget.weigh(value))
        return str(super().format_field(value, format_spec))


class _EscapingFormatter(_MeteredFormatter, EscapeFormatter):
    pass


class _Namespace(Namespace):
    """Written without what it holds, which may be namespaces without end."""

    def __repr__(self) -> str:
        return "<Namespace>"


class _Dict:
    """`dict` for templates: the type itself has methods that change what they are given."""

    def __call__(self, *args: Any, **kwargs: Any) -> dict[Any, Any]:
        return dict(*args, **kwargs)

    def fromkeys(self, keys: Iterable[Any], value: Any = None) -> dict[Any, Any]:
        """See `dict`."""
        return dict.fromkeys(keys, value)


_HARMLESS = frozenset((str, LoopContext, _Namespace))
"""What templates read most of, and cannot change."""


def _metered(name: str, function: Any) -> Callable[..., Any]:
    """`function`, a filter or test, with an account of what goes in and comes out."""
    passed = getattr(getattr(function, "jinja_pass_arg", None), "name", None)
    reckon, is_shallow, is_wide = growth.FILTERS.get(name), name in growth.SHALLOW, name in growth.WIDE

    @functools.wraps(function)
    def metered(context: BudgetContext, value: Any = None, *args: Any, **kwargs: Any) -> Any:
        budget = context.budget
        budget.tick()
        if name == "join" and not isinstance(value, (list, tuple, str)):
            value = list(value)
        if not is_shallow:
            budget.check(value)
        for arg in (*args, *kwargs.values()) if kwargs else args:
            budget.check(arg)
            if is_wide:
                _check_width(budget, arg)
        if reckon is not None:
            reckon(budget, value, *args, **kwargs)
        if passed is None:
            return budget.keep(function(value, *args, **kwargs))
        first = {"context": context, "eval_context": context.eval_ctx, "environment": context.environment}
        return budget.keep(function(first[passed], value, *args, **kwargs))

    return pass_context(metered)
