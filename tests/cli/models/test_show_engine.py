"""`llmctl models show --engine`: how the engine would run a checkpoint, without its weights."""

import json
from pathlib import Path

import pytest

from tests import tiny
from tests.cli.models.conftest import Models


def without_weights(folder: Path) -> str:
    """Weights that nobody could read."""
    for path in folder.glob("*.safetensors"):
        head = path.read_bytes()
        length = int.from_bytes(head[:8], "little")
        path.write_bytes(head[: 8 + length] + b"\xff" * (len(head) - 8 - length))
    return str(folder)


@pytest.fixture
def folder(tmp_path: Path) -> str:
    return without_weights(tiny.folder(tmp_path / "tiny", "mistral"))


def test_the_tier_and_what_follows_from_it_are_told(models: Models, folder: str) -> None:
    ended = models("show", folder, "--engine", "--device", "cpu")
    assert (ended.code, ended.err) == (0, "")
    lines = ended.out.splitlines()
    assert lines[0] == folder
    found = {line[2:16].rstrip(): line[16:] for line in lines[1:]}
    assert found.keys() == {"tier", "because", "prompts", "prefix cache", "layers", "attention"}
    assert found["tier"] == "A, all sequences at once, packed"
    assert found["layers"] == "2 with a window of 8"
    assert "CPU" in found["attention"]


def test_json_names_the_tier_by_its_letter(models: Models, folder: str) -> None:
    found = json.loads(models("show", "--engine", "--json", folder, "--device", "cpu").out)
    assert found.keys() == {"name", "engine"}
    assert found["engine"].keys() == {
        *("tier", "title", "because", "prompts", "prefix_cache", "layers", "attention")
    }
    assert (found["engine"]["tier"], found["engine"]["prefix_cache"]) == ("A", "yes")


def test_a_model_that_runs_one_by_one_attends_by_itself(models: Models, tmp_path: Path) -> None:
    folder = tiny.folder(tmp_path / "bloom", "bloom")
    found = json.loads(models("show", "--engine", "--json", str(folder)).out)["engine"]
    assert found.keys() == {"tier", "title", "because", "attention"}
    assert (found["tier"], found["attention"]) == ("C", "the model's own")


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (("--engine", "--plan"), "--plan does not go with --engine"),
        (("--engine", "--memory", "16GiB"), "--memory does not go with --engine"),
        (("--engine", "--load-8bit"), "--load-8bit does not go with --engine"),
        (("--engine", "--num-gpus", "2"), "--num-gpus does not go with --engine"),
        (("--engine", "--quant", "int8"), "--quantization does not go with --engine"),
        (
            ("--trust-remote-code",),
            "--trust-remote-code is for the plan or the engine's view (add --plan or --engine)",
        ),
        (("--engine", "--device", "xpu"), "device 'xpu' cannot be used here"),
    ],
)
def test_what_it_does_not_look_at_is_refused(
    models: Models, folder: str, args: tuple[str, ...], message: str
) -> None:
    ended = models("show", folder, *args)
    assert (ended.code, ended.out) == (2, "")
    assert ended.err.startswith(f"error: {message}")


def test_code_of_the_repository_runs_only_when_it_is_trusted(models: Models, folder: str) -> None:
    path = Path(folder) / "config.json"
    traces = Path(folder) / "traces"
    config = json.loads(path.read_text())
    config |= {"model_type": "strange", "auto_map": {"AutoConfig": "strange.Strange"}}
    path.write_text(json.dumps(config))
    (Path(folder) / "strange.py").write_text(f"open({str(traces)!r}, 'w')")
    ended = models("show", folder, "--engine")
    assert (ended.code, ended.out) == (2, "")
    assert "runs on code from its own repository" in ended.err
    assert not traces.exists()
