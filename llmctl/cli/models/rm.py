"""`llmctl models rm`: takes a downloaded model off the disk."""

import os
import sys
from typing import Annotated

import typer

from llmctl.cli.console import Console, is_terminal
from llmctl.cli.logs.display import harmless
from llmctl.cli.options import Json, console_of, settings_of
from llmctl.core.errors import LlmctlError, NotFoundError, UsageError
from llmctl.core.places import Places
from llmctl.core.sizes import shown
from llmctl.demo import MODELS as EMBEDDED
from llmctl.loading.hub.local_models import find_repository, hub_folder, is_path, modelscope_folder, remember
from llmctl.loading.hub.removal import Removal, plan_removal, remove


def rm(
    ctx: typer.Context,
    model: Annotated[
        str,
        typer.Argument(
            metavar="MODEL", help="A downloaded hub id, or owner/name:Q4_K_M, one GGUF file of it."
        ),
    ],
    revision: Annotated[
        str | None,
        typer.Option(metavar="REVISION", help="Remove only this branch, tag or commit.", show_default=False),
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.", show_default=False)] = False,
    is_json: Json = False,
) -> None:
    """Remove a downloaded model from the cache.

    What another revision of it still uses stays. An unfinished download is removed too.
    """
    console = console_of(ctx)
    settings_of(ctx)
    repository = find_repository(model, os.environ)
    if repository is None:
        raise _no_download(model)
    removal = plan_removal(model, repository, revision=revision)
    is_done = yes or _is_confirmed(console, removal, revision)
    if is_done:
        remove(removal, repository.parent / ".locks" / repository.name)
        remember(Places.from_environ(os.environ).cache, used=None)
    _tell(console, removal, is_done=is_done, is_json=is_json)


def _no_download(model: str) -> LlmctlError:
    if model in EMBEDDED:
        return UsageError(f"{model} is a part of llmctl", hint="rm removes downloads")
    if is_path(model):
        return UsageError(f"rm removes downloads; {model} is yours", hint="delete it by hand")
    return NotFoundError(
        f"{model!r} is not in the cache {hub_folder(os.environ)}, nor in {modelscope_folder(os.environ)}",
        hint="llmctl models list --local shows what is here",
    )


def _is_confirmed(console: Console, removal: Removal, revision: str | None) -> bool:
    if not is_terminal(sys.stdin):
        raise UsageError("without a terminal nobody can be asked whether to remove", hint="add --yes")
    what = removal.name if revision is None else f"{removal.name} at {revision}"
    question = harmless(f"Remove {what} ({shown(removal.num_bytes)}) from {removal.repository}? [y/N] ")
    try:
        return console.ask(question).strip().lower() in ("y", "yes")
    except EOFError:
        console.note("")
        return False


def _tell(console: Console, removal: Removal, *, is_done: bool, is_json: bool) -> None:
    freed = removal.num_bytes if is_done else 0
    if is_json:
        commits = list(removal.commits) if is_done else []
        console.json({"name": removal.name, "removed": is_done, "commits": commits, "freed_bytes": freed})
    elif is_done:
        console.line(harmless(f"removed {removal.name}: {shown(freed)} freed"))
    else:
        console.line("removed nothing")
