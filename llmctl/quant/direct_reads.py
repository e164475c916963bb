"""Which modules of a model have their weight read by code other than theirs, from the source of its classes.

`self.dt_proj.weight @ x` would find no numbers once `dt_proj` is packed. Asking a weight for its type or
device is no read, nor is code that inference does not run.
"""

import ast
import functools
import inspect
import re
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

_WEIGHTS = frozenset({"weight", "gate_up_proj", "up_proj", "down_proj"})
_HARMLESS = frozenset({"dtype", "device", "is_meta"})
_QUESTIONS = frozenset({"hasattr", "isinstance"})
# They run while a model is made, changed or saved.
_IDLE = (
    "_init_weights",
    "__init__",
    "reset_parameters",
    "resize_",
    "_resize_",
    "set_",
    "get_",
    "tie_",
    "load_",
    "convert_",
)
_CUDA_ONLY = "cuda_kernels_forward"

_ANY = "[]"

Chain = tuple[str, ...]
"""("self", "layers", "[]", "mlp"): names, `_ANY` for an index."""


@dataclass(frozen=True, slots=True)
class Read:
    """One read of a weight in the source of a class."""

    owner: Chain
    """From `self` to the module: ("mlp", "dt_proj"); without `self`, the end of its path."""
    is_own: bool
    """Whether `owner` begins at the object itself."""
    guards: tuple[tuple[ast.expr, bool], ...]
    """The conditions around it, with what they must come to."""


def find(model: nn.Module) -> Mapping[str, str]:
    """Paths of the modules whose weight is read, with the name of the class that does it."""
    readers: dict[str, str] = {}
    for path, module in model.named_modules():
        for kind in type(module).__mro__:
            for read in _reads(kind):
                if all(_truth(test, module) in (wanted, None) for test, wanted in read.guards):
                    readers.setdefault(_pattern(path, read), kind.__name__)
    patterns = {re.compile(pattern): name for pattern, name in readers.items()}
    found = {}
    for path, module in model.named_modules():
        name = next((name for pattern, name in patterns.items() if pattern.fullmatch(path)), None)
        if name is not None and any(True for _ in module.parameters(recurse=False)):
            found[path] = name
    return found


def _pattern(path: str, read: Read) -> str:
    """The paths that `read` means in a module at `path`, as a regular expression."""
    names = [r"[^.]+" if name == _ANY else re.escape(name) for name in read.owner]
    start = [re.escape(path)] if path and read.is_own else []
    return ("" if read.is_own else r"(?:.+\.)?") + r"\.".join(start + names)


@functools.cache
def _reads(kind: type) -> tuple[Read, ...]:
    """The reads in the methods of `kind` itself."""
    if kind is nn.MultiheadAttention:
        return (Read(("out_proj",), is_own=True, guards=()),)
    if kind.__module__.partition(".")[0] == "torch" or kind.__module__ in ("builtins", "typing"):
        return ()
    tree = _tree(kind.__module__)
    body = (
        []
        if tree is None
        else [
            node for node in ast.walk(tree) if isinstance(node, ast.ClassDef) and node.name == kind.__name__
        ]
    )
    return tuple(
        read
        for definition in body
        for method in definition.body
        if isinstance(method, ast.FunctionDef) and not _is_idle(method.name)
        for read in _reads_of(method)
    )


@functools.cache
def _tree(module: str) -> ast.Module | None:
    # The loading machinery of transformers itself is no model.
    if module.startswith("transformers.") and not module.startswith("transformers.models."):
        return None
    try:
        return ast.parse(inspect.getsource(sys.modules[module]))
    except (OSError, TypeError, KeyError, SyntaxError):
        return None


def _is_idle(name: str) -> bool:
    return name.startswith(_IDLE) or (name == _CUDA_ONLY and not torch.cuda.is_available())


def _reads_of(method: ast.FunctionDef) -> Iterator[Read]:
    aliases = dict(_aliases(method))
    for node, guards in _guarded(method, ()):
        chain = _weight(node)
        if not chain:
            continue
        owner = (*aliases.get(chain[0], chain[:1]), *chain[1:])[1:]
        if set(owner) - {_ANY}:
            yield Read(owner, is_own=aliases.get(chain[0], chain)[0] == "self", guards=guards)


