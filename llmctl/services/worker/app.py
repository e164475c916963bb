"""The worker as an OpenAI server: routes, from bodies to calls to models and back."""

import functools
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

from prometheus_client import CollectorRegistry
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from llmctl import __version__
from llmctl.core.types import ChatRequest, SamplingParams
from llmctl.services import wire
from llmctl.services.http import base
from llmctl.services.http.bodies import read_json
from llmctl.services.http.events import EventStream
from llmctl.services.http.guard import Keys
from llmctl.services.http.leaving import unless_left
from llmctl.services.http.metrics import ModelMetrics
from llmctl.services.openai import chat, completions, reading
from llmctl.services.openai.calls import TokenizeCall
from llmctl.services.openai.description import openapi
from llmctl.services.openai.embeddings import embedding_answer
from llmctl.services.openai.head import Head
from llmctl.services.worker.answering import Run, echoes
from llmctl.services.worker.hosted import CHAT, Hosted, Models
from llmctl.services.worker.worker import Worker

TITLE = "llmctl worker"
_OWN = ("/health", "/ready", "/version", "/metrics", "/openapi.json")

Body = Mapping[str, Any]


def build(worker: Worker, *, keys: Keys) -> Starlette:
    """The application; `worker` lives as long as it runs."""
    registry = CollectorRegistry()
    endpoints = Endpoints(worker, ModelMetrics(registry))
    routes = [
        Route("/v1/models", endpoints.models, methods=["GET"]),
        Route("/v1/models/{id:path}", endpoints.model, methods=["GET"]),
        Route("/v1/chat/completions", endpoints.chat, methods=["POST"]),
        Route("/v1/completions", endpoints.completions, methods=["POST"]),
        Route("/v1/embeddings", endpoints.embeddings, methods=["POST"]),
        Route("/tokenize", endpoints.tokenize, methods=["POST"]),
        Route("/detokenize", endpoints.detokenize, methods=["POST"]),
        Route("/api/v1/token_check", endpoints.token_check, methods=["POST"]),
    ]

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        async with worker.lifespan():
            yield

    app = base.build(
        routes,
        keys=keys,
        registry=registry,
        why_not_ready=worker.why_not_ready,
        description=openapi(TITLE, __version__, [*_OWN, *(route.path for route in routes)]),
        lifespan=lifespan,
    )
    app.state.drain = worker.drain
    return app


class Endpoints:
    """What the routes of a worker do."""

    def __init__(self, worker: Worker, metrics: ModelMetrics) -> None:
        self._worker, self._metrics = worker, metrics
        worker.when_ready(self._watch)

    async def models(self, request: Request) -> Response:
        """The list of all."""
        cards = wire.model_cards(each.state for each in self._worker.models.all)
        return JSONResponse({"object": "list", "data": cards})

    async def model(self, request: Request) -> Response:
        """One of them, by name or alias."""
        name = request.path_params["id"]
        found = self._worker.models.find(name)
        return JSONResponse(next(card for card in wire.model_cards([found.state]) if card["id"] == name))

    async def chat(self, request: Request) -> Response | EventStream:
        """Answer messages."""
        body = await read_json(request)
        hosted = self._named(body)
        call = reading.chat_request(body, _default(hosted))
        assert hosted is not None, "a body without a model is refused"
        run = Run(hosted, (call.request,), self._metrics)
        head = Head.new(call.model, prefix=chat.PREFIX)
        if not call.delivery.streams:
            answer = chat.ChatAnswer(call, head)
            work = run.whole(lambda _, delta: answer.push(delta), answer.whole)
            return JSONResponse(await unless_left(request, work))
        stream = chat.ChatStream(call, head)
        if call.delivery.counts_usage:
            stream.num_prompt_tokens = await run.num_prompt_tokens()
        return EventStream(run.events(stream))

    async def completions(self, request: Request) -> Response | EventStream:
        """Go on from texts or token ids."""
        body = await read_json(request)
        hosted = self._named(body)
        call = reading.completion_calls(body, _default(hosted))
        assert hosted is not None, "a body without a model is refused"
        run = Run(hosted, call.requests, self._metrics)
        is_told = call.logprobs is not None
        told = await echoes(hosted, call.requests, is_told=is_told) if call.echoes else ()
        head = Head.new(call.model, prefix=completions.PREFIX)
        if not call.delivery.streams:
            answer = completions.CompletionAnswer(call, head, echoes=told)
            work = run.whole(lambda number, delta: answer.push(delta, prompt=number), answer.whole)
            return JSONResponse(await unless_left(request, work))
        stream = completions.CompletionStream(call, head, echoes=told)
        if call.delivery.counts_usage:
            stream.num_prompt_tokens = await run.num_prompt_tokens()
        return EventStream(run.events(stream))

    async def embeddings(self, request: Request) -> Response:
        """Vectors of texts or token ids."""
        call = reading.embedding_call(await read_json(request))
        model = self._worker.models.find(call.model).embedder()
        found = await unless_left(request, model.embed(call.inputs, dimensions=call.dimensions))
        answer = embedding_answer(call, found.rows, model=call.model, num_tokens=found.num_tokens)
        return JSONResponse(answer)

    async def tokenize(self, request: Request) -> Response:
        """The tokens of a text, or of messages as their template has them."""
        call = reading.tokenize_call(await read_json(request))
        hosted = self._worker.models.only(call.model)
        ids = await _ids(hosted, call)
        answer = {
            "count": len(ids),
            "max_model_len": hosted.context_length,
            "tokens": ids,
            "token_strs": await hosted.tokens.names(ids) if call.tells_tokens else None,
        }
        return JSONResponse(answer)

    async def detokenize(self, request: Request) -> Response:
        """The text of tokens."""
        call = reading.detokenize_call(await read_json(request))
        hosted = self._worker.models.only(call.model)
        return JSONResponse({"prompt": await hosted.tokens.decode(call.ids)})

    async def token_check(self, request: Request) -> Response:
        """Whether texts and the answers to them fit, as FastChat tells it."""
        answers = []
        for call in reading.token_checks(await read_json(request)):
            hosted = self._worker.models.find(call.model)
            count = len(await hosted.tokens.encode(call.prompt, adds_special_tokens=True))
            limit = hosted.context_length
            answers.append(
                {
                    "fits": limit is None or count + call.max_tokens <= limit,
                    "tokenCount": count,
                    "contextLength": limit,
                }
            )
        return JSONResponse({"prompts": answers})

    def _watch(self, models: Models) -> None:
        for hosted in models.all:
            self._metrics.watch(hosted.name, functools.partial(getattr, hosted, "load"))

    def _named(self, body: Body) -> Hosted | None:
        """The model that a body asks for; None where it names none, which its reading refuses."""
        models, name = self._worker.models, body.get("model")
        return models.find(name) if isinstance(name, str) else None


def _default(hosted: Hosted | None) -> SamplingParams:
    return SamplingParams() if hosted is None else hosted.default_sampling


async def _ids(hosted: Hosted, call: TokenizeCall) -> tuple[int, ...]:
    if call.messages is None:
        return await hosted.tokens.encode(call.text or "", adds_special_tokens=call.adds_special_tokens)
    request = ChatRequest(
        messages=call.messages,
        continues_last=call.continues_last,
        reasons=call.reasons,
        template_kwargs=call.template_kwargs,
    )
    return await hosted.writer(CHAT).token_ids(request, opens_answer=call.opens_answer)
