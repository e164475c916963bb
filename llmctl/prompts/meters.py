"""Where a template is charged: filters that the code generator puts at its loops, bodies, joins and outputs.

What is charged and how much is too much stands in `budget`, what grows in `growth`.
"""

from collections.abc import Callable, Iterator
from typing import Any

import jinja2
from jinja2 import nodes, pass_context
from jinja2.compiler import CodeGenerator
from jinja2.runtime import Context
from jinja2.visitor import NodeTransformer

from llmctl.prompts import growth
from llmctl.prompts.budget import Budget

_NODE = 16
"""Units of each step that a body holds: a list written in a loop is made in each round."""


class BudgetContext(Context):
    """A rendering's variables, with its budget."""

    budget: Budget

    def derived(self, locals: dict[str, Any] | None = None) -> "BudgetContext":  # noqa: A002
        """See jinja."""
        context = super().derived(locals)
        assert isinstance(context, BudgetContext)
        context.budget = self.budget
        return context


@pass_context
def _written(context: BudgetContext, value: Any) -> Any:
    """A value on its way into the prompt."""
    budget = context.budget
    if isinstance(value, str):
        budget.left -= len(value)
    else:
        budget.tick(8)
        budget.check(value)
    return value


@pass_context
def _tick(context: BudgetContext, units: int) -> bool:
    """A round of a loop, a call of a macro."""
    # As `Budget.tick`, without the call: this is what runs most.
    budget = context.budget
    budget.left -= units
    budget.ticks -= 1
    if budget.left < 0 or budget.ticks < 0:
        budget.settle()
    return True


@pass_context
def _weighed(context: BudgetContext, value: Any) -> Any:
    if type(value) is not str:
        context.budget.check(value)
    return value


@pass_context
def _kept(context: BudgetContext, value: Any) -> Any:
    return context.budget.keep(value)


@pass_context
def _joined(context: BudgetContext, parts: tuple[Any, ...]) -> str:
    budget = context.budget
    size = 0
    for part in parts:
        size += len(part) if isinstance(part, str) else budget.weigh(part)
    budget.take(size)
    return "".join(map(str, parts))


@pass_context
def _added(context: BudgetContext, parts: tuple[Any, ...]) -> Any:
    """The sum of a chain of `+`, which nearly always is one of texts."""
    budget = context.budget
    try:
        size = sum(map(len, parts))
        if size <= budget.largest:
            text = "".join(parts)
            budget.left -= size
            if budget.left < 0:
                budget.settle()
            return text
    except TypeError:
        # Numbers, lists, or a mistake, which then is told as such.
        pass
    total = parts[0]
    for part in parts[1:]:
        growth.add(budget, total, part)
        total = total + part
    return total


# Filters that only the code generator calls: no template can write a name with a blank.
_TICK, _WEIGHED, _KEPT, _WRITTEN, _JOINED, _ADDED = (
    " tick",
    " weighed",
    " kept",
    " written",
    " joined",
    " added",
)
METERS: dict[str, Callable[..., Any]] = {
    _TICK: _tick,
    _WEIGHED: _weighed,
    _KEPT: _kept,
    _WRITTEN: _written,
    _JOINED: _joined,
    _ADDED: _added,
}
_ACCOUNTED = frozenset((_KEPT, _JOINED, _ADDED, "tojson", "trim", "join", "replace", "upper", "lower"))
"""Filters whose text was accounted for as they made it."""


class MeteredCode(CodeGenerator):
    """Compiles a template with its meters in place."""

    def visit_Template(self, node: nodes.Template, frame: Any = None) -> None:  # noqa: N802
        """See jinja."""
        _Meters(marks=_marks(node)).visit(node)
        node.set_environment(self.environment)
        super().visit_Template(node, frame)


