"""A client that is no more than a socket: what it sees is what was sent, byte by byte.

answer = ask(fleet.port, "/v1/chat/completions", model="demo", messages=MESSAGES, stream=True)
assert answer.events[-1] == b"[DONE]"
"""

import json
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, BinaryIO, cast

CHAT, TEXT = "/v1/chat/completions", "/v1/completions"
LONGEST_S = 60.0


@dataclass(frozen=True)
class Answer:
    """An answer as it came."""

    status: int
    headers: dict[str, str]
    """Names in lower case."""
    body: bytes
    chunks: tuple[bytes, ...] = field(default=(), repr=False)
    """Of a body that came in chunks, as they were cut."""

    @property
    def json(self) -> Any:
        """Of the body."""
        return json.loads(self.body)

    @property
    def error(self) -> Any:
        """The error of the body."""
        assert list(self.json) == ["error"]
        assert set(self.json["error"]) == {"message", "type", "param", "code"}
        return self.json["error"]

    @property
    def events(self) -> list[bytes]:
        """The data of its events; nothing else is in the body."""
        assert self.status == 200, self.body
        *events, rest = self.body.split(b"\n\n")
        assert rest == b""
        assert all(event.startswith(b"data: ") and b"\n" not in event for event in events)
        return [event[6:] for event in events]

    @property
    def streamed(self) -> list[Any]:
        """The objects of a stream that ends as it must."""
        *objects, last = self.events
        assert last == b"[DONE]"
        return [json.loads(each) for each in objects]


def ask(port: int, path: str, *headers: str, **body: Any) -> Answer:
    """The answer to one POST of JSON on a connection of its own."""
    with connected(port) as wire:
        wire.send(path, *headers, **body)
        return wire.answer()


def get(port: int, path: str, *headers: str, method: str = "GET") -> Answer:
    """The answer to one request without a body on a connection of its own."""
    with connected(port) as wire:
        wire.send_raw(f"{method} {path} HTTP/1.1\r\n{_lines('Host: localhost', *headers)}\r\n".encode())
        return wire.answer()


class Wire:
    """A connection to a server."""

    def __init__(self, connection: socket.socket, file: BinaryIO) -> None:
        self.socket, self._file = connection, file

    def send(self, path: str, *headers: str, **body: Any) -> None:
        """Write a POST of JSON."""
        raw = json.dumps(body).encode()
        told = ("Host: localhost", "Content-Type: application/json", f"Content-Length: {len(raw)}", *headers)
        self.send_raw(f"POST {path} HTTP/1.1\r\n{_lines(*told)}\r\n".encode() + raw)

    def send_raw(self, raw: bytes) -> None:
        """Write bytes."""
        self.socket.sendall(raw)

    def answer(self) -> Answer:
        """The next answer, whole."""
        status, headers = self.head()
        if "content-length" in headers:
            return Answer(status, headers, self._file.read(int(headers["content-length"])))
        if status == 204:
            return Answer(status, headers, b"")
        chunks = tuple(self.chunks())
        return Answer(status, headers, b"".join(chunks), chunks)

    def head(self) -> tuple[int, dict[str, str]]:
        """Status and headers of the next answer."""
        version, status, *_ = self._line().split(b" ", 2)
        assert version == b"HTTP/1.1"
        headers: dict[str, str] = {}
        while line := self._line().decode("latin-1"):
            name, _, value = line.partition(":")
            assert name.lower() not in headers, f"{name} is there twice"
            headers[name.lower()] = value.strip()
        assert len({"content-length", "transfer-encoding"} & headers.keys()) <= 1
        return int(status), headers

    def chunks(self) -> Iterator[bytes]:
        """Of a body, as they come, up to its end."""
        while size := int(self._line(), 16):
            yield self._file.read(size)
            assert self._line() == b""
        assert self._line() == b""

    def _line(self) -> bytes:
        line = self._file.readline()
        assert line.endswith(b"\r\n"), f"the connection ended in {line!r}"
        return line[:-2]


@contextmanager
def connected(port: int) -> Iterator[Wire]:
    """A connection to a server of this machine."""
    with (
        socket.create_connection(("127.0.0.1", port), timeout=LONGEST_S) as connection,
        connection.makefile("rb") as file,
    ):
        yield Wire(connection, cast(BinaryIO, file))


def _lines(*lines: str) -> str:
    return "".join(f"{line}\r\n" for line in lines)
