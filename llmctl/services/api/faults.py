"""What goes wrong between the gateway and a worker; clients are told, so no address of a worker is in it."""

from llmctl.core.errors import UnreachableError


class UpstreamError(UnreachableError):
    """A worker gave no whole answer."""

    code = "worker_failed"


class RefusedError(UpstreamError):
    """No connection could be made: nothing of the request has reached the worker."""

    def __init__(self, reason: str) -> None:
        super().__init__(f"the worker cannot be reached: {reason}")


class LostError(UpstreamError):
    """The connection ended before the answer did."""

    def __init__(self) -> None:
        super().__init__("the worker stopped before its answer was complete")


class GarbledError(UpstreamError):
    """What came is no HTTP, or nothing that a worker says."""

    def __init__(self, told: str = "the worker did not answer in HTTP/1.1") -> None:
        super().__init__(told)


class FailedError(UpstreamError):
    """It answered that it failed."""

    def __init__(self, status: int) -> None:
        super().__init__(f"the worker failed with status {status}")


class SilentError(UpstreamError):
    """Nothing came for too long."""

    http_status = 504
    code = "worker_timeout"

    def __init__(self, timeout_s: float) -> None:
        super().__init__(f"the worker was silent for {timeout_s:g} s")


class UnauthorizedError(UpstreamError):
    """The client may, but not the gateway."""

    def __init__(self) -> None:
        super().__init__("the worker does not take this gateway's cluster token")


class StalledError(UpstreamError):
    """The client took nothing for too long, and held a worker's place all the while."""

    http_status = 408
    code = "client_timeout"

    def __init__(self, timeout_s: float) -> None:
        super().__init__(f"nothing of the answer was taken for {timeout_s:g} s")
