"""Finds the log and the session that a command is about."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated

import typer

from llmctl.cli.console import Console
from llmctl.core.errors import NotFoundError
from llmctl.core.places import Places
from llmctl.sessions.store import FILE_NAME, Session, SessionLog

SessionArgument = Annotated[
    str | None,
    typer.Argument(metavar="SESSION", help="Name or number; left out, the latest.", show_default=False),
]
Number = Annotated[int, typer.Option("-n", "--limit", metavar="N", min=0, help="At most so many; 0 is all.")]


@contextmanager
def opened_log() -> Iterator[SessionLog | None]:
    """The log, None when nothing was ever kept: looking does not make one."""
    path = Places.from_environ(os.environ).data / FILE_NAME
    if not path.exists():
        yield None
        return
    with SessionLog.open(path) as log:
        yield log


def session_in(log: SessionLog | None, name: str | None) -> Session | None:
    """The session called `name`, the latest without one. Raises `NotFoundError`."""
    if name is None:
        return log.latest() if log is not None else None
    if log is None:
        raise NotFoundError(f"no such session: {name}", hint="no conversation has been kept yet")
    return log.find(name)


def tell_nothing_kept(console: Console) -> None:
    """Why the output is empty."""
    console.note("no conversation has been kept yet")
