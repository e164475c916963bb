"""A command line that has every kind of flag and argument; the real one may change without the tests."""

from typing import Annotated, Literal

import typer

from llmctl.cli.commands import Entry

HERE = "tests.cli.completions.sample"


def chat(
    model: Annotated[str | None, typer.Argument(metavar="MODEL")] = None,
    prompt: Annotated[str, typer.Option("-p", "--prompt", metavar="TEXT", help="Answer this. Then go.")] = "",
    file: Annotated[
        list[str] | None, typer.Option("-f", "--file", metavar="FILE", help="Text: it's [1] \\ 'x' $(id).")
    ] = None,
    device: Annotated[str, typer.Option(metavar="auto|cuda|cpu")] = "auto",
    length: Annotated[str, typer.Option(metavar="auto|N")] = "auto",
    kind: Annotated[Literal["big", "small"], typer.Option()] = "big",
    draft: Annotated[str, typer.Option(metavar="MODEL")] = "",
    session: Annotated[str, typer.Option(metavar="SESSION")] = "",
    into: Annotated[str, typer.Option("--into", metavar="FOLDER")] = "",
    raw: Annotated[bool, typer.Option("-x", "--raw")] = False,
    plain: Annotated[bool, typer.Option("--plain/--no-plain")] = False,
    secret: Annotated[str, typer.Option(hidden=True)] = "",
) -> None:
    """Chat with a model."""


def show(target: Annotated[str, typer.Argument(metavar="all|changed")], name: str = "") -> None:
    """Show the settings, the user's and others'."""


def copy(
    source: Annotated[str, typer.Argument(metavar="SESSION")],
    into: Annotated[list[str], typer.Argument(metavar="FILE")],
) -> None:
    """Copy a session into files."""


def plain() -> None:
    """Take nothing."""


ENTRIES = {
    "chat": Entry("Chat with a model.", f"{HERE}:chat"),
    "settings": Entry(
        "Look at the settings.",
        commands={
            "show": Entry("Show the settings, the user's and others'.", f"{HERE}:show"),
            "deep": Entry("Go deeper.", commands={"copy": Entry("Copy a session.", f"{HERE}:copy")}),
        },
    ),
    "check-up": Entry("Take nothing.", f"{HERE}:plain"),
    "chart": Entry("Draw: a chart.", f"{HERE}:plain"),
}
