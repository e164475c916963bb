"""Which models are on this machine, and the list of them that the shells complete from."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from llmctl.core.name_list import read_names
from llmctl.demo import MODELS
from llmctl.loading.hub.local_models import MAX_FOLDERS, find_here, hub_folder, local_models, remember
from tests.conftest import ROOT

EMBEDDED = ["demo", "demo-base"]


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "hub"
    monkeypatch.setenv("HF_HUB_CACHE", str(folder))
    return folder


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "cache"


def download(hub: Path, name: str, file: str = "config.json") -> Path:
    """A repository in the cache as the hub's client leaves it."""
    folder = hub / f"models--{name.replace('/', '--')}"
    for part in ("blobs", "snapshots/0123"):
        (folder / part).mkdir(parents=True)
    (folder / "blobs" / "abc").write_text("{}")
    (folder / "snapshots" / "0123" / file).symlink_to("../../blobs/abc")
    return folder


def listed(cache: Path) -> list[str]:
    """The names in the list."""
    return read_names(cache / "models.txt")


def model_folder(path: Path) -> Path:
    """A folder that can be used as a model."""
    path.mkdir(parents=True)
    (path / "config.json").write_text("{}")
    return path


def test_without_a_cache_there_are_the_embedded_models(hub: Path) -> None:
    assert local_models(os.environ) == EMBEDDED


def test_downloaded_models_are_found_in_order_and_by_their_names(hub: Path) -> None:
    for name in ("Qwen/Qwen3-0.6B", "gpt2", "HuggingFaceTB/SmolLM2-135M-Instruct"):
        download(hub, name)
    assert local_models(os.environ) == [
        *EMBEDDED,
        "HuggingFaceTB/SmolLM2-135M-Instruct",
        "Qwen/Qwen3-0.6B",
        "gpt2",
    ]


def test_what_is_no_model_is_left_out(hub: Path) -> None:
    download(hub, "a/no-config", file="README.md")
    (download(hub, "a/broken-off") / "blobs" / "abc").unlink()
    (hub / "models--a--empty").mkdir()
    (hub / "models--a--file").touch()
    (hub / "datasets--a--b" / "snapshots" / "1").mkdir(parents=True)
    (hub / "datasets--a--b" / "snapshots" / "1" / "config.json").touch()
    (hub / ".locks").mkdir()
    assert local_models(os.environ) == EMBEDDED


ENVIRONMENTS = [
    {},
    {"HF_HOME": "{root}/home"},
    {"HF_HOME": "~/home"},
    {"HF_HOME": "$PLACE/home"},
    {"HF_HUB_CACHE": "{root}/hub", "HF_HOME": "{root}/home"},
    {"HUGGINGFACE_HUB_CACHE": "{root}/old", "HF_HOME": "{root}/home"},
    {"HF_HUB_CACHE": "{root}/hub", "HUGGINGFACE_HUB_CACHE": "{root}/old"},
    {"XDG_CACHE_HOME": "{root}/xdg"},
    {"XDG_CACHE_HOME": "{root}/xdg", "HF_HOME": "{root}/home"},
]


def test_the_cache_is_found_where_huggingface_hub_finds_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    environs = [
        {key: text.format(root=tmp_path) for key, text in environ.items()} for environ in ENVIRONMENTS
    ]
    program = (
        "import importlib, json, os, sys\n"
        "from huggingface_hub import constants\n"
        "for environ in json.load(sys.stdin):\n"
        "    os.environ.update(environ)\n"
        "    print(importlib.reload(constants).HF_HUB_CACHE)\n"
        "    for key in environ: del os.environ[key]\n"
    )
    monkeypatch.delenv("HF_HOME")
    monkeypatch.setenv("PLACE", str(tmp_path))
    ended = subprocess.run(
        [sys.executable, "-c", program],
        input=json.dumps(environs),
        capture_output=True,
        text=True,
        check=True,
    )
    found = [str(hub_folder({**os.environ, **environ})) for environ in environs]
    assert found == ended.stdout.splitlines()
    assert len(set(found)) > len(environs) // 2


def test_the_list_holds_what_is_local(hub: Path, cache: Path) -> None:
    download(hub, "Qwen/Qwen3-0.6B")
    remember(cache, used="demo")
    assert listed(cache) == [*EMBEDDED, "Qwen/Qwen3-0.6B"]
    download(hub, "gpt2")
    remember(cache, used=None)
    assert listed(cache) == [*EMBEDDED, "Qwen/Qwen3-0.6B", "gpt2"]


@pytest.mark.parametrize("used", ["./my model", "my model", "{root}/my model/", "~/../{name}/my model"])
def test_a_folder_is_remembered_by_its_absolute_path(
    hub: Path, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, used: str
) -> None:
    folder = model_folder(tmp_path / "my model")
    monkeypatch.chdir(tmp_path)
    (tmp_path.parent / "home").mkdir(exist_ok=True)
    monkeypatch.setenv("HOME", str(tmp_path.parent / "home"))
    remember(cache, used=used.format(root=tmp_path, name=tmp_path.name))
    assert listed(cache) == [*EMBEDDED, str(folder)]


def test_a_file_of_a_folder_is_remembered_with_its_tag(
    hub: Path, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "m-Q4_0.gguf").write_bytes(b"GGUF")
    remember(cache, used="./models:Q4_0")
    assert listed(cache) == [*EMBEDDED, f"{tmp_path}/models:Q4_0"]


