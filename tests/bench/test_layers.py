"""`bench layers` measures what it says, in the order of a model. No test looks at how fast anything is."""

from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise

import pytest
import torch
from torch import Tensor

from llmctl.bench import layers
from llmctl.bench.layers import BASELINE, BLOCK, Request, measure
from llmctl.bench.shapes import SHAPES
from llmctl.core.errors import DoesNotFitError
from llmctl.core.progress import SilentProgress
from llmctl.loading.planning.hardware import Device, cpu

CPU = replace(cpu(), has_bf16=True)
REQUEST = Request(shape=SHAPES["demo"], rows=(1, 3), methods=("int8", "nf4"), device=CPU, seconds=0)


def test_every_method_layer_and_number_of_rows_is_measured_once() -> None:
    found = measure(REQUEST, SilentProgress())
    assert [(each.rows, each.layer, each.method) for each in found] == [
        (rows, layer, method)
        for rows in (1, 3)
        for layer in ("q", "k", "v", "o", "gate", "up", "down", BLOCK)
        for method in ("int8", "nf4")
    ]
    assert all(each.ours_us > 0 and each.bf16_us > 0 and each.device == "cpu" for each in found)


Turns = list[tuple[str, list[Callable[[], object]]]]


@pytest.fixture
def turns(monkeypatch: pytest.MonkeyPatch) -> Turns:
    """What would have been timed: the names that take turns, and their calls."""
    seen: Turns = []

    def record(calls: dict[str, Callable[[], object]], **_: object) -> dict[str, float]:
        seen.append((" ".join(calls), list(calls.values())))
        return dict.fromkeys(calls, 1.0)

    monkeypatch.setattr(layers, "best_times", record)
    return seen


def test_all_methods_take_turns_with_the_same_dense_layer(turns: Turns) -> None:
    measure(REQUEST, SilentProgress())
    assert [names for names, _ in turns] == [f"{BASELINE} int8 nf4"] * layers.NUM_PASSES * 2 * 8


def test_quantised_layers_compute_what_the_dense_ones_do(turns: Turns) -> None:
    measure(replace(REQUEST, rows=(3,)), SilentProgress())
    for _, (dense, int8, nf4) in turns[:7]:
        expected, exact, coarse = (call().float() for call in (dense, int8, nf4))  # type: ignore[attr-defined]
        assert (exact - expected).norm() < 0.02 * expected.norm()
        assert (coarse - expected).norm() < 0.15 * expected.norm()


def test_the_best_of_all_passes_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    times = iter([5.0, 3.0, 4.0] * 8)

    def record(calls: dict[str, Callable[[], object]], **_: object) -> dict[str, float]:
        return {name: next(times) for name in calls}

    monkeypatch.setattr(layers, "best_times", record)
    monkeypatch.setattr(layers, "_calls", lambda *_: [(BLOCK, {BASELINE: None, "int8": None})])
    (found,) = measure(replace(REQUEST, rows=(1,), methods=("int8",)), SilentProgress())
    # In turns of two: 5 3, 4 5, 3 4.
    assert (found.bf16_us, found.ours_us) == (3.0, 3.0)


def test_a_layer_by_itself_is_never_given_the_same_tensor_twice_in_a_row() -> None:
    given: list[Tensor] = []
    call = layers._alone(lambda x: given.append(x) or x, torch.ones(2))
    for _ in range(4):
        call()
    assert all(before is not after for before, after in pairwise(given))
    assert all(torch.equal(each, torch.ones(2)) for each in given)


def test_a_block_is_called_as_a_model_calls_it() -> None:
    inputs = layers._inputs(REQUEST, 3)
    calls: list[tuple[str, Tensor]] = []
    block = {name: (lambda x, name=name: calls.append((name, x)) or x) for name in REQUEST.shape.layers}
    layers._run(block, inputs)
    assert [name for name, _ in calls] == ["q", "k", "v", "o", "gate", "up", "down"]
    q, k, v, o, gate, up, down = (x for _, x in calls)
    assert q is k is v
    assert gate is up
    assert len({id(x) for x in (q, o, gate, down)}) == 4
    assert [x.shape for x in (q, o, gate, down)] == [(3, 256), (3, 256), (3, 256), (3, 512)]


def test_without_native_bfloat16_the_dense_layer_is_what_a_model_would_run_in() -> None:
    assert REQUEST.dtype == torch.bfloat16
    slow = replace(REQUEST, device=replace(CPU, has_bf16=False), rows=(1,))
    assert slow.dtype == torch.float32
    assert layers._weights(slow)["q"].dtype == torch.float32
    assert len(measure(slow, SilentProgress())) == 8 * 2


def test_what_does_not_fit_is_refused_before_it_is_made() -> None:
    tiny = Device(kind="cpu", name="tiny", total_bytes=2**30, free_bytes=2**30, has_bf16=True)
    request = replace(REQUEST, shape=SHAPES["llama-70b"], device=tiny)
    with pytest.raises(DoesNotFitError) as caught:
        measure(request, SilentProgress())
    assert caught.value.message.startswith("one block of meta-llama/Llama-3.1-70B with 3 rows takes about ")
    assert caught.value.message.endswith("GiB, cpu has 1.0 GiB free")


def test_memory_grows_with_rows_methods_and_the_shape() -> None:
    least = layers.num_bytes(REQUEST)
    assert least > REQUEST.shape.num_weights * 2
    for more in (
        replace(REQUEST, rows=(512,)),
        replace(REQUEST, methods=("int8", "int4", "nf4")),
        replace(REQUEST, shape=SHAPES["llama-1b"]),
    ):
        assert layers.num_bytes(more) > least
