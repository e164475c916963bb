"""Who is let in."""

import hashlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from llmctl.core.errors import BadFileError, NotFoundError, UsageError
from llmctl.services.http.guard import Keys, check_bind
from llmctl.services.http.key_files import read_token
from tests.services.http.part import ServedPart, Wire, head

KEY, OTHER, TOKEN = "sk-alpha", "sk-beta", "the-token-of-the-fleet"


def written(path: Path, text: str) -> str:
    path.write_text(text, encoding="utf-8")
    path.chmod(0o600)
    return str(path)


def hashed(key: str) -> str:
    return f"sha256:{hashlib.sha256(key.encode()).hexdigest()}"


@pytest.fixture(scope="module")
def guarded() -> Iterator[ServedPart]:
    with ServedPart(keys=Keys.of([KEY, OTHER, TOKEN])) as served:
        yield served


@pytest.fixture
def wire(guarded: ServedPart) -> Iterator[Wire]:
    with guarded.connect() as connection:
        yield connection


@pytest.mark.parametrize(
    "path",
    ["/version", "/metrics", "/openapi.json", "/stream", "/nothing", "/health/", "//health", "/Health"],
)
def test_all_but_health_and_readiness_asks_for_a_key(wire: Wire, path: str) -> None:
    reply = wire.ask(f"GET {path}")
    assert (reply.status, reply.headers["www-authenticate"]) == (401, "Bearer")
    assert (reply.error["type"], reply.error["code"]) == ("authentication_error", "invalid_api_key")
    assert "an API key is needed" in reply.error["message"]


@pytest.mark.parametrize("what", ["GET /health", "GET /ready", "HEAD /health", "OPTIONS /ready"])
def test_health_and_readiness_are_open(wire: Wire, what: str) -> None:
    assert wire.ask(what).status in (200, 204)


@pytest.mark.parametrize("method", ["HEAD", "OPTIONS", "POST", "DELETE", "TRACE"])
def test_no_method_goes_past_the_guard(wire: Wire, method: str) -> None:
    assert wire.ask(f"{method} /thing").status == 401


@pytest.mark.parametrize(
    "headers",
    [
        {"Authorization": f"Bearer {KEY}"},
        {"Authorization": f"bearer  {OTHER} "},
        {"Authorization": f"BEARER {TOKEN}"},
        {"X_Api_Key": KEY},
        {"X_Api_Key": OTHER, "Authorization": "Basic whatever"},
    ],
)
def test_a_good_key_is_let_in(wire: Wire, headers: dict[str, str]) -> None:
    assert wire.ask("GET /version", **headers).status == 200


@pytest.mark.parametrize(
    "headers",
    [
        {"Authorization": "Bearer sk-gamma"},
        {"Authorization": f"Basic {KEY}"},
        {"Authorization": f"Bearer{KEY}"},
        {"Authorization": f"Bearer {KEY}x"},
        {"Authorization": f"Bearer {KEY[:-1]}"},
        {"Authorization": f"Bearer {hashed(KEY)}"},
        {"Authorization": KEY},
        {"Authorization": "Bearer"},
        {"Authorization": ""},
        {"X_Api_Key": ""},
        {"Api_Key": KEY},
    ],
)
def test_anything_else_is_not(wire: Wire, headers: dict[str, str]) -> None:
    reply = wire.ask("GET /version", **headers)
    assert reply.status == 401
    assert KEY not in reply.body.decode()


def test_of_two_authorizations_none_counts(wire: Wire) -> None:
    fields = b"Authorization: Bearer %b\r\nAuthorization: Bearer x\r\n\r\n" % KEY.encode()
    wire.send(head("GET /version")[:-2] + fields)
    assert wire.reply().status == 401


def test_a_key_behind_the_body_comes_too_late(wire: Wire) -> None:
    fields = b"Authorization: Bearer %b\r\n\r\n" % KEY.encode()
    wire.send(head("POST /echo", Transfer_Encoding="chunked") + b"2\r\n{}\r\n0\r\n" + fields)
    assert wire.reply().status == 401


def test_keys_come_from_files_plain_or_hashed(tmp_path: Path) -> None:
    first = written(tmp_path / "a", f"{KEY}\n\n  {hashed(OTHER).upper().replace('SHA', 'sha')}  \r\n")
    second = written(tmp_path / "b", "sk-gamma")
    keys = Keys.read([first, second], written(tmp_path / "t", f"{TOKEN}\n"))
    assert all(keys.accept(key) for key in (KEY, OTHER, "sk-gamma", TOKEN, KEY.encode()))
    assert not any(keys.accept(key) for key in ("", "sk", hashed(OTHER), "#", "é"))
    assert not keys.is_open
    assert KEY not in repr(vars(keys))


def test_no_files_ask_for_nothing() -> None:
    assert Keys.read([], None).is_open
    assert not Keys().accept("")


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "holds nothing"),
        ("\n \n", "holds nothing"),
        ("sk with spaces\n", "characters that no API key has"),
        ("sk-ключ\n", "characters that no API key has"),
        ("sha256:abc\n", "64 hexadecimal digits"),
        ("sha256:" + "g" * 64, "64 hexadecimal digits"),
    ],
)
def test_a_file_that_holds_no_key_leaves_nothing_open(tmp_path: Path, text: str, told: str) -> None:
    with pytest.raises(BadFileError, match=told) as caught:
        Keys.read([written(tmp_path / "keys", text)], None)
    line = text.strip()
    assert not line or line not in str(caught.value)


def test_a_file_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="gone"):
        Keys.read([str(tmp_path / "gone")], None)
    with pytest.raises(NotFoundError, match="gone"):
        Keys.read([], str(tmp_path / "gone"))


def test_a_token_is_one_line(tmp_path: Path) -> None:
    assert read_token(written(tmp_path / "t", f"\n{TOKEN}\n")) == TOKEN
    for text, told in (("", "nothing"), ("a\nb\n", "2 lines")):
        with pytest.raises(BadFileError, match=f"holds {told}"):
            read_token(written(tmp_path / "t", text))


@pytest.mark.parametrize("host", ["127.0.0.1", "127.3.2.1", "::1", "localhost"])
def test_this_machine_needs_no_key(host: str) -> None:
    check_bind(host, is_guarded=False, flag="--api-key-file")


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.2", "example.org", ""])
def test_other_machines_are_let_in_with_a_key_only(host: str) -> None:
    check_bind(host, is_guarded=True, flag="--api-key-file")
    with pytest.raises(UsageError, match="lets other machines in") as caught:
        check_bind(host, is_guarded=False, flag="--token-file")
    assert "--token-file" in str(caught.value.hint)


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("127.0.0.1:8000", 200),
        ("[::1]:8000", 200),
        ("localhost", 200),
        ("a.localhost:1", 200),
        ("192.168.7.7", 200),
        ("box:8000", 200),
        ("page.example", 403),
        ("page.example.:8000", 403),
    ],
)
def test_without_keys_no_page_of_the_web_can_let_its_own_name_lead_here(host: str, status: int) -> None:
    with ServedPart() as open_to_all, ServedPart(keys=Keys.of([KEY])) as guarded:
        assert open_to_all.ask("GET /version", Host=host).status == status
        assert open_to_all.ask("GET /health", Host=host).status == 200
        assert guarded.ask("GET /version", Host=host, X_Api_Key=KEY).status == 200
