"""A log of its own for each test."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from llmctl.sessions.store import SessionLog


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where the log is, or will be."""
    return tmp_path / "data" / "log.db"


@pytest.fixture
def log(path: Path) -> Iterator[SessionLog]:
    """An open, empty log."""
    with SessionLog.open(path) as opened:
        yield opened