class _Meters(NodeTransformer):
    """Puts the filters above into a template."""

    def __init__(self, *, marks: bool) -> None:
        """`marks`: some of its texts may be marked as safe, and must be added one by one."""
        self._marks = marks

    def visit_For(self, node: nodes.For) -> nodes.Node:  # noqa: N802
        if node.test is not None:
            units = nodes.Const(_cost(node.test), lineno=node.lineno)
            node.test = nodes.And(_filter(units, _TICK), node.test, lineno=node.lineno)
        return self._ticking(node)

    def visit_Macro(self, node: nodes.Macro) -> nodes.Node:  # noqa: N802
        return self._ticking(node)

    def visit_CallBlock(self, node: nodes.CallBlock) -> nodes.Node:  # noqa: N802
        return self._ticking(node)

    def visit_Block(self, node: nodes.Block) -> nodes.Node:  # noqa: N802
        return self._ticking(node)

    def visit_ScopedEvalContextModifier(self, node: nodes.Node) -> nodes.Node:  # noqa: N802
        raise jinja2.TemplateSyntaxError("autoescape is for HTML, and this is a prompt", node.lineno)

    def visit_Compare(self, node: nodes.Compare) -> nodes.Node:  # noqa: N802
        self.generic_visit(node)
        # What is compared with a constant is never looked into.
        if not any(_is_plain(part) for part in (node.expr, *(operand.expr for operand in node.ops))):
            node.expr = _filter(node.expr, _WEIGHED)
            for operand in node.ops:
                operand.expr = _filter(operand.expr, _WEIGHED)
        return node

    def visit_Concat(self, node: nodes.Concat) -> nodes.Node:  # noqa: N802
        self.generic_visit(node)
        return _filter(nodes.Tuple(node.nodes, "load", lineno=node.lineno), _JOINED)

    def visit_Add(self, node: nodes.Add) -> nodes.Node:  # noqa: N802
        if self._marks:
            return self.generic_visit(node)
        parts = [node.right]
        first: nodes.Expr = node.left
        while isinstance(first, nodes.Add):
            parts.append(first.right)
            first = first.left
        chain = nodes.Tuple([first, *reversed(parts)], "load", lineno=node.lineno)
        self.generic_visit(chain)
        return _filter(chain, _ADDED)

    def visit_Output(self, node: nodes.Output) -> nodes.Node:  # noqa: N802
        self.generic_visit(node)
        node.nodes = [child if _is_accounted(child) else _filter(child, _WRITTEN) for child in node.nodes]
        return node

    def visit_Getitem(self, node: nodes.Getitem) -> nodes.Node:  # noqa: N802
        self.generic_visit(node)
        if isinstance(node.arg, nodes.Slice):
            return _filter(node, _KEPT)
        if not isinstance(node.arg, nodes.Const):
            node.arg = _filter(node.arg, _WEIGHED)
        return node

    def visit_Pair(self, node: nodes.Pair) -> nodes.Node:  # noqa: N802
        self.generic_visit(node)
        if not isinstance(node.key, nodes.Const):
            node.key = _filter(node.key, _WEIGHED)
        return node

    def _ticking(self, node: Any) -> nodes.Node:
        """A body that is charged each time it runs."""
        units = sum(map(_cost, node.body))
        self.generic_visit(node)
        tick = nodes.ExprStmt(_filter(nodes.Const(units, lineno=node.lineno), _TICK), lineno=node.lineno)
        node.body = [tick, *node.body]
        return node  # type: ignore[no-any-return]


def _filter(node: nodes.Expr, name: str) -> nodes.Filter:
    return nodes.Filter(node, name, [], [], None, None, lineno=node.lineno)


_MARKING = frozenset(("safe", "e", "escape", "forceescape", "urlize", "xmlattr"))
"""Filters that mark their text as safe: a text that is added to one is escaped."""


def _marks(template: nodes.Template) -> bool:
    """Whether one of those is called, or named for `map` to call."""
    names = {node.name for node in template.find_all(nodes.Filter)}
    return bool(names & _MARKING) or any(node.value in _MARKING for node in _texts(template))


def _texts(template: nodes.Template) -> Iterator[nodes.Const]:
    return (node for node in template.find_all(nodes.Const) if isinstance(node.value, str))


def _is_accounted(node: nodes.Expr) -> bool:
    """Whether what it writes is a constant, or was accounted for as it was made."""
    if isinstance(node, nodes.Filter):
        return node.name in _ACCOUNTED
    return isinstance(node, (nodes.TemplateData, nodes.Const))


def _is_plain(node: nodes.Expr) -> bool:
    """Whether it holds constants alone, or is true or false."""
    if isinstance(node, (nodes.List, nodes.Tuple)):
        return all(isinstance(item, nodes.Const) for item in node.items)
    return isinstance(node, (nodes.Const, nodes.Compare, nodes.Not, nodes.Test))


def _cost(node: nodes.Node) -> int:
    """Units of running it once, without bodies that charge for themselves."""
    if isinstance(node, nodes.TemplateData):
        return len(node.data)
    charges_itself = isinstance(node, (nodes.For, nodes.Macro, nodes.CallBlock, nodes.Block))
    rest = node.iter_child_nodes(exclude=("body",) if charges_itself else ())
    return _NODE * (16 if charges_itself else 1) + sum(map(_cost, rest))
