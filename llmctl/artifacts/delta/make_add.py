"""Makes an add delta: a folder that FastChat's `apply_delta` takes too, and that says what it is."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from llmctl.artifacts.delta import add, manifest
from llmctl.artifacts.delta.manifest import Manifest, Told
from llmctl.artifacts.delta.pairs import Excluded
from llmctl.artifacts.delta.results import Result, Wish
from llmctl.artifacts.stream import carry, digests, walk
from llmctl.artifacts.stream.job import Job, check_target, key_of
from llmctl.artifacts.stream.source import Source
from llmctl.artifacts.stream.writer import Shard, Step, split
from llmctl.core.errors import BadFileError
from llmctl.core.progress import Progress
from llmctl.loading import contents
from llmctl.loading.facts.quantisation import settings_of


def make_add(base: Source, target: Source, wish: Wish, progress: Progress, *, is_dry: bool = False) -> Result:
    """Write the differences of `target` from `base`, in float16; what is excluded differs by zeros.

    Raises `BadFileError` for tensors that the base has not or that have other shapes but for rows, and for
    numbers that float16 cannot hold; `UsageError`, `DoesNotFitError`, `AccessError` for the place.
    """
    started = time.monotonic()
    _check(base, target)
    work = _Work(base, target, wish)
    check_target(wish.out, overwrite=wish.overwrite, sources=work.sources)
    result = work.result()
    if is_dry:
        return result
    options = {"exclude": wish.exclude, "max_shard_bytes": wish.max_shard_bytes}
    job = Job(
        wish.out,
        key=key_of("delta make add", options, work.sources),
        sources=work.sources,
        num_bytes=sum(shard.num_bytes for shard in work.shards) + sum(file.num_bytes for file in work.files),
        progress=progress,
        overwrite=wish.overwrite,
    )
    with job:
        facts = walk.transform(work.shards, work.sources, work.subtract, job)
        job.write_json(contents.CONFIG, add.config_in_halves(target.config))
        job.carry(work.files)
        carried = digests.of_files(job.folder, result.carried)
        job.write_text(manifest.FILE, work.manifest(facts, carried).as_text())
        job.finish()
    return replace(result, seconds=time.monotonic() - started)


def _check(base: Source, target: Source) -> None:
    for each in (base, target):
        if settings_of(each.config, each.folder) is not None:
            raise BadFileError(
                f"{each.name} is quantised, and packed numbers cannot be added",
                hint="--format exact takes any model",
            )
    alone = [name for name in target.names if name not in base.entries]
    if alone:
        raise BadFileError(
            f"{base.name} lacks {len(alone)} tensors of {target.name}, the first is {alone[0]}",
            hint="--format exact stores them as they are",
        )
    for name, entry in target.entries.items():
        own = base.entries[name]
        if not add.fits(own, entry):
            raise BadFileError(
                f"{name} has the shape {list(own.shape)} in the base, {list(entry.shape)} in the target",
                hint="--format exact stores it as it is",
            )


class _Work:
    """One delta on its way."""

    def __init__(self, base: Source, target: Source, wish: Wish) -> None:
        self.sources = (base, target)
        self._base, self._target, self._wish = base, target, wish
        self.files = carry.carried(target.folder, without=(contents.CONFIG, manifest.FILE))
        self.shards: Sequence[Shard] = split(
            [_step(target, name) for name in target.names], max_bytes=wish.max_shard_bytes
        )
        self._excluded = Excluded(wish.exclude, target.names)

    def subtract(self, step: Step, tensors: Sequence[Tensor]) -> walk.Made:
        """One difference."""
        base, target = tensors
        digest = digests.of_tensor(base)
        if step.name in self._excluded.names:
            difference = torch.zeros_like(target, dtype=add.stored_type(target.dtype))
        else:
            difference = add.subtract(target, base)
            add.check_finite(step.name, difference)
        return walk.Made(
            tensors=[difference], facts={"base": digest, "target": digests.of_tensor(difference)}
        )

    def manifest(self, facts: Mapping[str, Mapping[str, Any]], carried: Mapping[str, str]) -> Manifest:
        """What the delta says of itself."""
        told = {name: self._told(name, fact) for name, fact in facts.items()}
        base, target = self.sources
        return Manifest(
            kind="add",
            base_name=manifest.name_of(base),
            base_digest=digests.of_checkpoint({name: each.base or "" for name, each in told.items()}),
            base_commit=base.commit,
            target_name=manifest.name_of(target),
            target_commit=target.commit,
            tensors=told,
            removed=self._removed(),
            carried=carried,
            exclude=self._wish.exclude,
        )

    def result(self) -> Result:
        """What will come of it."""
        base, target = self.sources
        num_excluded = len(self._excluded.names)
        fates = {"changed": len(target.names) - num_excluded, "excluded": num_excluded}
        return Result(
            out=self._wish.out,
            kind="add",
            base=base.name,
            target=target.name,
            fates={fate: count for fate, count in fates.items() if count},
            target_bytes=target.num_bytes,
            delta_bytes=sum(shard.num_bytes for shard in self.shards),
            carried=self._carried(),
            notices=tuple(self._notices()),
        )

    def _told(self, name: str, fact: Mapping[str, Any]) -> Told:
        planned = add.planned(name, self._target.entries[name])
        own = self._base.entries[name].shape
        return Told(
            dtype=planned.dtype,
            shape=planned.shape,
            num_bytes=planned.num_bytes,
            fate="excluded" if name in self._excluded.names else "changed",
            base=fact["base"],
            target=fact["target"],
            base_rows=own[0] if own != planned.shape else None,
        )

    def _removed(self) -> tuple[str, ...]:
        return tuple(name for name in self._base.names if name not in self._target.entries)

    def _carried(self) -> tuple[str, ...]:
        return tuple(sorted([contents.CONFIG, *(file.name for file in self.files)]))

    def _notices(self) -> list[str]:
        base, target = self.sources
        pairs = [(base.entries[name], entry) for name, entry in target.entries.items()]
        left = carry.left_behind(target.folder, target.files)
        found = [*self._excluded.notices, *left, *add.row_notices(pairs, of="target")]
        found += add.tie_notices(target.config, is_made_here=True)
        if removed := self._removed():
            found.append(f"{len(removed)} tensors of the base are not in the target: {removed[0]}")
        if not carry.has_tokenizer(self._carried()):
            found.append(f"{target.name} has no tokenizer, so the delta has none")
        return found


def _step(target: Source, name: str) -> Step:
    planned = add.planned(name, target.entries[name])
    return Step(name=name, reads=((0, name), (1, name)), writes=(planned,))
