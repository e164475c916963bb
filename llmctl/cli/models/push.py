"""`llmctl models push`: uploads a folder to the hub, without torch."""

from typing import Annotated

import typer

from llmctl.cli.artifact_flags import DryRun
from llmctl.cli.logs.display import harmless
from llmctl.cli.options import Json, console_of, settings_of
from llmctl.core.places import expanded
from llmctl.core.sizes import shown


def push(
    ctx: typer.Context,
    folder: Annotated[str, typer.Argument(metavar="FOLDER", help="The folder to upload.")],
    repo: Annotated[str, typer.Argument(metavar="REPO", help="owner/name; made if it is not there.")],
    private: Annotated[
        bool,
        typer.Option("--private", help="Make the repository for your eyes only.", show_default=False),
    ] = False,
    revision: Annotated[
        str | None,
        typer.Option(metavar="BRANCH", help="Upload to this branch; main if not set.", show_default=False),
    ] = None,
    message: Annotated[
        str, typer.Option(metavar="TEXT", help="What the commit says.", show_default=False)
    ] = "Upload with llmctl",
    dry_run: DryRun = False,
    is_json: Json = False,
) -> None:
    """Upload a folder to the hub: a model, a delta or an adapter.

    Hidden files stay here. Needs a token that may write: HF_TOKEN, or `hf auth login`.
    """
    from llmctl.artifacts.push import Wanted
    from llmctl.artifacts.push import push as run

    console = console_of(ctx)
    settings_of(ctx)
    wanted = Wanted(
        folder=expanded(folder), repo_id=repo, is_private=private, revision=revision, message=message
    )
    with console.progress() as progress:
        pushed = run(wanted, progress, is_dry=dry_run)
    if is_json:
        console.json({**pushed.as_dict(), "dry_run": dry_run})
        return
    done = "would be uploaded" if dry_run else "uploaded"
    console.line(harmless(f"{len(pushed.files)} files, {shown(pushed.num_bytes)}, {done} to {pushed.url}"))
