"""A gateway's view follows real controllers: news at once, and no worker lost with a controller."""

import asyncio
import logging
import time
from collections.abc import Callable

import pytest

from llmctl.core.errors import NoWorkerError
from llmctl.services import fleet
from llmctl.services.fleet import FleetView
from llmctl.services.parts import controller_urls
from tests.services.controller.served import ServedController
from tests.services.fleet_states import worker

TOKEN = "token-of-the-fleet"
DEAD = "http://127.0.0.1:9"


async def until(is_so: Callable[[], bool]) -> None:
    """Wait until something is so."""
    deadline = time.monotonic() + 10
    while not is_so():
        assert time.monotonic() < deadline, "it did not come"
        await asyncio.sleep(0.01)


def ids(view: FleetView) -> set[str]:
    return {heard.state.id for heard in view.workers}


def test_a_worker_that_comes_or_goes_is_known_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fleet, "POLL_S", 20.0)

    async def follow(controller: ServedController) -> None:
        async with FleetView([controller.url], token=TOKEN) as view:
            assert await view.wait_for_answer(5)
            assert not view.has_workers
            await asyncio.to_thread(controller.tell, worker(1))
            await until(lambda: view.has_workers)
            assert view.choose("m").id == "w1"
            await asyncio.to_thread(controller.tell, worker(1, is_draining=True))
            await until(lambda: not view.has_workers)
            await asyncio.to_thread(controller.ask.delete, "/workers/w1")
            await until(lambda: ids(view) == set())

    with ServedController(token=TOKEN) as controller:
        asyncio.run(follow(controller))


def test_load_is_known_within_a_poll() -> None:
    async def follow(controller: ServedController) -> None:
        async with FleetView([controller.url], token=None) as view:
            await asyncio.to_thread(controller.tell, worker(1))
            await until(lambda: view.has_workers)
            await asyncio.to_thread(controller.tell, worker(1, num_waiting=7))
            await until(lambda: view.workers[0].state.num_waiting == 7)

    with ServedController() as controller:
        asyncio.run(follow(controller))


def test_any_of_several_controllers_will_do() -> None:
    async def follow(urls: list[str]) -> None:
        async with FleetView(urls, token=None) as view:
            assert await view.wait_for_answer(5)
            await until(lambda: ids(view) == {"w1", "w2"})
            await until(lambda: view.faults[DEAD] is not None)
            assert view.faults[urls[0]] is None

    with ServedController() as one, ServedController() as other:
        one.tell(worker(1))
        other.tell(worker(2))
        asyncio.run(follow([one.url, DEAD, other.url]))


def test_a_controller_that_ends_and_comes_back_is_followed_again(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "llmctl")

    async def follow(first: ServedController) -> None:
        port = int(first.url.rpartition(":")[2])
        async with FleetView([first.url], token=None) as view:
            await until(lambda: view.has_workers)
            await asyncio.to_thread(first.__exit__, None, None, None)
            await until(lambda: view.faults[first.url] is not None)
            assert view.choose("m").id == "w1"
            with ServedController(port=port) as again:
                await until(lambda: view.faults[again.url] is None)
                assert ids(view) == {"w1"}
                await asyncio.to_thread(again.tell, worker(2))
                await until(lambda: ids(view) == {"w1", "w2"})

    controller = ServedController().__enter__()
    controller.tell(worker(1))
    asyncio.run(follow(controller))
    told = [record.message for record in caplog.records if "its last table holds" in record.message]
    assert len(told) == 1


def test_a_controller_with_another_token_is_said_once(caplog: pytest.LogCaptureFixture) -> None:
    async def follow(url: str) -> None:
        async with FleetView([url], token="wrong") as view:
            await until(lambda: view.faults[url] is not None)
            assert not await view.wait_for_answer(0.5)
            with pytest.raises(NoWorkerError):
                view.choose("m")

    with ServedController(token=TOKEN) as controller:
        asyncio.run(follow(controller.url))
    assert sum("refuses" in record.message for record in caplog.records) == 1


def test_a_view_closes_while_it_waits() -> None:
    async def follow(url: str) -> float:
        async with FleetView([url, DEAD], token=None) as view:
            await view.wait_for_answer(5)
            await asyncio.sleep(0.1)
            begin = time.monotonic()
        return time.monotonic() - begin

    with ServedController() as controller:
        assert asyncio.run(follow(*controller_urls([controller.url], has_token=False))) < 1
