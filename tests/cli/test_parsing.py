"""Options whose value may be left out, and what a command takes without pydantic."""

import subprocess
import sys
from pathlib import Path
from typing import Annotated, Any

import pytest
import typer
from typer.exceptions import TyperException
from typer.main import get_command

from llmctl.cli.parsing import Command
from tests.conftest import ROOT

SEEN: dict[str, Any] = {}


def sample(
    names: Annotated[list[str] | None, typer.Argument()] = None,
    render: Annotated[str | None, typer.Option("-r", "--render", metavar="[FILE]")] = None,
    other: Annotated[str, typer.Option(metavar="TEXT")] = "usual",
    many: Annotated[list[str] | None, typer.Option("--many")] = None,
    number: Annotated[int, typer.Option(min=0)] = 0,
    folder: Annotated[Path, typer.Option()] = Path(),
    flag: Annotated[bool, typer.Option("--flag")] = False,
    count: Annotated[int, typer.Option("-c", count=True)] = 0,
) -> None:
    """Take everything."""
    SEEN.update(locals())


def parsed(*args: str) -> dict[str, Any]:
    """What the function gets for a command line, without what it gets by default."""
    app = typer.Typer(add_completion=False)
    app.command(cls=Command)(sample)
    SEEN.clear()
    get_command(app).main(list(args), "sample", standalone_mode=False)
    given = dict(SEEN)
    SEEN.clear()
    get_command(app).main([], "sample", standalone_mode=False)
    return {key: value for key, value in given.items() if value != SEEN[key]}


@pytest.mark.parametrize(
    ("args", "found"),
    [
        ((), {}),
        (("--render",), {"render": ""}),
        (("a", "--render"), {"names": ["a"], "render": ""}),
        (("--render", "a"), {"names": ["a"], "render": ""}),
        (("--render", "a.json", "b"), {"names": ["b"], "render": "a.json"}),
        (("--render", "here", "b"), {"names": ["b"], "render": "here"}),
        (("--render=a", "b"), {"names": ["b"], "render": "a"}),
        (("--render=", "a.json"), {"names": ["a.json"], "render": ""}),
        (("--render", "--flag"), {"render": "", "flag": True}),
        (("--render", "-"), {"names": ["-"], "render": ""}),
        (("--other", "--render", "a"), {"other": "--render", "names": ["a"]}),
        (("--", "--render"), {"names": ["--render"]}),
        (("-cc", "--many", "x", "--many", "y"), {"count": 2, "many": ["x", "y"]}),
        (("--number", "3", "--folder", "d"), {"number": 3, "folder": Path("d")}),
    ],
)
def test_a_value_may_be_left_out(
    args: tuple[str, ...], found: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "here").touch()
    assert parsed(*args) == found


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (("--number", "x"), "valid integer"),
        (("--number", "-1"), "greater than or equal to 0"),
        (("--other",), "requires an argument"),
    ],
)
def test_what_typer_refuses_is_still_refused(args: tuple[str, ...], said: str) -> None:
    with pytest.raises(TyperException) as caught:
        parsed(*args)
    assert said in caught.value.format_message()


def test_a_command_with_text_alone_does_without_pydantic() -> None:
    program = (
        "import sys; from llmctl.cli.app import run; run(['models', 'list', '--search', 'zzzzzz', '-q']);"
        "print('pydantic' in sys.modules)"
    )
    ended = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True)
    assert (ended.stdout, ended.stderr) == ("False\n", "")
