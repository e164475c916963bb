"""One scripted server for all tests of a file: starting one takes a tenth of a second."""

from collections.abc import Iterator

import pytest

from tests.server import ScriptedServer


@pytest.fixture(scope="module")
def _server() -> Iterator[ScriptedServer]:
    with ScriptedServer() as server:
        yield server


@pytest.fixture
def server(_server: ScriptedServer) -> ScriptedServer:
    """A server with an empty script, that serves one model and says what the user says."""
    _server.reset()
    return _server