def test_a_link_keeps_its_name(hub: Path, cache: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(model_folder(tmp_path / "real"))
    remember(cache, used=str(tmp_path / "link"))
    assert listed(cache) == [*EMBEDDED, str(tmp_path / "link")]


@pytest.mark.parametrize("used", ["demo", "Qwen/Qwen3-0.6B", "no-such", "", "a\0b", "~nobody-at-all/x"])
def test_what_is_no_folder_is_not_remembered_as_one(
    hub: Path, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, used: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "demo").mkdir()
    remember(cache, used=used or None)
    assert listed(cache) == EMBEDDED


def test_a_model_folder_called_like_an_embedded_one_is_remembered(
    hub: Path, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    folder = model_folder(tmp_path / "demo")
    remember(cache, used="demo")
    assert listed(cache) == [*EMBEDDED, str(folder)]


def test_folders_that_vanished_are_forgotten_and_the_last_used_comes_first(
    hub: Path, cache: Path, tmp_path: Path
) -> None:
    folders = [model_folder(tmp_path / name) for name in ("a", "b", "c")]
    for folder in folders:
        remember(cache, used=str(folder))
    remember(cache, used=str(folders[0]))
    assert listed(cache) == [*EMBEDDED, *map(str, (folders[0], folders[2], folders[1]))]
    (folders[2] / "config.json").unlink()
    folders[2].rmdir()
    remember(cache, used="demo")
    assert listed(cache) == [*EMBEDDED, *map(str, folders[:2])]


def test_only_so_many_folders_are_remembered(hub: Path, cache: Path, tmp_path: Path) -> None:
    folders = [str(model_folder(tmp_path / f"m{number}")) for number in range(MAX_FOLDERS + 2)]
    for folder in folders:
        remember(cache, used=folder)
    assert listed(cache) == [*EMBEDDED, *reversed(folders[2:])]


@pytest.mark.parametrize("name", ["evil\nname", "\x1b[31m"])
def test_a_folder_with_a_name_that_a_terminal_would_obey_is_left_out(
    hub: Path, cache: Path, tmp_path: Path, name: str
) -> None:
    remember(cache, used=str(model_folder(tmp_path / name)))
    assert listed(cache) == EMBEDDED
    download(hub, f"a/{name}")
    remember(cache, used=None)
    assert listed(cache) == EMBEDDED


def test_nothing_is_raised_where_nothing_can_be_written(hub: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    remember(tmp_path / "file" / "cache", used="demo")
    assert (tmp_path / "file").is_file()


def test_it_imports_nothing_slow() -> None:
    program = (
        "import sys, llmctl.loading.hub.local_models;"
        "print({'torch', 'transformers', 'huggingface_hub', 'httpx2'} & set(sys.modules))"
    )
    ended = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True)
    assert (ended.stdout, ended.stderr) == ("set()\n", "")


def snapshot(hub: Path, name: str, commit: str, file: str = "config.json") -> Path:
    """A commit of a repository in the cache."""
    folder = hub / f"models--{name.replace('/', '--')}" / "snapshots" / commit
    folder.mkdir(parents=True)
    (folder / file).write_text("{}")
    return folder


def test_what_is_downloaded_is_found_by_its_id_and_by_its_folder(hub: Path) -> None:
    folder = snapshot(hub, "a/b", "0123")
    for model in ("a/b", str(hub / "models--a--b"), str(folder)):
        assert find_here(model, os.environ) == folder


def test_the_main_branch_goes_before_a_later_commit(hub: Path) -> None:
    old, new = snapshot(hub, "a/b", "0123"), snapshot(hub, "a/b", "4567")
    os.utime(old, (1, 1))
    assert find_here("a/b", os.environ) == new
    (hub / "models--a--b" / "refs").mkdir()
    (hub / "models--a--b" / "refs" / "main").write_text("0123")
    assert find_here("a/b", os.environ) == old


def test_a_revision_is_a_branch_or_a_commit_of_a_repository(hub: Path) -> None:
    old, new = snapshot(hub, "a/b", "0123"), snapshot(hub, "a/b", "4567")
    (hub / "models--a--b" / "refs" / "pr").mkdir(parents=True)
    for name, commit in (("main", "4567"), ("v1", "0123"), ("pr/1", "0123")):
        (hub / "models--a--b" / "refs" / name).write_text(commit)
    for revision, folder in (("v1", old), ("pr/1", old), ("0123", old), ("4567", new), ("main", new)):
        assert find_here("a/b", os.environ, revision=revision) == folder
    for revision in ("v2", "..", "\0"):
        assert find_here("a/b", os.environ, revision=revision) is None


def test_an_adapter_of_the_hub_is_found(hub: Path) -> None:
    folder = snapshot(hub, "a/lora", "0123", file="adapter_config.json")
    assert find_here("a/lora", os.environ) == folder


def test_an_embedded_model_gives_way_to_a_model_folder_of_its_name_only(
    hub: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "demo").mkdir()
    assert find_here("demo", os.environ) == MODELS["demo"]
    (tmp_path / "demo" / "config.json").write_text("{}")
    assert find_here("demo", os.environ) == Path("demo")


@pytest.mark.parametrize(
    "model",
    ["", " ", "a/b", "no-such", "./no-such", "a\0b", "\udcff", "~nobody-at-all/x", "x" * 5000],
)
def test_a_name_that_nothing_here_has_is_not_found(
    hub: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, model: str
) -> None:
    monkeypatch.chdir(tmp_path)
    hub.mkdir()
    assert find_here(model, os.environ) is None
