"""Compresses a checkpoint: find, judge, round tensor by tensor, judge again, only then show the folder."""

import dataclasses
import gc
import logging
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from llmctl.artifacts.compress import card, evaluate, formats, text
from llmctl.artifacts.compress.calibrate import calibrate, sequences
from llmctl.artifacts.compress.methods import METHODS
from llmctl.artifacts.compress.notices import notices, refuse_nothing
from llmctl.artifacts.compress.places import Held, Places, Wish, bare_model, find, kinds_of, refuse_idle
from llmctl.artifacts.compress.request import Compressed, CompressRequest, read_text
from llmctl.artifacts.stream import bits
from llmctl.artifacts.stream.carry import Carried, carried, tell_lacking
from llmctl.artifacts.stream.job import Job, check_target, key_of
from llmctl.artifacts.stream.source import Source
from llmctl.artifacts.stream.walk import Made, transform
from llmctl.artifacts.stream.writer import Planned, Shard, Step, split
from llmctl.core.errors import BadFileError, LlmctlError, UsageError
from llmctl.core.progress import Progress
from llmctl.loading import contents
from llmctl.loading.checkpoint import Checkpoint, locate
from llmctl.loading.loader import LoadRequest, load
from llmctl.loading.planning.plan import PlanRequest, stored_dtype
from llmctl.loading.readers import told_of
from llmctl.loading.reading import check_numbers

log = logging.getLogger(__name__)


@dataclass(slots=True, kw_only=True)
class Work:
    """All that is known before the first weight is read."""

    request: CompressRequest
    checkpoint: Checkpoint
    source: Source
    places: Places
    layout: formats.Layout
    shards: Sequence[Shard]
    files: Sequence[Carried]
    notices: tuple[str, ...]
    rounded: dict[str, formats.Parts] = field(default_factory=dict)
    """What calibration made, by the stored name of the weight."""


def compress(request: CompressRequest, progress: Progress) -> Compressed:
    """Write the compressed checkpoint to `request.target`; with `is_dry` only say what would come of it.

    Raises `UsageError` for wishes that cannot be met, what `checkpoint.locate` and `stream.job` raise, and
    `BadFileError` for weights that are no numbers.
    """
    request.check()
    if METHODS[request.method].package is not None:
        from llmctl.artifacts.compress.packages import compress_by_package

        return compress_by_package(request, progress)
    work = prepare(request, progress)
    if request.is_dry:
        return _result(work)
    job = Job(
        request.target,
        key=key_of("compress", request.options(), [work.source]),
        sources=[work.source],
        num_bytes=sum(shard.num_bytes for shard in work.shards) + sum(each.num_bytes for each in work.files),
        progress=progress,
        overwrite=request.overwrite,
    )
    with job:
        return _written(work, job)


