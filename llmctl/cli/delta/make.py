"""`llmctl delta make`: what turns one model into another, as a folder."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from llmctl.cli.artifact_flags import DryRun, MaxShardSize, Out, Overwrite, shard_bytes
from llmctl.cli.delta.flags import Base, BaseRevision, TargetRevision
from llmctl.cli.logs.display import harmless, write_json
from llmctl.cli.options import Json, console_of, settings_of
from llmctl.core.errors import UsageError
from llmctl.core.places import expanded
from llmctl.core.sizes import shown

if TYPE_CHECKING:
    from llmctl.artifacts.delta.results import Result, Wish
    from llmctl.artifacts.push import Pushed
    from llmctl.core.progress import Progress

FORMATS = ("exact", "add")


def make(
    ctx: typer.Context,
    base: Base,
    target: Annotated[str, typer.Option("--target", metavar="MODEL", help="The model that it leads to.")],
    out: Out,
    form: Annotated[
        str,
        typer.Option(
            "--format",
            metavar="exact|add",
            help="exact: the target comes back bit for bit; add: float16 differences, as FastChat has them.",
        ),
    ] = "exact",
    exclude: Annotated[
        list[str] | None,
        typer.Option(
            metavar="PATTERN",
            help="Leave tensors as the base has them whose name this regular expression finds; repeatable.",
            show_default=False,
        ),
    ] = None,
    hub_repo_id: Annotated[
        str | None,
        typer.Option(metavar="REPO", help="Upload it to the hub too: owner/name.", show_default=False),
    ] = None,
    private: Annotated[
        bool,
        typer.Option("--private", help="Make the repository for your eyes only.", show_default=False),
    ] = False,
    max_shard_size: MaxShardSize = "2GB",
    overwrite: Overwrite = False,
    dry_run: DryRun = False,
    base_revision: BaseRevision = None,
    revision: TargetRevision = None,
    is_json: Json = False,
) -> None:
    """Write what turns one model into another.

    Unchanged tensors cost nothing. What is no weight, such as the tokenizer, is the target's and comes along.
    An interrupted run goes on where it stopped.
    """
    from llmctl.artifacts.delta.results import Wish
    from llmctl.artifacts.push import check

    console = console_of(ctx)
    settings_of(ctx)
    if form not in FORMATS:
        raise UsageError(f"--format must be exact or add, not {form!r}")
    if private and hub_repo_id is None:
        raise UsageError(
            "--private is for a repository of the hub", hint="add --hub-repo-id, or leave it out"
        )
    wish = Wish(
        out=expanded(out),
        exclude=tuple(exclude or ()),
        max_shard_bytes=shard_bytes(max_shard_size),
        overwrite=overwrite,
    )
    models = ((base, base_revision), (target, revision))
    if hub_repo_id is not None:
        # Now: the work takes long.
        check(hub_repo_id, is_dry=dry_run)
    with console.progress() as progress:
        result = _make(models, form, wish, progress, is_dry=dry_run)
        pushed = None
        if hub_repo_id is not None and not dry_run:
            pushed = _push(wish.out, hub_repo_id, progress, is_private=private)
    if is_json:
        url = pushed.url if pushed is not None else None
        write_json(console, {**result.as_dict(), "url": url, "dry_run": dry_run})
        return
    for notice in result.notices:
        console.note(notice)
    for line in _lines(result, pushed):
        console.line(harmless(line))


def _make(
    models: "tuple[tuple[str, str | None], ...]",
    form: str,
    wish: "Wish",
    progress: "Progress",
    *,
    is_dry: bool,
) -> "Result":
    from llmctl.artifacts.delta.make import make as make_exact
    from llmctl.artifacts.delta.make_add import make_add
    from llmctl.artifacts.stream.source import Source

    base, target = (
        Source.open(name, revision=revision, progress=progress, takes_pickles=True)
        for name, revision in models
    )
    run = make_exact if form == "exact" else make_add
    return run(base, target, wish, progress, is_dry=is_dry)


def _push(folder: Path, repo_id: str, progress: "Progress", *, is_private: bool) -> "Pushed":
    from llmctl.artifacts.push import Wanted, push

    return push(Wanted(folder=folder, repo_id=repo_id, is_private=is_private), progress)


def _lines(result: "Result", pushed: "Pushed | None") -> Iterator[str]:
    fates = ", ".join(f"{count} {fate}" for fate, count in result.fates.items())
    yield f"{result.base} to {result.target}: {fates} of {sum(result.fates.values())} tensors"
    if result.delta_bytes is not None:
        share = f", {result.delta_bytes / result.target_bytes:.1%} of it" if result.target_bytes else ""
        sizes = f"{shown(result.target_bytes)} of weights, {shown(result.delta_bytes)} as a delta{share}"
        yield sizes
    done = "would be written to" if result.seconds is None else "written to"
    yield f"{done} {result.out}, with {', '.join(result.carried) or 'no other files'}"
    if pushed is not None:
        yield f"uploaded to {pushed.url}"
