"""Connecting finds the server, the model and the key, or says in one line why not."""

import asyncio
import logging
import socket
from typing import Any

import pytest

from llmctl.core.backend import ModelInfo
from llmctl.core.errors import AccessError, LlmctlError, NotFoundError, UnreachableError, UsageError
from llmctl.core.types import SamplingParams
from llmctl.services.client import HttpBackend
from tests.server import Reply, ScriptedServer
from tests.services.answers import chat, collected, run, text

SECRET = "sk-secret-0123456789"


async def info(backend: HttpBackend) -> ModelInfo:
    return backend.info


def refused(url: str, **options: Any) -> LlmctlError:
    """The error that connecting ends in, which is fit to be shown."""
    with pytest.raises(LlmctlError) as caught:
        run(info, url, **options)
    assert caught.value.message.isprintable()
    assert caught.value.hint
    return caught.value


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port: int = free.getsockname()[1]
    return port


@pytest.mark.parametrize(
    "form", ["127.0.0.1:{}", "http://127.0.0.1:{}/", "http://localhost:{}/v1/chat/completions"]
)
def test_all_forms_of_the_address_reach_the_server(server: ScriptedServer, form: str) -> None:
    assert run(info, form.format(server.port)).name == "scripted"


def test_nothing_is_recommended_by_a_server(server: ScriptedServer) -> None:
    assert run(info, server.url).default_sampling == SamplingParams()


@pytest.mark.parametrize(
    ("entry", "length"),
    [
        ({}, None),
        ({"max_model_len": 4096}, 4096),
        ({"context_length": 8192}, 8192),
        ({"context_window": 1000}, 1000),
        ({"max_context_length": 2000}, 2000),
        ({"meta": {"n_ctx_train": 32768}}, 32768),
        ({"meta": {"n_ctx": 4096, "n_ctx_train": 32768}}, 4096),
        ({"meta": None, "max_model_len": None}, None),
        ({"max_model_len": "4096", "context_length": 0}, None),
    ],
)
def test_the_context_length_is_found_where_servers_put_it(
    server: ScriptedServer, entry: dict[str, Any], length: int | None
) -> None:
    server.models = [{"id": "a", **entry}]
    assert run(info, server.url).context_length == length


@pytest.mark.parametrize(("model", "chosen"), [(None, "org/b:x"), ("a", "a"), ("llama3", "llama3:latest")])
def test_a_model_is_chosen(server: ScriptedServer, model: str | None, chosen: str) -> None:
    server.models = [{"id": "org/b:x"}, {"id": "a"}, {"id": "llama3:latest"}]
    assert run(info, server.url, model=model).name == chosen


def test_a_model_that_the_server_lacks_is_answered_with_those_it_has(server: ScriptedServer) -> None:
    server.models = [{"id": f"model-{n}"} for n in range(8)] + [{"id": "Qwen/Qwen3-0.6B"}]
    error = refused(server.url, model="qwen/qwen3-0.5b")
    assert isinstance(error, NotFoundError)
    assert error.message == f"{server.url} has no model 'qwen/qwen3-0.5b'"
    assert error.hint == (
        "did you mean Qwen/Qwen3-0.6B? it has model-0, model-1, model-2, model-3, model-4 and 4 more"
    )


def test_models_are_switched_over_the_same_connection(server: ScriptedServer) -> None:
    server.models = [{"id": "a"}, {"id": "b", "max_model_len": 10}]

    async def work(backend: HttpBackend) -> HttpBackend:
        other = backend.with_model("b")
        assert backend.models == other.models == ("a", "b")
        assert (backend.info.name, other.info.name, other.info.context_length) == ("a", "b", 10)
        assert text(await collected(other, chat("hi"))) == "hi"
        with pytest.raises(NotFoundError, match="has no model 'c'"):
            backend.with_model("c")
        return other

    run(work, server.url)
    assert server.asked[0].body["model"] == "b"
    assert len({seen.client_port for seen in server.requests}) == 1


@pytest.mark.parametrize("status", [404, 405])
def test_a_server_without_a_list_is_taken_at_its_word(server: ScriptedServer, status: int) -> None:
    server.on_models = Reply(status=status, body={"detail": "Not Found"})

    async def work(backend: HttpBackend) -> str:
        assert (backend.models, backend.info.context_length) == ((), None)
        assert backend.with_model("other").info.name == "other"
        return backend.info.name

    assert run(work, server.url, model="any") == "any"
    error = refused(server.url)
    assert isinstance(error, NotFoundError)
    assert "does not list its models" in error.message


