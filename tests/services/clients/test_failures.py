"""Parts of a fleet that are killed while real clients talk to it."""

import json
import re
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from tests.services.clients.fleet import ANSWER, MESSAGES, MODEL, Fleet, until, up
from tests.services.clients.raw import CHAT, ask, connected, get

pytestmark = pytest.mark.heavy
NUM_CLIENTS = 16
LONG: dict[str, Any] = {
    "model": MODEL,
    "messages": MESSAGES,
    "temperature": 1,
    "ignore_eos": True,
    "max_tokens": 1000,
    "stream": True,
}
SHORT: dict[str, Any] = {"model": MODEL, "messages": MESSAGES, "temperature": 0, "max_tokens": 16}


@pytest.fixture
def broken(tmp_path: Path) -> Iterator[Fleet]:
    """A fleet that is this test's to break."""
    with up(tmp_path, "--workers", "2") as fleet:
        yield fleet


@dataclass
class Client(threading.Thread):
    """Follows one stream to its end."""

    port: int
    body: bytes = b""
    num_chunks: int = 0
    failure: str = ""
    is_over: bool = False
    lasted_s: float = 0.0
    worker: str = field(default="")

    def __post_init__(self) -> None:
        super().__init__(daemon=True)

    __hash__ = threading.Thread.__hash__

    def run(self) -> None:
        begin = time.monotonic()
        try:
            with connected(self.port) as wire:
                wire.send(CHAT, **LONG)
                status, _ = wire.head()
                assert status == 200
                for chunk in wire.chunks():
                    self.body += chunk
                    self.num_chunks += 1
                self.is_over = True
        except (OSError, AssertionError, ValueError) as error:
            self.failure = repr(error)
        self.lasted_s = time.monotonic() - begin

    @property
    def events(self) -> list[bytes]:
        """The data of its events."""
        *events, rest = self.body.split(b"\n\n")
        assert rest == b""
        return [each[6:] for each in events if each.startswith(b"data: ")]

    @property
    def error(self) -> Any:
        """What the last event but one says went wrong, if it does."""
        return json.loads(self.events[-2]).get("error")


def streaming(fleet: Fleet, count: int = NUM_CLIENTS) -> list[Client]:
    """Clients whose streams have begun."""
    clients = [Client(fleet.port) for _ in range(count)]
    for client in clients:
        client.start()
    until(lambda: all(client.num_chunks > 3 for client in clients))
    return clients


def num_running(fleet: Fleet, port: int) -> int:
    page = get(port, "/metrics", f"Authorization: Bearer {fleet.token}").body.decode()
    return sum(int(float(each)) for each in re.findall(r"(?m)^vllm:num_requests_running\S* (\S+)$", page))


def num_known(fleet: Fleet) -> int:
    """Workers that the gateway knows."""
    page = get(fleet.port, "/metrics").body.decode()
    found = re.search(r"(?m)^llmctl_gateway_workers (\S+)$", page)
    assert found is not None
    return int(float(found[1]))


def test_a_killed_worker_ends_its_own_streams_alone(broken: Fleet) -> None:
    killed, other = broken.parts("worker")
    clients = streaming(broken)
    num_lost = num_running(broken, killed.port)
    assert 0 < num_lost < NUM_CLIENTS
    killed.kill()
    died = time.monotonic()
    # New requests succeed at once.
    for _ in range(8):
        answer = ask(broken.port, CHAT, **SHORT)
        assert answer.status == 200, answer.body
        assert answer.json["choices"][0]["message"]["content"] == ANSWER
    until(lambda: sum(client.is_over for client in clients) >= num_lost, within_s=5)
    assert time.monotonic() - died < 6
    for client in clients:
        client.join(timeout=60)
        assert client.is_over, client.failure or "it hangs"
        assert client.events[-1] == b"[DONE]"
    lost = [client for client in clients if client.error is not None]
    assert len(lost) == num_lost
    assert {client.error["type"] for client in lost} == {"server_error"}
    for client in clients:
        if client not in lost:
            last = json.loads(client.events[-2])
            assert last["choices"][0]["finish_reason"] == "length"
    # `serve up` starts another.
    until(lambda: num_known(broken) == 2)
    now = broken.parts_now("worker")
    assert {each.pid for each in now} > {other.pid}
    assert killed.pid not in {each.pid for each in now}


@pytest.mark.skipif(find_spec("openai") is None, reason="openai is not installed")
def test_openai_raises_for_a_stream_whose_worker_was_killed(broken: Fleet) -> None:
    from openai import APIError, OpenAI

    with OpenAI(base_url=broken.url, api_key="any", max_retries=0, timeout=30) as client:
        stream = client.chat.completions.create(
            **{name: value for name, value in LONG.items() if name != "ignore_eos"},
            extra_body={"ignore_eos": True},
        )
        next(iter(stream))
        (busy,) = [each for each in broken.parts("worker") if num_running(broken, each.port)]
        busy.kill()
        with pytest.raises(APIError) as caught:
            list(stream)
        assert caught.value.message
        assert client.chat.completions.create(**SHORT).choices[0].message.content == ANSWER


def test_traffic_goes_on_without_the_controller_and_its_table_is_soon_whole_again(broken: Fleet) -> None:
    controller = broken.one("controller")
    clients = streaming(broken, 4)
    controller.kill()
    begin = time.monotonic()
    while time.monotonic() - begin < 2:
        answer = ask(broken.port, CHAT, **SHORT)
        assert answer.status == 200, answer.body
    until(lambda: answers(controller.port))
    assert until(lambda: num_told(broken, controller.port) == 2) < 5.0
    (now,) = broken.parts_now("controller")
    assert now.pid != controller.pid
    assert now.url == controller.url
    for client in clients:
        client.join(timeout=60)
        assert client.is_over, client.failure or "it hangs"
        assert client.error is None
    assert num_known(broken) == 2


def test_a_killed_gateway_comes_back_at_its_port(broken: Fleet) -> None:
    gateway = broken.one("gateway")
    gateway.kill()
    until(lambda: answers(gateway.port) and get(gateway.port, "/ready").status == 200, within_s=20)
    assert ask(broken.port, CHAT, **SHORT).status == 200
    # Whose streams were cut does not keep the workers busy.
    assert until(lambda: not any(num_running(broken, each.port) for each in broken.parts("worker"))) < 5


def answers(port: int) -> bool:
    try:
        return get(port, "/health").status == 200
    except (OSError, AssertionError):
        return False


def num_told(fleet: Fleet, port: int) -> int:
    """Workers in the controller's table."""
    return len(get(port, "/workers", f"Authorization: Bearer {fleet.token}").json["workers"])
