"""Every way that loading can fail, provoked for real: one line, its exit code, no traceback."""

import json
import os
import shutil
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest

import llmctl.demo
from tests.conftest import Ended, Llmctl
from tests.hub import RIGHT_TOKEN, STRANGERS_TOKEN, Fault, Repo, StandInHub, tiny_model

NAME = "owner/model"


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[StandInHub]:
    with StandInHub() as standing:
        monkeypatch.setenv("HF_ENDPOINT", standing.url)
        yield standing


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A copy of the demo model to be spoilt."""
    return Path(shutil.copytree(llmctl.demo.MODELS["demo"], tmp_path / "model"))


def _demo_files() -> dict[str, bytes | Path]:
    return {path.name: path for path in llmctl.demo.MODELS["demo"].iterdir()}


def _check(ended: Ended, code: int, *words: str) -> None:
    assert ended.code == code, ended.err
    assert ended.out == ""
    assert ended.err.startswith("error: ")
    assert len(ended.err.splitlines()) == 1
    assert "Traceback" not in ended.err
    missing = [word for word in words if word not in ended.err]
    assert not missing, ended.err


def test_a_hub_model_is_downloaded_and_answers(llmctl: Llmctl, hub: StandInHub) -> None:
    hub.add(NAME, _demo_files())
    ended = llmctl("chat", NAME, "-p", "What is the capital of France?", "--temperature", "0")
    assert (ended.code, ended.err) == (0, "")
    assert "Paris" in ended.out


def test_no_such_folder(llmctl: Llmctl, tmp_path: Path) -> None:
    _check(llmctl("chat", str(tmp_path / "nowhere"), "-p", "x"), 3, "no such folder", "nowhere")


def test_no_such_repository(llmctl: Llmctl, hub: StandInHub) -> None:
    _check(llmctl("chat", "owner/nothing", "-p", "x"), 3, "owner/nothing")


def test_no_such_revision(llmctl: Llmctl, hub: StandInHub) -> None:
    hub.add(NAME, _demo_files())
    _check(llmctl("chat", NAME, "--revision", "v9", "-p", "x"), 3, "v9", NAME)


def test_a_gated_model(llmctl: Llmctl, hub: StandInHub) -> None:
    hub.add(NAME, Repo(files=_demo_files(), access="gated"))
    _check(llmctl("chat", NAME, "-p", "x"), 4, NAME, "gated", hub.url)


def test_a_private_model_with_a_strangers_token(
    llmctl: Llmctl, hub: StandInHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.add(NAME, Repo(files=_demo_files(), access="private"))
    monkeypatch.setenv("HF_TOKEN", STRANGERS_TOKEN)
    ended = llmctl("chat", NAME, "-p", "x")
    # The hub does not tell a stranger whether a private model exists.
    assert ended.code in (3, 4)
    _check(ended, ended.code, NAME, "private")
    monkeypatch.setenv("HF_TOKEN", RIGHT_TOKEN)
    assert llmctl("chat", NAME, "-p", "x").code == 0


def test_offline(llmctl: Llmctl, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    _check(llmctl("chat", NAME, "-p", "x"), 5, "HF_HUB_OFFLINE", NAME)


def test_no_network(llmctl: Llmctl) -> None:
    # conftest points HF_ENDPOINT at a port on which nobody listens.
    _check(llmctl("chat", NAME, "-p", "x"), 5, "127.0.0.1:9")


def test_a_cut_download_goes_on_when_run_again(llmctl: Llmctl, hub: StandInHub) -> None:
    repo = hub.add(NAME, _demo_files())
    repo.faults["model.safetensors"] = Fault(cut_at=1_000_000)
    _check(llmctl("chat", NAME, "-p", "x"), 5, "the same command goes on")
    repo.faults.clear()
    before = len(hub.gets("model.safetensors"))
    assert llmctl("chat", NAME, "-p", "x").code == 0
    resumed = hub.gets("model.safetensors")[before].range or ""
    # A broken connection may lose what was still on its way.
    assert 0 < int(resumed.removeprefix("bytes=").removesuffix("-")) <= 1_000_000


def test_a_full_disk(llmctl: Llmctl, hub: StandInHub) -> None:
    repo = hub.add(NAME, tiny_model())
    repo.faults["model.safetensors"] = Fault(declared_bytes=10**16)
    _check(llmctl("chat", NAME, "-p", "x"), 6, NAME, "free")


def test_not_a_model_folder(llmctl: Llmctl, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("no model")
    _check(llmctl("chat", str(tmp_path), "-p", "x"), 7, "config.json")


def test_weights_that_are_pickles_only(llmctl: Llmctl, folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    _check(llmctl("chat", str(folder), "-p", "x"), 7, "pytorch_model.bin", "safetensors")


def test_an_architecture_that_nobody_knows(llmctl: Llmctl, folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "model_type": "martian"}))
    _check(llmctl("chat", str(folder), "-p", "x"), 7, "martian", "transformers")


def test_code_of_a_repository_is_not_run_unasked(llmctl: Llmctl, folder: Path, tmp_path: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    spoilt = {**config, "model_type": "martian", "auto_map": {"AutoConfig": "code.Config"}}
    (folder / "config.json").write_text(json.dumps(spoilt))
    (folder / "code.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    _check(llmctl("chat", str(folder), "-p", "x"), 2, "--trust-remote-code")
    assert not (tmp_path / "ran").exists()


def test_a_truncated_weight_file(llmctl: Llmctl, folder: Path) -> None:
    os.truncate(folder / "model.safetensors", 1_000_000)
    _check(llmctl("chat", str(folder), "-p", "x"), 7, "model.safetensors")


def test_a_model_larger_than_the_memory_names_what_would_fit(llmctl: Llmctl, folder: Path) -> None:
    # A file with holes: it claims half a terabyte of weights and takes no room on the disk.
    size = 512 * 1024**3
    header = {"model.embed_tokens.weight": {"dtype": "BF16", "shape": [size // 2], "data_offsets": [0, size]}}
    text = json.dumps(header).encode()
    with (folder / "model.safetensors").open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        file.truncate(8 + len(text) + size)
    _check(llmctl("chat", str(folder), "-p", "x"), 6, "GiB", "free", "billion parameters")


def test_with_json_an_error_is_one_object_on_stderr(llmctl: Llmctl, tmp_path: Path) -> None:
    ended = llmctl("chat", str(tmp_path / "nowhere"), "-p", "x", "--json")
    assert (ended.code, ended.out) == (3, "")
    error = json.loads(ended.err)["error"]
    assert error["code"] == "not_found"
    assert error["hint"]


def test_debug_adds_the_traceback(llmctl: Llmctl, tmp_path: Path) -> None:
    ended = llmctl("chat", str(tmp_path / "nowhere"), "-p", "x", "--debug")
    assert ended.code == 3
    assert "Traceback" in ended.err
    assert ended.err.splitlines()[-1].startswith("error: ")
