"""Where answers come from: a model in this process, or a server; both are opened the same way."""

import asyncio
import gc
import importlib
import logging
import os
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Protocol, TypeVar

from llmctl.cli.family import row_template
from llmctl.cli.loading_flags import LoadingFlags
from llmctl.cli.model_opening import ModelSource, load_text_model
from llmctl.core import sampling
from llmctl.core.errors import DoesNotFitError, UsageError
from llmctl.core.places import expanded
from llmctl.core.settings import Settings
from llmctl.core.threads import in_daemon_thread
from llmctl.core.types import SamplingParams
from llmctl.services.keys import find_api_key

if TYPE_CHECKING:
    from llmctl.core.backend import Backend
    from llmctl.core.progress import Progress
    from llmctl.engine.local import LocalBackend
    from llmctl.loading.planning.plan import LoadPlan
    from llmctl.prompts.template import ChatTemplate
    from llmctl.services.client import HttpBackend

logger = logging.getLogger(__name__)

DRAWING = ("top_p", "top_k", "min_p", "seed")
WITH_DELTA = " --delta "
"""Between a model and its delta where the log names both."""
T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Opening:
    """What opens a backend; kept until the input is known to be good, because loading takes long."""

    settings: Settings
    loading: LoadingFlags = field(default_factory=LoadingFlags)
    revision: str | None = None
    trust_remote_code: bool = False
    template: "ChatTemplate | None" = None
    api_key_file: str | None = None
    adapter_files: tuple[str, ...] = ()
    """Families of the user's own, TOML or Python."""
    delta: str | None = None
    """What is applied to the model while it loads."""

    @property
    def model(self) -> str | None:
        """The model asked for; None leaves a server its first."""
        has_choice = self.settings.url is not None and "model" not in self.settings.origins
        return None if has_choice else self.settings.model

    @property
    def source(self) -> ModelSource:
        """The model to load where there is no server."""
        return ModelSource(
            settings=self.settings,
            loading=self.loading,
            revision=self.revision,
            trust_remote_code=self.trust_remote_code,
            adapter_files=self.adapter_files,
            delta=self.delta,
        )


class Opener(Protocol):
    """Opens backends one after the other, for one user."""

    opening: Opening

    @property
    def backend(self) -> "Backend | None":
        """What is open now."""
        ...

    @property
    def identity(self) -> str | None:
        """What the log calls the model, so that a conversation can go on with it from any folder."""
        ...

    def open_now(self, runner: asyncio.Runner, progress: "Progress") -> "Backend":
        """Open for a caller who has nothing else to do; raises every kind of `LlmctlError`."""
        ...

    async def open(self, progress: "Progress") -> "Backend":
        """Open while the event loop goes on."""
        ...

    def reconfigure(self, opening: Opening) -> None:
        """Take other settings without opening anew; `UsageError` for what this backend cannot change."""
        ...

    async def switch(self, model: str, progress: "Progress") -> "Backend":
        """Open another model in the place of the present one, which stays if that fails."""
        ...


def opener(opening: Opening) -> Opener:
    """The opener for what the settings name."""
    return LocalOpener(opening) if opening.settings.url is None else ServerOpener(opening)


class LocalOpener:
    """Loads models into this process."""

    def __init__(self, opening: Opening) -> None:
        self.opening = opening
        self.backend: LocalBackend | None = None
        self.plan: LoadPlan | None = None
        """What `backend` was loaded by."""

    @property
    def identity(self) -> str:
        """A hub id or a name, or the whole path of a folder or file; with its delta as it would be typed."""
        delta = self.opening.delta
        words = "" if delta is None else f"{WITH_DELTA}{_whole_path(delta)}"
        return _whole_path(self.opening.settings.model) + words

    def open_now(self, runner: asyncio.Runner, progress: "Progress") -> "LocalBackend":
        """In this thread, so that Ctrl-C ends it at once."""
        backend, self.plan = _load(self.opening, progress)
        self.backend = backend
        return backend

    async def open(self, progress: "Progress") -> "LocalBackend":
        """In a thread of its own."""
        backend, self.plan = await _in_thread(lambda: _load(self.opening, progress))
        self.backend = backend
        # What the user has set meanwhile.
        self.reconfigure(self.opening)
        return backend

    async def switch(self, model: str, progress: "Progress") -> "LocalBackend":
        """See `Opener`; when two models do not fit at once the old one is freed first."""
        # Revision, delta, format, template and context limit were those of the old model.
        settings = replace(self.opening.settings, model=model, context=None)
        loading = replace(self.opening.loading, formats=None, is_for_another=True)
        opening = replace(
            self.opening, settings=settings, loading=loading, revision=None, delta=None, template=None
        )
        try:
            fresh, made = await _in_thread(lambda: _load(opening, progress))
        except DoesNotFitError:
            if self.backend is None:
                raise
            fresh, made = await self._replace(opening, progress)
        if self.backend is not None:
            await self.backend.close()
        self.opening, self.backend, self.plan = opening, fresh, made
        return fresh

    async def _replace(self, opening: Opening, progress: "Progress") -> "tuple[LocalBackend, LoadPlan]":
        """Free the present model, then load; should that fail, load the old one again."""
        assert self.backend is not None
        await self.backend.close()
        self.backend = None
        # What one still holds of a model's memory is only given back when nobody can reach it.
        gc.collect()
        try:
            return await _in_thread(lambda: _load(opening, progress))
        except DoesNotFitError:
            await self.open(progress)
            raise

    def reconfigure(self, opening: Opening) -> None:
        """See `Opener`; also a template and a context limit up to the model's own."""
        if self.backend is not None:
            self.backend.reconfigure(template=opening.template, context_length=opening.settings.context)
        self.opening = opening


