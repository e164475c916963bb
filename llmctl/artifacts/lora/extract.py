"""`llmctl lora extract`: the difference of two checkpoints as an adapter, its matrices cut to a rank.

What no matrix can hold (norms, biases, tables that have grown) is saved whole, or told to be left out.
"""

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from llmctl.artifacts.lora import bases
from llmctl.artifacts.lora.factors import factorise
from llmctl.artifacts.lora.found import Found, Kind, compare
from llmctl.artifacts.lora.unmerged import unmerged
from llmctl.artifacts.stream.carry import Carried
from llmctl.artifacts.stream.disk import check_room
from llmctl.artifacts.stream.job import Job, check_target, key_of
from llmctl.artifacts.stream.source import Source
from llmctl.artifacts.stream.walk import Made, transform
from llmctl.artifacts.stream.writer import Planned, Shard, Step
from llmctl.core.errors import BadFileError, UsageError
from llmctl.core.places import expanded
from llmctl.core.progress import Progress
from llmctl.lora.config import FILE, SAFETENSORS

_PREFIX = "base_model.model."


@dataclass(frozen=True, slots=True, kw_only=True)
class ExtractRequest:
    """What a user asks for."""

    base: str
    target: str
    out: Path
    rank: int
    revision: str | None = None
    """Of the base on the hub."""
    overwrite: bool = False
    is_dry_run: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class ExtractResult:
    """What was done, or would be."""

    base: str
    target: str
    out: Path
    is_dry_run: bool
    rank: int
    residuals: Mapping[str, float]
    """By module: length of what the rank leaves out over that of the difference; empty for a dry run."""
    low_rank: tuple[str, ...]
    """Modules with matrices."""
    saved: tuple[str, ...]
    """Parameters that are saved whole."""
    left_out: tuple[str, ...]
    """Tensors that differ and that the adapter cannot hold."""
    num_same: int
    """Tensors that are equal."""
    num_bytes: int
    carried: tuple[str, ...]
    notices: tuple[str, ...]
    seconds: float

    def as_dict(self) -> dict[str, Any]:
        """What `--json` prints."""
        return {
            "base": self.base,
            "target": self.target,
            "out": str(self.out),
            "dry_run": self.is_dry_run,
            "rank": self.rank,
            "residuals": dict(self.residuals),
            "low_rank": list(self.low_rank),
            "saved": list(self.saved),
            "left_out": list(self.left_out),
            "same": self.num_same,
            "bytes": self.num_bytes,
            "carried": list(self.carried),
            "notices": list(self.notices),
            "seconds": round(self.seconds, 3),
        }


def extract(request: ExtractRequest, progress: Progress) -> ExtractResult:
    """Make the adapter.

    Raises what `Source.open` and `Job` raise, `UsageError` for a rank that is none, `BadFileError` for
    quantised checkpoints, for two models that are not of one shape, and for two that do not differ.
    """
    started = time.monotonic()
    if request.rank < 1:
        raise UsageError(f"--rank must be above 0, not {request.rank}", hint="16 is a common one")
    base = Source.open(request.base, revision=request.revision, progress=progress, takes_pickles=True)
    target = Source.open(request.target, progress=progress, takes_pickles=True)
    for source in (base, target):
        bases.refuse_packed(source)
    sources = [base, target]
    check_target(request.out, overwrite=request.overwrite, sources=sources)
    model = bases.skeleton(base)
    found = compare(base, target, model, progress)
    if not found.changes:
        raise BadFileError(
            f"{target.name} does not differ from {base.name} in anything that an adapter can hold"
            + (f"; it does in {found.left_out[0]}" if found.left_out else ""),
            hint="name the model before its training as --base, the one after it as --target",
        )
    shards = _shards(found, request.rank)
    own, theirs = bases.tokenizer_of(base.folder), bases.tokenizer_of(target.folder)
    carried = () if bases.same_bytes(own, theirs) else theirs
    num_bytes = sum(shard.num_bytes for shard in shards)
    facts: Mapping[str, Mapping[str, Any]] = {}
    if request.is_dry_run:
        check_room(request.out, num_bytes)
    else:
        facts = _write(request, sources, found, shards, carried, progress)
    residuals = {name: each["residual"] for name, each in facts.items() if "residual" in each}
    return ExtractResult(
        base=base.name,
        target=target.name,
        out=request.out,
        is_dry_run=request.is_dry_run,
        rank=request.rank,
        residuals={found.changes[name].module: value for name, value in residuals.items()},
        low_rank=tuple(each.module for each in found.of(Kind.LAYER, Kind.TABLE)),
        saved=tuple(each.parameter for each in found.of(Kind.WHOLE)),
        left_out=found.left_out,
        num_same=found.num_same,
        num_bytes=num_bytes,
        carried=tuple(each.name for each in carried),
        notices=(*_notices(found), *unmerged(found, model, request.rank)),
        seconds=time.monotonic() - started,
    )


