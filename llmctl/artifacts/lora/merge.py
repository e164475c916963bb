"""`llmctl lora merge`: base and adapter become one checkpoint, tensor by tensor, in little memory."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from llmctl import __version__
from llmctl.artifacts.lora import bases
from llmctl.artifacts.stream import bits
from llmctl.artifacts.stream.carry import Carried, has_tokenizer
from llmctl.artifacts.stream.disk import check_room
from llmctl.artifacts.stream.job import Input, Job, check_target, key_of
from llmctl.artifacts.stream.source import Source
from llmctl.artifacts.stream.walk import Made, transform
from llmctl.artifacts.stream.writer import MAX_SHARD_BYTES, Planned, Shard, Step, split
from llmctl.core.errors import BadFileError
from llmctl.core.places import expanded
from llmctl.core.progress import Progress
from llmctl.loading import contents
from llmctl.loading.checkpoint import base_of, locate_adapter
from llmctl.lora.checkpoint import Adapter, open_adapter
from llmctl.lora.plan import MergePlan, plan_merge

PROVENANCE = "llmctl_lora.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class MergeRequest:
    """What a user asks for."""

    adapter: str
    """Folder or hub id."""
    out: Path
    base: str | None = None
    """Folder or hub id; None: what the adapter names."""
    revision: str | None = None
    """Of the base on the hub."""
    overwrite: bool = False
    is_dry_run: bool = False
    max_shard_bytes: int = MAX_SHARD_BYTES


@dataclass(frozen=True, slots=True, kw_only=True)
class MergeResult:
    """What was done, or would be."""

    base: str
    adapter: str
    out: Path
    is_dry_run: bool
    num_tensors: int
    changed: tuple[str, ...]
    """Tensors that are not the base's."""
    added: tuple[str, ...]
    """Tensors that the base does not have."""
    files: tuple[str, ...]
    """Of weights."""
    num_bytes: int
    carried: tuple[str, ...]
    config_changes: dict[str, Any]
    notices: tuple[str, ...]
    seconds: float

    def as_dict(self) -> dict[str, Any]:
        """What `--json` prints."""
        return {
            "base": self.base,
            "adapter": self.adapter,
            "out": str(self.out),
            "dry_run": self.is_dry_run,
            "tensors": self.num_tensors,
            "changed": list(self.changed),
            "added": list(self.added),
            "files": list(self.files),
            "bytes": self.num_bytes,
            "carried": list(self.carried),
            "config_changes": self.config_changes,
            "notices": list(self.notices),
            "seconds": round(self.seconds, 3),
        }


def merge(request: MergeRequest, progress: Progress) -> MergeResult:
    """Merge an adapter into its base.

    Raises what `Source.open`, `plan_merge`, `Job` and `locate_adapter` raise, `BadFileError` for a quantised
    base and for one whose class is not known.
    """
    started = time.monotonic()
    work = _Work(request, progress)
    shards = work.shards()
    carried = work.carried()
    check_target(request.out, overwrite=request.overwrite, sources=work.read_from)
    files = [shard.name for shard in shards] + ([contents.INDEX] if len(shards) > 1 else [])
    num_bytes = sum(shard.num_bytes for shard in shards)
    if request.is_dry_run:
        check_room(request.out, num_bytes + sum(each.num_bytes for each in carried))
    else:
        work.write(shards, carried)
    plan = work.plan
    return MergeResult(
        base=work.source.name,
        adapter=request.adapter,
        out=request.out,
        is_dry_run=request.is_dry_run,
        num_tensors=sum(len(shard.planned) for shard in shards),
        changed=tuple(name for name in plan.changes if name not in plan.added),
        added=plan.added,
        files=tuple(files),
        num_bytes=num_bytes,
        carried=tuple(each.name for each in carried),
        config_changes=dict(plan.config_changes),
        notices=work.notices(carried),
        seconds=time.monotonic() - started,
    )