class ServerOpener:
    """Connects to an OpenAI-compatible server."""

    def __init__(self, opening: Opening) -> None:
        self.opening = opening
        self.backend: HttpBackend | None = None

    @property
    def identity(self) -> str | None:
        """The server's name for it, once that is known."""
        return self.backend.info.name if self.backend is not None else self.opening.model

    def open_now(self, runner: asyncio.Runner, progress: "Progress") -> "HttpBackend":
        """See `Opener`."""
        return runner.run(self.open(progress))

    async def open(self, progress: "Progress") -> "HttpBackend":
        """Ask the server for its models."""
        self.backend = await self._connect(self.opening, progress)
        # What the user has set meanwhile.
        self.reconfigure(self.opening)
        return self.backend

    async def switch(self, model: str, progress: "Progress") -> "HttpBackend":
        """See `Opener`; the connection stays."""
        if self.backend is not None:
            self.backend = self.backend.with_model(model)
            self.opening = self._named(model)
            return self.backend
        opening = self._named(model)
        backend = await self._connect(opening, progress)
        self.opening, self.backend = opening, backend
        return backend

    async def _connect(self, opening: Opening, progress: "Progress") -> "HttpBackend":
        url = opening.settings.url
        assert url is not None
        progress.stage(f"connect to {url}")
        # It takes a tenth of a second to import, which the prompt must not wait for.
        client = await _in_thread(lambda: importlib.import_module("llmctl.services.client"))
        backend: HttpBackend = await client.connect(
            url,
            model=opening.model,
            api_key=find_api_key(os.environ, opening.api_key_file),
            timeout_s=opening.settings.timeout,
        )
        return backend

    def reconfigure(self, opening: Opening) -> None:
        """See `Opener`; a server renders prompts and limits contexts by itself."""
        if opening.settings.context is not None:
            raise UsageError("the server decides on its context: it cannot be set from here")
        if opening.template is not None:
            raise UsageError("the server renders the prompts: its template cannot be changed from here")
        if self.backend is not None:
            self.backend.wait_at_most(opening.settings.timeout)
        self.opening = opening

    def _named(self, model: str) -> Opening:
        settings = self.opening.settings.with_flags({"model": model}, names={"model": "/model"})
        return replace(self.opening, settings=settings)


def _whole_path(model: str) -> str:
    from llmctl.demo import MODELS
    from llmctl.loading.hub.local_models import is_path

    return str(expanded(model).absolute()) if is_path(model) and model not in MODELS else model


def params_for(backend: "Backend", settings: Settings) -> SamplingParams:
    """The user's sampling settings laid over the model's own, with a word where that has no effect."""
    params = sampling.update(backend.info.default_sampling, settings.sampling)
    _log_sampling(backend, params)
    idle = [f"--{key.replace('_', '-')}" for key in DRAWING if settings.origins.get(key, "").startswith("--")]
    if idle and params.temperature == 0:
        owner = "yours" if "temperature" in settings.sampling else "the model's own"
        logger.warning("%s: no effect at temperature 0 (%s), give --temperature", ", ".join(idle), owner)
    limit = backend.info.context_length
    if limit is not None and (params.max_new_tokens or 0) > limit:
        logger.warning(
            "--max-new-tokens %d: the context of %s ends an answer at %d tokens, prompt included",
            params.max_new_tokens,
            backend.info.name,
            limit,
        )
    return params


def _log_sampling(backend: "Backend", params: SamplingParams) -> None:
    neutral = SamplingParams()
    told = {key: getattr(params, key) for key in sampling.ALL_KEYS}
    said = [
        f"{key} {value}"
        for key, value in told.items()
        if value != getattr(neutral, key) or key in params.given
    ]
    rest = "the server's own" if backend.info.default_sampling == neutral else "neutral"
    logger.info("sampling: %s", ", ".join([*said, f"the rest {rest}"]))


def _load(opening: Opening, progress: "Progress") -> "tuple[LocalBackend, LoadPlan]":
    loaded, family = load_text_model(opening.source, progress)
    from llmctl.engine.local import LocalBackend

    context = opening.settings.context
    row = row_template(family)
    return LocalBackend(loaded, template=opening.template, context_length=context, row=row), loaded.plan


async def _in_thread(work: Callable[[], T]) -> T:
    return await in_daemon_thread(work, name="llmctl-opener")
