"""What users write as an address becomes the base URL that they mean."""

import pytest

from llmctl.core.errors import UsageError
from llmctl.services.upstream.address import parse


@pytest.mark.parametrize(
    ("written", "base_url"),
    [
        ("localhost:8000", "http://localhost:8000/v1"),
        (" localhost ", "http://localhost/v1"),
        ("http://h:1", "http://h:1/v1"),
        ("http://h:1/", "http://h:1/v1"),
        ("HTTPS://h", "https://h/v1"),
        ("http://h/v1", "http://h/v1"),
        ("http://h/v1/", "http://h/v1"),
        ("h:1/api/v3//", "http://h:1/api/v3"),
        ("http://h/v1/chat/completions", "http://h/v1"),
        ("http://h/v1/completions/", "http://h/v1"),
        ("http://h/v1/models", "http://h/v1"),
        ("http://h/chat/completions", "http://h"),
        ("[::1]:8000", "http://[::1]:8000/v1"),
    ],
)
def test_an_address_is_completed(written: str, base_url: str) -> None:
    assert parse(written).base_url == base_url


@pytest.mark.parametrize(
    "written",
    [
        "",
        "   ",
        "http://",
        "/v1",
        ":8000",
        "host:",
        "host:port",
        "host:0",
        "host:70000",
        "http:/host/v1",
        "http://[::1",
        "two words",
        "http://h/\x1b[2J",
        "http://a..b/",
        f"http://{'a' * 64}/",
    ],
)
def test_what_is_no_address_is_refused(written: str) -> None:
    with pytest.raises(UsageError, match="is not the address of a server") as caught:
        parse(written)
    assert "http://localhost:8000/v1" in str(caught.value.hint)
    assert caught.value.message.isprintable()


@pytest.mark.parametrize("written", ["ftp://h/v1", "ws://h", "file:///x/y"])
def test_only_http_is_spoken(written: str) -> None:
    with pytest.raises(UsageError, match=r"neither http nor https|is not the address"):
        parse(written)


@pytest.mark.parametrize(
    "written",
    [
        "http://me:hunter2@h/v1",
        "me:hunter2@h:1",
        "http://hunter2@h",
        "ftp://me:hunter2@h",
        "http://me:hunter2/x@h",
        "http://h/v1?key=hunter2",
        "http://h/v1#hunter2",
    ],
)
def test_an_address_that_holds_more_is_refused_without_showing_it(written: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse(written)
    assert "hunter2" not in f"{caught.value} {caught.value.hint}"


@pytest.mark.parametrize(
    ("written", "is_loopback"),
    [
        ("localhost", True),
        ("LOCALHOST:1", True),
        ("a.localhost", True),
        ("127.0.0.1", True),
        ("127.8.8.8:1", True),
        ("[::1]:1", True),
        ("0.0.0.0:8000", True),
        ("localhost.example", False),
        ("192.0.2.1", False),
        ("example.com", False),
    ],
)
def test_this_machine_is_told_from_others(written: str, is_loopback: bool) -> None:
    address = parse(written)
    assert address.is_loopback is is_loopback
    assert address.is_secret is is_loopback
    assert parse(f"https://{written}").is_secret
