"""Which modules of a model are stored in few bits, by which method, and why the others are not.

Decides on shapes, classes and the model's source; no weight is looked at, so a model on meta will do.
"""

import ast
import functools
import inspect
import re
import textwrap
from collections import defaultdict
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from llmctl.quant import direct_reads, experts
from llmctl.quant.methods import METHODS, Scheme, group_size
from llmctl.quant.modules import Factor

Kind = Literal["linear", "conv1d", "experts", "embedding", "head"]

# Linear by another spelling: `x @ weight.T + bias`.
_LINEAR_CLASSES = frozenset({"transformers.models.falcon.modeling_falcon.FalconLinear"})
_SCALED_TABLES = (
    "return super().forward(input_ids) * self.embed_scale",
    "return super().forward(input_ids) * self.embed_scale.to(self.weight.dtype)",
)
_ROUTER = re.compile(r"(?:^|\.)(?:\w*gate|\w*router|classifier|wg)(?:$|\.)")
_EXPERT_COUNTS = ("num_experts", "num_local_experts", "n_routed_experts", "moe_num_experts")
_OF_ROUTER = "it chooses the experts, which takes exact numbers"


@dataclass(frozen=True, slots=True)
class Place:
    """What becomes of one module."""

    kind: Kind
    method: str | None
    """A key of `METHODS`; None: packed as its weight arrives, or dense."""


@dataclass(slots=True, kw_only=True)
class Selection:
    """What becomes of the modules of a model, by path."""

    places: dict[str, Place] = field(default_factory=dict)
    dense: dict[str, str] = field(default_factory=dict)
    """Modules with weight matrices that stay as they are, each with the reason, as words after "because"."""
    table: str = ""
    """Path of the table of tokens; empty without one."""
    head: str = ""
    """Path of the layer that gives the logits; empty without one."""
    shared: tuple[str, ...] = ()
    """Names of the other parameters that are the head's weight, the source of its tie first."""

    @property
    def tied(self) -> bool:
        """Whether the table of tokens and the head are one weight."""
        return f"{self.table}.weight" in self.shared


def select(model: Any, scheme: Scheme) -> Selection:
    """What `scheme` makes of the modules of `model`, a model of transformers."""
    chosen, reads = _begin(model), direct_reads.find(model)
    for path, module in _with_matrices(model):
        kind = _kind(path, module, chosen)
        method = {"head": scheme.head, "embedding": scheme.embedding}.get(kind or "", scheme.body)
        reason = _why_dense(path, module, chosen, reads) if kind is None or path in reads else ""
        reason = reason or _why_not(path, module, model, method, scheme.skip)
        if kind is None or reason:
            chosen.dense[path] = reason
        else:
            chosen.places[path] = Place(kind, method)
    _settle_ties(model, chosen)
    return chosen


def for_checkpoint(model: Any, weights: Collection[str] | None = None) -> Selection:
    """The modules that can take a quantised weight from a checkpoint, and a dense one as well.

    `weights` are the names of those that will come quantised, as the model calls them; None: not known. A
    table that shares its weight with the head is left out, with the head, unless one of them is named.
    """
    chosen, reads = _begin(model), direct_reads.find(model)
    is_left_out = (chosen.table, chosen.head) if weights is None and chosen.shared else ()
    for path, module in _with_matrices(model):
        kind = _kind(path, module, chosen)
        names = {f"{path}.{name}" for name in matrices(module)}
        if kind is None or path in reads:
            chosen.dense[path] = _why_dense(path, module, chosen, reads)
        elif path in is_left_out or (weights is not None and names.isdisjoint(weights)):
            chosen.dense[path] = "the checkpoint has it dense"
        else:
            chosen.places[path] = Place(kind, None)
    _settle_ties(model, chosen)
    return chosen


def matrices(module: nn.Module) -> Mapping[str, Tensor]:
    """Parameters of the module's own with two dimensions or more, by name; biases of experts are none."""
    own = module.named_parameters(recurse=False)
    return {name: each for name, each in own if each.dim() > 1 and "bias" not in name}


def factor(table: nn.Module) -> Factor | None:
    """What an embedding that `select` took multiplies its rows by; None: nothing."""
    if type(table) is nn.Embedding:
        return None
    scalar: Any = getattr(table, "scalar_embed_scale", None)
    value: Any = table.embed_scale if scalar is None else scalar
    return Factor(float(value), is_rounded=scalar is not None)


def _begin(model: Any) -> Selection:
    paths = {id(module): path for path, module in model.named_modules()}
    table, head = (
        paths.get(id(_asked(ask)), "") for ask in (model.get_input_embeddings, model.get_output_embeddings)
    )
    shared = _shared(model).get(f"{head}.weight", ()) if head else ()
    sources = set(_ties(model).values())
    ordered = tuple(sorted(shared, key=lambda name: (name not in sources, name)))
    return Selection(table=table, head=head, shared=ordered)


def _asked(ask: Callable[[], nn.Module | None]) -> nn.Module | None:
    try:
        return ask()
    except NotImplementedError:
        return None


