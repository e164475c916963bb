"""Starts a fleet that outlives the command that asked for it."""

import os
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

import typer

from llmctl.cli.console import Console
from llmctl.cli.serve.watching import as_dict, ready_line
from llmctl.core.errors import LlmctlError
from llmctl.services.up import state as notes

LOG = "up.log"
_POLL_S = 0.1


def detach(console: Console, words: Sequence[str], folder: Path, *, is_json: bool) -> None:
    """Run `llmctl WORDS`, which notes its fleet in `folder`, in a session of its own, until all is served.

    What it says is shown meanwhile. If it fails its exit code is this command's; Ctrl-C ends it.
    """
    log = folder / LOG
    process = _start(words, log)
    with ExitStack() as stack:
        # Whatever ends the waiting, Ctrl-C most of all, ends what is not there yet.
        stack.callback(process.wait)
        stack.callback(process.terminate)
        code = _wait(console, process, folder, log)
        stack.pop_all()
    if code is not None:
        notes.forget(folder)
        raise typer.Exit(code or LlmctlError.exit_code)
    # It is not ours to wait for any more.
    process.returncode = 0
    state = notes.read(folder)
    assert state is not None
    if is_json:
        console.json(as_dict(state), indent=None)
    else:
        console.line(ready_line(state))


def _start(words: Sequence[str], log: Path) -> "subprocess.Popen[bytes]":
    with log.open("ab") as file:
        return subprocess.Popen(  # noqa: S603  # this program
            [sys.executable, "-m", "llmctl", *words],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=file,
            start_new_session=os.name == "posix",
            creationflags=getattr(subprocess, "CREATE_NEW_PROCESS_GROUP", 0)
            | getattr(subprocess, "DETACHED_PROCESS", 0),
        )


def _wait(console: Console, process: "subprocess.Popen[bytes]", folder: Path, log: Path) -> int | None:
    """None once all is served, or the exit code of what ended before that."""
    with log.open(encoding="utf-8", errors="replace") as said:
        while True:
            # In this order: the last words come before the end.
            code, state = process.poll(), notes.read(folder)
            if text := said.read():
                console.aside(text)
            if code is not None:
                return code
            if state is not None and state.url is not None:
                return None
            time.sleep(_POLL_S)
