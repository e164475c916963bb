"""The paths for CUDA: run here where the CPU has the operator, all of them by `pytest -m gpu` on a GPU."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from llmctl.core.errors import UsageError
from llmctl.quant import cuda
from llmctl.quant.activations import Memo
from llmctl.quant.rounding import round_to
from llmctl.quant.weights import IntWeight, QuantWeight, unpack4

COLUMNS, OUTPUTS = 256, 48
HOPPER, TURING = (9, 0), (7, 5)
ROWS = [1, 16, 17, 40]
# Of the norm of the result: activations are rounded to 8 bits, and to 4 bits of which 3 are the mantissa's.
TOLERANCE = {"torch-fp8": 0.06}
METHOD = {
    "bitsandbytes-int8": "int8",
    "bitsandbytes-4bit": "nf4",
    "torch-int8": "int8",
    "torch-int4": "int4",
    "torch-fp8": "int8",
    "tiles": "int4",
}
ON_CPU = sorted(METHOD.keys() - {"torch-int4"})


def dense() -> Tensor:
    return torch.randn(OUTPUTS, COLUMNS, generator=torch.Generator().manual_seed(1)) / 16


def activation(num_rows: int, dtype: torch.dtype = torch.bfloat16) -> Tensor:
    return torch.randn(num_rows, COLUMNS, generator=torch.Generator().manual_seed(2)).to(dtype)


def shuffled(weight: QuantWeight) -> IntWeight:
    """The same numbers with zero points, for other inputs."""
    assert isinstance(weight, IntWeight)
    generator = torch.Generator().manual_seed(3)
    return replace(
        weight,
        zero=torch.randint(5, 11, weight.scale.shape, generator=generator, dtype=torch.int16),
        permutation=torch.randperm(COLUMNS, generator=generator),
    )


def error(y: Tensor, x: Tensor, weight: QuantWeight, bias: Tensor | None = None) -> float:
    expected = torch.nn.functional.linear(x.double(), weight.dequantize().double())
    if bias is not None:
        expected += bias.double()
    return float((y.double() - expected).norm() / expected.norm())


def check(name: str, weight: QuantWeight, num_rows: int, dtype: torch.dtype) -> None:
    """Compare a path with the dequantised weight, in float64 on the CPU."""
    kernel = cuda.PATHS[name].kernel(weight, dtype, Memo())
    device = weight.scale.device if isinstance(weight, IntWeight) else weight.absmax.device
    x, bias = activation(num_rows, dtype).to(device), torch.randn(OUTPUTS).to(device, dtype)
    y = kernel(x.view(num_rows, 1, COLUMNS), bias)
    assert (y.shape, y.dtype, y.device) == ((num_rows, 1, OUTPUTS), dtype, x.device)
    found = error(y.cpu()[:, 0], x.cpu(), weight.to(torch.device("cpu")), bias.cpu())
    assert found < TOLERANCE.get(name, 0.012)
    assert 0 < kernel.num_bytes < 4 * OUTPUTS * COLUMNS


@pytest.mark.parametrize("num_rows", ROWS)
@pytest.mark.parametrize("name", ON_CPU)
def test_a_path_multiplies_with_what_is_stored(name: str, num_rows: int) -> None:
    check(name, round_to(dense(), METHOD[name]), num_rows, torch.bfloat16)


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32], ids=str)
@pytest.mark.parametrize("name", ["bitsandbytes-int8", "bitsandbytes-4bit", "torch-fp8", "tiles"])
def test_a_path_gives_the_activations_dtype(name: str, dtype: torch.dtype) -> None:
    check(name, round_to(dense(), METHOD[name]), 3, dtype)


@pytest.mark.gpu
@pytest.mark.parametrize("num_rows", ROWS)
@pytest.mark.parametrize("name", sorted(METHOD))
def test_a_path_multiplies_with_what_is_stored_on_a_gpu(name: str, num_rows: int) -> None:
    if torch.cuda.get_device_capability() < cuda.PATHS[name].min_capability:
        pytest.skip(f"this GPU is too old for {name}")
    weight = round_to(dense(), METHOD[name]).to(torch.device("cuda"))
    check(name, weight, num_rows, torch.bfloat16)


@pytest.mark.gpu
@pytest.mark.parametrize("name", ["torch-int4", "torch-fp8", "tiles"])
def test_zero_points_and_act_order_are_honoured_on_a_gpu(name: str) -> None:
    if torch.cuda.get_device_capability() < cuda.PATHS[name].min_capability:
        pytest.skip(f"this GPU is too old for {name}")
    check(name, shuffled(round_to(dense(), "int4")).to(torch.device("cuda")), 5, torch.bfloat16)


@pytest.mark.parametrize("name", ["torch-fp8", "tiles"])
def test_zero_points_and_act_order_are_honoured(name: str) -> None:
    check(name, shuffled(round_to(dense(), "int4")), 5, torch.bfloat16)


@pytest.mark.parametrize("name", ["bitsandbytes-int8", "torch-int8"])
def test_act_order_is_honoured_by_int8(name: str) -> None:
    weight = round_to(dense(), "int8")
    assert isinstance(weight, IntWeight)
    permutation = torch.randperm(COLUMNS, generator=torch.Generator().manual_seed(4))
    check(name, replace(weight, permutation=permutation), 20, torch.bfloat16)


def test_an_outlier_does_not_drown_its_row() -> None:
    weight = round_to(dense(), "int8")
    # So many rows that torch's path rounds activations too.
    x = activation(20)
    x[:, 7] = 1000
    expected = torch.nn.functional.linear(x.double(), weight.dequantize().double())
    small = expected - x[:, 7:8].double() * weight.dequantize()[:, 7].double()

    def left_over(name: str) -> float:
        y = cuda.PATHS[name].kernel(weight, torch.float32, Memo())(x.float(), None).double()
        return float((y - expected).norm() / small.norm())

    assert left_over("bitsandbytes-int8") < 0.05
    assert left_over("torch-int8") > 0.5


def test_nibbles_and_scales_are_as_torchs_operator_wants_them() -> None:
    weight = replace(shuffled(round_to(dense(), "int4")), permutation=None)
    nibbles, scales, group_size = cuda.int4_parts(weight)
    assert (group_size, scales.shape, scales.dtype) == (64, (COLUMNS // 64, OUTPUTS, 2), torch.bfloat16)
    # The operator for the CPU takes the same scales, and numbers one by one.
    numbers = torch.stack((nibbles >> 4, nibbles & 15), -1).flatten(-2).int()
    assert torch.equal(numbers, unpack4(weight.values).int())
    packed = torch.ops.aten._convert_weight_to_int4pack_for_cpu(numbers, 1)
    x = activation(2)
    y = torch.ops.aten._weight_int4pack_mm_for_cpu(x, packed, group_size, scales)
    assert error(y, x, weight) < 0.012


@pytest.mark.parametrize(("stored", "given"), [(256, 256), (512, 256), (96, 32), (64, 64)])
def test_a_group_that_torch_does_not_know_is_split(stored: int, given: int) -> None:
    values = torch.randint(0, 256, (8, stored), dtype=torch.uint8)
    weight = IntWeight(bits=4, values=values, scale=torch.rand(8, 2))
    _, scales, group_size = cuda.int4_parts(weight)
    assert group_size == given
    copies = stored // given
    assert torch.equal(scales[::copies, :, 0], weight.scale.t().bfloat16())
    assert torch.equal(scales[copies - 1 :: copies], scales[::copies])


def test_fp8_never_becomes_nan() -> None:
    rows = torch.tensor([[448.0, -1e30, 3.0], [0.0, 0.0, 0.0]])
    numbers, scale = cuda.float8_rows(rows)
    assert torch.isfinite(numbers.float() * scale).all()
    assert torch.allclose((numbers.float() * scale)[0, 1], rows[0, 1])


@pytest.mark.parametrize(
    ("method", "dtype", "capability", "wanted", "expected"),
    [
        ("int8", torch.bfloat16, HOPPER, (), "bitsandbytes-int8"),
        ("nf4", torch.bfloat16, HOPPER, (), "bitsandbytes-4bit"),
        ("fp4", torch.float16, TURING, (), "bitsandbytes-4bit"),
        ("int4", torch.bfloat16, HOPPER, (), "tiles"),
        ("int8", torch.bfloat16, HOPPER, ("torch-int8", "torch-int4"), "torch-int8"),
        ("int8", torch.bfloat16, TURING, ("torch-int8", "torch-int4"), "bitsandbytes-int8"),
        ("int4", torch.bfloat16, HOPPER, ("torch-int8", "torch-int4"), "torch-int4"),
        ("int4", torch.float16, HOPPER, ("torch-int4",), "tiles"),
        ("nf4", torch.bfloat16, HOPPER, ("torch-int8", "torch-int4"), "bitsandbytes-4bit"),
        ("nf4", torch.bfloat16, HOPPER, ("torch-fp8",), "torch-fp8"),
        ("nf4", torch.bfloat16, (8, 6), ("torch-fp8",), "bitsandbytes-4bit"),
    ],
)
def test_which_path_a_weight_takes(
    method: str, dtype: torch.dtype, capability: tuple[int, int], wanted: tuple[str, ...], expected: str
) -> None:
    weight = round_to(dense(), method)
    assert cuda.choose(weight, dtype, capability=capability, wanted=wanted) == expected


def test_int8_in_groups_or_with_zero_points_takes_tiles() -> None:
    values = torch.randint(-127, 128, (16, 64), dtype=torch.int8)
    grouped = IntWeight(bits=8, values=values, scale=torch.rand(16, 2))
    zeroed = IntWeight(
        bits=8, values=values, scale=torch.rand(16, 1), zero=torch.ones(16, 1, dtype=torch.int16)
    )
    for weight in (grouped, zeroed):
        assert cuda.choose(weight, torch.bfloat16, capability=HOPPER, wanted=("torch-int8",)) == "tiles"


def test_every_path_is_told_of_and_only_the_untried_are_off() -> None:
    assert cuda.PATHS.keys() == METHOD.keys()
    assert {name for name, path in cuda.PATHS.items() if not path.is_tried} == {
        *("torch-int8", "torch-int4", "torch-fp8")
    }


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", ()),
        ("0", ()),
        ("1", ("torch-int8", "torch-int4")),
        ("torch-fp8", ("torch-fp8",)),
        ("torch-int4, torch-int8", ("torch-int4", "torch-int8")),
    ],
)
def test_untried_paths_are_switched_on_by_name(text: str, expected: tuple[str, ...]) -> None:
    assert cuda.untried_wanted({"LLMCTL_UNTRIED_KERNELS": text}) == expected
    assert cuda.untried_wanted({}) == ()


@pytest.mark.parametrize("text", ["yes", "torch-int8,", "bitsandbytes-int8"])
def test_a_path_that_there_is_not_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match=r"^LLMCTL_UNTRIED_KERNELS must be 1 or of torch-int8, torch-int4"):
        cuda.untried_wanted({"LLMCTL_UNTRIED_KERNELS": text})


def test_build_asks_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    weight = round_to(dense(), "int8")
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: HOPPER)
    assert cuda.build(weight, dtype=torch.bfloat16, memo=Memo()).title == "bitsandbytes LLM.int8"
    monkeypatch.setenv("LLMCTL_UNTRIED_KERNELS", "nope")
    with pytest.raises(UsageError):
        cuda.build(weight, dtype=torch.bfloat16, memo=Memo())


def test_q_k_and_v_quantise_their_activation_once(monkeypatch: pytest.MonkeyPatch) -> None:
    counted: list[Tensor] = []
    plain = cuda.quantise_rows
    monkeypatch.setattr(cuda, "quantise_rows", lambda rows: counted.append(rows) or plain(rows))
    memo, x = Memo(), activation(20)
    weight = round_to(dense(), "int8")
    for _ in range(3):
        cuda.TorchInt8Kernel(weight, torch.bfloat16, memo)(x)
    assert len(counted) == 1
