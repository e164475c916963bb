"""Modules whose code says down(activation(gate(x)) * up(x)), with one pass between the products."""

import ast
import functools
import inspect
import re
import textwrap
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from llmctl.engine.fast import elementwise
from llmctl.engine.fast.elementwise import Activation

_FORWARD = re.compile(
    r"self\.(?P<down>\w+)\((?P<activation>self\.\w+|(?:F|nn\.functional)\.silu)"
    r"\(self\.(?P<gate>\w+)\((?P<x>\w+)\)\) \* self\.(?P<up>\w+)\((?P=x)\)\)"
)


@dataclass(frozen=True, slots=True)
class Names:
    """What a class calls the parts of its gate."""

    gate: str
    up: str
    down: str
    activation: str
    """The activation as the code has it."""


class FastGate(nn.Module):
    """Mixed into a class whose forward is the product."""

    names: Names
    activation: Activation

    def forward(self, x: Tensor) -> Tensor:
        """[..., K] to the same; by the class's own code where ours cannot."""
        if not elementwise.takes(x):
            own: Tensor = super().forward(x)
            return own
        names = self.names
        gate, up = getattr(self, names.gate)(x), getattr(self, names.up)(x)
        product: Tensor = getattr(self, names.down)(elementwise.gated(gate, up, self.activation))
        return product


def quicken(model: nn.Module) -> int:
    """Let all gates that are known compute in fewer passes, in place; returns how many."""
    if elementwise.library() is None:
        return 0
    return sum(_adopt(module) for module in list(model.modules()))


def _adopt(module: nn.Module) -> bool:
    names = None if isinstance(module, FastGate) else _names(type(module).forward)
    activation = None if names is None else _activation(module, names.activation)
    if names is None or activation is None:
        return False
    fast: Any = module
    fast.__class__ = _fast_class(type(module))  # type: ignore[arg-type]
    fast.names, fast.activation = names, activation
    return True


@functools.cache
def _names(forward: Callable[..., Any]) -> Names | None:
    """The parts, where the function computes the product and nothing else."""
    try:
        tree = ast.parse(textwrap.dedent(inspect.getsource(forward)))
    except (OSError, TypeError, SyntaxError):
        return None
    function = tree.body[0]
    if not isinstance(function, ast.FunctionDef) or len(function.args.args) != 2:
        return None
    found = _FORWARD.fullmatch(_result(function.body))
    if found is None or found["x"] != function.args.args[1].arg:
        return None
    return Names(found["gate"], found["up"], found["down"], found["activation"])


def _result(body: list[ast.stmt]) -> str:
    """What is returned, through one variable at most; empty for longer code."""
    match body:
        case [ast.Return(value=ast.expr() as value)]:
            return ast.unparse(value)
        case [ast.Assign(targets=[ast.Name(id=name)], value=value), ast.Return(value=ast.Name(id=returned))]:
            return ast.unparse(value) if name == returned else ""
        case _:
            return ""


def _activation(module: nn.Module, code: str) -> Activation | None:
    """Which of the known functions it is, by trial."""
    if not code.startswith("self."):
        return "silu"
    function = getattr(module, code.removeprefix("self."))
    if isinstance(function, nn.Module) and list(function.parameters()):
        return None
    x = torch.linspace(-12, 12, 501)
    with torch.no_grad():
        got = function(x.clone())
        known: dict[Activation, Tensor] = {
            "silu": nn.functional.silu(x),
            "gelu tanh": nn.functional.gelu(x, approximate="tanh"),
        }
    return next((name for name, wanted in known.items() if torch.allclose(got, wanted, 1e-5, 1e-6)), None)


@functools.cache
def _fast_class(kind: type[Any]) -> type[Any]:
    """`FastGate` before the model's own class, whose forward is then the slow way."""
    return type(f"Fast{kind.__name__}", (FastGate, kind), {"__module__": kind.__module__})
