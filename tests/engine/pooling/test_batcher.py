"""Many callers at once: the results of each alone, fairness, cancelling, and errors that stay with one."""

import asyncio
import threading
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from llmctl.core.errors import ContextOverflowError, LlmctlError, UsageError
from llmctl.engine.pooling.batcher import PoolingBatcher
from llmctl.engine.pooling.model import PooledModel
from llmctl.loading.pooled import LoadedPooled
from tests.engine.pooling import made

Work = Callable[[PoolingBatcher], Coroutine[Any, Any, Any]]


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> LoadedPooled:
    return made.opened(made.folder(tmp_path_factory.mktemp("models") / "bert", made.model("bert"))).loaded


@pytest.fixture
def model(loaded: LoadedPooled) -> PooledModel:
    return PooledModel(loaded, budget=64)


def run(work: Work, model: PooledModel) -> Any:
    async def main() -> Any:
        batcher = PoolingBatcher(model)
        try:
            return await work(batcher)
        finally:
            await batcher.close()

    return asyncio.run(main())


class Gate:
    """Lets batches through one at a time, and notes them."""

    def __init__(self, model: PooledModel, monkeypatch: pytest.MonkeyPatch) -> None:
        self.batches: list[list[int]] = []
        self.is_open = threading.Event()
        self.has_begun = threading.Event()
        self._compute = model.compute
        monkeypatch.setattr(model, "compute", self.compute)

    def compute(self, items: Any) -> torch.Tensor:
        self.batches.append([len(item) for item in items])
        self.has_begun.set()
        assert self.is_open.wait(10)
        return self._compute(items)

    async def begun(self) -> None:
        assert await asyncio.to_thread(self.has_begun.wait, 10)


@pytest.fixture
def gate(model: PooledModel, monkeypatch: pytest.MonkeyPatch) -> Iterator[Gate]:
    made_gate = Gate(model, monkeypatch)
    yield made_gate
    made_gate.is_open.set()


async def settled(batcher: PoolingBatcher, num_waiting: int) -> None:
    while batcher.num_waiting < num_waiting:
        await asyncio.sleep(0.001)


def test_each_caller_gets_what_it_would_get_alone(model: PooledModel) -> None:
    requests = [[f"caller {number} says {'x' * (index * 7)}" for index in range(3)] for number in range(12)]
    want = [model.embed(texts, dimensions=8) for texts in requests]

    async def work(batcher: PoolingBatcher) -> Any:
        return await asyncio.gather(*(batcher.embed(texts, dimensions=8) for texts in requests))

    for found, one in zip(run(work, model), want, strict=True):
        torch.testing.assert_close(found.vectors, one.vectors, atol=1e-5, rtol=1e-5)
        assert found.num_tokens == one.num_tokens


def test_requests_that_wait_run_together(model: PooledModel, gate: Gate) -> None:
    async def work(batcher: PoolingBatcher) -> None:
        first = asyncio.create_task(batcher.embed(["first"]))
        await gate.begun()
        others = [asyncio.create_task(batcher.embed([f"text {number}"])) for number in range(6)]
        await settled(batcher, 6)
        gate.is_open.set()
        await asyncio.gather(first, *others)

    run(work, model)
    assert gate.batches == [[7], [8] * 6]


def test_one_text_does_not_wait_for_a_thousand(model: PooledModel, gate: Gate) -> None:
    async def work(batcher: PoolingBatcher) -> None:
        many = asyncio.create_task(batcher.embed([f"number {number:04}" for number in range(200)]))
        await gate.begun()
        one = asyncio.create_task(batcher.embed(["a text of another length"]))
        await settled(batcher, 197)
        gate.is_open.set()
        await asyncio.gather(one, many)

    run(work, model)
    length = len("<a text of another length>")
    assert next(turn for turn, batch in enumerate(gate.batches) if length in batch) <= 2
    assert sum(map(len, gate.batches)) == 201


