"""`llmctl models push`: a folder goes to the hub, and is told what it is called there."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from llmctl.demo import MODELS
from tests.conftest import Llmctl
from tests.hub import RIGHT_TOKEN
from tests.hub_uploads import WritableHub

# Of huggingface_hub's call to its HTTP client.
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[WritableHub]:
    with WritableHub() as running:
        for name, value in running.environ(tmp_path / "hf").items():
            monkeypatch.setenv(name, value)
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_DISABLE_XET", True)
        yield running


def test_a_model_is_uploaded_and_its_place_told(
    llmctl: Llmctl, hub: WritableHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", RIGHT_TOKEN)
    ended = llmctl("models", "push", str(MODELS["demo"]), "me/mine", "--private")
    assert ended.code == 0, ended.err
    assert ended.out == f"7 files, 4.5 MiB, uploaded to {hub.url}/me/mine\n"
    assert hub.repo("me/mine").access == "private"
    assert "model.safetensors" in hub.repo("me/mine").files


def test_without_a_token_nothing_is_sent(llmctl: Llmctl, hub: WritableHub) -> None:
    ended = llmctl("models", "push", str(MODELS["demo"]), "me/mine", "--json")
    assert ended.code == 4
    assert "needs a token" in json.loads(ended.err)["error"]["message"]
    assert hub.requests == []


def test_a_dry_run_lists_the_files(llmctl: Llmctl, hub: WritableHub) -> None:
    ended = llmctl("models", "push", str(MODELS["demo"]), "me/mine", "--dry-run", "--json")
    assert "config.json" in json.loads(ended.out)["files"]
    assert hub.requests == []
