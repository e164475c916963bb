"""Several GPUs and the host: what is chosen, how much goes where, and whether accelerate then does so."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from accelerate import infer_auto_device_map
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from llmctl.core.errors import DoesNotFitError, UsageError
from llmctl.loading.planning.hardware import GIB, Device
from llmctl.loading.planning.placement import OVERHEAD_BYTES, place
from llmctl.loading.planning.plan import Facts, LoadPlan, PlanRequest, plan

BILLION = 10**9
CPU = Device(kind="cpu", name="a cpu", total_bytes=256 * GIB, free_bytes=200 * GIB, has_bf16=True)


def gpus(*free_gib: int, kind: str = "cuda") -> list[Device]:
    return [
        Device(
            kind=kind, name="a gpu", total_bytes=80 * GIB, free_bytes=free * GIB, has_bf16=True, index=index
        )
        for index, free in enumerate(free_gib)
    ]


def planned(*devices: Device, billions: int = 20, **wishes: Any) -> LoadPlan:
    facts = Facts(
        name="m",
        stored_dtype="bfloat16",
        num_bytes=2 * billions * BILLION,
        num_parameters=billions * BILLION,
        num_body_parameters=billions * BILLION,
        num_layers=40,
    )
    return plan(PlanRequest(**wishes), facts, [*devices, CPU])


def test_one_gpu_is_the_first_unless_another_is_named() -> None:
    assert planned(*gpus(80, 80)).device.place == "cuda:0"
    made = planned(*gpus(80, 80), gpus=(1,))
    assert (made.device.place, made.device_map, made.max_memory) == ("cuda:1", None, None)
    assert list(made.bytes_by_device) == ["cuda:1"]


@pytest.mark.parametrize(
    ("wishes", "used"),
    [
        ({"num_gpus": 2}, [0, 1]),
        ({"num_gpus": 3}, [0, 1, 2]),
        ({"gpus": (0, 2)}, [0, 2]),
        ({"gpus": (2, 0)}, [2, 0]),
        ({"gpus": (0, 2, 1), "num_gpus": 2}, [0, 2]),
    ],
)
@pytest.mark.parametrize("kind", ["cuda", "xpu", "npu"])
def test_several_gpus_are_those_that_were_named_or_the_first(
    wishes: dict[str, Any], used: list[int], kind: str
) -> None:
    made = planned(*gpus(60, 60, 60, kind=kind), **wishes)
    assert list(made.max_memory or {}) == used
    assert list(made.bytes_by_device) == [f"{kind}:{index}" for index in used]
    assert made.device.index == used[0]


def test_without_a_limit_a_model_is_spread_by_free_memory_and_none_is_filled() -> None:
    made = planned(*gpus(80, 40), num_gpus=2)
    assert made.device_map == "sequential"
    first, second = made.bytes_by_device.values()
    assert (first - OVERHEAD_BYTES) / (second - OVERHEAD_BYTES) == pytest.approx(2, rel=0.01)
    assert made.max_memory is not None
    assert all(made.max_memory[index] <= 0.85 * free * GIB for index, free in enumerate((80, 40)))
    assert (
        "weights spread by free memory, at most 85 % of it: cuda:0 24.8 GiB, cuda:1 12.4 GiB" in made.reasons
    )


def test_with_a_limit_each_gpu_holds_so_much_and_the_rest_is_shared() -> None:
    made = planned(*gpus(80, 80, 4), num_gpus=3, max_gpu_memory=20 * GIB)
    assert made.device_map == "auto"
    assert made.max_memory == {0: 20 * GIB, 1: 20 * GIB, 2: 4 * GIB - OVERHEAD_BYTES}
    weights = [size - OVERHEAD_BYTES for size in made.bytes_by_device.values()]
    assert weights[2] == 4 * GIB - OVERHEAD_BYTES
    assert abs(weights[0] - weights[1]) <= 1
    assert sum(weights) == 40 * BILLION


def test_a_limit_holds_for_a_single_gpu_too() -> None:
    assert planned(*gpus(80), max_gpu_memory=40 * GIB).device_map is None
    with pytest.raises(DoesNotFitError, match=r"cuda:0 may hold 30\.0 GiB of them \(--max-gpu-memory\)"):
        planned(*gpus(80), max_gpu_memory=30 * GIB)


def remedies(*devices: Device, **wishes: Any) -> tuple[str, list[str]]:
    """What is said of a model that does not fit, and what would."""
    with pytest.raises(DoesNotFitError) as caught:
        planned(*devices, **wishes)
    return caught.value.message, str(caught.value.hint).split("; ")


def test_under_a_limit_weights_are_compared_with_it_and_the_limit_is_a_remedy_to_lift() -> None:
    message, told = remedies(*gpus(24, 24), billions=8, num_gpus=2, max_gpu_memory=5 * GIB)
    assert "takes about 14.9 GiB of weights in bfloat16, cuda:0, cuda:1 may hold 10.0 GiB of them" in message
    assert told == [
        "without --max-gpu-memory 5.0 GiB it takes 15.4 GiB and fits",
        "--load-8bit takes 8.0 GiB and fits",
        "--load-4bit takes 4.7 GiB and fits",
    ]
    message, told = remedies(*gpus(24, 24), billions=200, num_gpus=2, max_gpu_memory=5 * GIB)
    assert "takes about 372.5 GiB of weights" in message
    message, told = remedies(*gpus(24, 24), billions=700, num_gpus=2, max_gpu_memory=5 * GIB)
    assert told == ["what fits here in bfloat16 is a model of up to 5.4 billion parameters"]


def test_offloading_is_a_remedy_only_where_nothing_less_fits() -> None:
    _, told = remedies(*gpus(24), billions=30)
    assert [each.partition(" takes")[0] for each in told] == ["--load-4bit"]
    _, told = remedies(*gpus(8), billions=30)
    assert [each.partition(" takes")[0] for each in told] == ["--load-4bit --cpu-offloading"]


@pytest.mark.parametrize(
    ("count", "told"), [(2, "name 2 with --gpus, or give at most 1"), (3, "give at most 1")]
)
def test_what_more_gpus_than_are_named_are_told_can_be_done(count: int, told: str) -> None:
    with pytest.raises(UsageError) as caught:
        planned(*gpus(24, 24), gpus=(0,), num_gpus=count)
    assert caught.value.hint == told


def test_a_quantised_model_is_spread_as_well() -> None:
    made = planned(*gpus(40, 40), num_gpus=2, quantization="8bit")
    assert made.quant is not None
    assert (made.quant.body, made.device_map) == ("int8", "sequential")
    assert sum(made.bytes_by_device.values()) < 22 * BILLION


@pytest.mark.parametrize(
    ("devices", "wishes", "said"),
    [
        (gpus(80, 80), {"num_gpus": 3}, "--num-gpus 3: there are only 2 (cuda:0, cuda:1)"),
        (gpus(80, 80), {"gpus": (0,), "num_gpus": 2}, "--num-gpus 2: --gpus names only 1 (cuda:0)"),
        (gpus(80, 80), {"gpus": (0, 5)}, "--gpus 0,5: there is no cuda device 5, only 0,1"),
        (gpus(80, 80), {"gpus": (1, 1)}, "--gpus 1,1 must name each GPU once"),
        (gpus(80, 80), {"gpus": ()}, "must name each GPU once"),
        (gpus(80), {"num_gpus": 0}, "--num-gpus must be at least 1, not 0"),
        (gpus(80), {"num_gpus": 2}, "--num-gpus 2: there is only 1 (cuda:0)"),
        ([], {"num_gpus": 2}, "--num-gpus 2 is for cuda, xpu, npu, and the model would run on cpu"),
        ([], {"gpus": (0,)}, "--gpus 0 is for cuda"),
        ([], {"max_gpu_memory": GIB}, "--max-gpu-memory is for cuda"),
        ([], {"cpu_offloading": True, "quantization": "8bit"}, "--cpu-offloading is for cuda"),
        (gpus(80), {"device": "cpu", "num_gpus": 2}, "--num-gpus 2 is for cuda"),
        (gpus(80), {"cpu_offloading": True}, "--cpu-offloading goes with --load-8bit or --load-4bit"),
        (gpus(80), {"device": "npu"}, "device 'npu' cannot be used here, only cuda, cpu"),
    ],
)
def test_a_wish_that_cannot_be_had_is_one_line_that_says_what_there_is(
    devices: list[Device], wishes: dict[str, Any], said: str
) -> None:
    with pytest.raises(UsageError) as caught:
        planned(*devices, **wishes)
    assert said in caught.value.message
    assert caught.value.hint or "must" in said


def test_what_settings_say_of_gpus_holds_where_there_are_some() -> None:
    wishes = {"num_gpus": 2, "gpus": (0, 1), "max_gpu_memory": GIB}
    settings = dict.fromkeys(wishes, "llmctl.toml")
    on_cpu = planned(*gpus(40, 40), device="cpu", settings=settings, **wishes)
    plain = planned(*gpus(40, 40), device="cpu")
    told = tuple(f"{name} of llmctl.toml: not counted, it is for GPUs" for name in wishes)
    assert on_cpu == replace(plain, reasons=(plain.reasons[0], *told, *plain.reasons[1:]))
    with pytest.raises(UsageError, match="--max-gpu-memory is for cuda"):
        planned(*gpus(40, 40), device="cpu", max_gpu_memory=GIB)
    with pytest.raises(UsageError, match=r"^num_gpus = 3 \(llmctl\.toml\): there are only 2"):
        planned(*gpus(40, 40), num_gpus=3, settings=settings)
    with pytest.raises(UsageError, match=r"^gpus = 0,7 \(llmctl\.toml\): there is no cuda device 7"):
        planned(*gpus(40, 40), gpus=(0, 7), settings=settings)


def test_an_absent_npu_names_the_package_that_it_needs() -> None:
    with pytest.raises(UsageError) as caught:
        planned(device="npu")
    assert "torch_npu" in str(caught.value.hint)


def test_what_the_gpu_has_no_room_for_stays_on_the_host_when_that_is_asked_for() -> None:
    made = planned(*gpus(10), quantization="8bit", cpu_offloading=True)
    assert made.max_memory is not None
    assert (made.offload, made.device_map) == (True, "auto")
    assert (made.max_memory[0], made.max_memory["cpu"]) == (int(8.5 * GIB), int(170 * GIB))
    assert made.bytes_by_device["cuda:0"] == int(8.5 * GIB) + OVERHEAD_BYTES
    assert sum(made.bytes_by_device.values()) == int(20 * BILLION * 8.05 / 8) + OVERHEAD_BYTES
    assert any("stay in the host's memory, which is slow" in reason for reason in made.reasons)


def test_offloading_is_left_alone_where_everything_fits() -> None:
    made = planned(*gpus(80), quantization="8bit", cpu_offloading=True)
    assert (made.offload, made.device_map) == (False, None)
    assert "offloading: none, all weights fit on the GPU" in made.reasons


def test_offloading_has_an_end_too() -> None:
    with pytest.raises(DoesNotFitError, match=r"cuda:0, cpu have 210\.0 GiB free"):
        planned(*gpus(10), billions=400, quantization="8bit", cpu_offloading=True)


@given(
    st.lists(st.integers(1, 80), min_size=2, max_size=6),
    st.integers(1, 400 * BILLION),
    st.none() | st.integers(1, 80 * GIB),
)
def test_shares_add_up_and_stay_within_their_limits(
    free: list[int], num_bytes: int, limit: int | None
) -> None:
    request = PlanRequest(num_gpus=len(free), max_gpu_memory=limit)
    placed = place(request, gpus(*free), CPU, num_bytes=num_bytes, block_bytes=num_bytes // 50)
    assert placed.max_memory is not None
    budgets = [placed.max_memory[index] for index in range(len(free))]
    assert sum(budgets) <= placed.room
    if num_bytes <= placed.room:
        shares = [size - OVERHEAD_BYTES for size in placed.bytes_by_device.values()]
        assert sum(shares) == num_bytes
        assert all(share <= budget for share, budget in zip(shares, budgets, strict=True))


class Model(nn.Module):
    """Blocks between two tables, as a language model has them."""

    def __init__(self, num_layers: int, width: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(4 * width, width)
        self.layers = nn.ModuleList(nn.Linear(width, 8 * width, bias=False) for _ in range(num_layers))
        self.head = nn.Linear(width, 4 * width, bias=False)


@pytest.mark.parametrize("free", [(40, 40), (80, 40), (20, 80), (30, 30, 30), (80, 10, 40), (25, 25)])
def test_accelerate_spreads_a_model_as_the_plan_says_and_forgets_nothing(free: tuple[int, ...]) -> None:
    with torch.device("meta"):
        model = Model(40, 4096).to(torch.bfloat16)
    sizes = {name: weight.numel() * 2 for name, weight in model.named_parameters()}
    total, block = sum(sizes.values()), max(sizes.values())
    # So that the model takes about half of what there is.
    scale = sum(free) * GIB // (2 * total)
    devices = gpus(*free)
    placed = place(
        PlanRequest(num_gpus=len(free)),
        devices,
        CPU,
        num_bytes=total * scale,
        block_bytes=block * scale,
    )
    budgets = {key: size // scale for key, size in (placed.max_memory or {}).items()}
    device_map = infer_auto_device_map(model, budgets, no_split_module_classes=["Linear", "Embedding"])
    assert set(device_map.values()) == set(range(len(free)))
    for index, each in enumerate(devices):
        used = sum(
            sizes[name]
            for name in sizes
            if device_map.get(name.removesuffix(".weight"), device_map.get(name.split(".")[0])) == index
        )
        meant = (placed.bytes_by_device[each.place] - OVERHEAD_BYTES) / scale
        assert used == pytest.approx(meant, abs=2.5 * block)


def test_a_gpu_without_room_for_the_overhead_is_no_place_to_offload_from() -> None:
    with pytest.raises(DoesNotFitError):
        planned(*gpus(0.1), quantization="8bit", cpu_offloading=True)