class _Work:
    """One merge."""

    def __init__(self, request: MergeRequest, progress: Progress) -> None:
        self._request, self._progress = request, progress
        folder = locate_adapter(request.adapter, progress=progress)
        base, revision = (request.base, request.revision) if request.base else base_of(folder)
        self.source = Source.open(
            base, revision=request.revision or revision, progress=progress, takes_pickles=True
        )
        if contents.is_adapter([path.name for path in self.source.folder.iterdir()]):
            raise BadFileError(f"the base {base} is an adapter itself", hint="merge that one first")
        bases.refuse_packed(self.source)
        self.adapter: Adapter = open_adapter(folder)
        self.plan: MergePlan = plan_merge(
            self.adapter, bases.skeleton(self.source), bases.shapes(self.source)
        )
        bases.refuse_no_floats(self.source, [change.source for change in self.plan.changes.values()])

    @property
    def read_from(self) -> list[Input]:
        """Base and adapter: not to be written over, and what was made of others is not gone on with."""
        return [self.source, self.adapter]

    def shards(self) -> tuple[Shard, ...]:
        """What will be written: the base's tensors in order, each followed by what else is made of it."""
        beside: dict[str, list[str]] = {}
        for name in self.plan.added:
            beside.setdefault(self.plan.changes[name].source, []).append(name)
        steps = []
        for name in self.source.names:
            if name in self.source.ties and name not in self.plan.resolved.untied:
                continue
            names = [name, *beside.get(name, [])]
            writes = tuple(self._planned(each, name) for each in names)
            steps.append(Step(name=name, reads=((0, name),), writes=writes))
        return split(steps, max_bytes=self._request.max_shard_bytes)

    def carried(self) -> tuple[Carried, ...]:
        """What is no weight: the base's, the tokenizer from the adapter where it has one."""
        without = (PROVENANCE, *((contents.CONFIG,) if self.plan.config_changes else ()))
        return bases.with_tokenizer_of(self.source.folder, self.adapter.folder, without=without)

    def notices(self, carried: Sequence[Carried]) -> tuple[str, ...]:
        """What a user should know."""
        found = list(self.plan.resolved.notices)
        named = self.adapter.config.base
        if self._request.base is not None and named is not None and _differ(named, self._request.base):
            found.append(f"the adapter names {named} as its base, not {self._request.base}")
        if not has_tokenizer([each.name for each in carried]):
            found.append("neither base nor adapter has a tokenizer")
        return tuple(found)

    def write(self, shards: Sequence[Shard], carried: Sequence[Carried]) -> None:
        """Make the folder."""
        request = self._request
        job = Job(
            request.out,
            key=key_of("lora merge", {"max_shard_bytes": request.max_shard_bytes}, self.read_from),
            sources=self.read_from,
            num_bytes=sum(shard.num_bytes for shard in shards) + sum(each.num_bytes for each in carried),
            progress=self._progress,
            overwrite=request.overwrite,
        )
        with job:
            transform(shards, [self.source], self._compute, job)
            job.carry(carried)
            if self.plan.config_changes:
                config = bases.changed_config(self.source.config, self.plan.config_changes)
                job.write_json(contents.CONFIG, config)
            job.write_json(PROVENANCE, self._provenance())
            job.finish()

    def _planned(self, name: str, source: str) -> Planned:
        entry, change = self.source.entry(source), self.plan.changes.get(name)
        shape = change.shape if change is not None and change.shape is not None else entry.shape
        return Planned(name=name, dtype=entry.dtype, shape=shape)

    def _compute(self, step: Step, tensors: Sequence[Tensor]) -> Made:
        return Made(tensors=[self._made(planned, tensors[0]) for planned in step.writes])

    def _made(self, planned: Planned, weight: Tensor) -> Tensor:
        change = self.plan.changes.get(planned.name)
        if change is None:
            return weight
        return change.apply(weight, bits.torch_type(planned.dtype, of=planned.name), name=planned.name)

    def _provenance(self) -> dict[str, Any]:
        return {
            "made_by": f"llmctl {__version__} lora merge",
            "base": self.source.name,
            "base_commit": self.source.commit,
            "adapter": self._request.adapter,
            "changed_tensors": sorted(self.plan.changes),
        }


def _differ(named: str, base: str) -> bool:
    """Whether two names are of different models: folders by where they are, others by their last part."""
    one, other = expanded(named), expanded(base)
    if one.is_dir() and other.is_dir():
        return not one.samefile(other)
    return one.name != other.name
