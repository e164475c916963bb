"""Half an hour of mixed random load, by hand: `pytest -m soak -n 0 --log-cli-level=INFO FILE`."""

import dataclasses
import logging
import os
import random
import time
from typing import Any

import pytest

from llmctl.core.types import Delta
from llmctl.engine.engine import Engine, Request
from llmctl.engine.generate.job import Job
from tests.engine.test_real_models import loaded, opened, questions

log = logging.getLogger(__name__)

MINUTES = float(os.environ.get("LLMCTL_SOAK_MINUTES", "30"))
NUM_WAITING = 48


def anonymous_bytes() -> int:
    """The process's own memory, pages of files not counted."""
    with open(f"/proc/{os.getpid()}/status") as file:  # noqa: PTH123  # no file on a disk
        line = next(line for line in file if line.startswith("RssAnon"))
    return int(line.split()[1]) * 1024


def drawn(jobs: list[Job], dice: random.Random) -> Job:
    """One of the jobs, with parameters of its own."""
    chosen = dice.choice(jobs)
    params: dict[str, Any] = {
        "temperature": dice.choice([0.0, 0.7, 1.4]),
        "top_p": dice.choice([1.0, 0.9]),
        "top_k": dice.choice([0, 0, 20]),
        "repetition_penalty": dice.choice([1.0, 1.1]),
        "logprobs": dice.choice([None, None, 3]),
        "n": dice.choice([1, 1, 1, 4]),
        "seed": dice.randrange(1000),
        "max_new_tokens": dice.randint(1, 120),
    }
    ids = chosen.prompt_ids[: dice.randint(1, len(chosen.prompt_ids))]
    return dataclasses.replace(
        chosen,
        prompt_ids=ids,
        sampling=dataclasses.replace(chosen.sampling, **params),
        max_new_tokens=params["max_new_tokens"],
    )


@pytest.mark.soak
def test_memory_does_not_grow_under_half_an_hour_of_mixed_load() -> None:
    model, dice = loaded("demo", "bfloat16"), random.Random(0)
    jobs = questions(model)
    noted: list[int] = []
    # Little memory: who runs is preempted now and then.
    with opened(model, kv_bytes=1 << 20) as engine:
        running: set[Request] = set()
        started, num_ended = time.monotonic(), 0
        while (minute := (time.monotonic() - started) / 60) < MINUTES:
            while len(running) < NUM_WAITING:
                running.add(engine.add(drawn(jobs, dice)))
            num_ended += step(engine, running, dice)
            if minute >= len(noted):
                noted.append(anonymous_bytes())
                log.info("minute %d: %.1f MB, %d answered", len(noted) - 1, noted[-1] / 1e6, num_ended)
        log.info("%d preemptions", engine.scheduler.num_preemptions)
        assert engine.scheduler.num_preemptions
    settled = noted[max(1, len(noted) // 6)]
    assert noted[-1] <= 1.02 * settled


def step(engine: Engine, running: set[Request], dice: random.Random) -> int:
    """One step, and now and then a request that is cancelled; gives how many ended."""
    before = len(running)
    for event in engine.step():
        assert isinstance(event.item, Delta)
        if event.is_last:
            running.discard(event.request)
    if running and dice.random() < 0.01:
        gone = next(iter(running))
        engine.cancel(gone)
        running.discard(gone)
    return before - len(running)