def _notices(found: Found) -> tuple[str, ...]:
    """What a user should know."""
    layers = found.of(Kind.LAYER, Kind.TABLE)
    notices = [
        f"{each.parameter} shares its weight with {', '.join(each.shared)}: merged, the adapter changes "
        "both, unmerged the first alone; so merge it (llmctl lora merge)"
        for each in layers
        if each.shared
    ]
    if not layers:
        notices.append("no layer differs, so the adapter has no matrices: llmctl takes it, and peft does not")
    return tuple(notices)


def _write(
    request: ExtractRequest,
    sources: Sequence[Source],
    found: Found,
    shards: Sequence[Shard],
    carried: Sequence[Carried],
    progress: Progress,
) -> dict[str, Mapping[str, Any]]:
    job = Job(
        request.out,
        key=key_of("lora extract", {"rank": request.rank}, sources),
        sources=sources,
        num_bytes=sum(shard.num_bytes for shard in shards) + sum(each.num_bytes for each in carried),
        progress=progress,
        overwrite=request.overwrite,
    )

    def compute(step: Step, tensors: Sequence[Tensor]) -> Made:
        return _made(found, step, tensors, request.rank)

    with job:
        facts = transform(shards, sources, compute, job)
        job.carry(carried)
        job.write_json(FILE, _config(found, request, sources[0].folder))
        job.finish()
    return facts


def _shards(found: Found, rank: int) -> tuple[Shard, ...]:
    steps = []
    for name, change in found.changes.items():
        stem = f"{_PREFIX}{change.module}"
        if change.kind is Kind.WHOLE:
            reads: tuple[tuple[int, str], ...] = ((1, change.source or name),)
            writes: tuple[Planned, ...] = (
                Planned(name=f"{_PREFIX}{change.spelled}", dtype=change.dtype, shape=change.shape),
            )
            # A shared weight is saved for all that share it, so that they stay together.
            writes += tuple(
                Planned(name=f"{_PREFIX}{other}", dtype=change.dtype, shape=change.shape)
                for other in change.shared
            )
        else:
            reads, size = ((0, name), (1, name)), change.rank(rank)
            num_rows, num_columns = change.shape
            table = change.kind is Kind.TABLE
            # A table's own matrices are those of its transpose.
            a, b = (num_rows, num_columns) if table else (num_columns, num_rows)
            names = ("lora_embedding_A", "lora_embedding_B") if table else ("lora_A.weight", "lora_B.weight")
            if change.is_transposed and not table:
                a, b = b, a
            writes = (
                Planned(name=f"{stem}.{names[0]}", dtype="F32", shape=(size, a)),
                Planned(name=f"{stem}.{names[1]}", dtype="F32", shape=(b, size)),
            )
        steps.append(Step(name=name, reads=reads, writes=writes))
    return (Shard(name=SAFETENSORS, steps=tuple(steps)),)


def _made(found: Found, step: Step, tensors: Sequence[Tensor], rank: int) -> Made:
    change = found.changes[step.name]
    if change.kind is Kind.WHOLE:
        return Made(tensors=[tensors[0]] * len(step.writes))
    base, target = tensors
    difference = target.float().sub_(base)
    if not math.isfinite(float(torch.linalg.vector_norm(difference))):
        raise BadFileError(
            f"the difference in {step.name} holds numbers that are NaN, infinite or too large",
            hint="one of the two models is damaged, or its training went wrong: take another of them",
        )
    if change.kind is Kind.TABLE or change.is_transposed:
        difference = difference.T
    factors = factorise(difference, change.rank(rank))
    return Made(tensors=[factors.a, factors.b], facts={"residual": factors.residual})


def _config(found: Found, request: ExtractRequest, folder: Path) -> dict[str, Any]:
    """`adapter_config.json`, as PEFT reads it; `folder` is where the base is."""
    layers = found.of(Kind.LAYER, Kind.TABLE)
    smaller = {each.module: each.rank(request.rank) for each in layers}
    smaller = {module: rank for module, rank in smaller.items() if rank < request.rank}
    whole = found.of(Kind.WHOLE)
    saved = {module for each in whole if not each.is_bias for module in each.saved_modules}
    return {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": _named(request.base, folder),
        "revision": request.revision,
        "r": request.rank,
        # The factor is 1: the matrices are the difference as it is.
        "lora_alpha": request.rank,
        "lora_dropout": 0.0,
        "target_modules": sorted(each.module for each in layers),
        "rank_pattern": {_escaped(module): rank for module, rank in smaller.items()},
        "alpha_pattern": {_escaped(module): rank for module, rank in smaller.items()},
        "modules_to_save": sorted(saved) or None,
        "bias": "all" if any(each.is_bias and each.module not in saved for each in whole) else "none",
        "fan_in_fan_out": any(each.is_transposed and each.kind is Kind.LAYER for each in layers),
        "inference_mode": True,
        "init_lora_weights": True,
        "use_dora": False,
        "use_rslora": False,
    }


def _named(base: str, folder: Path) -> str:
    """`base` as the user calls it; a folder by its path from the root, since adapters are moved about."""
    path = expanded(base)
    return str(path.resolve()) if path.is_dir() and path.samefile(folder) else base


def _escaped(module: str) -> str:
    return module.replace(".", r"\.")
