"""How a part begins and ends: in a process of its own, by signals."""

import asyncio
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager

import pytest
from starlette.applications import Starlette

from llmctl.core.errors import LlmctlError
from llmctl.services.http.binding import bind, url_of
from llmctl.services.http.serving import Service
from tests.conftest import ROOT
from tests.services.http.part import Seen, ServedPart, Wire, error_of, events, head, made


class Process:
    """`part` in a process."""

    def __init__(self, *args: str) -> None:
        self.popen = subprocess.Popen(
            [sys.executable, "-m", "tests.services.http.part", *args],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=ROOT,
        )
        self.url = self.line()

    def connect(self) -> Wire:
        return Wire(int(self.url.rpartition(":")[2]))

    def line(self) -> str:
        assert self.popen.stdout is not None
        return self.popen.stdout.readline().strip()

    def signal(self, number: int = signal.SIGTERM) -> None:
        self.popen.send_signal(number)

    def ended(self) -> tuple[int, str, str]:
        """How it ended, what it said since the last line, and what it complained of."""
        out, err = self.popen.communicate(timeout=20)
        return self.popen.returncode, out, err


Start = Callable[..., Process]


@pytest.fixture
def start() -> Iterator[Start]:
    started: list[Process] = []

    def begin(*args: str) -> Process:
        started.append(Process(*args))
        return started[-1]

    yield begin
    for process in started:
        process.popen.kill()
        process.popen.communicate()


def test_a_port_that_the_system_chose_is_told_and_answers(start: Start) -> None:
    process = start("5")
    assert re.fullmatch(r"http://127\.0\.0\.1:[1-9]\d+", process.url)
    with process.connect() as wire:
        assert wire.ask("GET /health").status == 200


def test_sigterm_ends_an_idle_part_at_once_and_in_peace(start: Start) -> None:
    process = start("30")
    with process.connect() as kept, process.connect() as unused:
        assert kept.ask("GET /health").status == 200
        begin = time.monotonic()
        process.signal()
        code, out, err = process.ended()
        assert (code, err) == (0, "")
        assert out == "draining\nended, closed 0, lifespan over\n"
        assert time.monotonic() - begin < 3
        assert kept.rest() == unused.rest() == b""


def test_open_requests_may_end_while_new_ones_are_refused(start: Start) -> None:
    process = start("20")
    with process.connect() as open_one, process.connect() as kept, process.connect() as health:
        open_one.send(head("GET /stream?n=8&pause=0.15"))
        open_one.until(b"data: 0")
        assert kept.ask("GET /thing").status == 200
        process.signal()
        assert process.line() == "draining"
        refused = kept.ask("GET /thing")
        assert (refused.status, refused.error["message"]) == (503, "the server is shutting down")
        assert "retry-after" in refused.headers
        assert health.ask("GET /ready").status == 503
        assert health.ask("GET /health").status == 200
        with process.connect() as new:
            assert new.ask("GET /thing").status == 503
        rest = open_one.rest()
    assert b"data: 7\n\n" in rest
    assert rest.endswith(b"\r\n0\r\n\r\n")
    assert process.ended() == (0, "ended, closed 1, lifespan over\n", "")


def test_what_does_not_end_in_time_is_told_and_cut_off(start: Start) -> None:
    process = start("0.3")
    with process.connect() as stream, process.connect() as answer:
        stream.send(head("GET /stream?n=5&pause=60"))
        stream.await_(b"data: 0\n\n\r\n")
        answer.send(head("GET /long"))
        time.sleep(0.1)
        process.signal()
        reply = answer.reply()
        assert (reply.status, reply.error["message"]) == (503, "the server is shutting down")
        reply = stream.reply()
        first, told, done = events(reply.body)
        assert (first, done, reply.is_whole) == (b"0", b"[DONE]", True)
        assert error_of(told)["message"] == "the server is shutting down"
    code, out, err = process.ended()
    assert (code, out) == (0, "draining\nended, closed 2, lifespan over\n")
    assert err == "the part ends with 2 requests open\n"


def test_ctrl_c_is_graceful_too(start: Start) -> None:
    process = start("20")
    with process.connect() as wire:
        wire.send(head("GET /stream?n=3&pause=0.1"))
        wire.until(b"data: 0")
        process.signal(signal.SIGINT)
        assert wire.rest().endswith(b"\r\n0\r\n\r\n")
    code, out, err = process.ended()
    # The command line makes 130 of it.
    assert "KeyboardInterrupt" in err
    assert (code, out) == (-signal.SIGINT, "draining\n")


@pytest.mark.parametrize("again", [signal.SIGTERM, signal.SIGINT])
def test_a_second_signal_ends_at_once(start: Start, again: signal.Signals) -> None:
    process = start("30", "hang")
    with process.connect() as wire:
        wire.send(head("GET /stream?n=5&pause=60"))
        wire.until(b"data: 0")
        process.signal()
        assert process.line() == "draining"
        begin = time.monotonic()
        process.signal(again)
        assert process.ended() == (-again, "", "")
        assert time.monotonic() - begin < 1


