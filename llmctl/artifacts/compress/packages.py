"""GPTQ and AWQ files by the package that makes them, gptqmodel, in a process of its own.

It prints, starts pools of threads and changes transformers when it is imported; none of that reaches us.
"""

import dataclasses
import importlib.util
import json
import logging
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import llmctl
from llmctl.artifacts.compress.methods import METHODS
from llmctl.artifacts.compress.request import Compressed, CompressRequest, read_text
from llmctl.artifacts.compress.run import Judge, Look, look_at, told
from llmctl.artifacts.stream.job import Job, key_of
from llmctl.core.errors import LlmctlError, UsageError
from llmctl.core.progress import Progress
from llmctl.loading.checkpoint import Checkpoint, open_folder

log = logging.getLogger(__name__)

_CHILD = "llmctl.artifacts.compress.gptqmodel_child"
_CHUNK_CHARS, _MAX_CHUNKS = 2000, 256
_GROUP = 128


def compress_by_package(request: CompressRequest, progress: Progress) -> Compressed:
    """As `run.compress`, for the methods that have a package."""
    _check(request)
    # The package is told this size where none is given.
    found = look_at(dataclasses.replace(request, group_size=request.group_size or _GROUP), progress)
    foretold = _foretold(request, found)
    if request.is_dry:
        return foretold
    job = Job(
        request.target,
        key=key_of("compress", request.options(), [found.source]),
        sources=[found.source],
        num_bytes=foretold.bytes_after,
        progress=progress,
        overwrite=request.overwrite,
    )
    with job:
        return _written(request, found, foretold, job)


def _check(request: CompressRequest) -> None:
    row = METHODS[request.method]
    assert row.package is not None
    if importlib.util.find_spec(row.package) is None:
        raise UsageError(
            f"--method {request.method} is made by {row.package}, which is not installed",
            hint=f"pip install 'llmctl[{row.extra}]'; --method int4 needs nothing else",
        )
    if request.calibration is None:
        raise UsageError(
            f"--method {request.method} needs text to learn from",
            hint="give --calibration FILE; --method int4 can do without",
        )


def _foretold(request: CompressRequest, found: Look) -> Compressed:
    """What will come of it, the bytes as an estimate."""
    source, places = found.source, found.places
    small = sum(source.entry(name).num_bytes for name in places.chosen)
    numbers = sum(source.entry(name).shape[0] * source.entry(name).shape[1] for name in places.chosen)
    return Compressed(
        name=found.checkpoint.name,
        target=request.target,
        method=request.method,
        group_size=places.group_size,
        bytes_before=source.num_bytes,
        # Four bits a number, and a scale and zero a group.
        bytes_after=source.num_bytes
        - small
        + numbers // 2
        + numbers * 5 // 2 // (places.group_size or _GROUP),
        num_compressed=len(places.chosen),
        dense=places.dense,
        carried=tuple(each.name for each in found.files),
    )


def _written(request: CompressRequest, found: Look, foretold: Compressed, job: Job) -> Compressed:
    checkpoint = found.checkpoint
    judge = Judge(request, checkpoint.name, job.progress)
    judge.before(checkpoint.folder)
    started = time.monotonic()
    job.progress.stage(f"{request.method} by {METHODS[request.method].package}")
    _run_child(request, checkpoint, job.folder)
    job.carry(found.files)
    made = open_folder(job.folder)
    seconds = round(time.monotonic() - started, 1)
    comparison = judge.after(job.folder)
    result = dataclasses.replace(
        foretold,
        bytes_after=made.num_bytes,
        seconds=seconds,
        evaluation=comparison.as_dict() if comparison is not None else None,
        not_evaluated=judge.why_not,
    )
    for name, text in told(result, request, checkpoint).items():
        job.write_text(name, text)
    job.finish()
    return result


def _run_child(request: CompressRequest, checkpoint: Checkpoint, target: Path) -> None:
    assert request.calibration is not None
    text = read_text(request.calibration, flag="--calibration")
    starts = range(0, len(text), _CHUNK_CHARS)[:_MAX_CHUNKS]
    order = {
        "folder": str(checkpoint.folder.absolute()),
        "target": str(target.absolute()),
        "method": request.method,
        "group_size": request.group_size or _GROUP,
        "skip": list(request.skip),
        "max_shard_bytes": request.max_shard_bytes,
        "texts": [text[start : start + _CHUNK_CHARS] for start in starts],
    }
    # With one or two cores its pools ask for more threads than they have, and it does not start.
    environ = {"GPTQMODEL_CPU_WORKERS": "2", **os.environ}
    paths = [str(Path(llmctl.__file__).parent.parent), environ.get("PYTHONPATH", "")]
    environ["PYTHONPATH"] = os.pathsep.join(filter(None, paths))
    # It writes logs into the folder where it is started.
    with tempfile.TemporaryDirectory() as elsewhere:
        ended = subprocess.run(  # noqa: S603  # our own module, by the Python that runs us
            [sys.executable, "-m", _CHILD],
            input=json.dumps(order),
            capture_output=True,
            text=True,
            env=environ,
            cwd=elsewhere,
            check=False,
        )
    log.debug("%s%s", ended.stdout, ended.stderr)
    if ended.returncode:
        lines = [line for line in ended.stderr.splitlines() if line.strip()] or ["it says nothing"]
        raise LlmctlError(
            f"{METHODS[request.method].package} could not compress {checkpoint.name}: {lines[-1].strip()}",
            hint="-vv shows all that it said; --method int4 --calibration does without it",
        )