def test_whoever_is_cancelled_is_dropped_and_the_others_go_on(model: PooledModel, gate: Gate) -> None:
    async def work(batcher: PoolingBatcher) -> Any:
        running = asyncio.create_task(batcher.embed(["in the batch that runs"]))
        await gate.begun()
        left = asyncio.create_task(batcher.embed(["abcdefgh"] * 50))
        kept = asyncio.create_task(batcher.embed(["kept"]))
        await settled(batcher, 51)
        left.cancel()
        running.cancel()
        await asyncio.gather(left, running, return_exceptions=True)
        gate.is_open.set()
        return await kept

    found = run(work, model)
    torch.testing.assert_close(found.vectors, model.embed(["kept"]).vectors, atol=1e-5, rtol=1e-5)
    assert gate.batches[1:] == [[6], [6]]


def test_what_is_refused_touches_nobody_else(model: PooledModel) -> None:
    async def work(batcher: PoolingBatcher) -> list[Any]:
        calls = (
            batcher.embed(["fine"]),
            batcher.embed(["x" * 500]),
            batcher.embed([""]),
            batcher.embed(["hi"], dimensions=99),
            batcher.score(["hi"]),
        )
        return list(await asyncio.gather(*calls, return_exceptions=True))

    fine, *refused = run(work, model)
    assert fine.vectors.shape == (1, 32)
    assert [type(error) for error in refused] == [ContextOverflowError, UsageError, UsageError, UsageError]


def test_a_batch_that_fails_is_told_to_its_callers_and_the_next_one_runs(
    model: PooledModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    compute, calls = model.compute, iter(range(100))

    def failing(items: Any) -> torch.Tensor:
        if next(calls) == 0:
            raise ZeroDivisionError("seven")
        return compute(items)

    monkeypatch.setattr(model, "compute", failing)

    async def work(batcher: PoolingBatcher) -> Any:
        with pytest.raises(LlmctlError, match="the model failed: ZeroDivisionError: seven"):
            await batcher.embed(["hi"] * 40)
        assert batcher.num_waiting == 0
        return await batcher.embed(["hi"])

    assert run(work, model).vectors.shape == (1, 32)


def test_whoever_waits_when_it_is_closed_is_told(model: PooledModel, gate: Gate) -> None:
    async def work(batcher: PoolingBatcher) -> None:
        calls = [asyncio.create_task(batcher.embed(["hello"] * 30)) for _ in range(2)]
        await gate.begun()
        await settled(batcher, 50)
        closing = asyncio.create_task(batcher.close())
        found = await asyncio.gather(*calls, return_exceptions=True)
        gate.is_open.set()
        await closing
        assert [type(error) for error in found] == [UsageError, UsageError]
        with pytest.raises(UsageError, match="closed"):
            await batcher.embed(["hi"])

    run(work, model)


def test_callers_may_sit_in_different_loops(model: PooledModel) -> None:
    batcher, found = PoolingBatcher(model), []

    def call(number: int) -> None:
        found.append(asyncio.run(batcher.embed([f"caller {number}"] * 5)).vectors)

    threads = [threading.Thread(target=call, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    asyncio.run(batcher.close())
    assert [vectors.shape for vectors in found] == [(5, 32)] * 4


def test_a_loop_that_ends_early_leaves_nothing_behind(model: PooledModel, gate: Gate) -> None:
    batcher = PoolingBatcher(model)

    async def leave() -> None:
        task = asyncio.create_task(batcher.embed(["hello"] * 30))
        await gate.begun()
        task.cancel()

    asyncio.run(leave())
    gate.is_open.set()
    assert asyncio.run(batcher.embed(["later"])).vectors.shape == (1, 32)
    assert batcher.num_waiting == 0
    asyncio.run(batcher.close())


def test_scores_go_the_same_way(tmp_path: Path) -> None:
    model = made.opened(
        made.folder(tmp_path, made.model("bert", what="AutoModelForSequenceClassification", num_labels=1))
    )
    want = model.score(made.PAIRS)

    async def work(batcher: PoolingBatcher) -> Any:
        return await asyncio.gather(*(batcher.score([pair]) for pair in made.PAIRS))

    found = run(work, model)
    torch.testing.assert_close(torch.cat([each.values for each in found]), want.values)
    assert found[0].labels == ("LABEL_0",)
