"""Every failure that a user can meet.

LlmctlError                1  failure                     HTTP 500
├── UsageError             2  a wrong flag or value            400
├── NotFoundError          3  no such model, file, family      404
├── AccessError            4  gated, private, bad key          403
├── UnreachableError       5  no network, dead server          502
│   └── BusyError                 as many wait as may          429
│       └── NoWorkerError         nobody serves the model      503
├── DoesNotFitError        6  memory, disk, context            507
│   └── ContextOverflowError                                   400
├── BadFileError           7  broken or unusable file          422
└── AmbiguousError         8  several answers fit              409

A message names the thing, the value given and the limit; `hint` says what to do.
Foreign exceptions are turned into these at the one boundary where they arise, with `from`.
"""

from typing import ClassVar


class LlmctlError(Exception):
    """Base of all errors that are shown to a user as one line."""

    exit_code: ClassVar[int] = 1
    http_status: ClassVar[int] = 500
    code: ClassVar[str] = "failure"

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def as_dict(self) -> dict[str, str | None]:
        """The object under `error` that `--json` prints."""
        return {"code": self.code, "message": self.message, "hint": self.hint}


class UsageError(LlmctlError):
    """The user asked for something that is not offered, or gave a value outside its range."""

    exit_code = 2
    http_status = 400
    code = "usage"


class NotFoundError(LlmctlError):
    """The named model, file, session or family does not exist."""

    exit_code = 3
    http_status = 404
    code = "not_found"


class AccessError(LlmctlError):
    """The thing exists, but this user may not have it."""

    exit_code = 4
    http_status = 403
    code = "access"


class UnreachableError(LlmctlError):
    """The network, the hub or a server does not answer."""

    exit_code = 5
    http_status = 502
    code = "unreachable"


class BusyError(UnreachableError):
    """As many requests wait as may; the same one will be taken later."""

    http_status = 429
    code = "busy"

    def __init__(self, message: str, *, hint: str | None = None, retry_after_s: float = 1.0) -> None:
        """`retry_after_s` is when trying again makes sense."""
        super().__init__(message, hint=hint)
        self.retry_after_s = retry_after_s


class NoWorkerError(BusyError):
    """No worker of the fleet serves the model now; one may later."""

    http_status = 503
    code = "no_worker"


class DoesNotFitError(LlmctlError):
    """Not enough memory or disk."""

    exit_code = 6
    http_status = 507
    code = "does_not_fit"


class ContextOverflowError(DoesNotFitError):
    """Prompt and answer are longer than the model's context."""

    http_status = 400
    code = "context_overflow"

    def __init__(
        self,
        message: str,
        *,
        hint: str | None = None,
        prompt_tokens: int | None = None,
        context_length: int | None = None,
    ) -> None:
        """`prompt_tokens` and `context_length`, where known, tell by how much."""
        super().__init__(message, hint=hint)
        self.prompt_tokens = prompt_tokens
        self.context_length = context_length


class BadFileError(LlmctlError):
    """A file or checkpoint is damaged, incomplete or of a kind that cannot be used."""

    exit_code = 7
    http_status = 422
    code = "bad_file"


class AmbiguousError(LlmctlError):
    """Several answers fit equally well; the user must choose."""

    exit_code = 8
    http_status = 409
    code = "ambiguous"