@pytest.mark.parametrize(
    ("how", "told"),
    [
        ("hang", "the part ends without having taken leave\n"),
        ("fail", "the part ends without having taken leave: the controller does not answer\n"),
    ],
)
def test_a_farewell_that_fails_does_not_keep_it(start: Start, how: str, told: str) -> None:
    process = start("0.3", how)
    with process.connect() as wire:
        assert wire.ask("GET /health").status == 200
    process.signal()
    assert process.ended() == (0, "draining\nended, closed 0, lifespan over\n", told)


def test_a_client_that_does_not_read_does_not_keep_it(start: Start) -> None:
    process = start("0.2")
    with process.connect() as wire:
        wire.send(head("GET /stream?n=100000&size=10000"))
        time.sleep(0.3)
        begin = time.monotonic()
        process.signal()
        code, out, _ = process.ended()
    assert (code, out.splitlines()[-1]) == (0, "ended, closed 1, lifespan over")
    assert time.monotonic() - begin < 6


def test_a_part_may_be_ended_before_it_has_begun() -> None:
    with bind("127.0.0.1", 0) as listener:
        service = Service(made(Seen()), listener, name="part", drain_s=5)
        service.stop()
        asyncio.run(asyncio.wait_for(service.run(), 5))


def test_a_part_that_is_slow_to_begin_may_be_ended() -> None:
    app = made(Seen())
    was_cancelled = []

    @asynccontextmanager
    async def slow(_: Starlette) -> AsyncIterator[None]:
        asyncio.get_running_loop().call_later(0.05, service.stop)
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            was_cancelled.append(True)
            raise
        yield

    app.router.lifespan_context = slow
    with bind("127.0.0.1", 0) as listener:
        service = Service(app, listener, name="part", drain_s=5)
        asyncio.run(asyncio.wait_for(service.run(), 5))
    assert was_cancelled


def test_a_part_that_is_ended_when_it_begins_ends_in_peace() -> None:
    app = made(Seen())
    done = []

    @asynccontextmanager
    async def short(_: Starlette) -> AsyncIterator[None]:
        service.stop()
        yield
        done.append("lifespan")

    async def drain() -> None:
        done.append("drain")

    app.router.lifespan_context, app.state.drain = short, drain
    with bind("127.0.0.1", 0) as listener:
        service = Service(app, listener, name="part", drain_s=5)
        asyncio.run(asyncio.wait_for(service.run(), 5))
    assert done == ["drain", "lifespan"]


def test_what_fails_at_the_start_is_raised(start: Start) -> None:
    process = start("5", "start")
    code, out, err = process.ended()
    assert (code, out) == (1, "")
    assert err.splitlines()[-1] == "llmctl.core.errors.AccessError: the controller refuses"


def test_a_part_in_a_thread_ends_without_signals() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with ServedPart(drain_s=5) as part, part.connect() as wire:
        wire.send(head("GET /stream?n=3&pause=0.1"))
        wire.until(b"data: 0")
        part.stop()
        part.stop()
        assert wire.rest().endswith(b"\r\n0\r\n\r\n")
        part.wait()
        assert part.seen.is_left
    assert signal.getsignal(signal.SIGTERM) is before


def refused(host: str, port: int) -> LlmctlError:
    with pytest.raises(LlmctlError) as caught:
        bind(host, port)
    return caught.value


def test_a_port_that_is_taken_is_told(part: ServedPart) -> None:
    error = refused("127.0.0.1", part.port)
    assert (error.exit_code, error.message) == (
        2,
        f"port {part.port} of 127.0.0.1 is taken: another program listens there",
    )
    assert "--port" in str(error.hint)


def test_a_port_is_free_again_when_a_part_has_ended() -> None:
    with ServedPart() as part:
        part.ask("GET /health")
        port = part.port
    bind("127.0.0.1", port).close()


@pytest.mark.parametrize(
    ("host", "told"),
    [
        ("203.0.113.1", "cannot be listened at"),
        ("no such host", "cannot be found"),
        ("a..b", "cannot be found"),
        ("", "cannot be found"),
    ],
)
def test_a_host_that_is_not_this_machine_is_told(host: str, told: str) -> None:
    error = refused(host, 0)
    assert (error.exit_code, told in error.message) == (2, True)


@pytest.mark.parametrize("port", [-1, 65536])
def test_a_number_that_is_no_port_is_told(port: int) -> None:
    assert refused("127.0.0.1", port).exit_code == 2


@pytest.mark.parametrize(
    ("host", "url"),
    [("localhost", "http://127.0.0.1:"), ("::1", "http://[::1]:"), ("[::1]", "http://[::1]:")],
)
def test_names_and_addresses_of_this_machine_can_be_had(host: str, url: str) -> None:
    if ":" in host and not socket.has_ipv6:
        pytest.skip("no IPv6")
    with bind(host, 0) as listener:
        assert url_of(listener).startswith(url)
        socket.create_connection(listener.getsockname()[:2], timeout=5).close()
