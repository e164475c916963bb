"""Kernels of other packages: found without being imported, used only where they may be faster."""

import sys
from pathlib import Path

import pytest

from llmctl.core.errors import UsageError
from llmctl.quant import foreign


@pytest.fixture
def packages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of installed packages, before all others."""
    monkeypatch.syspath_prepend(str(tmp_path))
    for package in foreign.PACKAGES.values():
        monkeypatch.delitem(sys.modules, package.module, raising=False)
    return tmp_path


def install(folder: Path, module: str | None, distribution: str, version: str) -> None:
    """A package that says its version, and fails when it is imported."""
    if module is not None:
        (folder / module).mkdir()
        (folder / module / "__init__.py").write_text("raise AssertionError('was imported')")
    info = folder / f"{distribution}-{version}.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {distribution}\nVersion: {version}\n")


def use(name: str, device: str) -> foreign.Use:
    return next(each for each in foreign.survey(device) if each.name == name)


def test_what_is_not_installed_is_not_used(packages: Path) -> None:
    for each in foreign.survey("cuda"):
        assert (each.version, each.is_used, each.why) == (None, False, "not installed")
    assert foreign.choose("gptq", "cuda") is None


@pytest.mark.parametrize(
    ("device", "file_format", "expected"),
    [
        ("cuda", "gptq", "gptqmodel"),
        ("cuda", "awq", "gptqmodel"),
        ("cuda", "fp8", None),
        ("cpu", "gptq", None),
        ("cpu", "awq", None),
        ("mps", "gptq", None),
    ],
)
def test_gptqmodel_runs_its_formats_on_cuda_only(
    packages: Path, device: str, file_format: str, expected: str | None
) -> None:
    install(packages, "gptqmodel", "gptqmodel", "7.6.0")
    install(packages, None, "optimum", "2.3.0")
    assert foreign.choose(file_format, device) == expected


def test_gptq_needs_optimum_too_and_awq_does_not(packages: Path) -> None:
    install(packages, "gptqmodel", "gptqmodel", "7.6.0")
    assert foreign.choose("gptq", "cuda") is None
    assert foreign.choose("awq", "cuda") == "gptqmodel"
    assert use("gptqmodel", "cuda").why == "awq files, by transformers; llmctl's tests have not run it"


@pytest.mark.parametrize(
    ("version", "is_used"),
    [("1.4.2", False), ("1.4.3", True), ("1.10.0.dev0+cu128", True), ("1.4", False), ("unknown", False)],
)
def test_a_version_that_transformers_refuses_is_not_used(packages: Path, version: str, is_used: bool) -> None:
    install(packages, "gptqmodel", "gptqmodel", version)
    found = use("gptqmodel", "cuda")
    assert (found.version, found.is_used) == (version, is_used)
    if not is_used:
        assert found.why == "transformers wants gptqmodel>=1.4.3"


def test_on_a_cpu_it_says_why_it_is_not_used(packages: Path) -> None:
    install(packages, "gptqmodel", "gptqmodel", "7.6.0")
    found = use("gptqmodel", "cpu")
    assert (found.version, found.is_used) == ("7.6.0", False)
    assert "not faster" in found.why


@pytest.mark.parametrize("name", [name for name in foreign.PACKAGES if name != "gptqmodel"])
def test_packages_that_nobody_drives_are_never_used(packages: Path, name: str) -> None:
    package = foreign.PACKAGES[name]
    install(packages, package.module, package.distribution, "0.2.9")
    found = use(name, "cuda")
    assert (found.version, found.is_used, found.why) == ("0.2.9", False, package.why_not)


def test_a_module_without_a_distribution_has_an_empty_version(packages: Path) -> None:
    (packages / "awq.py").write_text("")
    assert use("autoawq", "cpu").version == ""


def test_a_module_that_says_not_where_it_is_from_counts_as_absent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "gptqmodel", type(sys)("gptqmodel"))
    assert use("gptqmodel", "cuda").version is None


@pytest.mark.parametrize("name", foreign.PACKAGES)
def test_a_package_that_is_not_there_is_refused_with_the_way_around(packages: Path, name: str) -> None:
    error = foreign.refuse(name, "cpu")
    assert isinstance(error, UsageError)
    assert error.message == f"the kernels of {name} cannot be used: it is not installed"
    assert error.hint
    assert "by itself" in error.hint


def test_a_package_that_is_there_and_not_used_is_refused_with_the_reason(packages: Path) -> None:
    install(packages, "awq", "autoawq", "0.2.9")
    assert foreign.refuse("autoawq", "cuda").message.startswith(
        "the kernels of autoawq cannot be used: it is not used on cuda: transformers 5 does not drive it"
    )
