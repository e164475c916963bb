"""The controller on the wire: what it tells, whom it believes, and that it calls nobody."""

import contextlib
import json
import re
import socket
import threading
import time
from collections.abc import Iterator
from typing import Any

import httpx2
import pytest
from starlette.requests import Request
from starlette.routing import Route

from llmctl.core.errors import AccessError
from llmctl.services import wire
from llmctl.services.controller.admission import check_peer, check_worker
from tests.services.controller.served import ServedController
from tests.services.fleet_states import worker

TOKEN = "token-of-the-fleet"


@pytest.fixture(scope="module")
def _controller() -> Iterator[ServedController]:
    with ServedController() as served:
        yield served


@pytest.fixture
def controller(_controller: ServedController) -> ServedController:
    """One without workers; models that earlier tests named, it remembers."""
    for each in _controller.ids():
        _controller.ask.delete(f"/workers/{each}")
    return _controller


@pytest.fixture(scope="module")
def guarded() -> Iterator[ServedController]:
    with ServedController(token=TOKEN) as served:
        yield served


# What it tells


def test_to_register_and_to_report_is_one_message(controller: ServedController) -> None:
    for num_waiting in (0, 7):
        answer = controller.tell(worker(1, num_waiting=num_waiting))
        assert answer.json() == {"interval_s": 2.0, "expires_s": 6.0}
    table = controller.ask.get("/workers").json()
    assert [(each["id"], each["num_waiting"]) for each in table["workers"]] == [("w1", 7)]
    assert 0 <= table["workers"][0]["age_s"] < 5
    assert table["dispatch"] == "least-wait"
    assert wire.listing_from_json(table).workers[0].state == worker(1, num_waiting=7)


def test_a_worker_leaves_once(controller: ServedController) -> None:
    controller.tell(worker(1))
    assert controller.ask.delete("/workers/w1").json() == {"id": "w1", "left": True}
    assert controller.ids() == []
    again = controller.ask.delete("/workers/w1")
    assert (again.status_code, again.json()["error"]["code"]) == (404, "not_found")


def test_models_are_listed_as_openai_lists_them(controller: ServedController) -> None:
    controller.tell(worker(1, "a/b", "c"))
    controller.tell(worker(2, "c"))
    told = controller.ask.get("/v1/models").json()
    assert told["object"] == "list"
    assert [(card["id"], card["object"]) for card in told["data"]] == [("a/b", "model"), ("c", "model")]


def test_a_request_is_sent_to_a_worker_of_its_model(controller: ServedController) -> None:
    controller.tell(worker(1, "a"))
    controller.tell(worker(2, "b"))
    answer = controller.ask.post("/dispatch", json={"model": "b", "prefix": "You are\n" * 2000})
    assert answer.json() == {"url": worker(2).url, "id": "w2"}


def test_no_model_is_404_and_no_worker_is_503(controller: ServedController) -> None:
    empty = controller.ask.post("/dispatch", json={"model": "m"})
    assert (empty.status_code, empty.json()["error"]["code"]) == (503, "no_worker")
    assert int(empty.headers["Retry-After"]) >= 1
    controller.tell(worker(1, "a"))
    unknown = controller.ask.post("/dispatch", json={"model": "unheard-of"})
    assert (unknown.status_code, unknown.json()["error"]["code"]) == (404, "model_not_found")
    assert "there is a" in unknown.json()["error"]["message"]


@pytest.mark.parametrize(
    ("body", "told"),
    [
        ({}, "model is missing"),
        ({"model": ""}, "model must be"),
        ({"model": 1}, "model must be"),
        ({"model": "m", "prefix": 5}, "prefix must be text"),
        ({"model": "m", "prefx": "x"}, "'prefx' is not a field"),
    ],
)
def test_a_wrong_question_is_refused_by_name(
    controller: ServedController, body: dict[str, Any], told: str
) -> None:
    answer = controller.ask.post("/dispatch", json=body)
    assert answer.status_code == 400
    assert told in answer.json()["error"]["message"]


def test_a_lottery_of_fastchat_is_one_here() -> None:
    with ServedController(method="lottery") as controller:
        assert controller.ask.get("/workers").json()["dispatch"] == "lottery"


def test_every_part_has_its_routes(controller: ServedController) -> None:
    controller.tell(worker(1, num_running=3, num_waiting=2))
    controller.tell(worker(2, "x", is_draining=True))
    assert controller.ask.get("/ready").status_code == 200
    assert "version" in controller.ask.get("/version").json()
    told = controller.ask.get("/metrics").text
    assert 'llmctl_controller_workers{state="serving"} 1.0' in told
    assert 'llmctl_controller_workers{state="draining"} 1.0' in told
    assert 'llmctl_controller_requests_running{model_name="m"} 0.0' in told


