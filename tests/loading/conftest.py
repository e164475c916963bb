"""A cache of its own and a stand-in hub for each test of downloads."""

from collections.abc import Iterator
from pathlib import Path

import huggingface_hub
import pytest
from huggingface_hub import constants

from llmctl.loading.hub import fetch
from tests.hub import StandInHub, tiny_model
from tests.loading.downloads import ID, NUM_BYTES


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "HF_HUB_OFFLINE", "HF_HUB_CACHE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "token"))
    monkeypatch.setattr(constants, "HF_HUB_DOWNLOAD_TIMEOUT", 1)
    monkeypatch.setattr(fetch, "RETRY_WAITS_S", (0.01, 0.01))
    monkeypatch.setenv("HF_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


@pytest.fixture(scope="module")
def servers() -> Iterator[list[StandInHub]]:
    """The stand-ins so far: the last is taken again unless a test closed it, as starting one takes long."""
    running: list[StandInHub] = []
    yield running
    huggingface_hub.close_session()
    for server in running:
        server.close()


@pytest.fixture
def hub(home: Path, servers: list[StandInHub], monkeypatch: pytest.MonkeyPatch) -> StandInHub:
    if not servers or servers[-1].is_closed:
        servers.append(StandInHub().start())
    server = servers[-1]
    server.reset({ID: tiny_model(NUM_BYTES)})
    monkeypatch.setenv("HF_ENDPOINT", server.url)
    return server