@pytest.mark.parametrize("body", [{"data": []}, {"object": "list", "data": None}])
def test_a_server_that_offers_nothing_is_told_so(server: ScriptedServer, body: dict[str, Any]) -> None:
    server.on_models = Reply(body=body)
    assert "offers no model" in refused(server.url).message
    assert "it offers none" in str(refused(server.url, model="a").hint)


def test_a_bare_list_is_a_list_of_models(server: ScriptedServer) -> None:
    server.on_models = Reply(body=[{"id": "a"}, {"id": "\x1b[2J"}, {"id": None}])
    assert run(info, server.url).name == "a"


@pytest.mark.parametrize(
    ("body", "shown"),
    [
        ("<!DOCTYPE html><title>Router</title>", "<!DOCTYPE html>"),
        ("hello\x1b[2J", r"hello�[2J"),
        ({"data": "x"}, "a list of models"),
        ({"data": ["x"]}, "a list of models"),
        ({"data": [{"name": "x"}]}, "a list of models"),
        ({"models": []}, "a list of models"),
        ("{}", "a list of models"),
        ("{", "not JSON"),
        ("[" * 5000, "not JSON"),
        ("", "an empty answer"),
        ("  \n", "an empty answer"),
        ("data: {}\n\n", "a stream of events"),
        ('{"data":' * 600 + "1" + "}" * 600, "a list of models"),
    ],
)
def test_what_is_no_list_of_models_is_shown(server: ScriptedServer, body: Any, shown: str) -> None:
    server.on_models = Reply(body=body)
    error = refused(server.url, model="a")
    assert shown in error.message
    assert "OpenAI-compatible" in str(error.hint)
    assert len(error.message) < 250


@pytest.mark.parametrize(
    ("status", "kind"), [(401, AccessError), (403, AccessError), (503, UnreachableError), (500, LlmctlError)]
)
def test_a_refused_list_is_an_error(server: ScriptedServer, status: int, kind: type[LlmctlError]) -> None:
    server.on_models = Reply(status=status, body={"error": {"message": "Loading model"}})
    error = refused(server.url, model="a")
    assert type(error) is kind
    assert error.message.startswith(f"{server.url} answers HTTP {status}")
    assert error.message.endswith(": Loading model")


def test_nothing_that_listens_is_told() -> None:
    error = refused(f"127.0.0.1:{free_port()}")
    assert isinstance(error, UnreachableError)
    assert "nothing listens there" in error.message


def test_a_host_without_an_address_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    without_proxies(monkeypatch)
    error = refused("http://no-such-host.invalid:1/v1", timeout_s=5)
    assert isinstance(error, UnreachableError)
    assert error.message == "cannot reach http://no-such-host.invalid:1/v1: no host has this name"


def test_http_where_https_is_asked_for_is_told(server: ScriptedServer) -> None:
    error = refused(f"https://127.0.0.1:{server.port}")
    assert isinstance(error, UnreachableError)
    assert error.hint == "it may speak http, not https"


def test_a_server_that_only_listens_is_left_after_the_timeout() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        error = refused(f"127.0.0.1:{silent.getsockname()[1]}", timeout_s=0.4)
    assert isinstance(error, UnreachableError)
    assert error.message.endswith("said nothing for 0.4 s")
    assert "--timeout" in str(error.hint)


