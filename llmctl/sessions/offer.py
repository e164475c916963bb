"""Tells the shells' completions which sessions there are by name."""

import os

from llmctl.core.name_list import SESSIONS, write_names
from llmctl.core.places import Places
from llmctl.sessions.store import SessionLog


def offer(log: SessionLog) -> None:
    """Bring the list of names up to date; a cache that cannot be written is done without."""
    write_names(Places.from_environ(os.environ).cache / SESSIONS, log.names(), is_private=True)
