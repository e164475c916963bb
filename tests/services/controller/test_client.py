"""The controller's client tells in one line what went wrong, whatever answers there."""

import asyncio
import socket
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager

import pytest

from llmctl.core.errors import AccessError, LlmctlError, NotFoundError, UnreachableError, UsageError
from llmctl.services.controller.client import ControllerClient
from llmctl.services.wire import Listing, Terms
from tests.services.controller.served import ServedController
from tests.services.fleet_states import worker

TOKEN = "token-of-the-fleet"


@contextmanager
def saying(answer: bytes | None) -> Iterator[str]:
    """The URL of a server that says `answer` to whatever it is asked; None: nothing."""
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        with closing(listener), listener.accept()[0] as connection:
            connection.recv(65536)
            if answer is None:
                connection.recv(65536)
            else:
                connection.sendall(answer)

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    thread.join(timeout=5)


def http(status: str, body: bytes, kind: str = "application/json") -> bytes:
    fields = (f"Content-Type: {kind}", f"Content-Length: {len(body)}", "Connection: close")
    return "\r\n".join((f"HTTP/1.1 {status}", *fields, "\r\n")).encode() + body


def listed(url: str, *, token: str | None = None, timeout_s: float = 4.0) -> Listing:
    async def ask() -> Listing:
        async with ControllerClient(url, token=token, timeout_s=timeout_s) as client:
            return await client.listing()

    return asyncio.run(ask())


def test_a_worker_registers_is_listed_and_leaves() -> None:
    async def talk(url: str) -> None:
        async with ControllerClient(url, token=TOKEN) as client:
            assert await client.tell(worker(1)) == Terms(interval_s=2.0, expires_s=6.0)
            table = await client.listing()
            assert [heard.state for heard in table.workers] == [worker(1)]
            assert (await client.listing(since=table.version, wait_s=0.1)).version == table.version
            await client.leave("w1")
            with pytest.raises(NotFoundError):
                await client.leave("w1")

    with ServedController(token=TOKEN) as controller:
        asyncio.run(talk(controller.url))


@pytest.mark.parametrize("token", [None, "wrong"])
def test_a_wrong_token_is_told_with_the_remedy(token: str | None) -> None:
    with ServedController(token=TOKEN) as controller, pytest.raises(AccessError) as caught:
        listed(controller.url, token=token)
    assert "--token-file" in (caught.value.hint or "")
    assert TOKEN not in str(caught.value)


def test_a_refusal_tells_what_the_controller_told() -> None:
    async def talk(url: str) -> None:
        async with ControllerClient(url, token=None) as client:
            await client.tell(worker(1, id="new", started=2.0))
            await client.tell(worker(1, id="old", started=1.0))

    with ServedController() as controller, pytest.raises(UsageError, match="started later"):
        asyncio.run(talk(controller.url))


def test_nothing_listens() -> None:
    with pytest.raises(UnreachableError, match="nothing listens there"):
        listed("http://127.0.0.1:9")


def test_nothing_is_said() -> None:
    with saying(None) as url, pytest.raises(UnreachableError, match="does not answer"):
        listed(url, timeout_s=0.2)


@pytest.mark.parametrize(
    "answer",
    [
        http("200 OK", b"hello", "text/html"),
        http("200 OK", b"[" * 100_000),
        http("200 OK", b"[]"),
        http("200 OK", b'{"workers": 5}'),
        http("200 OK", b'{"workers": [{"url": "http://x", "id": "w"}], "dispatch": "least-wait"}'),
    ],
)
def test_another_server_is_no_controller(answer: bytes) -> None:
    with saying(answer) as url, pytest.raises(LlmctlError, match="does not answer as a controller"):
        listed(url)


@pytest.mark.parametrize(
    ("answer", "kind", "told"),
    [
        (b"", UnreachableError, "cannot reach"),
        (b"SSH-2.0-OpenSSH_9.6\r\n", UnreachableError, "cannot reach"),
        (http("404 Not Found", b"no"), NotFoundError, "404"),
        (http("503 Service Unavailable", b'{"error": {"message": "later"}}'), UnreachableError, "later"),
        (http("301 Moved", b"", "x\r\nLocation: http://evil.example/"), LlmctlError, "301"),
    ],
)
def test_what_goes_wrong_is_one_line(answer: bytes, kind: type[LlmctlError], told: str) -> None:
    with saying(answer) as url, pytest.raises(kind, match=told) as caught:
        listed(url)
    assert "\n" not in caught.value.message
