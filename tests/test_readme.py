"""README's examples are run and must print what they show; its commands are those that CI runs."""

import re
import shlex
from pathlib import Path

import pytest

from tests.conftest import ROOT, Llmctl

README = (ROOT / "README.md").read_text(encoding="utf-8")
_BLOCK = re.compile(r"^```console\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def _examples() -> list[list[tuple[str, str]]]:
    """(command line, what it prints) of every `$ ` line, in the console blocks, which stand by themselves."""
    return [
        [(command, printed) for command, _, printed in (part.partition("\n") for part in parts)]
        for block in _BLOCK.findall(README)
        if (parts := re.split(r"^\$ ", block, flags=re.MULTILINE)[1:])
    ]


@pytest.mark.parametrize("block", _examples(), ids=lambda block: shlex.split(block[0][0])[1])
def test_examples_print_what_readme_shows(
    llmctl: Llmctl, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, block: list[tuple[str, str]]
) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    for command, printed in block:
        assert _without_times(_run(llmctl, command)) == _without_times(printed)


def _run(llmctl: Llmctl, command: str) -> str:
    """An example is `llmctl ...`, with `printf '...' | ` before it or `; echo $?` behind it at most."""
    stdin = b""
    if command.startswith("printf "):
        head, command = command.split(" | ", maxsplit=1)
        stdin = shlex.split(head)[1].encode().decode("unicode_escape").encode()
    tells_code = command.endswith("; echo $?")
    name, *args = shlex.split(command.removesuffix("; echo $?"))
    assert name == "llmctl"
    ended = llmctl(*args, stdin=stdin)
    return ended.out + ended.err + (f"{ended.code}\n" if tells_code else "")


def _without_times(text: str) -> str:
    return re.sub(r"\d+\.\d s$", "N s", text, flags=re.MULTILINE)


def test_readme_has_examples() -> None:
    assert len(_examples()) >= 4


def test_ci_runs_readmes_two_commands() -> None:
    commands = [line for line in README.splitlines() if line.startswith("python3 -m venv")]
    assert len(commands) == 2
    assert "llmctl chat -p" in commands[0]
    assert commands[1].endswith("/pytest")
    assert (ROOT / ".ci" / "run").stat().st_mode & 0o111


def test_every_folder_of_the_package_is_explained() -> None:
    folders = {
        path.name for path in (ROOT / "llmctl").iterdir() if path.is_dir() and path.name != "__pycache__"
    }
    assert {name for name in folders if f"`llmctl/{name}/`" not in README} == set()


def test_what_the_house_names_is_there() -> None:
    rows = re.findall(r"^\| `(llmctl/[a-z]+)/` \| (.*) \|$", README, re.MULTILINE)
    assert len(rows) >= 10
    names = [(folder, name) for folder, text in rows for name in re.findall(r"`([a-z_]+)/?`", text)]
    assert [pair for pair in names if not _is_in_house(*pair)] == []


def _is_in_house(folder: str, name: str) -> bool:
    """Whether a file or folder of that name lies in the folder or one below it."""
    return any((ROOT / folder).rglob(f"{name}.*")) or any(
        path.is_dir() for path in (ROOT / folder).rglob(name)
    )


def test_links_lead_to_files() -> None:
    targets = re.findall(r"\]\((?!https?:)([^)#]+)\)", README)
    assert [target for target in targets if not Path(ROOT / target).exists()] == []
