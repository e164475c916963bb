"""`llmctl completions`: what it prints and refuses, the files in completions/, what a wheel brings."""

import re
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

from llmctl.cli.completions.command import SCRIPTS, script
from tests.conftest import ROOT, Llmctl

FILES = {"bash": "llmctl.bash", "zsh": "_llmctl", "fish": "llmctl.fish", "powershell": "llmctl.ps1"}
INSTALLED = {
    "bash": "share/bash-completion/completions/llmctl",
    "zsh": "share/zsh/site-functions/_llmctl",
    "fish": "share/fish/vendor_completions.d/llmctl.fish",
    "powershell": "share/llmctl/completions/llmctl.ps1",
}


@pytest.mark.parametrize("shell", SCRIPTS)
def test_it_prints_the_script_and_nothing_else(shell: str, llmctl: Llmctl) -> None:
    ended = llmctl("completions", shell)
    assert (ended.code, ended.err) == (0, "")
    assert ended.out == script(shell)
    assert "llmctl" in ended.out.splitlines()[1]


@pytest.mark.parametrize("shell", SCRIPTS)
def test_the_files_in_the_repository_are_what_it_prints(shell: str) -> None:
    renewed = f"renew it: llmctl completions {shell} > completions/{FILES[shell]}"
    assert (ROOT / "completions" / FILES[shell]).read_text(encoding="utf-8") == script(shell), renewed


def test_no_other_file_lies_beside_them() -> None:
    assert {path.name for path in (ROOT / "completions").iterdir()} == set(FILES.values())


@pytest.mark.parametrize("shell", SCRIPTS)
def test_no_marker_of_the_template_is_left(shell: str) -> None:
    assert re.findall(r"@[A-Z]+@", script(shell)) == []


@pytest.mark.parametrize("args", [(), ("tcsh",), ("BASH",)])
def test_a_shell_that_is_missing_or_unknown_is_refused_with_the_four(
    args: tuple[str, ...], llmctl: Llmctl
) -> None:
    ended = llmctl("completions", *args)
    assert (ended.code, ended.out) == (2, "")
    assert all(shell in ended.err for shell in SCRIPTS)
    assert all(repr(arg) in ended.err for arg in args)


def test_the_help_says_how_to_install(llmctl: Llmctl) -> None:
    lines = [" ".join(line.split()) for line in llmctl("completions", "--help").out.splitlines()]
    for shell in SCRIPTS:
        assert any(line.startswith(f"{shell}: llmctl completions {shell} > ") for line in lines)


def test_writing_a_script_imports_nothing_heavy() -> None:
    program = (
        "import sys; from llmctl.cli.completions.command import script; script('bash');"
        "print({'torch', 'transformers', 'numpy', 'huggingface_hub'} & set(sys.modules))"
    )
    ended = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True)
    assert (ended.stdout, ended.stderr) == ("set()\n", "")


def test_the_build_is_told_where_the_shells_look() -> None:
    build = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["hatch"]["build"]
    shared = {f"completions/{FILES[shell]}": place for shell, place in INSTALLED.items()}
    assert build["targets"]["wheel"]["shared-data"] == shared
    assert "/completions" in build["targets"]["sdist"]["include"]


def test_a_wheel_brings_the_scripts_and_what_they_are_made_from(tmp_path: Path) -> None:
    pytest.importorskip("hatchling", reason="hatchling is not installed")
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    for shell, place in INSTALLED.items():
        assert [name for name in names if name.endswith(f".data/data/{place}")] != []
        assert f"llmctl/cli/completions/{shell}.template" in names
