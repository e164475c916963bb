"""Turns what goes wrong between llmctl and a server into llmctl's errors; the one place where that happens.

No line shows the API key, nor any control character of what the server sent.
"""

import socket
import ssl
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any

import httpx2

from llmctl.core.errors import (
    AccessError,
    ContextOverflowError,
    DoesNotFitError,
    LlmctlError,
    NotFoundError,
    UnreachableError,
    UsageError,
)
from llmctl.services.upstream.address import without_credentials
from llmctl.services.upstream.refusal import Refusal, as_json, from_error, one_line

MAX_MESSAGE_CHARACTERS, MAX_GARBAGE_CHARACTERS = 300, 80
_KEY_HINT = "give an API key that it takes: --api-key-file, LLMCTL_API_KEY or OPENAI_API_KEY"
_PATH_HINT = "check the address, most servers want it to end in /v1, and the model's name"
_DIALECT_HINT = "check that the address is that of an OpenAI-compatible server, most end in /v1"
_LATER_HINT = "try again: it may be starting or overloaded"
_LOG_HINT = "the server's own log may say why"
_STATUSES: dict[int, tuple[type[LlmctlError], str | None]] = {
    0: (LlmctlError, _LOG_HINT),
    401: (AccessError, _KEY_HINT),
    402: (AccessError, "check what is left on the account of the key"),
    403: (AccessError, _KEY_HINT),
    404: (NotFoundError, _PATH_HINT),
    405: (NotFoundError, _PATH_HINT),
    408: (UnreachableError, _LATER_HINT),
    413: (DoesNotFitError, "shorten the prompt or the conversation"),
    429: (UnreachableError, "try again later"),
    502: (UnreachableError, _LATER_HINT),
    503: (UnreachableError, _LATER_HINT),
    504: (UnreachableError, _LATER_HINT),
}
_OVERFLOW_STATUSES = frozenset({0, 400, 413, 422, 500})