def _aliases(method: ast.FunctionDef) -> Iterator[tuple[str, Chain]]:
    """Local names of modules: `gate = self.gate`, `for layer in self.layers`."""
    for node in ast.walk(method):
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            chain = _chain(node.value)
            if len(chain) > 1 and chain[0] == "self":
                yield node.targets[0].id, chain
        elif isinstance(node, ast.For | ast.comprehension) and isinstance(node.target, ast.Name):
            chain = _chain(node.iter)
            if len(chain) > 1 and chain[0] == "self":
                yield node.target.id, (*chain, _ANY)


def _guarded(node: ast.AST, guards: tuple[tuple[ast.expr, bool], ...]) -> Iterator[tuple[ast.AST, Any]]:
    """All that is evaluated under `node` and may read a weight, with the conditions around it."""
    if _is_question(node):
        return
    yield node, guards
    if isinstance(node, ast.If | ast.IfExp):
        yield from _guarded(node.test, guards)
        for wanted, branch in ((True, node.body), (False, node.orelse)):
            children: list[ast.AST] = list(branch) if isinstance(branch, list) else [branch]
            for each in children:
                yield from _guarded(each, (*guards, (node.test, wanted)))
        return
    for child in ast.iter_child_nodes(node):
        yield from _guarded(child, guards)


def _is_question(node: ast.AST) -> bool:
    if isinstance(node, ast.Attribute):
        return node.attr in _HARMLESS and bool(_weight(node.value))
    return isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in _QUESTIONS


def _weight(node: ast.AST) -> Chain:
    """Where `a.b.weight` or `getattr(a.b, "weight")` is read, ("a", "b"); else nothing."""
    if isinstance(node, ast.Attribute) and node.attr in _WEIGHTS:
        return _chain(node.value)
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "getattr":
        named = node.args[1] if len(node.args) > 1 else None
        if isinstance(named, ast.Constant) and named.value in _WEIGHTS:
            return _chain(node.args[0])
    return ()


def _chain(node: ast.AST) -> Chain:
    """The names of `a.b.c`; an index counts as one, nothing is known of what a call gives."""
    if isinstance(node, ast.Name):
        return (node.id,)
    if isinstance(node, ast.Attribute | ast.Subscript):
        owner = _chain(node.value)
        return (*owner, node.attr if isinstance(node, ast.Attribute) else _ANY) if owner else ()
    return (_ANY,) if isinstance(node, ast.Call) else ()


def _truth(test: ast.expr, module: nn.Module) -> bool | None:
    """What a condition on the object's own attributes comes to in inference; None: not known."""
    if isinstance(test, ast.BoolOp):
        parts = [_truth(part, module) for part in test.values]
        decisive = isinstance(test.op, ast.Or)
        if decisive in parts:
            return decisive
        return None if None in parts else not decisive
    if isinstance(test, ast.UnaryOp) and isinstance(test.op, ast.Not):
        inner = _truth(test.operand, module)
        return None if inner is None else not inner
    values = (
        [_value(part, module) for part in (test.left, *test.comparators)]
        if isinstance(test, ast.Compare)
        else []
    )
    if isinstance(test, ast.Compare) and len(values) == 2 and _UNKNOWN not in values:
        compare = _COMPARISONS.get(type(test.ops[0]))
        return None if compare is None else bool(compare(*values))
    value = _value(test, module)
    return bool(value) if isinstance(value, bool | int | None) else None


class _Unknown:
    """A value that cannot be had without running the model."""


_UNKNOWN = _Unknown()
_COMPARISONS: Mapping[type[ast.cmpop], Any] = {
    ast.Gt: lambda a, b: a > b,
    ast.Lt: lambda a, b: a < b,
    ast.Eq: lambda a, b: a == b,
    ast.NotEq: lambda a, b: a != b,
    ast.Is: lambda a, b: a is b,
    ast.IsNot: lambda a, b: a is not b,
}


def _value(node: ast.expr, module: nn.Module) -> Any:
    if isinstance(node, ast.Constant):
        return node.value
    chain = _chain(node)
    if len(chain) < 2 or chain[0] != "self":
        return _UNKNOWN
    if chain == ("self", "training"):
        return False
    value: Any = module
    for name in chain[1:]:
        value = getattr(value, name, _UNKNOWN)
    return value if isinstance(value, bool | int | float | str | None) else _UNKNOWN
