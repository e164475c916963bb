"""Applies an add delta, llmctl's own or one published as a folder like a model's, as Vicuna's were."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from torch import Tensor

from llmctl.artifacts.delta import add, manifest
from llmctl.artifacts.delta.apply import Result, Wish
from llmctl.artifacts.delta.find import Found
from llmctl.artifacts.delta.opened import not_the_base, wrong_base
from llmctl.artifacts.stream import carry, digests, walk
from llmctl.artifacts.stream.carry import Carried
from llmctl.artifacts.stream.job import Job, check_target, key_of
from llmctl.artifacts.stream.source import Source
from llmctl.artifacts.stream.writer import MAX_SHARD_BYTES, Step, split
from llmctl.core.errors import BadFileError
from llmctl.core.progress import Progress
from llmctl.loading import contents

_COMPUTED = ".rotary_emb.inv_freq"
"""A table that old checkpoints hold and new ones compute."""


def apply_add(base: Source, found: Found, wish: Wish, progress: Progress, *, is_dry: bool = False) -> Result:
    """Write `base` with the differences upon it, in float16; configuration and tokenizer are the delta's.

    Raises `BadFileError` for a base that is another one, a delta that is damaged, or none; `UsageError`,
    `DoesNotFitError`, `AccessError` for the place.
    """
    started = time.monotonic()
    work = AddWork(base, found)
    shards = split(work.steps(), max_bytes=wish.max_shard_bytes or MAX_SHARD_BYTES)
    num_bytes = sum(shard.num_bytes for shard in shards)
    check_target(wish.out, overwrite=wish.overwrite, sources=work.sources)
    result = Result(
        out=wish.out,
        kind="add",
        base=base.name,
        delta=found.name,
        files=tuple(shard.name for shard in shards),
        num_tensors=sum(len(shard.steps) for shard in shards),
        num_bytes=num_bytes,
        carried=tuple(sorted([contents.CONFIG, *(file.name for file in work.files)])),
        notices=tuple(work.notices),
    )
    if is_dry:
        return result
    job = Job(
        wish.out,
        key=key_of("delta apply add", {"max_shard_bytes": wish.max_shard_bytes}, work.sources),
        sources=work.sources,
        num_bytes=num_bytes + sum(file.num_bytes for file in work.files),
        progress=progress,
        overwrite=wish.overwrite,
    )
    with job:
        work.check(walk.transform(shards, work.sources, work.compute, job))
        job.write_json(contents.CONFIG, add.config_in_halves(work.config))
        job.carry(work.files)
        job.finish()
    return replace(result, seconds=time.monotonic() - started)


class AddWork:
    """An add delta upon a base: what comes of each tensor."""

    def __init__(self, base: Source, found: Found) -> None:
        """Raises `BadFileError` where the two do not belong together, as far as names and shapes tell."""
        self._base, self._found = base, found
        self._delta = open_add(found)
        self._told = manifest.read(found.folder) if found.is_told else None
        self.sources = (base, self._delta)
        self.notices: list[str] = []
        self.names = self._names()
        """Of the tensors of the result."""
        if not found.is_told:
            add.refuse_whole_model(base, self._delta)
        self.tokenizer_folder = found.folder
        self.files = self._files()
        self.config = self._delta.config or base.config
        if not found.is_told:
            self.notices.append("it does not say what its base was, which is not checked but for shapes")
            self.notices += add.tie_notices(self.config, is_made_here=False)

    def steps(self) -> list[Step]:
        """One for each tensor."""
        delta = self._delta.entries
        return [
            Step(name=name, reads=((0, name), (1, name)), writes=(add.planned(name, delta[name]),))
            for name in self.names
        ]

    def compute(self, step: Step, tensors: Sequence[Tensor]) -> walk.Made:
        """One sum. Raises `BadFileError` for a difference that is not as it was made."""
        base, difference = tensors
        is_wrong = False
        if self._told is not None:
            told = self._told.tensors.get(step.name)
            if told is None or digests.of_tensor(difference) != told.target:
                raise BadFileError(
                    f"the delta {self._found.name} is damaged: {step.name} is not what it was",
                    hint="download or copy the delta again",
                )
            is_wrong = digests.of_tensor(base) != told.base
        return walk.Made(tensors=[add.add(base, difference)], facts={"wrong": is_wrong})

    def another_base(self, name: str) -> BadFileError:
        """The refusal of a base by one of its tensors."""
        assert self._told is not None
        why = f"{name} differs, the first that was read"
        return not_the_base(self._told, self._found.name, self._base.name, why)

    def check(self, facts: Mapping[str, Mapping[str, Any]]) -> None:
        """Raise `BadFileError` when tensors of the base were others than the delta was made from."""
        wrong = [name for name, fact in facts.items() if fact["wrong"]]
        if wrong and self._told is not None:
            raise wrong_base(self._told, self._found.name, self._base.name, wrong)

    def _names(self) -> list[str]:
        base, delta = self._base.entries, self._delta.entries
        removed = self._told.removed if self._told is not None else ()
        twins = _twins(self._base) | _twins(self._delta)
        lacking = [name for name in base if name not in delta and name not in removed]
        spare = [name for name in delta if name not in base]
        lacking = [name for name in lacking if not twins.get(name, set()) & delta.keys()]
        spare = [name for name in spare if not twins.get(name, set()) & base.keys()]
        for names, one, other in ((lacking, self._found.name, "base"), (spare, self._base.name, "delta")):
            if alone := [name for name in names if not name.endswith(_COMPUTED)]:
                raise BadFileError(
                    f"{one} lacks {len(alone)} tensors of the {other}, the first is {alone[0]}",
                    hint="base and delta are of different models",
                )
        if tables := lacking + spare:
            self.notices.append(f"{len(tables)} tables that models compute are left out: {tables[0]}")
        shared = [name for name in delta if name in base]
        for name in shared:
            if not add.fits(base[name], delta[name]):
                raise BadFileError(
                    f"{name} has the shape {list(base[name].shape)} in {self._base.name} and "
                    f"{list(delta[name].shape)} in {self._found.name}",
                    hint="base and delta are of different models",
                )
        self.notices += add.row_notices([(base[name], delta[name]) for name in shared], of="delta")
        return shared

    def _files(self) -> list[Carried]:
        own = [contents.CONFIG, manifest.FILE]
        files = list(carry.carried(self._found.folder, without=own))
        if not carry.has_tokenizer([file.name for file in files]):
            inherited = [
                file
                for file in carry.carried(self._base.folder, without=own)
                if carry.has_tokenizer([file.name])
            ]
            if inherited:
                self.tokenizer_folder = self._base.folder
            of = f"that of {self._base.name} is taken" if inherited else "nor has its base"
            self.notices.append(f"the delta {self._found.name} has no tokenizer; {of}")
            files += inherited
        return files


def _twins(source: Source) -> dict[str, set[str]]:
    """Names of tensors that are one and the same in pickle files, each with all of its group.

    Safetensors hold such a tensor once, and models join it to its other places when they load.
    """
    groups: dict[str, set[str]] = {}
    for name, first in source.ties.items():
        groups.setdefault(first, {first}).add(name)
    return {name: group for group in groups.values() for name in group}


def open_add(found: Found) -> Source:
    """The differences of an add delta, as tensors. Raises `BadFileError`."""
    names = [path.name for path in found.folder.iterdir()]
    weights = contents.weight_names(names)
    if not weights:
        return replace(Source.open(found.folder, takes_pickles=True), name=found.name)
    files = contents.indexed_shards(found.folder) or weights
    if missing := [name for name in files if name not in names]:
        raise BadFileError(
            f"{found.name} lacks {contents.shown(missing)}, named in {contents.INDEX}",
            hint="download or copy the delta again",
        )
    config = contents.read_json(found.folder / contents.CONFIG, optional=True)
    return Source.of_files(found.name, found.folder, config, tuple(found.folder / name for name in files))
