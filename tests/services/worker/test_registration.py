"""A worker among the workers of real controllers."""

import logging
import threading
from typing import Any

import pytest

from llmctl.core.errors import UsageError
from llmctl.services.controller.app import Settings
from llmctl.services.controller.app import build as build_controller
from llmctl.services.http.guard import Keys
from llmctl.services.worker.worker import Fleet, reachable_url
from tests.services.worker.fakes import FakeText, hosted, hosted_vectors
from tests.services.worker.serving import HELLO, Served, ServedApp, until

INTERVAL_S = 0.1


def controller(token: str | None = None, *, port: int = 0, interval_s: float = INTERVAL_S) -> ServedApp:
    keys = Keys.of([] if token is None else [token])
    return ServedApp(build_controller(Settings(keys=keys, interval_s=interval_s)), port=port)


def workers(of: ServedApp, token: str | None = None) -> list[Any]:
    """What a controller tells of its workers."""
    headers = {} if token is None else {"Authorization": f"Bearer {token}"}
    found: list[Any] = of.client.get("/workers", headers=headers).json()["workers"]
    return found


@pytest.fixture
def text() -> FakeText:
    return FakeText()


def serving(text: FakeText, *controllers: ServedApp, token: str | None = None) -> Served:
    fleet = Fleet(controllers=tuple(each.url for each in controllers), token=token)
    return Served(lambda: [hosted(text, aliases=("alias",)), hosted_vectors()], fleet=fleet)


def test_every_controller_is_told_the_whole_state(text: FakeText) -> None:
    with controller() as one, controller() as other, serving(text, one, other) as worker:
        for each in (one, other):
            until(lambda each=each: len(workers(each)) == 1)
            (told,) = workers(each)
            assert (told["url"], told["is_draining"]) == (worker.url, False)
            assert [model["name"] for model in told["models"]] == ["fake", "vectors"]
            assert told["models"][0]["aliases"] == ["alias"]
            assert told["models"][0]["context_length"] == 100
            assert told["models"][1]["capabilities"] == ["embeddings"]


def test_heartbeats_tell_how_busy_the_worker_is(text: FakeText) -> None:
    with controller() as one, serving(text, one) as worker:
        with worker.asked("/v1/completions", model="fake", prompt="~"):
            until(lambda: [each["num_running"] for each in workers(one)] == [1])
        until(lambda: [each["num_running"] for each in workers(one)] == [0])


def test_a_worker_that_ends_leaves(text: FakeText) -> None:
    with controller(interval_s=60) as one:
        with serving(text, one):
            until(lambda: len(workers(one)) == 1)
        assert workers(one) == []


def test_a_worker_that_drains_says_so_and_ends_what_it_began(text: FakeText) -> None:
    with controller(interval_s=60) as one, serving(text, one) as worker:
        until(lambda: len(workers(one)) == 1)
        with worker.asked("/v1/completions", model="fake", prompt="~", stream=True) as connection:
            until(lambda: worker.num_running == 1)
            worker.stop()
            until(lambda: [each["is_draining"] for each in workers(one)] == [True])
            assert connection.recv(100).startswith(b"HTTP/1.1 200")
            refused = worker.post("/v1/chat/completions", model="fake", messages=HELLO)
            assert refused.status_code == 503


def test_a_controller_that_was_started_again_knows_the_worker_within_a_heartbeat(text: FakeText) -> None:
    with controller() as one:
        port = int(one.url.rpartition(":")[2])
        worker = serving(text, one).__enter__()
        until(lambda: len(workers(one)) == 1)
    with controller(port=port) as again:
        assert until(lambda: len(workers(again)) == 1) < 3
        worker.__exit__(None, None, None)


def test_a_controller_is_not_told_of_models_that_are_still_loading(text: FakeText) -> None:
    go_on = threading.Event()

    def load() -> list[Any]:
        assert go_on.wait(20)
        return [hosted(text)]

    with (
        controller() as one,
        Served(load, fleet=Fleet(controllers=(one.url,)), is_awaited=False) as worker,
    ):
        assert worker.client.get("/health").status_code == 200
        assert workers(one) == []
        go_on.set()
        until(lambda: len(workers(one)) == 1)


def test_the_token_is_shown(text: FakeText) -> None:
    with controller("secret") as one, serving(text, one, token="secret"):
        until(lambda: len(workers(one, "secret")) == 1)


def test_a_wrong_token_is_told_once_and_the_worker_serves_on(
    text: FakeText, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("llmctl.services.worker.registration._REFUSED_S", 0.02)
    with caplog.at_level(logging.WARNING), controller("secret") as one:
        with serving(text, one, token="other") as worker:
            until(lambda: "refuses" in caplog.text)
            until(lambda: _num_refused(one) > 3)
            assert worker.json("/v1/completions", model="fake", prompt="x")["choices"][0]["text"] == "abc"
        assert workers(one, "secret") == []
    assert caplog.text.count("refuses") == 1
    assert "secret" not in caplog.text
    assert "other" not in caplog.text


def _num_refused(of: ServedApp) -> float:
    told = of.client.get("/metrics", headers={"Authorization": "Bearer secret"}).text
    lines = [line for line in told.splitlines() if "requests_total{" in line and 'status="401"' in line]
    return sum(float(line.split()[-1]) for line in lines)


def test_a_controller_that_is_not_there_is_told_once(
    text: FakeText, caplog: pytest.LogCaptureFixture
) -> None:
    with controller() as gone:
        pass
    with caplog.at_level(logging.WARNING), serving(text, gone) as worker:
        until(lambda: "trying on" in caplog.text)
        assert worker.client.get("/ready").status_code == 200
    assert caplog.text.count(gone.url) == 1


@pytest.mark.parametrize(
    ("bound", "controllers", "url"),
    [
        ("http://127.0.0.1:5", ("http://127.0.0.1:21001",), "http://127.0.0.1:5"),
        ("http://192.0.2.5:5", ("http://127.0.0.1:21001",), "http://192.0.2.5:5"),
        ("http://0.0.0.0:5", (), "http://0.0.0.0:5"),
        ("http://0.0.0.0:5", ("http://127.0.0.1:21001", "http://x:1"), "http://127.0.0.1:5"),
        ("http://[::]:5", ("http://[::1]:21001",), "http://[::1]:5"),
    ],
)
def test_gateways_reach_a_worker_by_its_address_toward_the_controller(
    bound: str, controllers: tuple[str, ...], url: str
) -> None:
    assert reachable_url(bound, controllers) == url


def test_an_address_that_nobody_can_tell_must_be_said() -> None:
    with pytest.raises(UsageError) as caught:
        reachable_url("http://0.0.0.0:5", ("http://no-such-host.invalid:1",))
    assert "--worker-address" in (caught.value.hint or "")
