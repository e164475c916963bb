"""One fleet of the demo model for all clients: starting it takes longer than most of their tests."""

from collections.abc import Iterator

import pytest

from tests.services.clients.fleet import Fleet, up


@pytest.fixture(scope="session")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    """A gateway over two workers."""
    with up(tmp_path_factory.mktemp("fleet"), "--workers", "2") as served:
        yield served
