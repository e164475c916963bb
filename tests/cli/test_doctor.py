"""`llmctl doctor`: tells what is there, and what is there but broken, without breaking itself."""

import importlib.metadata
import json
import os
import platform
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from llmctl import __version__
from llmctl.cli import doctor
from tests.conftest import ROOT, Llmctl


def test_json_holds_all_findings(llmctl: Llmctl) -> None:
    ended = llmctl("doctor", "--json")
    assert (ended.code, ended.err) == (0, "")
    found = json.loads(ended.out)
    assert found.keys() == {
        *("llmctl", "python", "platform", "executable", "libraries", "optional", "devices", "cpu", "places"),
        *("kernels", "settings", "untested"),
    }
    assert found["llmctl"] == __version__
    assert found["python"] == platform.python_version()
    assert found["executable"] == sys.executable
    assert found["libraries"] == {name: importlib.metadata.version(name) for name in doctor.LIBRARIES}
    assert found["optional"].keys() == doctor.OPTIONAL.keys()
    assert found["cpu"].keys() == {"cores", "features", "compiler"}
    assert found["cpu"]["cores"] == os.cpu_count()


def test_the_cpu_is_the_last_device_and_has_memory(llmctl: Llmctl) -> None:
    device = json.loads(llmctl("doctor", "--json").out)["devices"][-1]
    assert device.keys() == {"kind", "name", "total_bytes", "free_bytes", "native_bfloat16"}
    assert device["kind"] == "cpu"
    assert 0 < device["free_bytes"] <= device["total_bytes"]
    assert isinstance(device["native_bfloat16"], bool)


def test_text_tells_the_same(llmctl: Llmctl) -> None:
    ended = llmctl("doctor")
    assert (ended.code, ended.err) == (0, "")
    lines = ended.out.splitlines()
    assert lines[0].startswith(f"llmctl {__version__}  python {platform.python_version()}  ")
    sections = [line for line in lines[1:] if line and not line.startswith(" ")]
    ends = ["places", "untested here"]
    assert sections == ["libraries", "optional", "devices", "cpu", "kernels", *ends]
    words = [line.split() for line in lines]
    assert ["torch", importlib.metadata.version("torch")] in words
    assert any(line.lstrip().startswith("cpu ") and "GiB free" in line for line in lines)
    assert f"{os.environ['LLMCTL_DATA_HOME']} (not made yet)" in ended.out


BROKEN = {
    "raise ImportError('cannot import name PytorchGELUTanh')": "cannot import name PytorchGELUTanh",
    "import torch_that_is_missing": "No module named 'torch_that_is_missing'",
    "import math; math.nope": "module 'math' has no attribute 'nope'",
    "raise OSError('libcudart.so.12: cannot open\\nshared object file')": "libcudart.so.12: cannot open",
    "raise RuntimeError": "RuntimeError",
    "{}['kernel']": "'kernel'",
    "undefined_name": "name 'undefined_name' is not defined",
    "1 + ''": "unsupported operand type(s) for +: 'int' and 'str'",
    "raise ValueError('CUDA version')": "CUDA version",
    "def": "invalid syntax (__init__.py, line 1)",
}