def test_the_description_names_every_route(controller: ServedController) -> None:
    told = controller.ask.get("/openapi.json").json()
    served = {
        (route.path, method.lower())
        for route in controller.app.routes
        if isinstance(route, Route)
        for method in route.methods or ()
        if method != "HEAD"
    }
    described = {(path, method) for path, methods in told["paths"].items() for method in methods}
    assert described == served
    for reference in re.findall(r'"#/components/schemas/(\w+)"', json.dumps(told)):
        assert reference in told["components"]["schemas"]


def test_the_description_has_the_fields_that_are_read(controller: ServedController) -> None:
    schemas = controller.ask.get("/openapi.json").json()["components"]["schemas"]
    told = wire.to_json(worker(1))
    assert schemas["Worker"]["properties"].keys() == told.keys()
    assert schemas["Model"]["properties"].keys() == told["models"][0].keys()
    table = controller.ask.get("/workers").json()
    assert schemas["Table"]["properties"].keys() == table.keys()


# What cannot be


@pytest.mark.parametrize(
    "fields",
    [
        {"num_waiting": -5},
        {"tokens_per_s": -1},
        {"num_running": 1e300},
        {"models": None},
        {"id": "../workers"},
        {"url": "http://127.0.0.1:1/?x"},
        {"url": "gopher://127.0.0.1:1"},
    ],
)
def test_a_rogue_number_or_url_is_refused_and_never_chosen(
    controller: ServedController, fields: dict[str, Any]
) -> None:
    controller.tell(worker(1))
    answer = controller.tell(worker(2), **fields)
    assert answer.status_code == 400
    assert next(iter(fields)) in answer.json()["error"]["message"]
    assert controller.ids() == ["w1"]


def test_a_speed_of_nothing_divides_nothing(controller: ServedController) -> None:
    for number in (1, 2):
        controller.tell(worker(number, tokens_per_s=0, num_waiting=50))
    assert controller.ask.post("/dispatch", json={"model": "m"}).status_code == 200


@pytest.mark.parametrize(
    ("raw", "kind", "status"),
    [
        (b"", "application/json", 400),
        (b"[1]", "application/json", 400),
        (b"{", "application/json", 400),
        (b'{"url": NaN}', "application/json", 400),
        (b"[" * 100_000, "application/json", 400),
        (b"\xff\xfe{}", "application/json", 400),
        (b"{}", "text/plain", 415),
        (b" " * (5 * 1024 * 1024), "application/json", 413),
    ],
)
def test_what_is_no_message_is_refused(
    controller: ServedController, raw: bytes, kind: str, status: int
) -> None:
    answer = controller.ask.post("/workers", content=raw, headers={"Content-Type": kind})
    assert answer.status_code == status
    assert answer.json()["error"]["message"]


def test_the_place_of_a_newer_worker_cannot_be_had(controller: ServedController) -> None:
    controller.tell(worker(1, id="new", started=6.0))
    answer = controller.tell(worker(1, id="old", started=5.0))
    assert answer.status_code == 409
    assert controller.ids() == ["new"]


@pytest.mark.parametrize(
    "query",
    ["since=x", "since=-1", "since=1.5", "wait=-1", "wait=31", "wait=nan", "wait=x", "since=" + "9" * 5000],
)
def test_a_wrong_query_is_refused_by_name(controller: ServedController, query: str) -> None:
    answer = controller.ask.get(f"/workers?{query}")
    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == query.partition("=")[0]


# News


def ask_for_news(controller: ServedController, since: int, wait_s: float) -> tuple[float, dict[str, Any]]:
    begin = time.monotonic()
    with httpx2.Client(base_url=controller.url, trust_env=False, timeout=20) as client:
        table = client.get("/workers", params={"since": since, "wait": wait_s}).json()
    return time.monotonic() - begin, table


def version(controller: ServedController) -> int:
    return int(controller.ask.get("/workers").json()["version"])


def test_another_version_is_told_at_once(controller: ServedController) -> None:
    took_s, table = ask_for_news(controller, version(controller) + 1, wait_s=10)
    assert took_s < 3
    assert table["workers"] == []


def test_without_news_a_table_is_told_when_the_wait_is_over(controller: ServedController) -> None:
    controller.tell(worker(1))
    took_s, table = ask_for_news(controller, version(controller), wait_s=0.3)
    assert 0.3 <= took_s < 5
    assert len(table["workers"]) == 1


def test_news_are_told_as_they_come(controller: ServedController) -> None:
    controller.tell(worker(1))
    since = version(controller)

    def change() -> None:
        time.sleep(0.1)
        controller.tell(worker(1, num_waiting=3))
        time.sleep(0.1)
        controller.tell(worker(2))

    thread = threading.Thread(target=change)
    thread.start()
    took_s, table = ask_for_news(controller, since, wait_s=10)
    thread.join()
    assert 0.2 <= took_s < 5
    assert len(table["workers"]) == 2


def test_silence_is_news_too() -> None:
    with ServedController(interval_s=0.1) as controller:
        controller.tell(worker(1))
        took_s, table = ask_for_news(controller, version(controller), wait_s=10)
        assert took_s < 5
        assert table["workers"] == []


