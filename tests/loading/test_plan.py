"""The load plan: every rule, without hardware."""

import subprocess
import sys
from collections.abc import Mapping, Sequence

import pytest

from llmctl.core.errors import DoesNotFitError, UsageError
from llmctl.loading import devices, hardware
from llmctl.loading.hardware import GIB, Device
from llmctl.loading.plan import BYTES, OVERHEAD_BYTES, LoadPlan, plan

BILLION = 10**9
SIXTEEN_BIT = {"BF16": 100}


def device(kind: str = "cpu", *, free_bytes: int = 64 * GIB, has_bf16: bool = True) -> Device:
    return Device(
        kind=kind, name=f"a {kind}", total_bytes=free_bytes, free_bytes=free_bytes, has_bf16=has_bf16
    )


def planned(
    *places: Device,
    asked: str = "auto",
    dtype: str = "auto",
    stored: Mapping[str, int] = SIXTEEN_BIT,
    num_parameters: int = BILLION,
) -> LoadPlan:
    return plan(
        device=asked,
        dtype=dtype,
        devices=places or (device(),),
        bytes_by_dtype=stored,
        num_parameters=num_parameters,
        name="m",
    )


def test_the_best_device_is_taken() -> None:
    made = planned(device("cuda"), device("cpu"))
    assert made.device.kind == "cuda"
    assert made.reasons[0] == "device cuda (a cuda): the best that this torch can use"


def test_a_device_that_is_asked_for_is_taken() -> None:
    made = planned(device("cuda"), device("cpu"), asked="cpu")
    assert made.device.kind == "cpu"
    assert made.reasons[0] == "device cpu (a cpu): asked for"


def test_an_absent_device_is_refused_with_those_that_are_there() -> None:
    with pytest.raises(UsageError, match="'mps' cannot be used here, only cuda, cpu") as caught:
        planned(device("cuda"), device("cpu"), asked="mps")
    assert "--device" in str(caught.value.hint)


@pytest.mark.parametrize(
    ("stored", "has_bf16", "want"),
    [
        ({"BF16": 100}, True, "bfloat16"),
        ({"F16": 100}, True, "bfloat16"),
        ({"BF16": 100}, False, "float32"),
        ({"F16": 100}, False, "float32"),
        ({"F32": 100}, True, "float32"),
        ({"F32": 100}, False, "float32"),
        ({"F64": 100}, True, "float32"),
        # Most of the bytes decide; whole numbers and unknown types have no say.
        ({"F32": 10, "BF16": 100}, True, "bfloat16"),
        ({"F32": 100, "BF16": 10}, True, "float32"),
        ({"I64": 1000, "BF16": 10}, True, "bfloat16"),
        ({"F8_E4M3": 1000}, True, "float32"),
        ({}, True, "float32"),
    ],
)
def test_the_dtype_follows_the_checkpoint_and_the_processor(
    stored: dict[str, int], has_bf16: bool, want: str
) -> None:
    assert planned(device(has_bf16=has_bf16), stored=stored).dtype == want


@pytest.mark.parametrize("dtype", BYTES)
@pytest.mark.parametrize("has_bf16", [True, False])
def test_a_dtype_that_is_asked_for_is_taken(dtype: str, has_bf16: bool) -> None:
    made = planned(device(has_bf16=has_bf16), dtype=dtype, stored={"F32": 1})
    assert made.dtype == dtype
    assert made.reasons[1] == f"dtype {dtype}: asked for"


def test_a_float32_checkpoint_names_the_faster_choice_where_there_is_one() -> None:
    fast = planned(device(has_bf16=True), stored={"F32": 1})
    slow = planned(device(has_bf16=False), stored={"F32": 1})
    assert "--dtype bfloat16 would be faster" in fast.reasons[1]
    assert "--dtype" not in slow.reasons[1]


@pytest.mark.parametrize(("kind", "smaller"), [("cpu", "bfloat16"), ("cuda", "float16")])
def test_a_device_without_bfloat16_names_the_smaller_choice(kind: str, smaller: str) -> None:
    made = planned(device(kind, has_bf16=False))
    assert f"does not compute bfloat16 natively; --dtype {smaller} halves the memory" in made.reasons[1]


@pytest.mark.parametrize(("dtype", "width"), [("float32", 4), ("bfloat16", 2), ("float16", 2)])
def test_memory_is_counted_by_parameters_and_width(dtype: str, width: int) -> None:
    made = planned(dtype=dtype)
    assert made.num_bytes == width * BILLION + OVERHEAD_BYTES
    assert made.reasons[2] == f"m takes about {made.num_bytes / GIB:.1f} GiB of 64.0 GiB free"


def test_a_model_that_just_fits_is_planned_and_one_byte_less_is_not() -> None:
    need = 2 * BILLION + OVERHEAD_BYTES
    assert planned(device(free_bytes=need)).num_bytes == need
    with pytest.raises(DoesNotFitError):
        planned(device(free_bytes=need - 1))


def test_a_model_too_large_in_float32_is_told_when_bfloat16_fits() -> None:
    with pytest.raises(DoesNotFitError) as caught:
        planned(device(free_bytes=3 * GIB), dtype="float32")
    assert caught.value.message == (
        "m (1.0 billion parameters) takes about 4.0 GiB in float32, cpu has 3.0 GiB free"
    )
    assert caught.value.hint == "--dtype bfloat16 takes 2.1 GiB and fits"


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_model_too_large_for_the_machine_is_told_what_would_fit(dtype: str) -> None:
    with pytest.raises(DoesNotFitError) as caught:
        planned(device(free_bytes=8 * GIB), dtype=dtype, num_parameters=70 * BILLION)
    assert caught.value.hint == "what fits here in bfloat16 is a model of up to 4.2 billion parameters"


def test_a_full_machine_fits_nothing_and_says_so() -> None:
    with pytest.raises(DoesNotFitError) as caught:
        planned(device(free_bytes=0))
    assert "up to 0.0 billion" in str(caught.value.hint)


def test_every_choice_has_a_reason() -> None:
    reasons: Sequence[str] = planned().reasons
    assert [reason.split()[0] for reason in reasons] == ["device", "dtype", "m"]


def test_the_devices_of_this_machine_end_with_its_cpu() -> None:
    found = devices.available()
    assert found[-1].kind == "cpu"
    assert len({each.kind for each in found}) == len(found)
    assert all(0 < each.free_bytes <= each.total_bytes and each.name for each in found)


def test_bfloat16_is_native_only_where_the_processor_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    for flags, has_bf16 in (({"avx2"}, False), ({"amx_bf16"}, True), ({"avx512_bf16"}, True)):
        monkeypatch.setattr(hardware, "cpu_flags", lambda flags=flags: frozenset(flags))
        assert hardware.cpu().has_bf16 is has_bf16


@pytest.mark.parametrize(
    ("message", "said"),
    [
        ("CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 is full", "CUDA out of memory"),
        (
            "MPS backend out of memory (MPS allocated: 1 GB)",
            "MPS backend out of memory (MPS allocated: 1 GB)",
        ),
        ("DefaultCPUAllocator: not enough memory: you tried to allocate 9 bytes.", None),
        ("shapes do not match", None),
    ],
)
def test_lack_of_memory_is_told_from_other_failures(message: str, said: str | None) -> None:
    found = devices.out_of_memory(RuntimeError(message))
    assert found == (message if "not enough" in message else said)


def test_planning_needs_no_torch() -> None:
    code = "import sys, llmctl.loading.plan; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], timeout=60).returncode == 0
