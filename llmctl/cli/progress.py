"""Draws a job's stages as one live line on stderr; it vanishes when the job is done."""

from types import TracebackType

from rich.console import Console as RichConsole

from llmctl.cli.markdown.controls import shown


class RichProgress:
    """`core.progress.Progress` drawn by rich: a spinner, and a bar with rate and ETA for bytes."""

    def __init__(self, console: RichConsole) -> None:
        from rich.progress import (
            BarColumn,
            DownloadColumn,
            Progress,
            SpinnerColumn,
            TextColumn,
            TimeRemainingColumn,
            TransferSpeedColumn,
        )

        head = (SpinnerColumn(), TextColumn("{task.description}", markup=False))
        self._plain = Progress(*head, console=console, transient=True)
        rate = (DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn(compact=True))
        self._bytes = Progress(*head, BarColumn(), *rate, console=console, transient=True)
        self._live: Progress | None = None

    def __enter__(self) -> "RichProgress":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop()

    def stage(self, name: str, *, total_bytes: int | None = None) -> None:
        """The last stage's line makes way for the new one."""
        self._stop()
        self._live = self._plain if total_bytes is None else self._bytes
        # Names of models stand in it, which somebody else chose.
        self._task = self._live.add_task(shown(" ".join(name.split())), total=total_bytes)
        self._live.start()

    def advance(self, num_bytes: int) -> None:
        """Move the bar; may be called from any thread."""
        if self._live is not None:
            self._live.advance(self._task, num_bytes)

    def _stop(self) -> None:
        if self._live is not None:
            self._live.stop()
            self._live.remove_task(self._task)
            self._live = None
