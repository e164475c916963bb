"""The cache in place of the hub."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from llmctl.core.errors import (
    UnreachableError,
)
from llmctl.loading.hub import cache as hub_cache
from tests.hub import Fault, StandInHub, tiny_model, tiny_safetensors
from tests.loading.downloads import ID, WEIGHTS, assert_same, fails, get


@pytest.fixture(params=["dead", "offline"])
def away(
    request: pytest.FixtureRequest, hub: StandInHub, monkeypatch: pytest.MonkeyPatch
) -> Callable[[], None]:
    """A function that takes the hub away, in one way or the other."""

    def take_away() -> None:
        if request.param == "dead":
            hub.close()
        else:
            monkeypatch.setenv("HF_HUB_OFFLINE", "1")

    return take_away


def test_a_complete_cached_copy_is_used_without_the_hub(hub: StandInHub, away: Callable[[], None]) -> None:
    hub.repo(ID).revisions = {"dev": {**tiny_model(), "config.json": b"[]"}}
    main, dev = get(), get(revision="dev")
    away()
    num_requests = len(hub.requests)
    assert get() == main
    assert get(revision="dev") == dev
    assert get(revision=dev.name) == dev
    assert len(hub.requests) == num_requests


def test_an_incomplete_or_missing_copy_is_unreachable(hub: StandInHub, away: Callable[[], None]) -> None:
    hub.repo(ID).faults[WEIGHTS] = Fault(cut_at=60_000)
    fails(UnreachableError)
    away()
    fails(UnreachableError)
    fails(UnreachableError, repo_id="owner/other")


def test_a_cached_copy_that_lost_its_weights_is_not_complete(
    hub: StandInHub, away: Callable[[], None]
) -> None:
    folder = get()
    (folder / WEIGHTS).resolve().unlink()
    away()
    fails(UnreachableError)


def test_a_sharded_copy_is_complete_only_with_all_shards(hub: StandInHub) -> None:
    index = (
        b'{"weight_map": {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}}'
    )
    shards = {f"model-0000{i}-of-00002.safetensors": tiny_safetensors(2 * i) for i in (1, 2)}
    hub.add(ID, {"config.json": b"{}", "model.safetensors.index.json": index, **shards})
    folder = get()
    hub.close()
    assert get() == folder
    (folder / "model-00002-of-00002.safetensors").unlink()
    fails(UnreachableError)


def test_the_use_of_the_copy_is_a_warning_when_the_hub_should_have_answered(
    hub: StandInHub, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    get()
    hub.close()
    get()
    assert [
        record.levelname for record in caplog.records if record.name == "llmctl.loading.hub.download"
    ] == ["WARNING"]
    caplog.clear()
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    get()
    assert not [record for record in caplog.records if record.levelname == "WARNING"]


def test_offline_without_a_copy_says_which_switch_forbids_it(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    fails(UnreachableError, "HF_HUB_OFFLINE", ID, str(home))


def test_a_copy_survives_the_loss_of_access(hub: StandInHub) -> None:
    folder = get()
    hub.repo(ID).access = "private"
    assert get() == folder


def test_a_download_in_another_process_needs_nothing_but_the_variables(hub: StandInHub, home: Path) -> None:
    code = (
        "import sys; from llmctl.core.progress import SilentProgress as P;"
        "from llmctl.loading import checkpoint;"
        f"print(checkpoint.locate({ID!r}, revision=None, progress=P()).folder);"
        "assert not {'torch', 'transformers', 'numpy'} & set(sys.modules)"
    )
    environ = os.environ | hub.environ(home)
    done = subprocess.run([sys.executable, "-c", code], env=environ, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert_same(Path(done.stdout.strip()), hub.repo(ID).files)
    assert not [seen for seen in hub.requests if "agent-harnesses" in seen.path]


def test_sizes_are_told_in_units_that_suit_them() -> None:
    assert hub_cache._gigabytes(7_000_000) == "7.0 MB"
    assert hub_cache._gigabytes(14_200_000_000) == "14.2 GB"
