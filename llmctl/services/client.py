"""A model behind any OpenAI-compatible server, as a `Backend`.

`connect` asks the server for its models; `HttpBackend` streams answers. What is sent, read and said of
failures lies in `upstream`; the API key comes from `keys`.
"""

import logging
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, aclosing

from llmctl.core.backend import ModelInfo
from llmctl.core.types import Delta, GenerationRequest, SamplingParams
from llmctl.services.upstream import address, catalogue, payload
from llmctl.services.upstream.answer import AnswerReader
from llmctl.services.upstream.catalogue import Catalogue
from llmctl.services.upstream.chunks import ChunkDecoder
from llmctl.services.upstream.connection import Connection

log = logging.getLogger(__name__)


async def connect(url: str, *, model: str | None, api_key: str | None, timeout_s: float) -> "HttpBackend":
    """The backend for `model`, or for the server's first, at `url` (with or without `/v1`).

    `timeout_s` is for each silence of the server. A server that lists no models is taken at its word when
    `model` is named. Raises `UsageError` for a wrong address, `NotFoundError` for a model that the server
    does not list, `AccessError` for a missing or wrong key, `UnreachableError`, and `LlmctlError` for a
    server that speaks another protocol.
    """
    place = address.parse(url)
    if api_key is not None and not place.is_secret:
        log.warning("the API key goes to %s unencrypted: use https", place.host)
    connection = Connection(place, api_key=api_key, timeout_s=timeout_s)
    async with AsyncExitStack() as stack:
        stack.push_async_callback(connection.close)
        listed = await connection.get("/models")
        if listed is None:
            offered = Catalogue(url=connection.url, context_lengths={}, is_open=True)
        else:
            offered = catalogue.read(listed, connection.faults)
        backend = HttpBackend(connection, offered, model=offered.choose(model))
        stack.pop_all()
    return backend


class HttpBackend:
    """One model of a server; `core.backend.Backend`.

    A sampling parameter that nobody chose and that is neutral is not sent: the server then applies its own
    default. `logprobs` come without token ids (-1), and `token_ids` are empty, because servers do not tell
    them.
    """

    def __init__(self, connection: Connection, offered: Catalogue, *, model: str) -> None:
        """Made by `connect` and `with_model`."""
        self._connection = connection
        self._offered = offered
        self._model = model

    @property
    def info(self) -> ModelInfo:
        """The model's name, and its context when the server tells; no server tells the makers' sampling."""
        return ModelInfo(
            name=self._model,
            context_length=self._offered.context_lengths.get(self._model),
            default_sampling=SamplingParams(),
        )

    @property
    def models(self) -> tuple[str, ...]:
        """The names that the server offers; empty when it lists none."""
        return tuple(self._offered.context_lengths)

    def with_model(self, model: str) -> "HttpBackend":
        """Another model of the same server, over the same connections: closing one closes both.

        Raises `NotFoundError` for one that the server does not list.
        """
        return HttpBackend(self._connection, self._offered, model=self._offered.choose(model))

    def wait_at_most(self, timeout_s: float) -> None:
        """Take another limit for each silence of the server."""
        self._connection.wait_at_most(timeout_s)

    async def generate(self, request: GenerationRequest) -> AsyncGenerator[Delta, None]:
        """See `Backend.generate`.

        Raises besides: `UnreachableError` when the server is silent, overloaded or cuts the answer off,
        `AccessError`, `NotFoundError`, and `LlmctlError` for answers that are none; some of them after text.
        """
        faults = self._connection.faults
        reader, decoder = AnswerReader(faults, request), ChunkDecoder(faults)
        path, body = payload.path_and_body(request, model=self._model)
        answer = self._connection.post(path, body, decoder, is_answered=lambda: reader.is_answered)
        with faults.translated(has_begun=lambda: reader.has_begun):
            async with aclosing(answer) as chunks:
                async for chunk in chunks:
                    if (delta := reader.read(chunk)) is not None:
                        yield delta
        if (rest := reader.rest()) is not None:
            yield rest
        yield reader.finish(is_whole=decoder.is_whole)

    async def close(self) -> None:
        """See `Backend.close`."""
        await self._connection.close()

    def __repr__(self) -> str:
        return f"HttpBackend({self._connection.url!r}, model={self._model!r})"
