"""One controller, for workers that report to it and for gateways and users who ask it."""

from collections.abc import Callable
from types import TracebackType
from typing import Any, Self, TypeVar

import httpx2

from llmctl import __version__
from llmctl.core.errors import AccessError, LlmctlError, UnreachableError, UsageError
from llmctl.services import wire
from llmctl.services.upstream import refusal
from llmctl.services.upstream.faults import Faults
from llmctl.services.wire import Listing, Terms, WorkerState

_T = TypeVar("_T")

_TIMEOUT_S = 4.0


class ControllerClient:
    """Kept connections to one controller; `url` as `parts.controller_urls` gives it.

    All calls raise `UnreachableError` when it does not answer, `AccessError` when it wants another token,
    and `LlmctlError` for what no controller would answer.
    """

    def __init__(self, url: str, *, token: str | None, timeout_s: float = _TIMEOUT_S) -> None:
        self.url = url
        self._timeout_s = timeout_s
        self._faults = Faults(url=f"the controller {url}", timeout_s=timeout_s, api_key=token)
        headers = {"User-Agent": f"llmctl/{__version__}", "Accept-Encoding": "identity"}
        if token is not None:
            headers["Authorization"] = f"Bearer {token}"
        # With a transport of its own no proxy of the environment stands between the parts of a fleet, and
        # without https no certificates are read, which takes longer than an answer.
        transport = httpx2.AsyncHTTPTransport(verify=url.startswith("https:"))
        self._client = httpx2.AsyncClient(headers=headers, timeout=timeout_s, transport=transport)

    async def listing(self, *, since: int | None = None, wait_s: float = 0.0) -> Listing:
        """Its table; with `since`, when its version is another one, or after `wait_s` at the latest."""
        query = {} if since is None else {"since": since, "wait": wait_s}
        told = await self._call("GET", "/workers", params=query, timeout=self._timeout_s + wait_s)
        return self._read(wire.listing_from_json, told)

    async def tell(self, state: WorkerState) -> Terms:
        """Register a worker, or tell its state again, which is the same."""
        told = await self._call("POST", "/workers", json=wire.to_json(state))
        return self._read(wire.terms_from_json, told)

    async def leave(self, worker_id: str) -> None:
        """Take a worker out of its table."""
        await self._call("DELETE", f"/workers/{worker_id}")

    async def close(self) -> None:
        """Close the connections; may be called twice."""
        await self._client.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def _call(self, method: str, path: str, **options: Any) -> Any:
        with self._faults.translated():
            try:
                response = await self._client.request(method, self.url + path, **options)
            except httpx2.TimeoutException as error:
                raise UnreachableError(f"the controller {self.url} does not answer") from error
        if response.status_code in (401, 403):
            raise AccessError(
                f"the controller {self.url} refuses: {self._told(response)}",
                hint="show it the cluster token: --token-file FILE or LLMCTL_CLUSTER_TOKEN_FILE",
            )
        if not response.is_success:
            raise self._faults.refused(
                refusal.from_response(response.status_code, response.headers, response.content)
            )
        try:
            return response.json()
        except (ValueError, RecursionError) as error:
            raise self._garbage() from error

    def _told(self, response: httpx2.Response) -> str:
        told = refusal.from_response(response.status_code, response.headers, response.content)
        return told.message or f"HTTP {response.status_code}"

    def _read(self, read: Callable[[Any], _T], value: Any) -> _T:
        try:
            return read(value)
        except UsageError as error:
            raise self._garbage(error.message) from error

    def _garbage(self, reason: str = "its answer is no JSON") -> LlmctlError:
        return LlmctlError(
            f"{self.url} does not answer as a controller: {reason}",
            hint="is it one of this version of llmctl?",
        )
