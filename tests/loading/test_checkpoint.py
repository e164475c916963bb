"""Finding a model by name, and what is said of folders that are none or are damaged."""

import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from llmctl.core.errors import BadFileError, LlmctlError, NotFoundError, UsageError
from llmctl.core.progress import SilentProgress
from llmctl.loading import contents
from llmctl.loading.checkpoint import Checkpoint, locate
from tests.hub import StandInHub, tiny_model, tiny_safetensors


def find(model: str | Path, revision: str | None = None) -> Checkpoint:
    return locate(str(model), revision=revision, progress=SilentProgress())


def fails(kind: type[LlmctlError], model: str | Path, *words: str, revision: str | None = None) -> None:
    with pytest.raises(LlmctlError) as caught:
        find(model, revision)
    told = f"{caught.value.message} ({caught.value.hint})"
    assert type(caught.value) is kind, told
    assert "\n" not in told
    for word in words:
        assert word in told, told


def fill(folder: Path, files: dict[str, bytes | Path]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, body in files.items():
        assert isinstance(body, bytes)
        (folder / name).write_bytes(body)
    return folder


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder of every test, with one good model in it, and one embedded model elsewhere."""
    fill(tmp_path / "elsewhere", tiny_model())
    here = tmp_path / "here"
    here.mkdir()
    monkeypatch.chdir(here)
    embedded = SimpleNamespace(MODELS={"demo": tmp_path / "elsewhere"})
    monkeypatch.setitem(sys.modules, "llmctl.demo", embedded)
    return fill(here / "good", tiny_model())


# Names


def test_a_folder_is_known_from_its_headers(folder: Path) -> None:
    fill(folder, {"generation_config.json": b'{"top_k": 20}'})
    found = find(folder)
    assert found == Checkpoint(
        name="good",
        folder=folder,
        config={"model_type": "llama"},
        generation_config={"top_k": 20},
        weight_files=(folder / "model.safetensors",),
        num_bytes=1024,
        bytes_by_dtype={"BF16": 1024},
        num_parameters=512,
    )


@pytest.mark.parametrize("name", ["good", "./good", "../here/good", "good/", "~/good"])
def test_a_folder_may_be_written_in_many_ways(
    folder: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(folder.parent))
    found = find(name)
    assert found.folder.samefile(folder)
    assert found.name == "good"


def test_embedded_models_are_found_by_name(tmp_path: Path) -> None:
    found = find("demo")
    assert (found.name, found.folder, found.commit) == ("demo", tmp_path / "elsewhere", None)


def test_a_local_folder_comes_before_an_embedded_model_if_it_is_a_model(folder: Path) -> None:
    stray = fill(folder.parent / "demo", {})
    assert find("demo").folder != stray
    fails(BadFileError, "./demo", "empty")
    fill(stray, tiny_model())
    assert find("demo").folder.samefile(stray)


def test_a_hub_id_is_downloaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("HF_HUB_CACHE", raising=False)
    monkeypatch.delenv("HF_TOKEN", raising=False)
    with StandInHub({"owner/tiny": tiny_model()}) as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.url)
        found = find("owner/tiny", "main")
        assert (found.name, found.revision, found.commit) == ("owner/tiny", "main", hub.commit("owner/tiny"))
        assert (found.num_bytes, found.config) == (1024, {"model_type": "llama"})
        hub.add("owner/lora", {"adapter_config.json": b'{"base_model_name_or_path": "owner/tiny"}'})
        fails(BadFileError, "owner/lora", "PEFT adapter without weights", "adapter_model.safetensors")
        import huggingface_hub

        huggingface_hub.close_session()


@pytest.mark.parametrize("name", ["good", "demo"])
def test_a_revision_is_only_for_the_hub(name: str) -> None:
    fails(UsageError, name, "--revision v1", name, revision="v1")


@pytest.mark.parametrize("name", ["./goood", "/nowhere/at/all", "~/nope", "a/b/c", "goood/", "https://h/a"])
def test_a_path_that_does_not_exist_is_not_sought_on_the_hub(name: str) -> None:
    fails(NotFoundError, name, "no such folder", name)


@pytest.mark.parametrize("name", ["~nobody-of-that-name/x", "x" * 5000])
def test_a_name_that_the_file_system_cannot_take_is_not_found(name: str) -> None:
    fails(NotFoundError, name, name)


@pytest.mark.parametrize("name", ["x.gguf", "./x.gguf", "/nowhere/at/all/x.gguf", "here/x/m.gguf"])
def test_a_gguf_file_that_does_not_exist_is_not_sought_on_the_hub(folder: Path, name: str) -> None:
    (folder.parent / "here" / "x").mkdir(parents=True)
    fails(NotFoundError, name, "no such file", name)


def test_a_near_folder_is_proposed() -> None:
    fails(NotFoundError, "./goood", "did you mean good?")


@pytest.mark.parametrize("name", ["", "  "])
def test_an_empty_name_is_a_usage_error(name: str) -> None:
    fails(UsageError, name, "demo", "Qwen/Qwen3-0.6B")


@pytest.mark.parametrize("name", ["m.bin", "good/model.safetensors"])
def test_a_file_is_refused_with_what_is_needed(folder: Path, name: str) -> None:
    (folder.parent / "m.bin").write_bytes(b"x")
    fails(BadFileError, name, name, "is a file", "config.json")


def test_a_device_or_a_pipe_is_no_model(folder: Path) -> None:
    os.mkfifo(folder.parent / "pipe")
    (folder.parent / "zero.gguf").symlink_to("/dev/zero")
    for name in ("pipe", "./pipe", "zero.gguf", "/dev/zero"):
        fails(BadFileError, name, f"{name} is a device or pipe", "*.gguf")


# Folders that are no model


@pytest.mark.parametrize(
    ("files", "words"),
    [
        ([], ["empty", "config.json"]),
        (["notes.md", "a.png"], ["no config.json", "a.png, notes.md"]),
        (["mmproj-m.gguf"], ["no config.json", "mmproj-m.gguf"]),
        (["params.json", "consolidated.00.pth", "tokenizer.model"], ["no config.json", "maker's own format"]),
        (["model_index.json"], ["image pipeline"]),
    ],
)
def test_a_folder_without_a_config_is_told_by_what_it_holds(
    folder: Path, files: list[str], words: list[str]
) -> None:
    fill(folder.parent / "odd", dict.fromkeys(files, b"{}"))
    fails(BadFileError, "odd", "odd", *words)


def test_an_adapter_without_a_base_is_refused(folder: Path) -> None:
    config = b'{"peft_type": "LORA", "r": 1, "lora_alpha": 1}'
    fill(
        folder.parent / "odd",
        {"adapter_config.json": config, "adapter_model.safetensors": tiny_safetensors()},
    )
    fails(BadFileError, "odd", "PEFT adapter", "names no base model", "base_model_name_or_path")


@pytest.mark.parametrize("inner", ["Qwen", "snapshots/abc"])
def test_a_folder_of_models_proposes_one_of_them(folder: Path, inner: str) -> None:
    fill(folder.parent / "odd" / inner, tiny_model())
    fails(BadFileError, "odd", "no config.json", f"did you mean odd/{inner}?")


@pytest.mark.parametrize(
    ("files", "words"),
    [
        (
            ["pytorch_model.bin"],
            [
                "only pickle weights (pytorch_model.bin)",
                "`llmctl models convert ",
                " --out DIR`",
                "refs/pr",
            ],
        ),
        (["model.pth"], ["only pickle weights (model.pth)"]),
        (["training_args.bin"], ["has no weights"]),
        (["model.onnx", "flax_model.msgpack"], ["has no weights", "model.onnx"]),
    ],
)
def test_weights_that_are_no_safetensors_are_refused(
    folder: Path, files: list[str], words: list[str]
) -> None:
    (folder / "model.safetensors").unlink()
    fill(folder, dict.fromkeys(files, b"x"))
    fails(BadFileError, folder, str(folder), *words)


@pytest.mark.parametrize("name", ["config.json", "generation_config.json"])
@pytest.mark.parametrize(("body", "word"), [(b"{", "valid JSON"), (b"[]", "object"), (b"\xff", "valid JSON")])
def test_broken_json_is_named(folder: Path, name: str, body: bytes, word: str) -> None:
    fill(folder, {name: body})
    fails(BadFileError, folder, str(folder / name), word)


# Shards

INDEX = {"weight_map": {f"w{i}": f"model-0000{i}-of-00003.safetensors" for i in (1, 2, 3)}}


@pytest.fixture
def sharded(folder: Path) -> Path:
    (folder / "model.safetensors").unlink()
    fill(folder, {contents.INDEX: json.dumps(INDEX).encode()})
    fill(folder, {f"model-0000{i}-of-00003.safetensors": tiny_safetensors(2 * i) for i in (1, 2, 3)})
    return folder


def test_shards_add_up(sharded: Path) -> None:
    fill(
        sharded,
        {
            "consolidated.safetensors": b"not looked at",
            "model-00003-of-00003.safetensors": tiny_safetensors(6),
        },
    )
    fill(sharded, {"model-00002-of-00003.safetensors": tiny_safetensors(4, dtype="F16")})
    found = find(sharded)
    assert [path.name for path in found.weight_files] == sorted(INDEX["weight_map"].values())
    assert found.bytes_by_dtype == {"BF16": 8, "F16": 4}
    assert (found.num_bytes, found.num_parameters) == (12, 6)


def test_missing_shards_are_named(sharded: Path) -> None:
    (sharded / "model-00002-of-00003.safetensors").unlink()
    (sharded / "model-00003-of-00003.safetensors").unlink()
    fails(BadFileError, sharded, "lacks model-00002-of-00003.safetensors, model-00003-of-00003.safetensors")


def test_a_link_into_the_void_counts_as_missing(sharded: Path) -> None:
    shard = sharded / "model-00002-of-00003.safetensors"
    shard.unlink()
    shard.symlink_to("../gone")
    fails(BadFileError, sharded, "lacks model-00002-of-00003.safetensors")


def test_an_index_cannot_lead_out_of_the_folder(sharded: Path) -> None:
    fill(sharded, {contents.INDEX: b'{"weight_map": {"w": "../elsewhere/model.safetensors"}}'})
    fails(BadFileError, sharded, "lacks ../elsewhere/model.safetensors")


@pytest.mark.parametrize("body", [b"{}", b'{"weight_map": []}', b"{"])
def test_a_damaged_index_is_named(sharded: Path, body: bytes) -> None:
    fill(sharded, {contents.INDEX: body})
    fails(BadFileError, sharded, contents.INDEX)


def test_a_single_file_wins_over_shards(sharded: Path) -> None:
    fill(sharded, {"model.safetensors": tiny_safetensors(2)})
    assert find(sharded).num_bytes == 2


def test_weights_under_other_names_are_refused_with_the_name_that_is_needed(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "gptq_model-4bit-128g.safetensors")
    fill(folder, {"consolidated.safetensors": b"no", "adapter_model.safetensors": b"no"})
    with pytest.raises(BadFileError, match=r"gptq_model.*neither model\.safetensors") as refused:
        find(folder)
    assert "model.safetensors" in (refused.value.hint or "")


def test_importing_needs_neither_torch_nor_the_network_libraries() -> None:
    code = (
        "import sys, llmctl.loading.checkpoint, llmctl.loading.hub.download;"
        "print(sorted({'torch', 'transformers', 'numpy', 'huggingface_hub', 'httpx', 'httpx2', 'safetensors'}"
        " & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        cwd=Path(__file__).parents[2],
    )
    assert done.stdout.strip() == "[]"