def prepare(request: CompressRequest, progress: Progress) -> Work:
    """Find the model and decide what becomes of each tensor. Raises as `compress` does."""
    found = look_at(request, progress)
    checkpoint, source, places = found.checkpoint, found.source, found.places
    told = notices(checkpoint.name, places, request, num_bytes=source.num_bytes)
    for notice in told:
        log.warning("%s", notice)
    for reason, modules in kinds_of(places.dense):
        log.info("%s (%d): dense, since %s", next(iter(modules)), len(modules), reason)
    dtype = getattr(torch, stored_dtype(checkpoint.bytes_by_dtype))
    layout = formats.Layout(method=request.method, group_size=places.group_size, dtype=dtype)
    return Work(
        request=request,
        checkpoint=checkpoint,
        source=source,
        places=places,
        layout=layout,
        shards=split(_steps(source, places, layout), max_bytes=request.max_shard_bytes),
        files=found.files,
        notices=told,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """A model that can be compressed, and where."""

    checkpoint: Checkpoint
    source: Source
    places: Places
    files: Sequence[Carried]


def look_at(request: CompressRequest, progress: Progress) -> Look:
    """Find the model and its layers; tell what it lacks. Raises as `compress` does."""
    checkpoint = locate(request.model, revision=request.revision, progress=progress)
    source = Source.open(checkpoint, progress=progress)
    check_target(request.target, overwrite=request.overwrite, sources=[source])
    _refuse_quantised(checkpoint)
    held = {name: Held(entry.dtype, entry.shape) for name, entry in source.entries.items()}
    wish = Wish(method=request.method, group_size=request.group_size, skip=request.skip)
    places = find(bare_model(checkpoint), held, wish)
    refuse_idle(request.skip, places)
    refuse_nothing(checkpoint.name, places, request)
    files = carried(checkpoint.folder, without=(contents.CONFIG, card.CARD, card.PROVENANCE))
    tell_lacking(checkpoint.name, checkpoint.folder, files, source.files)
    return Look(checkpoint=checkpoint, source=source, places=places, files=files)


def _refuse_quantised(checkpoint: Checkpoint) -> None:
    """Raise `UsageError` for weights that are in few bits already."""
    if told_of(checkpoint, {}) is not None:
        raise UsageError(
            f"{checkpoint.name} is quantised already, and compressing it again would only lose more",
            hint="take the model's 16-bit checkpoint",
        )


def _steps(source: Source, places: Places, layout: formats.Layout) -> list[Step]:
    steps = []
    for name, entry in source.entries.items():
        writes = [Planned(name=name, dtype=entry.dtype, shape=entry.shape)]
        if name in places.chosen:
            num_rows, num_columns = entry.shape
            stored = formats.planned(name, (num_rows, num_columns), layout)
            writes = [
                Planned(name=each.name, dtype=bits.NAMES[each.dtype], shape=each.shape) for each in stored
            ]
        steps.append(Step(name=name, reads=((0, name),), writes=tuple(writes)))
    counts = Counter(write.name for step in steps for write in step.writes)
    for name, count in counts.items():
        if count > 1:
            raise BadFileError(
                f"{source.name} holds a tensor {name}, and the numbers of {layout.method} need that name",
                hint="--skip the layer that it belongs to",
            )
    return steps


def _written(work: Work, job: Job) -> Compressed:
    judge = Judge(work.request, work.checkpoint.name, job.progress)
    judge.before(work.checkpoint.folder)
    started = time.monotonic()
    if work.request.calibration is not None and any(shard.name not in job.finished for shard in work.shards):
        work.rounded = _calibrated(work, job.progress)
    transform(work.shards, [work.source], _computing(work), job)
    job.carry(work.files)
    quantisation = formats.config_of(work.layout, work.places.ignored)
    config = {**work.checkpoint.config, "quantization_config": quantisation}
    job.write_json(contents.CONFIG, config)
    seconds = round(time.monotonic() - started, 1)
    comparison = judge.after(job.folder)
    result = dataclasses.replace(
        _result(work),
        seconds=seconds,
        evaluation=comparison.as_dict() if comparison is not None else None,
        not_evaluated=judge.why_not,
    )
    for name, text_of in told(result, work.request, work.checkpoint).items():
        job.write_text(name, text_of)
    job.finish()
    return result


def told(result: Compressed, request: CompressRequest, checkpoint: Checkpoint) -> dict[str, str]:
    """Card and provenance by their file names."""
    readme, options = checkpoint.folder / card.CARD, request.options()
    digest = options["calibration"]
    origin = card.Origin(
        name=checkpoint.name,
        commit=checkpoint.commit,
        card=readme.read_text(encoding="utf-8", errors="replace") if readme.is_file() else "",
        files={file.name: file.stat().st_size for file in checkpoint.weight_files},
        calibration={"name": request.calibration.name, "sha256": digest} if request.calibration else None,
    )
    return {
        card.CARD: card.card_of(result, origin),
        card.PROVENANCE: card.provenance_of(result, origin, options),
    }


def _computing(work: Work) -> Callable[[Step, Sequence[Tensor]], Made]:
    def compute(step: Step, tensors: Sequence[Tensor]) -> Made:
        (tensor,) = tensors
        if step.name not in work.places.chosen:
            check_numbers(step.name, tensor)
            return Made(tensors=[tensor])
        parts = work.rounded.pop(step.name, None) or _rounded(step.name, tensor, work.layout)
        return Made(tensors=[parts[planned.name] for planned in step.writes])

    return compute


def _rounded(
    name: str, tensor: Tensor, layout: formats.Layout, products: Tensor | None = None
) -> formats.Parts:
    try:
        return formats.parts_of(name, tensor, layout, products)
    except ValueError as error:
        raise BadFileError(
            f"{name}: {error}", hint="download the model again; else the publisher's file is broken"
        ) from error


def _calibrated(work: Work, progress: Progress) -> dict[str, formats.Parts]:
    """The weights that a text says something of, rounded, by their stored names."""
    path = work.request.calibration
    assert path is not None
    # Half precision would lose what the files hold where a CPU turns it into bfloat16.
    is_half = stored_dtype(work.checkpoint.bytes_by_dtype) == "float16"
    wish = PlanRequest(dtype="float32" if is_half else "auto")
    loaded = load(LoadRequest(model=str(work.checkpoint.folder), plan=wish), progress)
    given = sequences(
        read_text(path, flag="--calibration"),
        loaded.tokenizer,
        context_length=loaded.context_length,
        name=path.name,
    )
    # Experts are joined in the model, and no text says much of each.
    stored = {
        module: name for name, module in work.places.chosen.items() if module not in work.places.experts
    }
    found: dict[str, formats.Parts] = {}

    def round_weight(module: str, weight: Tensor, products: Tensor) -> Tensor:
        name = stored[module]
        found[name] = _rounded(name, work.source.read(name), work.layout, products)
        return formats.dense(found[name], name, work.layout).to(weight.device)

    calibrate(loaded.model, given, list(stored), round_weight, progress)
    log.info("calibrated %d weights on %d sequences", len(found), len(given))
    if missed := len(work.places.chosen) - len(found):
        log.warning(
            "--calibration serves %d weights; %d are rounded without it, as they are experts or in no chain "
            "of layers",
            len(found),
            missed,
        )
    del loaded
    gc.collect()
    return found


def _result(work: Work) -> Compressed:
    return Compressed(
        name=work.checkpoint.name,
        target=work.request.target,
        method=work.request.method,
        group_size=work.places.group_size,
        bytes_before=work.source.num_bytes,
        bytes_after=sum(shard.num_bytes for shard in work.shards),
        num_compressed=len(work.places.chosen),
        dense=work.places.dense,
        carried=tuple(each.name for each in work.files),
        notices=work.notices,
    )


class Judge:
    """Evaluates a model before and after, or says aloud why not."""

    def __init__(self, request: CompressRequest, name: str, progress: Progress) -> None:
        self.why_not: str | None = None if request.evaluates else "it was not asked for (--no-eval)"
        self._name = name
        given = request.evaluation
        self._is_own_text = given is not None
        self._evaluation = evaluate.Evaluation(
            read_text(given, flag="--eval") if given is not None else text.TEXT,
            name=given.name if given is not None else "llmctl's own text",
            progress=progress,
        )

    def before(self, folder: Path) -> None:
        """Judge what is there. Raises `BadFileError` for a text of the user's that is too short."""
        self._try(lambda: self._evaluation.before(folder))

    def after(self, folder: Path) -> evaluate.Comparison | None:
        """Judge what has become of it; None where that, or the judgement before, failed."""
        found: evaluate.Comparison | None = self._try(lambda: self._evaluation.after(folder))
        return found

    def _try(self, judge: Callable[[], Any]) -> Any:
        if self.why_not is not None:
            return None
        try:
            return judge()
        except LlmctlError as error:
            if self._is_own_text and isinstance(error, evaluate.TooShortError):
                raise
            self.why_not = evaluate.why_not(error)
            log.warning("%s is not evaluated: %s", self._name, self.why_not)
            return None