@pytest.fixture
def packages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder from which this process imports; what was imported from it is forgotten afterwards."""
    monkeypatch.syspath_prepend(str(tmp_path))
    for name in doctor.OPTIONAL:
        monkeypatch.delitem(sys.modules, name, raising=False)
    return tmp_path


def write_package(folder: Path, name: str, source: str) -> None:
    (folder / name).mkdir()
    (folder / name / "__init__.py").write_text(source)


@pytest.mark.parametrize(("source", "reason"), BROKEN.items())
def test_an_optional_package_that_is_broken_is_told_with_its_reason(
    llmctl: Llmctl, packages: Path, source: str, reason: str
) -> None:
    write_package(packages, "awq", source)
    ended = llmctl("doctor", "--json")
    assert (ended.code, ended.err) == (0, "")
    assert json.loads(ended.out)["optional"]["awq"] == f"does not import: {reason}"
    assert f"awq  does not import: {reason} (kernels that llmctl does not use)" in llmctl("doctor").out


def test_an_optional_package_is_usable_or_not_installed(
    llmctl: Llmctl, packages: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_package(packages, "awq", "")
    monkeypatch.setitem(sys.modules, "gptqmodel", None)  # as an import system says: there is none
    found = json.loads(llmctl("doctor", "--json").out)["optional"]
    del sys.modules["awq"]
    assert found["awq"] == "usable"
    assert found["gptqmodel"] == "not installed"


def test_what_a_package_prints_is_no_finding(llmctl: Llmctl, packages: Path) -> None:
    write_package(packages, "gptqmodel", "print('Welcome!')")
    ended = llmctl("doctor", "--json")
    del sys.modules["gptqmodel"]
    assert json.loads(ended.out)["optional"]["gptqmodel"] == "usable"
    assert ended.err == "Welcome!\n"


@pytest.mark.parametrize("mode", [0o755, 0o740, 0o701])
def test_a_data_folder_that_others_can_read_is_told_with_its_cure(llmctl: Llmctl, mode: int) -> None:
    path = Path(os.environ["LLMCTL_DATA_HOME"])
    path.mkdir()
    path.chmod(mode)
    state = f"others can read it (mode {mode:04o}): chmod 700 {path}"
    assert json.loads(llmctl("doctor", "--json").out)["places"]["data"] == {"path": str(path), "state": state}
    assert f"{path} ({state})" in llmctl("doctor").out
    path.chmod(0o700)
    assert json.loads(llmctl("doctor", "--json").out)["places"]["data"]["state"] == "ready"


def test_other_folders_may_be_read_by_others(llmctl: Llmctl) -> None:
    path = Path(os.environ["LLMCTL_CACHE_HOME"])
    path.mkdir()
    path.chmod(0o755)
    assert json.loads(llmctl("doctor", "--json").out)["places"]["cache"]["state"] == "ready"


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({}, "{root}/home/.cache/huggingface/hub"),
        ({"XDG_CACHE_HOME": "{root}/xdg"}, "{root}/xdg/huggingface/hub"),
        ({"XDG_CACHE_HOME": "{root}/xdg", "HF_HOME": "{root}/hf"}, "{root}/hf/hub"),
        ({"HF_HOME": "{root}/hf", "HF_HUB_CACHE": "{root}/models"}, "{root}/models"),
    ],
    ids=["nothing set", "XDG", "HF_HOME", "HF_HUB_CACHE"],
)
def test_models_are_where_huggingface_hub_keeps_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, environ: dict[str, str], expected: str
) -> None:
    monkeypatch.delenv("HF_HOME")
    for name, text in ({"HOME": "{root}/home"} | environ).items():
        monkeypatch.setenv(name, text.format(root=tmp_path))
    # In a process of its own, because huggingface_hub looks once; and without the devices, which need torch.
    script = "from llmctl.cli import doctor; print(doctor._places()['models']['path'])"
    ended = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True)
    assert ended.stdout.strip() == expected.format(root=tmp_path), ended.stderr


def test_a_library_of_another_version_than_the_tested_one_is_told(
    llmctl: Llmctl, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(doctor, "TESTED_TORCH", "1.0")
    notes = json.loads(llmctl("doctor", "--json").out)["untested"]
    assert f"torch {importlib.metadata.version('torch')}: llmctl is tested with 1.0" in notes


def test_a_bad_setting_is_found_by_doctor_too(llmctl: Llmctl, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LLMCTL_DEVICE", "gpu")
    ended = llmctl("doctor")
    assert ended.code == 0
    assert "settings  LLMCTL_DEVICE: device must be one of " in ended.out


def test_the_kernels_that_are_told_are_those_that_a_model_gets(llmctl: Llmctl) -> None:
    import torch

    from llmctl.quant import kernels
    from llmctl.quant.methods import METHODS
    from llmctl.quant.rounding import round_to

    found = json.loads(llmctl("doctor", "--json").out)
    told, cpu = found["kernels"]["cpu"], found["devices"][-1]
    dtype = torch.bfloat16 if cpu["native_bfloat16"] else torch.float32
    assert told.keys() == METHODS.keys()
    for method, title in told.items():
        weight = round_to(torch.randn(64, 128), method)
        assert title.startswith(kernels.build(weight, dtype=dtype, memo=kernels.Memo()).title)


def test_bitsandbytes_says_whether_its_library_loads(
    llmctl: Llmctl, packages: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = json.loads(llmctl("doctor", "--json").out)["kernels"]["bitsandbytes"]
    assert (found["version"], found["state"]) == (importlib.metadata.version("bitsandbytes"), "loads")
    monkeypatch.delitem(sys.modules, "bitsandbytes", raising=False)
    write_package(packages, "bitsandbytes", "raise AssertionError('was imported')")
    found = json.loads(llmctl("doctor", "--json").out)["kernels"]
    assert found["bitsandbytes"]["state"] == "does not load"
    assert found["cpu"]["nf4"] == found["cpu"]["fp4"] == "dequantised tile by tile"
    assert "its native library does not load" in llmctl("doctor").out


def test_a_cuda_path_that_nobody_has_run_is_told_as_such(
    llmctl: Llmctl, monkeypatch: pytest.MonkeyPatch
) -> None:
    def states() -> dict[str, str]:
        found = json.loads(llmctl("doctor", "--json").out)["kernels"]["cuda"]
        return {name: path["state"] for name, path in found.items()}

    off = "written, never run: off without LLMCTL_UNTRIED_KERNELS={}"
    assert states()["torch-int4"] == off.format("torch-int4")
    assert states()["bitsandbytes-int8"] == "llmctl's tests have not run it on a GPU"
    monkeypatch.setenv("LLMCTL_UNTRIED_KERNELS", "torch-int4")
    assert states()["torch-int4"] == "written, never run: on"
    assert states()["torch-fp8"] == off.format("torch-fp8")
    monkeypatch.setenv("LLMCTL_UNTRIED_KERNELS", "all")
    assert "LLMCTL_UNTRIED_KERNELS must be 1 or of torch-int8" in llmctl("doctor").out


def test_what_the_engine_attends_with_and_whether_our_own_code_is_compiled_are_told(
    llmctl_process: Llmctl,
) -> None:
    def kernels(**env: str) -> dict[str, str]:
        found: dict[str, str] = json.loads(llmctl_process("doctor", "--json", env=env).out)["kernels"]
        return found

    found = kernels(LLMCTL_NATIVE="off")
    assert found["attention"] == "torch, one sequence at a time"
    assert found["compiled"] == "off (LLMCTL_NATIVE)"
    found = kernels(CC="no-such-compiler", PATH="")
    assert found["compiled"] == "none without a C compiler: torch takes its place"


def test_what_is_not_here_takes_no_more_than_a_line(llmctl: Llmctl, monkeypatch: pytest.MonkeyPatch) -> None:
    lines = [line.split(maxsplit=1) for line in llmctl("doctor").out.splitlines() if line.startswith("  ")]
    told = {line[0]: line[1] for line in lines}
    assert "auto-gptq" not in told
    assert told["others"].startswith("not installed, not needed for GPTQ and AWQ files: ")
    assert "torch-int4" not in told["cuda"]
    plain = doctor._devices()
    card = replace(plain[-1], kind="cuda", name="a card")
    monkeypatch.setattr(doctor, "_devices", lambda: [card, *plain])
    out = llmctl("doctor").out
    assert "cuda torch-int4 " in out
    assert "cuda: llmctl's tests have run on CPUs only" in out.partition("untested here")[2]


def test_kernels_of_other_packages_are_told_with_their_use(llmctl: Llmctl, packages: Path) -> None:
    write_package(packages, "awq", "")
    found = json.loads(llmctl("doctor", "--json").out)["kernels"]["packages"]
    sys.modules.pop("awq", None)
    assert found["autoawq"]["version"] is not None
    assert found["autoawq"]["is_used"] is False
    assert "transformers 5 does not drive it" in found["autoawq"]["why"]
    assert found.keys() == {"gptqmodel", "autoawq", "auto-gptq", "exllamav2", "exllama"}


def test_without_torch_the_rest_is_still_told(llmctl: Llmctl, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = doctor._usable
    monkeypatch.setattr(doctor, "_usable", lambda name: "broken" if name == "torch" else plain(name))
    ended = llmctl("doctor", "--json")
    found = json.loads(ended.out)["kernels"]
    assert (ended.code, found["cpu"], found["cuda"]) == (0, {}, {})
    assert found["packages"]
