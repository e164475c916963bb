"""Finds out whether the engine's fast ways give what the eager model gives, on a shrunken twin of the model.

Silence is the danger, not slowness: a class that differs goes down a tier, and the reason is kept with it.
"""

import hashlib
import json
import logging
import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
import transformers
from huggingface_hub.errors import StrictDataclassError

import llmctl
from llmctl.core.errors import DoesNotFitError, LlmctlError
from llmctl.core.files import write_whole
from llmctl.core.places import Places, private_folder
from llmctl.engine.checking import twin
from llmctl.engine.checking.rehearsal import (
    BLOCK_SIZE,
    LENGTHS,
    MAX_TOLERANCE,
    NUM_BLOCKS,
    TOLERANCE,
    Reference,
)
from llmctl.engine.execution import layout, storage
from llmctl.engine.execution.drive import UndrivableError
from llmctl.engine.execution.layout import Letter
from llmctl.loading import devices

log = logging.getLogger(__name__)

# What code that was written for something else does when it is driven.
_FAULTS = (
    UndrivableError,
    LlmctlError,
    ArithmeticError,
    AssertionError,
    AttributeError,
    LookupError,
    NotImplementedError,
    RuntimeError,
    TypeError,
    ValueError,
    StrictDataclassError,
)
_SPARSE_WORDS = ("indexed", "compressed", "sparse")


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """The best tier in which a class is right, and what was wrong with those before."""

    letter: Letter
    in_pieces: bool
    """Several tokens may go on top of stored ones: prompts in pieces, prefix hits."""
    reason: str
    """In a clause, for people."""
    is_right: bool = True
    """False where the model's own cache, the last tier, gives something else than the model without one."""


@dataclass(frozen=True, slots=True)
class Fault:
    """Why a way is not taken."""

    text: str
    differs: bool
    """Whether it gives something else, by more than rounding can."""


@dataclass(frozen=True, slots=True)
class _Way:
    letter: Letter
    in_pieces: bool
    is_right: str
    """What is said when the check passes."""


_A = _Way("A", True, "all layers attend, and packed rows give what the eager model gives")
_B = _Way("B", True, "recurrent states in slots give what the eager model gives")
_B_WHOLE = _Way(
    "B", False, "right with whole prompts only: its code forgets a state that several tokens follow"
)
_C = _Way("C", False, "one sequence after another through its own cache")


def check(config: Any) -> Verdict:
    """The verdict on a model's class and configuration, from the cache folder if it was reached before."""
    path = _path(config)
    if (kept := _read(path)) is not None:
        return kept
    verdict = rehearse(config)
    try:
        private_folder(path.parent)
        write_whole(path, json.dumps(asdict(verdict)))
    except (LlmctlError, OSError) as error:
        log.info("the engine's check is not remembered: %s", error)
    return verdict


def rehearse(config: Any) -> Verdict:
    """The verdict on a configuration, whatever was found before."""
    try:
        model = twin.model(config)
        reference = Reference.of(model, twin.VOCABULARY_SIZE)
        ways = list(_ways(model.config))
    except _FAULTS as error:
        _refuse_lack_of_memory(error)
        return Verdict(
            letter="C", in_pieces=False, reason=f"no small twin of it can be made ({_line(error)})"
        )
    kind = sparse_kind(model.config)
    refused = [] if kind is None else [f"its {kind} layers choose which keys they see"]
    differs = False
    for way in ways:
        fault = fault_of(way.letter, model, reference, in_pieces=way.in_pieces)
        if fault is None:
            told = [] if way is _B_WHOLE else refused[:1]
            reason = "; ".join([*told, way.is_right])
            return Verdict(letter=way.letter, in_pieces=way.in_pieces, reason=reason)
        refused.append(fault.text)
        differs = fault.differs
    # There is no further tier: this is how the model generates by itself, if that can be played at all.
    return Verdict(letter="C", in_pieces=False, reason="; ".join(refused), is_right=not differs)


def fault_of(letter: Letter, model: Any, reference: Reference, *, in_pieces: bool) -> Fault | None:
    """What is wrong with running `model`, in float32 on the CPU, in that tier; None if nothing is."""
    try:
        difference = _difference(letter, model, reference, in_pieces=in_pieces)
    except _FAULTS as error:
        _refuse_lack_of_memory(error)
        is_told = isinstance(error, UndrivableError | LlmctlError)
        text = _line(error) if is_told else f"its code cannot be driven so ({_line(error)})"
        return Fault(text, differs=False)
    if difference <= TOLERANCE or (difference <= MAX_TOLERANCE and letter != "C"):
        # Some classes amplify rounding: no more is asked of a tier than their own cache gives.
        own = 0.0 if difference <= TOLERANCE else _difference("C", model, reference, in_pieces=False)
        if difference <= max(TOLERANCE, 2 * own):
            return None
    return Fault(
        f"tier {letter} differs from the eager model by {difference:.0e}", differs=difference > MAX_TOLERANCE
    )


def _refuse_lack_of_memory(error: Exception) -> None:
    """It says nothing of the class, and must not be remembered as if it did."""
    reason = devices.out_of_memory(error) if isinstance(error, RuntimeError) else None
    if reason is not None:
        raise DoesNotFitError(f"memory ran out while the model was checked: {reason}", hint="free memory")


def _difference(letter: Letter, model: Any, reference: Reference, *, in_pieces: bool) -> float:
    kept, device = layout.layout(model, letter), torch.device("cpu")
    counts = [NUM_BLOCKS] * len(kept.groups)
    layers = storage.allocate(kept.groups, kept.shapes, counts, BLOCK_SIZE, torch.float32, device)
    handler = layout.handler(model, kept, layers, len(LENGTHS))
    try:
        return reference.difference(handler, kept.groups, in_pieces=in_pieces)
    finally:
        handler.release()


def _ways(config: Any) -> Iterator[_Way]:
    """Those that the layers allow, fastest first."""
    if sparse_kind(config) is not None:
        pass
    elif _has_states(config):
        yield from (_B, _B_WHOLE)
    else:
        yield _A
    yield _C


def sparse_kind(config: Any) -> str | None:
    """The kind of a layer that sees only keys of its choice: a short sequence would not show it."""
    kinds = getattr(config.get_text_config(decoder=True), "layer_types", None) or ()
    return next((kind for kind in kinds if any(word in kind for word in _SPARSE_WORDS)), None)


def _has_states(config: Any) -> bool:
    from transformers.cache_utils import LinearAttentionCacheLayerMixin

    if any(each.kind == "recurrent" for each in layout.layer_policies(config)):
        return True
    # Layers that attend and keep a state besides are attending ones to the policies.
    cache = transformers.DynamicCache(config=config)
    return any(isinstance(layer, LinearAttentionCacheLayerMixin) for layer in cache.layers)


def _path(config: Any) -> Path:
    """Where the verdict is kept: all that it depends on is in the name."""
    values = config.get_text_config(decoder=True).to_dict()
    told = json.dumps(values, sort_keys=True, default=str)
    versions = (llmctl.__version__, transformers.__version__, torch.__version__)
    key = hashlib.sha256("\0".join((type(config).__name__, told, *versions)).encode()).hexdigest()
    return Places.from_environ(os.environ).cache / "engine" / f"{key[:32]}.json"


def _read(path: Path) -> Verdict | None:
    try:
        return Verdict(**json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return None


def _line(error: BaseException) -> str:
    text = str(error).strip().splitlines()
    told = text[0][:120] if text else type(error).__name__
    return told if isinstance(error, UndrivableError | LlmctlError) else f"{type(error).__name__}: {told}"
