"""The engine's thread: many asyncio readers, those who leave, and what happens when it ends."""

import asyncio
import threading
import time
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
import torch

from llmctl.core.errors import ContextOverflowError, LlmctlError, UsageError
from llmctl.core.types import Delta
from llmctl.engine.generate.job import Job
from llmctl.engine.loop import EngineLoop
from tests import tiny
from tests.engine.test_engine import CONTEXT, answers, job, opened, prompts, tokens


def run(model: Any, work: Callable[[EngineLoop], Coroutine[Any, Any, Any]], **options: Any) -> Any:
    loop = EngineLoop(opened(model, **options))
    try:
        return asyncio.run(work(loop))
    finally:
        loop.close()


async def collected(loop: EngineLoop, asked: Job) -> list[Delta]:
    return [delta async for delta in loop.stream(asked)]


def alone(model: Any, jobs: list[Job]) -> list[list[int]]:
    engine = opened(model)
    try:
        return [tokens(answers(engine, [each])[0]) for each in jobs]
    finally:
        engine.release()


def test_many_readers_hear_their_own_answers() -> None:
    model, jobs = tiny.model(), [job(ids) for ids in prompts()] * 4

    async def work(loop: EngineLoop) -> list[list[Delta]]:
        return await asyncio.gather(*(collected(loop, each) for each in jobs))

    assert [tokens(each) for each in run(model, work)] == alone(model, jobs)


def test_readers_of_two_asyncio_loops_share_one_engine() -> None:
    model = tiny.model()
    loop, heard = EngineLoop(opened(model)), {}

    def read(number: int) -> None:
        heard[number] = tokens(asyncio.run(collected(loop, job(prompts()[number]))))

    threads = [threading.Thread(target=read, args=(number,)) for number in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    loop.close()
    assert [heard[number] for number in range(3)] == alone(model, [job(ids) for ids in prompts()[:3]])


def test_a_reader_that_leaves_frees_its_memory_and_disturbs_nobody() -> None:
    model, long = tiny.model(), job(prompts()[1], max_new_tokens=80)
    other = job(prompts()[0])

    async def work(loop: EngineLoop) -> list[Delta]:
        stream = loop.stream(long)
        await anext(stream)
        await stream.aclose()
        heard = await collected(loop, other)
        assert loop.engine.scheduler.pool.used_bytes == 0
        assert not loop.engine.has_work
        return heard

    assert tokens(run(model, work, caches_prefixes=False)) == alone(model, [other])[0]


def test_one_of_several_answers_may_end_long_before_the_others() -> None:
    model = tiny.model()
    asked = job(prompts()[0], n=3, temperature=1.3, seed=1, stop_token_ids=(7, 30, 90, 120, 180))

    async def work(loop: EngineLoop) -> list[Delta]:
        return await collected(loop, asked)

    deltas = run(model, work)
    assert sorted(each.index for each in deltas if each.finish) == [0, 1, 2]


def test_a_request_that_cannot_be_taken_is_refused_and_the_others_go_on() -> None:
    async def work(loop: EngineLoop) -> int:
        with pytest.raises(ContextOverflowError):
            await collected(loop, job((1,) * CONTEXT))
        return len(tokens(await collected(loop, job(prompts()[0]))))

    assert run(tiny.model(), work) == 12


def test_closing_ends_open_answers_with_a_clear_error_and_takes_no_more() -> None:
    async def work(loop: EngineLoop) -> None:
        stream = loop.stream(job(prompts()[1], max_new_tokens=90))
        await anext(stream)
        await asyncio.to_thread(loop.close)
        with pytest.raises(UsageError, match="the model was closed"):
            await anext_until_end(stream)
        with pytest.raises(UsageError):
            await collected(loop, job(prompts()[0]))

    def rest(*_: Any) -> None:
        time.sleep(0.01)

    slow = tiny.model()
    slow.register_forward_pre_hook(rest)
    run(slow, work)


async def anext_until_end(stream: Any) -> None:
    async for _ in stream:
        pass


@pytest.mark.parametrize("kind", [RuntimeError, IndexError, ValueError])
def test_a_step_that_fails_ends_its_requests_and_the_engine_lives_on(kind: type[Exception]) -> None:
    model = tiny.model()

    def fail(_: Any, __: Any, options: Any) -> None:
        if 99 in options["input_ids"]:
            raise kind("shapes do not match")

    async def work(loop: EngineLoop) -> int:
        with pytest.raises(LlmctlError, match=f"the model failed: {kind.__name__}: shapes do not match"):
            await collected(loop, job((1, 99)))
        return len(tokens(await collected(loop, job(prompts()[0]))))

    model.register_forward_pre_hook(fail, with_kwargs=True)
    assert run(model, work) == 12


def test_a_request_that_cannot_even_be_added_is_told_so_and_nobody_else_is() -> None:
    async def work(loop: EngineLoop) -> int:
        other = asyncio.create_task(collected(loop, job(prompts()[0])))
        with pytest.raises(LlmctlError, match="the request was not taken: "):
            await collected(loop, job((1, 2), seed=2**70))
        for ids in ((), (1, -1), (1, 10**6)):
            with pytest.raises(UsageError, match="prompt"):
                await collected(loop, job(ids))
        return len(tokens(await other))

    assert run(tiny.model(), work) == 12


class UnforeseenError(Exception):
    """Of a kind that no model's code raises."""


def test_a_fault_of_the_engine_itself_is_told_to_all_who_wait() -> None:
    model = tiny.model()

    def fail(_: Any, __: Any, options: Any) -> None:
        if options["input_ids"].shape[1] == 1:
            raise UnforeseenError("nobody foresaw this")

    async def work(loop: EngineLoop) -> None:
        model.register_forward_pre_hook(fail, with_kwargs=True)
        with pytest.raises(LlmctlError, match="the engine stopped: UnforeseenError: nobody foresaw this"):
            await collected(loop, job(prompts()[0]))
        with pytest.raises(LlmctlError, match="nobody foresaw this"):
            await collected(loop, job(prompts()[0]))

    run(model, work)


def test_the_model_is_its_own_again_when_the_loop_is_closed() -> None:
    model = tiny.model()
    ids = torch.tensor([prompts()[0]])
    with torch.no_grad():
        before = model(ids).logits

    async def work(loop: EngineLoop) -> list[Delta]:
        return await collected(loop, job(prompts()[0]))

    run(model, work)
    with torch.no_grad():
        torch.testing.assert_close(model(ids).logits, before)