def test_nobody_waits_for_news_of_a_controller_that_ends() -> None:
    with ServedController() as controller:
        since = version(controller)
        timer = threading.Timer(0.2, controller.stop)
        timer.start()
        took_s, _ = ask_for_news(controller, since, wait_s=25)
        timer.join()
    assert took_s < 2.5


def test_a_client_that_leaves_does_not_wait_on(controller: ServedController) -> None:
    request = f"GET /workers?since={version(controller)}&wait=30 HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"
    port = int(controller.url.rpartition(":")[2])
    for _ in range(3):
        with socket.create_connection(("127.0.0.1", port)) as connection:
            connection.sendall(request.encode())
            time.sleep(0.1)
    deadline = time.monotonic() + 5
    left = re.compile(r"^llmctl_http_requests_total\{.*499.*\} 3.0$", re.MULTILINE)
    while not left.search(controller.ask.get("/metrics").text):
        assert time.monotonic() < deadline
        time.sleep(0.05)


# Trust


def test_a_token_is_asked_for_everywhere_but_where_supervisors_look(guarded: ServedController) -> None:
    with httpx2.Client(base_url=guarded.url, trust_env=False) as stranger:
        for method, path in [
            *[("GET", path) for path in ("/workers", "/v1/models", "/version", "/metrics", "/openapi.json")],
            *[("POST", path) for path in ("/workers", "/dispatch")],
            ("DELETE", "/workers/w1"),
            ("GET", "/nowhere"),
        ]:
            answer = stranger.request(method, path, headers={"Authorization": "Bearer wrong"})
            assert (path, answer.status_code) == (path, 401)
            assert answer.headers["WWW-Authenticate"] == "Bearer"
        assert stranger.get("/health").status_code == stranger.get("/ready").status_code == 200
    assert guarded.ids() == []


def test_with_a_token_workers_may_be_anywhere(guarded: ServedController) -> None:
    assert guarded.tell(worker(1, url="http://gpu1.example:21002")).status_code == 200
    assert guarded.ask.delete("/workers/w1").status_code == 200


def test_without_a_token_workers_are_on_this_machine(controller: ServedController) -> None:
    for url in (
        "http://169.254.169.254:80",
        "http://gpu1.example:21002",
        "http://0.0.0.0:1",
        "http://127.1:1",
    ):
        answer = controller.tell(worker(1, url=url))
        assert (answer.status_code, answer.json()["error"]["type"]) == (403, "permission_error")
        assert "--token-file" in answer.json()["error"]["message"]
    for number, host in enumerate(("localhost", "[::1]", "127.0.0.2")):
        assert controller.tell(worker(number, url=f"http://{host}:{9000 + number}")).status_code == 200


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
        {"X-Forwarded-For": "10.0.0.1"},
        {"Forwarded": "for=127.0.0.1"},
        {"Host": "evil.example"},
        {"Host": "127.0.0.1.evil.example:21001"},
    ],
)
def test_without_a_token_no_web_page_and_no_proxy_gets_in(
    controller: ServedController, headers: dict[str, str]
) -> None:
    for method, path in (("GET", "/workers"), ("POST", "/workers"), ("POST", "/dispatch")):
        answer = controller.ask.request(method, path, headers=headers)
        assert answer.status_code == 403
    assert controller.ids() == []


@pytest.mark.parametrize(
    ("peer", "host", "is_let_in"),
    [
        ("127.0.0.1", "localhost:21001", True),
        ("::1", "[::1]:21001", True),
        ("::ffff:127.0.0.1", "127.0.0.1", True),
        ("10.0.0.1", "127.0.0.1:21001", False),
        ("::ffff:10.0.0.1", "127.0.0.1:21001", False),
        ("127.0.0.1", "", False),
        ("127.0.0.1", "[", False),
        ("127.0.0.1", "[::1", False),
        ("127.0.0.1", "localhost@evil.example", False),
        (None, "127.0.0.1", False),
    ],
)
def test_a_peer_is_judged_by_its_address(peer: str | None, host: str, is_let_in: bool) -> None:
    headers = [(b"host", host.encode())]
    scope = {"type": "http", "headers": headers, "client": None if peer is None else (peer, 1)}
    with contextlib.nullcontext() if is_let_in else pytest.raises(AccessError):
        check_peer(Request(scope))


def test_a_worker_of_this_machine_is_believed() -> None:
    check_worker("http://127.0.0.1:1")
    with pytest.raises(AccessError, match="http://a:1"):
        check_worker("http://a:1")


def test_nobody_is_called_whatever_is_registered(guarded: ServedController) -> None:
    with socket.create_server(("127.0.0.1", 0)) as trap:
        trap.settimeout(0.5)
        url = f"http://127.0.0.1:{trap.getsockname()[1]}"
        guarded.tell(worker(1, url=url))
        guarded.ask.get("/workers")
        guarded.ask.get("/v1/models")
        assert guarded.ask.post("/dispatch", json={"model": "m"}).json()["url"] == url
        guarded.ask.delete("/workers/w1")
        with pytest.raises(TimeoutError):
            trap.accept()
