"""The life of a worker: its models are loaded while it already listens, it reports, it drains, it ends."""

import asyncio
import contextlib
import socket
import time
import uuid
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from urllib.parse import urlsplit

from llmctl import __version__
from llmctl.core.errors import NoWorkerError, UsageError
from llmctl.core.threads import in_daemon_thread
from llmctl.services.wire import WorkerState
from llmctl.services.worker.hosted import Hosted, Models
from llmctl.services.worker.registration import Registration

_LOADING, _DRAINING = "its models are being loaded", "it is shutting down"
_RETRY_AFTER_S = 2.0
_ANYWHERE = ("0.0.0.0", "::")  # noqa: S104  # compared with, not bound


def _nothing() -> None:
    """Nobody wants to know."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fleet:
    """Whom a worker tells of itself."""

    controllers: tuple[str, ...] = ()
    """As `parts.controller_urls` gives them."""
    token: str | None = None
    address: str | None = None
    """Where gateways reach the worker; None: where it listens."""


class Worker:
    """Serves the models that `load` brings, in a thread of its own."""

    def __init__(
        self,
        fleet: Fleet,
        load: Callable[[], Sequence[Hosted]],
        *,
        on_failure: Callable[[], None] = _nothing,
    ) -> None:
        """`on_failure` is called when there will be no models."""
        self.fleet = fleet
        self.url = fleet.address or ""
        """Where gateways reach it; known when it listens."""
        self.failure: BaseException | None = None
        """Why there are no models."""
        self._load, self._on_failure = load, on_failure
        self._to_tell: list[Callable[[Models], None]] = []
        self._models: Models | None = None
        self._is_draining = False
        self._id, self._started = uuid.uuid4().hex, time.time()
        self._registration = Registration(fleet.controllers, token=fleet.token, state=self.state)

    @property
    def models(self) -> Models:
        """What it serves. Raises `NoWorkerError` before that is there, and when it takes nothing new."""
        reason = self.why_not_ready()
        if reason is not None or self._models is None:
            raise NoWorkerError(
                f"this worker cannot answer: {reason}", hint="try again", retry_after_s=_RETRY_AFTER_S
            )
        return self._models

    def bound(self, url: str) -> None:
        """It listens at `url`. Raises `UsageError` where nobody can tell what others call that."""
        self.url = self.fleet.address or reachable_url(url, self.fleet.controllers)

    def when_ready(self, tell: Callable[[Models], None]) -> None:
        """Call `tell` with the models when they are there."""
        self._to_tell.append(tell)

    def why_not_ready(self) -> str | None:
        """The reason why it takes no requests now, if there is one."""
        if self._is_draining:
            return _DRAINING
        return _LOADING if self._models is None else None

    def state(self) -> WorkerState:
        """What controllers are told."""
        models = self._models or Models()
        load = models.load
        return WorkerState(
            url=self.url,
            id=self._id,
            models=tuple(each.state for each in models.all),
            num_running=load.num_running,
            num_waiting=load.num_waiting,
            max_running=load.max_running,
            kv_used=min(1.0, load.kv_used),
            tokens_per_s=load.tokens_per_s,
            is_draining=self._is_draining,
            version=__version__,
            started=self._started,
        )

    async def drain(self) -> None:
        """Take no new requests, and let controllers know."""
        self._is_draining = True
        await self._registration.tell_now()

    @contextlib.asynccontextmanager
    async def lifespan(self) -> AsyncIterator[None]:
        """Load and report inside of it; at the end the models are freed."""
        living = asyncio.create_task(self._live(), name="worker")
        living.add_done_callback(self._ended)
        try:
            yield
        finally:
            living.cancel()
            await asyncio.wait((living,))
            for each in self._models.all if self._models is not None else ():
                await each.close()

    async def _live(self) -> None:
        models = self._models = Models(await in_daemon_thread(self._load, name="llmctl-loader"))
        for tell in self._to_tell:
            tell(models)
        async with self._registration.kept():
            await asyncio.Event().wait()

    def _ended(self, living: "asyncio.Task[None]") -> None:
        error = None if living.cancelled() else living.exception()
        # One that was told to end has ended, whatever became of its models.
        if error is not None and not self._is_draining:
            self.failure = error
            self._on_failure()


def reachable_url(bound: str, controllers: Sequence[str]) -> str:
    """The URL by which gateways reach a worker that listens at `bound`.

    One that listens on all addresses is known by that which this machine has toward the first controller.
    """
    split = urlsplit(bound)
    if split.hostname not in _ANYWHERE or not controllers:
        return bound
    host = _address_toward(controllers[0], is_v6=":" in split.hostname)
    return f"http://{f'[{host}]' if ':' in host else host}:{split.port}"


def _address_toward(url: str, *, is_v6: bool) -> str:
    """This machine's address on the way to the host of `url`; nothing is sent."""
    split = urlsplit(url)
    family = socket.AF_INET6 if is_v6 else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.connect((split.hostname, split.port or 80))
            return str(probe.getsockname()[0])
    except OSError as error:
        raise UsageError(
            f"no address of this machine leads to the controller {url}: {error.strerror or error}",
            hint="say where gateways reach this worker: --worker-address URL",
        ) from error
