"""Tells controllers of this worker: its whole state, again and again, until it leaves.

To register and to report is one message, so a controller that was started again knows all with the next one.
"""

import asyncio
import contextlib
import logging
from collections.abc import AsyncGenerator, Callable, Sequence

from llmctl.core.errors import AccessError, LlmctlError, UsageError
from llmctl.services.controller.client import ControllerClient
from llmctl.services.wire import WorkerState

log = logging.getLogger(__name__)

_RETRY_S = (0.1, 0.3, 1.0, 2.0)
"""After so many faults in a row; a controller that comes back is to be whole within a heartbeat."""
_REFUSED_S = 5.0
"""After an answer that will be the same next time, unless somebody changes something."""
_PARTING_S = 1.0
"""Longest that a worker that leaves waits for a controller."""
_LEAST_INTERVAL_S = 0.05


class Registration:
    """This worker among the workers of some controllers."""

    def __init__(
        self, controllers: Sequence[str], *, token: str | None, state: Callable[[], WorkerState]
    ) -> None:
        """`controllers` as `parts.controller_urls` gives them; `state` is asked for each message."""
        self._reports = [_Report(url, token, state) for url in controllers]
        self._state = state

    @property
    def registered(self) -> tuple[str, ...]:
        """The controllers that know of this worker now."""
        return tuple(each.url for each in self._reports if each.is_registered)

    async def tell_now(self) -> None:
        """Let those controllers hear of something that cannot wait for the next heartbeat."""
        await asyncio.gather(*(each.tell_apart() for each in self._reports if each.is_registered))

    @contextlib.asynccontextmanager
    async def kept(self) -> AsyncGenerator[None, None]:
        """Report from now on, and take leave at the end."""
        tasks = [asyncio.create_task(each.run(), name=f"report to {each.url}") for each in self._reports]
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await asyncio.gather(*(each.leave(self._state().id) for each in self._reports))


class _Report:
    """What goes to one controller."""

    def __init__(self, url: str, token: str | None, state: Callable[[], WorkerState]) -> None:
        self.url = url
        self.is_registered = False
        self._token, self._state = token, state
        self._num_faults = 0
        self._told = ""
        """The fault that the user knows of."""

    async def run(self) -> None:
        """Tell the state, wait, and again."""
        async with ControllerClient(self.url, token=self._token) as client:
            while True:
                await asyncio.sleep(await self._tell(client))

    async def tell_apart(self) -> None:
        """Tell the state beside the heartbeats."""
        async with self._parting() as client:
            await client.tell(self._state())

    async def leave(self, worker_id: str) -> None:
        """Have the controller forget this worker; one that does not answer will by itself."""
        if self.is_registered:
            self.is_registered = False
            async with self._parting() as client:
                await client.leave(worker_id)

    @contextlib.asynccontextmanager
    async def _parting(self) -> AsyncGenerator[ControllerClient, None]:
        """For last words, which need not arrive."""
        async with ControllerClient(self.url, token=self._token, timeout_s=_PARTING_S) as client:
            try:
                yield client
            except LlmctlError as error:
                log.info("could not take leave: %s", error.message)

    async def _tell(self, client: ControllerClient) -> float:
        """Tell the state once; returns the seconds until the next time."""
        try:
            terms = await client.tell(self._state())
        except LlmctlError as error:
            self._num_faults += 1
            is_final = isinstance(error, AccessError | UsageError)
            # A kept connection may have been closed just when it was used.
            if is_final or self._num_faults > 1:
                self._lost(error)
            return _REFUSED_S if is_final else _RETRY_S[min(self._num_faults, len(_RETRY_S)) - 1]
        if not self.is_registered:
            log.log(logging.WARNING if self._told else logging.INFO, "registered with %s", self.url)
        self.is_registered, self._num_faults, self._told = True, 0, ""
        return max(terms.interval_s, _LEAST_INTERVAL_S)

    def _lost(self, error: LlmctlError) -> None:
        self.is_registered = False
        if error.message != self._told:
            self._told = error.message
            log.warning("%s; trying on%s", error.message, f" ({error.hint})" if error.hint else "")
