"""What a text shows of the inputs of a model's layers, block by block, for rounding that makes up for errors.

A block is looked at with the blocks before it rounded already, so that it makes up for their errors as well.
Needs the whole model in memory; what is kept of a layer are the products of its inputs, [K, K].
"""

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from llmctl.artifacts.compress.windows import tokens_of, windows
from llmctl.core.errors import BadFileError, UsageError
from llmctl.core.progress import Progress

MAX_SEQUENCES, SEQUENCE_LENGTH = 128, 512
_MIN_TOKENS = 256
"""Fewer say next to nothing of what a layer meets."""
Round = Callable[[str, Tensor, Tensor], Tensor]
"""From a module's path, its weight and the products of its inputs to the weight that is stored for it."""


@dataclass(slots=True)
class _Call:
    """One sequence on its way through the blocks."""

    hidden: Tensor
    options: dict[int, tuple[tuple[Any, ...], dict[str, Any]]]
    """By the index of the block, what it is called with beside the hidden states."""


class _Whole(Exception):  # noqa: N818  # no error: all blocks are known
    """Ends a pass when the last block has been reached."""


def sequences(text: str, tokenizer: Any, *, context_length: int, name: str) -> list[Tensor]:
    """int64 [1, T] each; raises `BadFileError` for a text, called `name`, that is too short."""
    ids = tokens_of(text, tokenizer)
    if len(ids) < _MIN_TOKENS:
        raise BadFileError(
            f"{name} has {len(ids)} tokens; calibration needs {_MIN_TOKENS} at the least",
            hint="give text of the kind that the model will meet; some ten thousand tokens are plenty",
        )
    return windows(ids, tokenizer, length=min(SEQUENCE_LENGTH, context_length), most=MAX_SEQUENCES)


@torch.inference_mode()
def calibrate(
    model: Any, given: Sequence[Tensor], paths: Sequence[str], round_weight: Round, progress: Progress
) -> None:
    """Call `round_weight` for each module of `paths` that lies in a block, and put its answer into the model.

    Raises `UsageError` for a model whose layers do not follow one another.
    """
    blocks = _blocks(model, paths)
    calls = [_first_pass(model, blocks, ids) for ids in given]
    _check_chain(blocks, calls)
    names = {id(module): path for path, module in model.named_modules()}
    wanted = set(paths)
    for index, block in enumerate(blocks):
        progress.stage(f"calibrate block {index + 1} of {len(blocks)}")
        modules = {names[id(module)]: module for module in block.modules() if names.get(id(module)) in wanted}
        products = _products(block, index, modules, calls)
        for path, found in products.items():
            weight: Any = modules[path].weight
            weight.copy_(round_weight(path, weight, found).to(weight.dtype))
        for call in calls:
            call.hidden = _run(block, index, call)
            call.options.pop(index)


def _blocks(model: nn.Module, paths: Sequence[str]) -> list[nn.Module]:
    """The list of the model's that holds most of the modules."""
    lists = [(path, module) for path, module in model.named_modules() if isinstance(module, nn.ModuleList)]

    def held(item: tuple[str, nn.ModuleList]) -> int:
        return sum(path.startswith(f"{item[0]}.") for path in paths)

    # Of one within another both hold the same modules; the outer comes first.
    path, chosen = max(lists, key=held, default=("", nn.ModuleList()))
    if not path or model.config.is_encoder_decoder:  # type: ignore[union-attr]
        raise UsageError(
            "--calibration is for models of one chain of layers, and this one has another build",
            hint="leave it out: the range of each group is searched all the same",
        )
    return list(chosen)


def _first_pass(model: Any, blocks: Sequence[nn.Module], ids: Tensor) -> _Call:
    """What the blocks are called with when the model reads `ids`."""
    call = _Call(torch.empty(0), {})

    def seen(index: int) -> Callable[..., None]:
        def note(module: nn.Module, args: tuple[Any, ...], options: dict[str, Any]) -> None:
            options = dict(options)
            hidden, rest = (args[0], args[1:]) if args else (options.pop("hidden_states"), ())
            if index < 2:
                # The second is what the first gives, if they follow one another.
                kept.append(hidden)
            call.options[index] = (rest, options)
            if index == len(blocks) - 1:
                raise _Whole

        return note

    kept: list[Tensor] = []
    hooks = [block.register_forward_pre_hook(seen(i), with_kwargs=True) for i, block in enumerate(blocks)]
    try:
        model(ids.to(model.device), use_cache=False)
    except _Whole:
        pass
    finally:
        for hook in hooks:
            hook.remove()
    call.hidden = kept[0] if kept else call.hidden
    call.options[-1] = (tuple(kept[1:]), {})
    return call


def _check_chain(blocks: Sequence[nn.Module], calls: Sequence[_Call]) -> None:
    """Refuse a model that does more between its blocks than hand the hidden states on."""
    for number, call in enumerate(calls):
        (following, _) = call.options.pop(-1)
        if number or not following:
            continue
        found = _run(blocks[0], 0, call)
        if not bool(found.isfinite().all()):
            raise BadFileError("what the layers give is no number", hint="the publisher's weights are broken")
        if len(call.options) != len(blocks) or not torch.allclose(found, following[0], rtol=1e-3, atol=1e-3):
            raise UsageError(
                "--calibration is for models whose layers follow one another, and this one does more",
                hint="leave it out: the range of each group is searched all the same",
            )


def _run(block: nn.Module, index: int, call: _Call) -> Tensor:
    args, options = call.options[index]
    out: Any = block(call.hidden, *args, **options)
    hidden: Tensor = out if isinstance(out, Tensor) else out[0]
    return hidden


def _products(
    block: nn.Module, index: int, modules: Mapping[str, nn.Module], calls: Sequence[_Call]
) -> dict[str, Tensor]:
    """The sum of x xT over the inputs x of each module, float32 [K, K]; modules of one input share it."""
    sums: dict[str, Tensor] = {}
    # With the input itself: while it is held, no other can have its address.
    latest: dict[int, tuple[Tensor, Tensor]] = {}

    def watching(path: str) -> Callable[..., None]:
        def note(module: nn.Module, args: tuple[Tensor, ...]) -> None:
            given, key = args[0], args[0].data_ptr()
            if key not in latest or latest[key][0].shape != given.shape:
                rows = given.reshape(-1, given.shape[-1]).float()
                latest[key] = (given, rows.T @ rows)
            found = latest[key][1]
            sums[path] = sums[path].add_(found) if path in sums else found.clone()

        return note

    with _watched(modules, watching):
        for call in calls:
            latest.clear()
            _run(block, index, call)
    return {path: found.cpu() for path, found in sums.items()}


@contextlib.contextmanager
def _watched(modules: Mapping[str, nn.Module], note: Callable[[str], Callable[..., None]]) -> Iterator[None]:
    hooks = [module.register_forward_pre_hook(note(path)) for path, module in modules.items()]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
