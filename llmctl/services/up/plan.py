"""The processes that a fleet is made of and their command lines. Pure: nothing is started here."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from llmctl.core.errors import UsageError

Kind = Literal["controller", "worker", "gateway"]
HERE = "127.0.0.1"
"""Where controller and workers listen: only the gateway is for others."""
_VERBS: Mapping[Kind, str] = {"controller": "controller", "worker": "worker", "gateway": "api"}
THREADS = "OMP_NUM_THREADS"


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """One process."""

    name: str
    kind: Kind
    port: int = 0
    """0: the system chooses."""
    host: str = HERE
    words: tuple[str, ...] = ()
    """Of the command line, behind the verb."""
    models: tuple[str, ...] = ()
    """What a worker serves, as the user wrote it."""
    variables: Mapping[str, str] = field(default_factory=dict)
    """Of the environment, beside those of the supervisor."""

    def command(self, *, port: int, controller: str | None) -> list[str]:
        """Its words behind `llmctl`; `controller` is where that one is, for those who need it."""
        named = [] if controller is None else [f"--controller={controller}"]
        return [
            *("serve", _VERBS[self.kind], f"--host={self.host}", f"--port={port}"),
            *named,
            *self.words,
        ]


@dataclass(frozen=True, slots=True, kw_only=True)
class Share:
    """What one process of workers serves, and what only it is told."""

    models: tuple[str, ...]
    """`[NAME=]MODEL`; none: the default one."""
    words: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """A fleet as the user wants it."""

    shares: Sequence[Share]
    """Each is served by `num_workers` processes."""
    num_workers: int = 1
    host: str = HERE
    port: int
    controller_port: int = 0
    worker_words: tuple[str, ...] = ()
    gateway_words: tuple[str, ...] = ()
    controller_words: tuple[str, ...] = ()
    gpus: tuple[int, ...] = ()
    """To be shared out among the workers."""
    drain_s: float = 30.0


def parts_of(wish: Wish, *, token_file: str, num_cores: int | None = None) -> tuple[Part, ...]:
    """All processes: the controller, the workers, the gateway.

    With several workers each computes with its share of `num_cores`, where those are given. Raises
    `UsageError` for GPUs that cannot be shared out evenly.
    """
    token, drain = f"--token-file={token_file}", f"--drain={wish.drain_s:g}"
    first = Part(
        name="controller",
        kind="controller",
        port=wish.controller_port,
        words=(token, *wish.controller_words),
    )
    last = Part(
        name="gateway",
        kind="gateway",
        port=wish.port,
        host=wish.host,
        words=(token, drain, *wish.gateway_words),
    )
    return (first, *_workers(wish, (token, drain, *wish.worker_words), num_cores), last)


def _workers(wish: Wish, words: tuple[str, ...], num_cores: int | None) -> Iterator[Part]:
    # Round by round, so that neighbours serve different models.
    shares = [share for _ in range(wish.num_workers) for share in wish.shares]
    gpus = shared_out(wish.gpus, len(shares))
    is_shared = num_cores is not None and len(shares) > 1
    variables = {THREADS: str(max(1, (num_cores or 1) // len(shares)))} if is_shared else {}
    for number, (share, own) in enumerate(zip(shares, gpus, strict=True), start=1):
        yield Part(
            name=f"worker-{number}",
            kind="worker",
            words=(*words, *_gpu_words(own), *share.words, *_models(share.models)),
            models=share.models,
            variables=variables,
        )


def shared_out(gpus: tuple[int, ...], num_workers: int) -> list[tuple[int, ...]]:
    """The GPUs of each worker: as many each, or as many workers on each. Raises `UsageError`."""
    if not gpus:
        return [()] * num_workers
    if len(gpus) % num_workers == 0:
        each = len(gpus) // num_workers
        return [gpus[start : start + each] for start in range(0, len(gpus), each)]
    if num_workers % len(gpus) == 0:
        return [(gpus[number % len(gpus)],) for number in range(num_workers)]
    raise UsageError(
        f"{len(gpus)} GPUs cannot be shared out evenly among {num_workers} workers",
        hint="name as many with --gpus as there are workers, or a multiple",
    )


def _gpu_words(gpus: tuple[int, ...]) -> tuple[str, ...]:
    return (f"--gpus={','.join(map(str, gpus))}",) if gpus else ()


def _models(models: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(f"--model={model}" for model in models)