def _ties(model: Any) -> Mapping[str, str]:
    """Transformers' own list: name of a parameter to the name of the one that it becomes."""
    ties: Mapping[str, str] = getattr(model, "all_tied_weights_keys", {})
    return ties


def _shared(model: Any) -> Mapping[str, tuple[str, ...]]:
    """For parameters that several names stand for, or will once they are tied: the other names."""
    names: dict[int, set[str]] = defaultdict(set)
    groups: dict[str, set[str]] = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        names[id(parameter)].add(name)
        groups[name] = names[id(parameter)]
    for target, source in _ties(model).items():
        joined = groups.get(target, {target}) | groups.get(source, {source})
        groups.update(dict.fromkeys(joined, joined))
    return {name: tuple(sorted(group - {name})) for name, group in groups.items() if len(group) > 1}


def _with_matrices(model: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    return ((path, module) for path, module in model.named_modules() if path and matrices(module))


def _kind(path: str, module: nn.Module, chosen: Selection) -> Kind | None:
    if isinstance(module, nn.Embedding):
        return "embedding" if path == chosen.table and _is_plain_table(module) else None
    if _is_linear(module):
        return "head" if path == chosen.head else "linear"
    if type(module) is Conv1D:
        return "conv1d"
    return "experts" if experts.are_known(module) else None


def _is_linear(module: nn.Module) -> bool:
    kind = type(module)
    return isinstance(module, nn.Linear) and (
        kind.forward is nn.Linear.forward or f"{kind.__module__}.{kind.__qualname__}" in _LINEAR_CLASSES
    )


def _is_plain_table(module: nn.Embedding) -> bool:
    """Whether it looks rows up, and at most multiplies them by one number."""
    if module.max_norm is not None:
        return False
    return type(module) is nn.Embedding or _statement(type(module).forward) in _SCALED_TABLES


@functools.cache
def _statement(function: Callable[..., Any]) -> str:
    """The one statement that a function consists of; empty for others."""
    try:
        tree = ast.parse(textwrap.dedent(inspect.getsource(function)))
    except (OSError, TypeError, SyntaxError):
        return ""
    body = tree.body[0].body if isinstance(tree.body[0], ast.FunctionDef) else []
    return ast.unparse(body[0]) if len(body) == 1 else ""


def _why_dense(path: str, module: nn.Module, chosen: Selection, reads: Mapping[str, str]) -> str:
    """Why a module cannot be packed, by what it is and who reads its weight."""
    if path in reads:
        return f"{reads[path]} reads its weight directly"
    if _ROUTER.search(path):
        return _OF_ROUTER
    if type(module) is nn.Embedding and path != chosen.table:
        return "it is not the model's table of tokens"
    return f"{type(module).__name__} has a computation of its own"


def _why_not(path: str, module: nn.Module, model: Any, method: str | None, skip: Collection[str]) -> str:
    """Why a module that could be packed should not be; empty where it should."""
    if method is None:
        return "it is to stay as it is"
    if any(re.search(pattern, path) for pattern in skip):
        return "it is to be skipped"
    if _is_router(path, module, model):
        return _OF_ROUTER
    sizes = " or ".join(map(str, METHODS[method].group_sizes))
    widths = [width for width in _widths(module) if group_size(method, width) is None]
    return f"no group of {method} ({sizes}) divides its width of {widths[0]}" if widths else ""


def _widths(module: nn.Module) -> list[int]:
    """Numbers in a row of each of its matrices, as nn.Linear has them."""
    is_transposed = isinstance(module, Conv1D) or getattr(module, "is_transposed", False)
    return [weight.shape[-2 if is_transposed else -1] for weight in matrices(module).values()]


def _is_router(path: str, module: nn.Module, model: Any) -> bool:
    if not isinstance(module, nn.Linear) or not _ROUTER.search(path):
        return False
    config = model.config.get_text_config()
    return module.out_features in {1, *(getattr(config, name, None) for name in _EXPERT_COUNTS)}


def _settle_ties(model: Any, chosen: Selection) -> None:
    """A weight of several names is packed if only table and head have it; a head alone gets a copy."""
    shared, sources = _shared(model), set(_ties(model).values())
    for path in list(chosen.places):
        others = set(shared.get(f"{path}.weight", ()))
        reason = ""
        if path == chosen.head:
            if f"{path}.weight" in sources and len(others) > 1:
                reason = f"{min(others).removesuffix('.weight')} and others share its weight"
        elif others - {f"{chosen.head}.weight"}:
            reason = f"it shares its weight with {min(others).removesuffix('.weight')}"
        elif path == chosen.table and model.config.is_encoder_decoder:
            reason = "encoder and decoder look up in it"
        if reason:
            del chosen.places[path]
            chosen.dense[path] = reason
    if chosen.tied and chosen.table in chosen.places and chosen.head not in chosen.places:
        del chosen.places[chosen.table]
        chosen.dense[chosen.table] = f"it shares its weight with {chosen.head}, which stays dense"