def test_bytes_that_are_no_http_are_told() -> None:
    async def main() -> LlmctlError:
        async def talk(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write(b"SSH-2.0-OpenSSH\r\n")
            await writer.drain()
            writer.close()

        other = await asyncio.start_server(talk, "127.0.0.1", 0)
        port = other.sockets[0].getsockname()[1]
        async with other:
            return await asyncio.to_thread(refused, f"127.0.0.1:{port}")

    error = asyncio.run(main())
    assert isinstance(error, UnreachableError)
    assert error.message.startswith("cannot reach ")


def test_an_address_that_is_none_is_refused() -> None:
    assert isinstance(refused("ftp://h"), UsageError)


@pytest.mark.parametrize("key", [SECRET, None])
def test_a_key_is_sent_with_every_request(server: ScriptedServer, key: str | None) -> None:
    async def work(backend: HttpBackend) -> str:
        return text(await collected(backend, chat("hi")))

    assert run(work, server.url, api_key=key) == "hi"
    want = None if key is None else f"Bearer {key}"
    assert [seen.headers.get("authorization") for seen in server.requests] == [want, want]


def test_a_wrong_key_is_told_with_the_places_for_the_right_one(server: ScriptedServer) -> None:
    server.api_key = SECRET
    error = refused(server.url, api_key="sk-wrong")
    assert isinstance(error, AccessError)
    assert "Incorrect API key" in error.message
    assert all(place in str(error.hint) for place in ("--api-key-file", "LLMCTL_API_KEY", "OPENAI_API_KEY"))


@pytest.mark.parametrize("padding", [0, 290, 295])
def test_a_key_that_the_server_repeats_is_not_shown(
    server: ScriptedServer, caplog: pytest.LogCaptureFixture, padding: int
) -> None:
    server.on_models = Reply(status=401, body={"error": {"message": "x" * padding + f" bad key: {SECRET}"}})
    with caplog.at_level(logging.DEBUG):
        error = refused(server.url, api_key=SECRET)
    assert "sk-" not in f"{error!r} {error} {error.hint}"
    assert SECRET not in caplog.text


def test_a_key_is_in_no_log_and_no_repr(server: ScriptedServer, caplog: pytest.LogCaptureFixture) -> None:
    async def work(backend: HttpBackend) -> str:
        await collected(backend, chat())
        return f"{backend!r} {backend._connection!r} {backend._connection.faults!r}"

    with caplog.at_level(logging.DEBUG):
        shown = run(work, server.url, api_key=SECRET)
    assert "scripted" in shown
    assert SECRET not in shown
    assert caplog.text
    assert SECRET not in caplog.text


def without_proxies(monkeypatch: pytest.MonkeyPatch, **given: str) -> None:
    """The environment names no proxies but those `given`."""
    for scheme in ("http", "https", "all", "no"):
        monkeypatch.delenv(f"{scheme}_proxy", raising=False)
        monkeypatch.delenv(f"{scheme}_proxy".upper(), raising=False)
    for name, value in given.items():
        monkeypatch.setenv(name, value)


def test_a_key_that_others_could_read_on_the_way_is_warned_of(
    server: ScriptedServer, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    without_proxies(monkeypatch, HTTP_PROXY=f"http://127.0.0.1:{server.port}")
    run(info, "http://models.example/v1", model="a", api_key=SECRET)
    warnings = [record.message for record in caplog.records if record.levelno >= logging.WARNING]
    assert warnings == ["the API key goes to models.example unencrypted: use https"]


def test_a_key_that_stays_on_this_machine_needs_no_warning(
    server: ScriptedServer, caplog: pytest.LogCaptureFixture
) -> None:
    run(info, server.url, api_key=SECRET)
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []


def test_another_machine_is_reached_through_the_proxy(
    server: ScriptedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    without_proxies(monkeypatch, HTTP_PROXY=f"http://127.0.0.1:{server.port}")
    # The stand-in is no proxy and answers 404, which is what a server without a list does.
    assert run(info, "http://models.example/v1", model="a").name == "a"
    assert [seen.headers["host"] for seen in server.requests] == ["models.example"]


def test_this_machine_is_reached_without_the_proxy(
    server: ScriptedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    dead = f"http://127.0.0.1:{free_port()}"
    without_proxies(monkeypatch, HTTP_PROXY=dead, ALL_PROXY=dead)
    assert run(info, server.url).name == "scripted"


@pytest.mark.parametrize("proxy", ["nonsense://me:hunter2@h", "http://me:hunter2@h:port"])
def test_a_proxy_that_cannot_be_used_is_told_without_its_password(
    proxy: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    without_proxies(monkeypatch, HTTP_PROXY=proxy)
    error = refused("http://models.example/v1")
    assert isinstance(error, UsageError)
    assert "HTTP_PROXY" in str(error.hint)
    assert "hunter2" not in error.message


def test_a_redirect_is_named_and_not_followed(server: ScriptedServer) -> None:
    with ScriptedServer() as stranger:
        server.on_models = Reply(status=307, headers={"Location": f"{stranger.url}/models?token=hunter2"})
        error = refused(server.url, api_key=SECRET)
        assert stranger.requests == []
    assert isinstance(error, UsageError)
    assert f"it sends on to {stranger.url}/models" in error.message
    assert "hunter2" not in error.message
