"""How long work tells of itself: lower layers report stages, the CLI draws them."""

from typing import Protocol


class Progress(Protocol):
    """Receives the stages of a job in order; each stage ends when the next one starts."""

    def stage(self, name: str, *, total_bytes: int | None = None) -> None:
        """A new stage begins; `total_bytes` is None when its size is not known or it is not about bytes."""
        ...

    def advance(self, num_bytes: int) -> None:
        """That many more bytes of the present stage are done."""
        ...


class SilentProgress:
    """For callers that do not care."""

    def stage(self, name: str, *, total_bytes: int | None = None) -> None:
        """Ignored."""

    def advance(self, num_bytes: int) -> None:
        """Ignored."""
