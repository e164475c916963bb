"""Which processes a fleet is made of."""

import pytest

from llmctl.core.errors import UsageError
from llmctl.services.up.plan import THREADS, Share, Wish, parts_of, shared_out

ONE, TWO = Share(models=("a=demo",)), Share(models=("b",), words=("--task=embed",))


def test_a_fleet_is_a_controller_workers_and_a_gateway() -> None:
    wish = Wish(
        shares=[ONE],
        host="0.0.0.0",
        port=8000,
        worker_words=("--seed=1",),
        gateway_words=("--open",),
        controller_words=("--interval=1",),
        drain_s=5.0,
    )
    parts = parts_of(wish, token_file="t")
    assert [part.name for part in parts] == ["controller", "worker-1", "gateway"]
    assert [part.command(port=part.port, controller="http://c:1") for part in parts[1:]] == [
        [
            *("serve", "worker", "--host=127.0.0.1", "--port=0", "--controller=http://c:1"),
            *("--token-file=t", "--drain=5", "--seed=1", "--model=a=demo"),
        ],
        [
            *("serve", "api", "--host=0.0.0.0", "--port=8000", "--controller=http://c:1"),
            *("--token-file=t", "--drain=5", "--open"),
        ],
    ]
    assert parts[0].command(port=7, controller=None) == [
        *("serve", "controller", "--host=127.0.0.1", "--port=7", "--token-file=t", "--interval=1")
    ]


def test_each_model_gets_as_many_workers_and_what_is_said_of_it_only() -> None:
    parts = parts_of(Wish(shares=[ONE, TWO], num_workers=2, port=0), token_file="t")
    workers = [part for part in parts if part.kind == "worker"]
    assert [part.models for part in workers] == [("a=demo",), ("b",), ("a=demo",), ("b",)]
    assert ["--task=embed" in part.words for part in workers] == [False, True, False, True]


@pytest.mark.parametrize(("num_workers", "threads"), [(1, {}), (2, {THREADS: "4"}), (16, {THREADS: "1"})])
def test_several_workers_share_the_cores(num_workers: int, threads: dict[str, str]) -> None:
    parts = parts_of(Wish(shares=[ONE], num_workers=num_workers, port=0), token_file="t", num_cores=8)
    assert [part.variables for part in parts if part.kind == "worker"] == [threads] * num_workers
    assert parts[-1].variables == {}


def test_threads_are_left_alone_where_nobody_says_how_many_cores_there_are() -> None:
    parts = parts_of(Wish(shares=[ONE], num_workers=2, port=0), token_file="t")
    assert all(part.variables == {} for part in parts)


@pytest.mark.parametrize(
    ("gpus", "num_workers", "shared"),
    [
        ((), 2, [(), ()]),
        ((0, 1), 1, [(0, 1)]),
        ((0, 1, 2, 3), 2, [(0, 1), (2, 3)]),
        ((0, 2), 4, [(0,), (2,), (0,), (2,)]),
    ],
)
def test_gpus_are_shared_out_evenly(
    gpus: tuple[int, ...], num_workers: int, shared: list[tuple[int, ...]]
) -> None:
    assert shared_out(gpus, num_workers) == shared


def test_gpus_that_cannot_be_shared_out_are_refused() -> None:
    with pytest.raises(UsageError, match=r"3 GPUs .* 2 workers"):
        parts_of(Wish(shares=[ONE], num_workers=2, port=0, gpus=(0, 1, 2)), token_file="t")


def test_a_worker_is_told_its_gpus() -> None:
    parts = parts_of(Wish(shares=[ONE], num_workers=2, port=0, gpus=(0, 1, 2, 3)), token_file="t")
    assert ["--gpus=0,1" in part.words for part in parts] == [False, True, False, False]
