"""`llmctl models pull`: downloads, says where; a fault is one line, an exit code and a cache that works."""

import json
import os
import resource
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import huggingface_hub
import pytest

from llmctl.core.name_list import read_names
from llmctl.loading.hub import fetch
from tests.conftest import ROOT, Ended, Llmctl
from tests.hub import Fault, StandInHub, tiny_model, tiny_safetensors
from tests.loading.gguf_files import write_llama

NAME, WEIGHTS, NUM_BYTES = "owner/tiny", "model.safetensors", 200_000


@pytest.fixture(scope="module")
def server() -> Iterator[StandInHub]:
    with StandInHub() as running:
        yield running
        huggingface_hub.close_session()


@pytest.fixture
def hub(server: StandInHub, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> StandInHub:
    monkeypatch.setattr(fetch, "RETRY_WAITS_S", (0.01,))
    for name, value in server.environ(tmp_path / "home").items():
        monkeypatch.setenv(name, value)
    server.reset({NAME: tiny_model(NUM_BYTES)})
    return server


def snapshot(hub: StandInHub, tmp_path: Path, name: str = NAME) -> Path:
    folder = f"models--{name.replace('/', '--')}"
    return tmp_path / "home" / "hub" / folder / "snapshots" / hub.commit(name)


def fails(ended: Ended, code: int, *words: str) -> None:
    assert (ended.code, ended.out) == (code, ""), ended
    assert len(ended.err.splitlines()) == 1, ended.err
    assert [word for word in words if word not in ended.err] == [], ended.err


def works(llmctl: Llmctl, name: str = NAME) -> None:
    ended = llmctl("models", "pull", name)
    assert (ended.code, ended.err) == (0, "")
    assert ended.out.startswith(f"{name} downloaded: ")


def test_a_model_comes_and_the_next_time_it_is_here(llmctl: Llmctl, hub: StandInHub, tmp_path: Path) -> None:
    place = snapshot(hub, tmp_path)
    ended = llmctl("models", "pull", NAME)
    assert (ended.code, ended.out, ended.err) == (0, f"{NAME} downloaded: 195.5 KiB in {place}\n", "")
    num_requests = len(hub.requests)
    ended = llmctl("models", "pull", NAME)
    assert ended.out == f"{NAME} is here already: 195.5 KiB in {place}\n"
    assert len(hub.requests) == num_requests + 1


def test_several_come_in_turn_each_once_and_the_shell_can_offer_them(llmctl: Llmctl, hub: StandInHub) -> None:
    hub.add("owner/other", tiny_model())
    ended = llmctl("models", "pull", NAME, "owner/other", NAME)
    assert [line.split()[:2] for line in ended.out.splitlines()] == [
        [NAME, "downloaded:"],
        ["owner/other", "downloaded:"],
    ]
    listed = read_names(Path(os.environ["LLMCTL_CACHE_HOME"]) / "models.txt")
    assert listed[2:] == ["owner/other", NAME]


def test_json_is_an_object_a_line(llmctl: Llmctl, hub: StandInHub, tmp_path: Path) -> None:
    first, second = (
        json.loads(line)
        for _ in range(2)
        for line in llmctl("models", "pull", NAME, "--json").out.splitlines()
    )
    place = snapshot(hub, tmp_path)
    total = sum(path.stat().st_size for path in place.iterdir())
    assert first == {
        "name": NAME,
        "path": str(place),
        "commit": place.name,
        "bytes": total,
        "fetched_bytes": total,
    }
    assert second == {**first, "fetched_bytes": 0}


def test_a_revision_and_a_gguf_file_can_be_named(llmctl: Llmctl, hub: StandInHub, tmp_path: Path) -> None:
    hub.repo(NAME).revisions = {"dev": {**tiny_model(), "config.json": b'{"model_type": "qwen3"}'}}
    assert hub.commit(NAME, "dev") in llmctl("models", "pull", NAME, "--revision", "dev").out
    file = write_llama(tmp_path / "m-Q8_0.gguf", kind="Q8_0")
    hub.add("owner/gg", {"m-Q8_0.gguf": file, "m-Q2_K.gguf": b"GGUF"})
    for name in ("owner/gg:q8_0", "owner/gg/m-Q8_0.gguf"):
        ended = llmctl("models", "pull", name)
        assert ended.out.rstrip().endswith("m-Q8_0.gguf")
    fails(llmctl("models", "pull", "owner/gg"), 8, "2 GGUF files", "owner/gg/m-Q2_K.gguf")


@pytest.mark.parametrize("model", ["demo", "folder"])
def test_what_is_no_download_is_here_already(llmctl: Llmctl, tmp_path: Path, model: str) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    for name, body in tiny_model().items():
        assert isinstance(body, bytes)
        (folder / name).write_bytes(body)
    name = str(folder) if model == "folder" else model
    assert llmctl("models", "pull", name).out.startswith(f"{name} is here already: ")


@pytest.mark.parametrize("kind", ["model", "folder", "file"])
def test_a_name_means_the_hub_s_model_whatever_is_called_so_here(
    llmctl: Llmctl, hub: StandInHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    monkeypatch.chdir(tmp_path)
    here = tmp_path / "owner" / "tiny"
    here.parent.mkdir()
    if kind == "file":
        here.write_text("notes")
    else:
        here.mkdir()
    if kind == "model":
        for name, body in tiny_model().items():
            assert isinstance(body, bytes)
            (here / name).write_bytes(body)
    ended = llmctl("models", "pull", NAME)
    assert (ended.code, ended.out.split(":")[0]) == (0, f"{NAME} downloaded")
    assert ended.err == f"{NAME} is in this folder too, and other commands take that one\n"
    assert llmctl("models", "rm", NAME, "--yes").out.startswith(f"removed {NAME}: ")
    assert here.exists()


def test_neither_torch_nor_transformers_is_needed(hub: StandInHub, tmp_path: Path) -> None:
    code = (
        "import sys; from llmctl.cli.app import run; code = run(['models', 'pull', sys.argv[1]]);"
        "assert not {'torch', 'transformers', 'numpy'} & set(sys.modules); sys.exit(code)"
    )
    done = subprocess.run([sys.executable, "-c", code, NAME], cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


# Faults


def test_a_truncated_shard_goes_on_where_it_was_cut(llmctl: Llmctl, hub: StandInHub) -> None:
    hub.repo(NAME).faults[WEIGHTS] = Fault(cut_at=150_000)
    fails(llmctl("models", "pull", NAME), 5, "cannot reach the hub", "the same command goes on")
    hub.repo(NAME).faults.clear()
    works(llmctl)
    assert hub.gets(WEIGHTS)[-1].range is not None


@pytest.mark.parametrize("name", [WEIGHTS, "config.json"])
def test_wrong_bytes_are_deleted(llmctl: Llmctl, hub: StandInHub, name: str) -> None:
    body = hub.repo(NAME).files[name]
    assert isinstance(body, bytes)
    hub.repo(NAME).faults[name] = Fault(body=bytes(len(body)))
    fails(llmctl("models", "pull", NAME), 7, name, "hash differs", "deleted")
    hub.repo(NAME).faults.clear()
    works(llmctl)


def test_a_shard_that_is_true_to_its_hash_and_cut_short_is_told(llmctl: Llmctl, hub: StandInHub) -> None:
    hub.repo(NAME).files[WEIGHTS] = tiny_safetensors(NUM_BYTES)[:-1000]
    fails(llmctl("models", "pull", NAME), 7, WEIGHTS, "cut short", "bytes expected")
    hub.repo(NAME).files[WEIGHTS] = tiny_safetensors(NUM_BYTES)
    works(llmctl)


def test_a_blob_that_was_cut_on_the_disk_is_fetched_again(
    llmctl: Llmctl, hub: StandInHub, tmp_path: Path
) -> None:
    works(llmctl)
    blob = (snapshot(hub, tmp_path) / WEIGHTS).resolve()
    blob.write_bytes(blob.read_bytes()[:-1000])
    works(llmctl)
    assert blob.read_bytes() == hub.repo(NAME).files[WEIGHTS]


def test_a_missing_shard_is_told_before_the_others_come(llmctl: Llmctl, hub: StandInHub) -> None:
    shards = {f"model-0000{i}-of-00002.safetensors": tiny_safetensors(2 * i) for i in (1, 2)}
    index = json.dumps({"weight_map": {name: name for name in shards}}).encode()
    whole = {"config.json": b"{}", "model.safetensors.index.json": index, **shards}
    last = list(shards)[1]
    hub.add(NAME, {name: body for name, body in whole.items() if name != last})
    fails(llmctl("models", "pull", NAME), 7, NAME, f"lacks {last}")
    assert not hub.gets(next(iter(shards)))
    hub.add(NAME, whole)
    works(llmctl)


def test_a_disk_that_cannot_take_it_is_told_before_anything_comes(llmctl: Llmctl, hub: StandInHub) -> None:
    hub.repo(NAME).faults[WEIGHTS] = Fault(declared_bytes=10**15)
    fails(llmctl("models", "pull", NAME), 6, NAME, "of disk", "HF_HOME")
    hub.repo(NAME).faults.clear()
    works(llmctl)


def test_a_disk_that_fills_up_is_told_and_what_came_is_kept(llmctl: Llmctl, hub: StandInHub) -> None:
    """A limit on the size of files stands for the disk: the system refuses the write in the same place."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, before[1]))
    try:
        ended = llmctl("models", "pull", NAME)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    fails(ended, 6, NAME, "may hold", "HF_HOME")
    works(llmctl)
    assert hub.gets(WEIGHTS)[-1].range is not None


def test_a_full_disk_is_told(llmctl: Llmctl, hub: StandInHub, small_disk: Path) -> None:
    hub.repo(NAME).files[WEIGHTS] = tiny_safetensors(1_500_000)
    environ = {"HF_HOME": str(small_disk), "HF_HUB_CACHE": str(small_disk / "hub")}
    hub.repo(NAME).faults[WEIGHTS] = Fault(bytes_per_s=4_000_000)
    ballast = small_disk / "ballast"
    process = subprocess.Popen(
        [sys.executable, "-m", "llmctl", "models", "pull", NAME],
        cwd=ROOT,
        env={**os.environ, **environ},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    while not hub.gets(WEIGHTS):
        assert process.poll() is None
    # It fitted when the download began.
    ballast.write_bytes(bytes(900_000))
    out, err = process.communicate(timeout=30)
    fails(Ended(process.returncode, out, err), 6, f"the disk of {small_disk / 'hub'} is full", "same command")
    ballast.unlink()
    hub.repo(NAME).faults.clear()
    done = subprocess.run(
        [sys.executable, "-m", "llmctl", "models", "pull", NAME],
        cwd=ROOT,
        env={**os.environ, **environ},
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert hub.gets(WEIGHTS)[-1].range is not None


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 2 MB; the test is skipped where none can be mounted."""
    place = tmp_path / "disk"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=2000k", "tmpfs", str(place)]
    if subprocess.run(mount, capture_output=True).returncode != 0:
        pytest.skip("a file system can be mounted by root alone")
    yield place
    subprocess.run(["umount", "-l", str(place)], check=True)
