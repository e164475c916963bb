"""Which files of which repository come, and what is refused, against the stand-in hub."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from llmctl.core.errors import (
    AccessError,
    AmbiguousError,
    BadFileError,
    NotFoundError,
    UsageError,
)
from llmctl.core.progress import SilentProgress
from llmctl.loading.hub.download import download
from tests.hub import RIGHT_TOKEN, STRANGERS_TOKEN, Fault, Repo, StandInHub, tiny_model, tiny_safetensors
from tests.loading.downloads import ID, WEIGHTS, Recorder, assert_same, fails, get


def test_a_model_comes_with_what_it_needs_and_nothing_else(hub: StandInHub) -> None:
    files = {
        **tiny_model(),
        "chat_template.jinja": b"{{ messages }}",
        "merges.txt": b"a b",
        "spiece.model": b"x",
    }
    unneeded = (
        "pytorch_model.bin",
        "consolidated.safetensors",
        "m.gguf",
        "onnx/model.onnx",
        "original/params.json",
    )
    hub.add(ID, files | dict.fromkeys((*unneeded, "model-00001-of-00001.safetensors"), b"unneeded"))
    progress = Recorder()
    folder = download(ID, revision=None, progress=progress)
    assert_same(folder, files)
    total = sum(len(body) for name, body in files.items() if name != "README.md" and isinstance(body, bytes))
    assert progress.stages == [("resolve", None), ("download", total)]
    assert progress.num_bytes == total
    assert folder.name == hub.commit(ID)


def test_a_second_download_only_asks_whether_anything_is_new(hub: StandInHub) -> None:
    get()
    num_requests = len(hub.requests)
    progress = Recorder()
    download(ID, progress=progress)
    assert [seen.path for seen in hub.requests[num_requests:]] == [f"/api/models/{ID}"]
    assert progress.stages == [("resolve", None)]


def test_a_new_commit_brings_only_what_has_changed(hub: StandInHub) -> None:
    get()
    hub.repo(ID).files["config.json"] = b'{"model_type": "qwen3"}'
    assert_same(get(), hub.repo(ID).files)
    assert len(hub.gets("config.json")) == 2
    assert len(hub.gets(WEIGHTS)) == 1


def test_a_legacy_name_without_owner_is_found(hub: StandInHub) -> None:
    hub.add("tiny", tiny_model())
    assert_same(get("tiny"), hub.repo("tiny").files)


def test_sharded_weights_come_whole_from_another_host_without_the_token(
    hub: StandInHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    shards = {f"model-0000{i}-of-00006.safetensors": tiny_safetensors(2 * i) for i in range(1, 7)}
    index = json.dumps({"weight_map": {name: name for name in shards}}).encode()
    files = {"config.json": b"{}", "model.safetensors.index.json": index, **shards}
    hub.add(ID, files)
    monkeypatch.setenv("HF_TOKEN", RIGHT_TOKEN)
    assert_same(get(), files)
    assert all(seen.has_token for seen in hub.requests if not seen.path.startswith("/cdn/"))
    assert not any(seen.has_token for seen in hub.requests if seen.path.startswith("/cdn/"))


def test_huggingface_hub_finds_the_model_in_the_cache(hub: StandInHub) -> None:
    """And the stand-in answers huggingface_hub's own calls: the same files come that way."""
    folder = get()
    script = (
        "import sys, huggingface_hub as h\n"
        f"print(h.snapshot_download({ID!r}, local_files_only=True))\n"
        f"print(h.snapshot_download({ID!r}, cache_dir=sys.argv[1]))"
    )
    home = folder.parents[3]
    other = home / "other"
    done = subprocess.run(
        [sys.executable, "-c", script, str(other)],
        env=os.environ | hub.environ(home),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    mine, theirs = (Path(line) for line in done.stdout.split())
    assert mine.samefile(folder)
    assert {path.name: path.read_bytes() for path in theirs.iterdir()} == hub.repo(ID).files
    layout = [
        path.relative_to(folder.parents[1]) for path in (folder / WEIGHTS).resolve().parents[0].iterdir()
    ]
    assert set(layout) < {path.relative_to(theirs.parents[1]) for path in theirs.parents[1].glob("blobs/*")}


# Names, revisions and access


@pytest.mark.parametrize(
    "repo_id", ["a/b/c", "a//b", "has space", "-dash/x", "up..dir", "a/b.git", "x" * 120]
)
def test_an_id_that_cannot_be_one_is_refused_without_asking(hub: StandInHub, repo_id: str) -> None:
    fails(NotFoundError, repo_id, "owner/name", repo_id=repo_id)
    assert not hub.requests


def test_a_missing_model_without_a_token_may_be_private(hub: StandInHub) -> None:
    fails(
        NotFoundError, "no model owner/nope", hub.url, "private", "HF_TOKEN", "hf auth", repo_id="owner/nope"
    )


def test_a_missing_model_with_a_token_is_not_found(hub: StandInHub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", RIGHT_TOKEN)
    fails(NotFoundError, "no model owner/nope", "spelling", repo_id="owner/nope")


def test_a_private_model_needs_the_right_token(hub: StandInHub, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.repo(ID).access = "private"
    fails(NotFoundError, "or it is private", "HF_TOKEN")
    monkeypatch.setenv("HF_TOKEN", STRANGERS_TOKEN)
    fails(NotFoundError, "or it is private", "the token's rights")
    monkeypatch.setenv("HF_TOKEN", "hf_expired")
    fails(AccessError, "refuses access", "401", "check the token")
    monkeypatch.setenv("HF_TOKEN", RIGHT_TOKEN)
    assert_same(get(), hub.repo(ID).files)


def test_a_gated_model_names_the_page_with_the_terms(
    hub: StandInHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.repo(ID).access = "gated"
    fails(AccessError, "gated", f"{hub.url}/{ID}", "HF_TOKEN")
    monkeypatch.setenv("HF_TOKEN", STRANGERS_TOKEN)
    fails(AccessError, "gated", f"{hub.url}/{ID}")
    monkeypatch.setenv("HF_TOKEN", RIGHT_TOKEN)
    assert_same(get(), hub.repo(ID).files)


def test_a_forbidden_model_is_an_access_error(hub: StandInHub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", RIGHT_TOKEN)
    hub.repo(ID).faults["api"] = Fault(status=403)
    fails(AccessError, ID, "403")


def test_revisions_are_branches_pull_requests_and_commits(hub: StandInHub) -> None:
    other = {**tiny_model(), "config.json": b'{"model_type": "other"}'}
    hub.repo(ID).revisions = {"dev": tiny_model(), "refs/pr/1": other}
    folder = get(revision="refs/pr/1")
    assert_same(folder, other)
    assert get(revision=hub.commit(ID, "refs/pr/1")) == folder
    assert get() != folder


def test_an_unknown_revision_is_named_even_when_it_is_cached(hub: StandInHub) -> None:
    hub.repo(ID).revisions = {"dev": tiny_model()}
    get(revision="dev")
    hub.repo(ID).revisions = {}
    fails(NotFoundError, ID, "no revision 'dev'", revision="dev")


@pytest.mark.parametrize("revision", ["", "../../x", "/etc"])
def test_a_revision_that_cannot_be_one_is_a_usage_error(hub: StandInHub, revision: str) -> None:
    fails(UsageError, "--revision", repr(revision), revision=revision)


# What a repository holds


def test_pickle_weights_are_refused_before_they_are_downloaded(hub: StandInHub) -> None:
    hub.add(ID, {"config.json": b"{}", "pytorch_model.bin": b"\x80", "training_args.bin": b"\x80"})
    error = fails(BadFileError, ID, "only pickle weights (pytorch_model.bin)", "models convert", "refs/pr/N")
    assert error.exit_code == 7
    assert len(hub.requests) == 1


def test_the_safetensors_conversion_of_a_pull_request_is_taken(hub: StandInHub) -> None:
    pickle: dict[str, bytes | Path] = {"config.json": b"{}", "pytorch_model.bin": b"\x80"}
    converted = {**pickle, WEIGHTS: tiny_safetensors()}
    hub.add(ID, Repo(files=pickle, revisions={"refs/pr/7": converted}))
    assert (get(revision="refs/pr/7") / WEIGHTS).exists()


QUANTISATIONS: dict[str, bytes | Path] = {
    "config.json": b"{}",
    "mmproj-F16.gguf": b"eyes",
    "m-Q4_K_M.gguf": b"GGUF4",
    "m-Q8_0.gguf": b"GGUF8",
}


@pytest.mark.parametrize("wanted", ["m-Q8_0.gguf", "Q8_0", "q8_0"])
def test_of_a_gguf_repository_only_the_file_that_is_meant_comes(hub: StandInHub, wanted: str) -> None:
    hub.add(ID, QUANTISATIONS)
    file = download(ID, progress=Recorder(), gguf=wanted)
    assert (file.name, file.read_bytes()) == ("m-Q8_0.gguf", b"GGUF8")
    assert [path.name for path in file.parent.iterdir()] == ["m-Q8_0.gguf"]
    hub.close()
    assert download(ID, progress=Recorder(), gguf=wanted) == file


def test_the_only_gguf_file_needs_no_name(hub: StandInHub) -> None:
    hub.add(ID, {name: body for name, body in QUANTISATIONS.items() if name != "m-Q8_0.gguf"})
    assert get().name == "m-Q4_K_M.gguf"


def test_several_gguf_files_are_named_with_the_way_to_say_which(hub: StandInHub) -> None:
    hub.add(ID, QUANTISATIONS)
    fails(AmbiguousError, "2 GGUF files: m-Q4_K_M.gguf, m-Q8_0.gguf", f"name one: {ID}/m-Q4_K_M.gguf")
    assert len(hub.requests) == 1


def test_a_gguf_file_that_is_not_there_is_told_with_those_that_are(hub: StandInHub) -> None:
    hub.add(ID, QUANTISATIONS)
    with pytest.raises(NotFoundError, match="no GGUF file 'Q2_K'") as caught:
        download(ID, progress=Recorder(), gguf="Q2_K")
    assert "m-Q4_K_M.gguf, m-Q8_0.gguf" in (caught.value.hint or "")


def test_a_split_gguf_model_is_refused_before_it_is_downloaded(hub: StandInHub) -> None:
    hub.add(ID, {f"m-0000{i}-of-00002.gguf": b"GGUF" for i in (1, 2)})
    fails(BadFileError, "m-00001-of-00002.gguf", "split", "llama-gguf-split --merge")
    assert len(hub.requests) == 1


def test_a_repository_that_lacks_a_shard_is_refused_before_the_weights_come(hub: StandInHub) -> None:
    shards = [f"model-0000{i}-of-00002.safetensors" for i in (1, 2)]
    index = json.dumps({"weight_map": {name: name for name in shards}}).encode()
    files = {"config.json": b"{}", "model.safetensors.index.json": index, shards[0]: tiny_safetensors()}
    hub.add(ID, files)
    error = fails(BadFileError, ID, f"lacks {shards[1]}", "not uploaded")
    assert error.exit_code == 7
    assert not hub.gets(shards[0])
    hub.add(ID, {**files, shards[1]: tiny_safetensors(2)})
    assert_same(get(), hub.repo(ID).files)


@pytest.mark.parametrize("has_config", [True, False])
def test_an_adapter_comes_with_its_weights_and_no_older_copy(hub: StandInHub, has_config: bool) -> None:
    whole = {"adapter_config.json": b"{}", "adapter_model.safetensors": tiny_safetensors()}
    whole |= {"config.json": b"{}"} if has_config else {}
    hub.add(ID, {**whole, "adapter_model.bin": b"older", "README.md": b"# about"})

    def never(folder: Path, weights: object) -> None:
        raise AssertionError("an adapter has no config to look at")

    folder = download(ID, progress=SilentProgress(), before_weights=never)
    assert {path.name for path in folder.iterdir()} == set(whole)