@dataclass(frozen=True, slots=True, kw_only=True)
class Faults:
    """The errors of one server."""

    url: str
    """Its base URL, the name under which errors speak of it."""
    timeout_s: float
    api_key: str | None = field(default=None, repr=False)

    def refused(self, refusal: Refusal, *, flags: list[str] | None = None) -> LlmctlError:
        """The error for an answer that is none; `flags` are those of the fields that it names."""
        if refusal.is_overflow and refusal.status in _OVERFLOW_STATUSES:
            return self._overflow(refusal)
        kind, hint = self._kind(refusal.status)
        if flags and kind is UsageError:
            hint = f"leave out or change {', '.join(flags)}"
        if refusal.wait_s is not None and kind is UnreachableError:
            hint = f"try again in {refusal.wait_s} s"
        return kind(self._refusal_line(refusal), hint=hint)

    def redirected(self, status: int, location: str) -> LlmctlError:
        """The error for an address that sends elsewhere; following it could hand the key to a stranger."""
        target = without_credentials(self._shown(location.split("?")[0]))
        return UsageError(
            f"{self.url} answers {_named(status)}: it sends on to {target or 'nowhere'}",
            hint="give the address that it should be as --url",
        )

    def told(self, error: Any) -> LlmctlError:
        """The error for an error object that came inside of a stream."""
        return self.refused(from_error(error))

    def garbage(self, what: str, sent: Any) -> LlmctlError:
        """The error for what is not the protocol, text or a JSON value; `what` it should have been."""
        text = sent if isinstance(sent, str) else as_json(sent)
        shown = self._shown(text, limit=MAX_GARBAGE_CHARACTERS)
        told = f"sent what is not {what}: {shown!r}" if shown else "sent an empty answer"
        return LlmctlError(f"{self.url} {told}", hint=_DIALECT_HINT)

    def too_long(self, num_bytes: int) -> LlmctlError:
        """The error for a line or an answer of more than `num_bytes`."""
        return LlmctlError(f"{self.url} sent more than {num_bytes >> 20} MB at once", hint=_DIALECT_HINT)

    def without_tools(self, name: Any) -> LlmctlError:
        """The error for a model that wants a tool called."""
        tool = f"the tool {self._shown(name)!r}" if isinstance(name, str) else "a tool"
        return LlmctlError(
            f"the model of {self.url} calls {tool}: tools are not supported yet",
            hint="take a model that answers by itself",
        )

    def cut_off(self, reason: str = "") -> LlmctlError:
        """The error for an answer that ends in its midst."""
        because = f": {reason}" if reason else ""
        return UnreachableError(f"{self.url} cut the answer off{because}", hint=f"ask again; {_LOG_HINT}")

    def ended(self, reason: str) -> LlmctlError:
        """The error for an answer that the server ended for a reason of its own."""
        return LlmctlError(
            f"{self.url} ended the answer early: {self._shown(reason)!r}",
            hint="put the request in another way",
        )

    @contextmanager
    def translated(self, *, has_begun: Callable[[], bool] = lambda: False) -> Iterator[None]:
        """Turn httpx2's errors into llmctl's; `has_begun` tells whether part of an answer is there."""
        try:
            yield
        except httpx2.TimeoutException as error:
            raise self._silent(error) from error
        except httpx2.DecodingError as error:
            raise self.garbage("what its Content-Encoding says", str(error)) from error
        except httpx2.InvalidURL as error:
            raise UsageError(
                f"{self.url} is not the address of a server: {self._reason(error)}",
                hint="check its host name",
            ) from error
        except httpx2.HTTPError as error:
            if has_begun():
                raise self.cut_off(self._reason(error)) from error
            raise self._unreachable(error) from error

    def _kind(self, status: int) -> tuple[type[LlmctlError], str | None]:
        if status in _STATUSES:
            return _STATUSES[status]
        return (LlmctlError, _LOG_HINT) if status >= 500 else (UsageError, None)

    def _refusal_line(self, refusal: Refusal) -> str:
        message = self._shown(refusal.message)
        answers = f"answers {_named(refusal.status)}" if refusal.status else "broke off with an error"
        return f"{self.url} {answers}{f': {message}' if message else ''}"

    def _overflow(self, refusal: Refusal) -> ContextOverflowError:
        prompt_tokens, context_length = refusal.prompt_tokens, refusal.context_length
        hint = "shorten the prompt or the conversation, or take a model with a longer context"
        if prompt_tokens is not None and context_length is not None and prompt_tokens < context_length:
            hint = f"give at most --max-new-tokens {context_length - prompt_tokens}, or shorten the prompt"
        return ContextOverflowError(
            self._refusal_line(refusal), hint=hint, prompt_tokens=prompt_tokens, context_length=context_length
        )

    def _silent(self, error: httpx2.TimeoutException) -> LlmctlError:
        if isinstance(error, httpx2.ConnectTimeout):
            return UnreachableError(
                f"cannot reach {self.url}: it does not answer", hint="check the address and the network"
            )
        return UnreachableError(
            f"{self.url} said nothing for {self.timeout_s:g} s", hint="wait longer with --timeout SECONDS"
        )

    def _unreachable(self, error: httpx2.HTTPError) -> LlmctlError:
        hint = "check the address, and that the server runs"
        if isinstance(error, httpx2.ProxyError):
            hint = "check HTTP_PROXY, HTTPS_PROXY and NO_PROXY"
        causes = list(_causes(error))
        if any(isinstance(cause, socket.gaierror) for cause in causes):
            return UnreachableError(f"cannot reach {self.url}: no host has this name", hint=hint)
        if any(isinstance(cause, ConnectionRefusedError) for cause in causes):
            return UnreachableError(f"cannot reach {self.url}: nothing listens there", hint=hint)
        if any(isinstance(cause, ssl.SSLCertVerificationError) for cause in causes):
            hint = "its certificate is not one that this machine trusts: SSL_CERT_FILE adds one"
        elif any(isinstance(cause, ssl.SSLError) for cause in causes):
            hint = "it may speak http, not https"
        return UnreachableError(f"cannot reach {self.url}: {self._reason(error)}", hint=hint)

    def _reason(self, error: Exception) -> str:
        return self._shown(str(error) or type(error).__name__)

    def _shown(self, text: str, *, limit: int = MAX_MESSAGE_CHARACTERS) -> str:
        return one_line(text.replace(self.api_key, "***") if self.api_key else text, limit=limit)


def _named(status: int) -> str:
    """`503 Service Unavailable`; the number alone for those that have no name."""
    try:
        return f"HTTP {status} {HTTPStatus(status).phrase}"
    except ValueError:
        return f"HTTP {status}"


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__
