"""Parts that are no processes, and time that a test moves."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from llmctl.core.errors import LlmctlError
from llmctl.services.up.process import Told


class FakeClock:
    """Time that passes only when somebody sleeps."""

    def __init__(self) -> None:
        self.time = 1000.0
        self.on_sleep: Callable[[], None] = lambda: None

    def now(self) -> float:
        return self.time

    def sleep(self, seconds: float) -> None:
        self.time += seconds
        self.on_sleep()


@dataclass
class FakeProcess:
    """Lives until it is told to end; then it takes `ends_after_s`, None being forever."""

    name: str
    words: list[str]
    clock: FakeClock
    journal: list[str]
    pid: int
    ready: Told | None = None
    code: int | None = None
    lines: list[str] = field(default_factory=list)
    ends_after_s: float | None = 0.0
    _end: float | None = None

    def exit_code(self) -> int | None:
        if self.code is None and self._end is not None and self.clock.now() >= self._end:
            self.code = 0
            self.journal.append(f"{self.name} ended")
        return self.code

    def told(self) -> Told | None:
        return self.ready

    def last_lines(self) -> list[str]:
        return self.lines

    def terminate(self) -> None:
        self.journal.append(f"{self.name} told to end")
        if self.ends_after_s is not None:
            self._end = self.clock.now() + self.ends_after_s

    def kill(self) -> None:
        self.journal.append(f"{self.name} killed")
        self.code = -9


class FakeLauncher:
    """Remembers all that was started, the last process of each name too."""

    def __init__(self, clock: FakeClock) -> None:
        self.clock = clock
        self.journal: list[str] = []
        self.now: dict[str, FakeProcess] = {}
        self.started: list[str] = []
        self.refuses: LlmctlError | None = None

    def start(self, name: str, words: Sequence[str], environ: Mapping[str, str]) -> FakeProcess:
        if self.refuses is not None:
            raise self.refuses
        self.started.append(name)
        process = FakeProcess(name, list(words), self.clock, self.journal, 100 + len(self.started))
        self.now[name] = process
        return process

    def make_ready(self, name: str, port: int) -> None:
        """Let a part say that it can be asked."""
        models = ("demo",) if name.startswith("worker") else ()
        self.now[name].ready = Told(url=f"http://127.0.0.1:{port}", models=models)

    def die(self, name: str, code: int, *lines: str) -> None:
        """Let a part end."""
        self.now[name].code = code
        self.now[name].lines = list(lines)
