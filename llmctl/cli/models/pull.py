"""`llmctl models pull`: brings models into the cache, without torch."""

import os
from dataclasses import dataclass
from typing import Annotated

import typer

from llmctl.cli.console import Console
from llmctl.cli.logs.display import harmless
from llmctl.cli.options import Json, Revision, console_of, settings_of
from llmctl.core.places import Places
from llmctl.core.progress import Progress
from llmctl.core.sizes import shown
from llmctl.demo import MODELS as EMBEDDED
from llmctl.loading.checkpoint import Checkpoint, download, is_path_like, locate
from llmctl.loading.hub.local_models import is_path, remember


def pull(
    ctx: typer.Context,
    model: Annotated[
        list[str],
        typer.Argument(
            metavar="MODEL", help="Hub ids; of GGUF files owner/name:Q4_K_M or owner/name/FILE.gguf."
        ),
    ],
    revision: Revision = None,
    is_json: Json = False,
) -> None:
    """Download models, or what is missing of them.

    An interrupted download goes on where it stopped. The setting `hub` says from where: huggingface or
    modelscope. A name means the hub's model, whatever is called so in this folder.
    """
    console = console_of(ctx)
    settings_of(ctx)
    for name in dict.fromkeys(model):
        find = download if _is_hidden(name) else locate
        with console.progress() as progress:
            counting = _Counting(progress)
            checkpoint = find(name, revision=revision, progress=counting)
        _tell(console, name, checkpoint, counting.num_bytes, is_json=is_json)
        if find is download:
            console.note(f"{name} is in this folder too, and other commands take that one")
    # The shell can offer them now.
    remember(Places.from_environ(os.environ).cache, used=None)


def _is_hidden(name: str) -> bool:
    """Whether something here is called like a model of the hub."""
    # Unlike Path, it takes a name that no file can have for an absent one.
    is_here = is_path(name) or os.path.exists(name)  # noqa: PTH110
    return is_here and name not in EMBEDDED and not is_path_like(name)


@dataclass(slots=True)
class _Counting:
    """Counts what arrives, and hands it on."""

    inner: Progress
    num_bytes: int = 0

    def stage(self, name: str, *, total_bytes: int | None = None) -> None:
        """See `Progress`."""
        self.inner.stage(name, total_bytes=total_bytes)

    def advance(self, num_bytes: int) -> None:
        """See `Progress`."""
        self.num_bytes += num_bytes
        self.inner.advance(num_bytes)


def _tell(console: Console, name: str, checkpoint: Checkpoint, num_fetched: int, *, is_json: bool) -> None:
    place = checkpoint.adapter or checkpoint.gguf or checkpoint.folder
    files = [place] if place.is_file() else [path for path in place.iterdir() if path.is_file()]
    num_bytes = sum(path.stat().st_size for path in files)
    if is_json:
        facts = {"name": name, "path": str(place), "commit": checkpoint.commit}
        console.json({**facts, "bytes": num_bytes, "fetched_bytes": num_fetched}, indent=None)
        return
    done = "downloaded" if num_fetched else "is here already"
    console.line(harmless(f"{name} {done}: {shown(num_bytes)} in {place}"))
