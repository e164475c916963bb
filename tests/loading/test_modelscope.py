"""Models from ModelScope: the setting, the listing, the bytes, the cache of its own, and what goes wrong."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import huggingface_hub
import pytest

from llmctl.core import settings
from llmctl.core.errors import AccessError, BadFileError, DoesNotFitError, NotFoundError, UnreachableError
from llmctl.loading.checkpoint import locate
from llmctl.loading.hub.download import download
from llmctl.loading.hub.local_models import find_here, local_models
from llmctl.loading.hub.modelscope import ModelScope
from tests.hub import RIGHT_TOKEN, Fault, StandInHub, tiny_model
from tests.loading.downloads import ID, NUM_BYTES, WEIGHTS, Recorder, assert_same, fails, get
from tests.modelscope import StandInModelScope


@pytest.fixture(scope="module")
def sites() -> Iterator[list[StandInModelScope]]:
    running: list[StandInModelScope] = []
    yield running
    huggingface_hub.close_session()
    for each in running:
        each.close()


@pytest.fixture
def site(
    home: Path, sites: list[StandInModelScope], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> StandInModelScope:
    if not sites or sites[-1].is_closed:
        running = StandInModelScope()
        running.start()
        sites.append(running)
    server = sites[-1]
    server.says_refusals_with_200 = server.cdn_got_secrets = False
    server.reset({ID: tiny_model(NUM_BYTES)})
    for name, value in server.environ(tmp_path / "cache").items():
        monkeypatch.setenv(name, value)
    for name in ("MODELSCOPE_API_TOKEN", "MODELSCOPE_DOMAIN"):
        monkeypatch.delenv(name, raising=False)
    return server


def test_a_model_comes_into_a_cache_of_its_own_and_again_costs_one_request(
    site: StandInModelScope, tmp_path: Path
) -> None:
    progress = Recorder()
    folder = download(ID, progress=progress)
    assert_same(folder, site.repo(ID).files)
    assert folder.is_relative_to(tmp_path / "cache" / "modelscope")
    assert progress.num_bytes == progress.stages[1][1]
    assert (folder.parents[1] / "refs" / "master").read_text() == folder.name
    num_requests = len(site.requests)
    assert get() == folder
    assert [seen.path for seen in site.requests[num_requests:]] == [f"/api/v1/models/{ID}/repo/files"]


def test_a_change_of_the_files_is_another_snapshot_and_brings_only_the_change(
    site: StandInModelScope,
) -> None:
    first = get()
    site.repo(ID).files["config.json"] = b'{"model_type": "qwen3"}'
    second = get()
    assert second != first
    assert_same(second, site.repo(ID).files)
    assert len(site.gets(WEIGHTS)) == 1


def test_a_revision_is_a_branch_or_tag(site: StandInModelScope) -> None:
    other = {**tiny_model(), "config.json": b'{"model_type": "other"}'}
    site.repo(ID).revisions = {"v1.0": other}
    assert_same(get(revision="v1.0"), other)
    fails(NotFoundError, ID, "'v9'", site.url, revision="v9")


def test_the_model_is_found_listed_and_located_by_its_name(site: StandInModelScope) -> None:
    folder = get()
    assert find_here(ID, os.environ) == folder
    assert ID in local_models(os.environ)
    found = locate(ID, revision=None, progress=Recorder())
    assert (found.name, found.folder, found.commit) == (ID, folder, folder.name)


def test_of_two_caches_the_setting_decides(
    site: StandInModelScope, hub: StandInHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    theirs = get()
    monkeypatch.setenv("LLMCTL_HUB", "huggingface")
    ours = get()
    assert find_here(ID, os.environ) == ours
    monkeypatch.setenv("LLMCTL_HUB", "modelscope")
    assert find_here(ID, os.environ) == theirs
    assert local_models(os.environ).count(ID) == 1


@pytest.mark.parametrize("away", ["dead", "offline"])
def test_a_cached_copy_is_used_without_the_server(
    site: StandInModelScope, away: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = get()
    if away == "dead":
        site.close()
    else:
        monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert get() == folder
    fails(UnreachableError, repo_id="owner/other")


@pytest.mark.parametrize("says_with_200", [True, False])
def test_a_missing_model_is_told_with_the_server_s_name(site: StandInModelScope, says_with_200: bool) -> None:
    site.says_refusals_with_200 = says_with_200
    fails(NotFoundError, "no model owner/nope", site.url, "MODELSCOPE_API_TOKEN", repo_id="owner/nope")


def test_a_private_model_needs_the_token_which_the_other_host_does_not_get(
    site: StandInModelScope, monkeypatch: pytest.MonkeyPatch
) -> None:
    site.repo(ID).access = "private"
    fails(NotFoundError, "or it is private")
    monkeypatch.setenv("MODELSCOPE_API_TOKEN", RIGHT_TOKEN)
    assert_same(get(), site.repo(ID).files)
    assert site.gets(WEIGHTS)
    assert not site.cdn_got_secrets


def test_a_refusal_of_access_names_the_token(site: StandInModelScope) -> None:
    site.repo(ID).faults["api"] = Fault(status=403)
    fails(AccessError, ID, "403", "MODELSCOPE_API_TOKEN")


@pytest.mark.parametrize(
    "answer",
    [b"<html>Please log in</html>", b"[]", b"{}", b'{"Code": 200, "Data": {"Files": [{"Path": "a"}]}}'],
)
def test_a_server_that_is_none_is_told_apart(site: StandInModelScope, answer: bytes) -> None:
    site.repo(ID).faults["api"] = Fault(body=answer)
    fails(UnreachableError, site.url, "does not answer as ModelScope", "MODELSCOPE_ENDPOINT")


def test_a_cut_is_resumed_wrong_bytes_are_thrown_away_and_a_full_disk_is_told(
    site: StandInModelScope,
) -> None:
    site.repo(ID).faults[WEIGHTS] = Fault(cut_at=60_000, times=1)
    get()
    assert [seen.range is None for seen in site.gets(WEIGHTS)] == [True, False]
    site.add(
        ID, {**tiny_model(NUM_BYTES), "tokenizer.json": b"{}", "config.json": b'{"model_type": "qwen3"}'}
    )
    site.repo(ID).faults["config.json"] = Fault(body=b'{"model_type": "qwen9"}')
    fails(BadFileError, "config.json", "hash differs")
    site.repo(ID).faults = {"tokenizer.json": Fault(declared_bytes=10**15)}
    fails(DoesNotFitError, ID, "LLMCTL_CACHE_HOME")
    site.repo(ID).faults = {}
    assert_same(get(), site.repo(ID).files)


@pytest.mark.parametrize(
    ("environ", "endpoint"),
    [
        ({}, "https://modelscope.cn"),
        ({"MODELSCOPE_DOMAIN": "www.modelscope.ai"}, "https://www.modelscope.ai"),
        ({"MODELSCOPE_ENDPOINT": "http://127.0.0.1:1/", "MODELSCOPE_DOMAIN": "x"}, "http://127.0.0.1:1"),
    ],
)
def test_the_server_is_the_one_of_the_package_s_variables(
    environ: dict[str, str], endpoint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("MODELSCOPE_ENDPOINT", "MODELSCOPE_DOMAIN"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    assert ModelScope.from_environ(ID, revision=None).endpoint == endpoint


def test_fastchat_s_variable_means_the_same_and_llmctl_s_own_goes_before_it(tmp_path: Path) -> None:
    fastchat = {"FASTCHAT_USE_MODELSCOPE": "True", "HOME": str(tmp_path)}
    chosen = settings.load(fastchat, tmp_path)
    assert (chosen.hub, chosen.origins["hub"]) == ("modelscope", "FASTCHAT_USE_MODELSCOPE")
    assert settings.load({**fastchat, "LLMCTL_HUB": "huggingface"}, tmp_path).hub == "huggingface"
    assert settings.load({**fastchat, "FASTCHAT_USE_MODELSCOPE": "False"}, tmp_path).hub == "huggingface"


def test_another_process_needs_the_variables_alone_and_says_with_v_where_models_come_from(
    site: StandInModelScope, tmp_path: Path
) -> None:
    environ = {**os.environ, **site.environ(tmp_path / "other"), "FASTCHAT_USE_MODELSCOPE": "True"}
    del environ["LLMCTL_HUB"]
    done = subprocess.run(
        [sys.executable, "-m", "llmctl", "models", "pull", ID, "-v"],
        env=environ,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert f"{ID} downloaded: " in done.stdout
    assert f"from ModelScope at {site.url} (FASTCHAT_USE_MODELSCOPE)" in done.stderr
