"""GPTQ and AWQ come from another package in another process, whose faults are one line here."""

import json
from pathlib import Path
from typing import Any

import pytest

from llmctl.artifacts.compress.request import Compressed, CompressRequest
from llmctl.artifacts.compress.run import compress
from llmctl.core.errors import LlmctlError, UsageError
from llmctl.core.progress import SilentProgress
from tests import tiny

_PACKAGE = """
import json, shutil, sys
from pathlib import Path

Path("a.log").write_text("as gptqmodel does")

class BACKEND:
    AWQ_TORCH = "awq_torch"

class QuantizeConfig(dict):
    def __init__(self, **options):
        super().__init__(options)

class GPTQModel:
    @classmethod
    def load(cls, folder, config):
        model = cls()
        model.folder, model.config = folder, config
        return model

    def quantize(self, texts, **options):
        print("a banner")
        if "boom" in texts[0]:
            raise RuntimeError("this text is no good")
        self.config["texts"], self.config["options"] = len(texts), options

    def save(self, target, max_shard_size):
        self.config["max_shard_size"] = max_shard_size
        for name in ("config.json", "model.safetensors"):
            shutil.copy(Path(self.folder) / name, target)
        (Path(target) / "quantize_config.json").write_text(json.dumps(self.config))
"""
_KINDS = """
class METHOD:
    GPTQ, AWQ = "gptq", "awq"

class FORMAT:
    GPTQ, GEMM = "gptq", "gemm"
"""


@pytest.fixture
def _package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Stands for gptqmodel, and writes the model as it was."""
    place = tmp_path / "site" / "gptqmodel"
    place.mkdir(parents=True)
    (place / "__init__.py").write_text(_PACKAGE)
    (place / "quantization.py").write_text(_KINDS)
    monkeypatch.syspath_prepend(str(place.parent))
    monkeypatch.setenv("PYTHONPATH", str(place.parent))


def run(
    tmp_path: Path, method: str = "gptq", *, text: str = "some words " * 500, **changes: Any
) -> Compressed:
    source = tiny.folder(tmp_path / "source", hidden_size=128, intermediate_size=128)
    (tmp_path / "text.txt").write_text(text)
    request = CompressRequest(
        model=str(source),
        target=tmp_path / "out",
        method=method,
        evaluates=False,
        **{"calibration": tmp_path / "text.txt", **changes},
    )
    return compress(request, SilentProgress())


@pytest.mark.usefixtures("_package")
@pytest.mark.parametrize(
    ("method", "kind", "options"), [("gptq", "gptq", {"batch_size": 1}), ("awq", "gemm", None)]
)
def test_the_package_is_told_what_is_wanted(
    tmp_path: Path, method: str, kind: str, options: dict[str, int] | None
) -> None:
    made = run(tmp_path, method, group_size=64, skip=(r"layers\.0\.",), max_shard_bytes=10**9)
    told = json.loads((tmp_path / "out" / "quantize_config.json").read_text())
    assert (told["bits"], told["group_size"], told["method"], told["format"]) == (4, 64, method, kind)
    assert told["dynamic"] == {"-:.*(?:layers\\.0\\.)": {}}
    assert told["texts"] == 3
    assert told["max_shard_size"] == 10**9
    assert options is None or told["options"] == options
    assert made.bytes_after == made.bytes_before
    assert not Path("a.log").exists()
    assert (tmp_path / "out" / "tokenizer.json").is_file()
    assert json.loads((tmp_path / "out" / "llmctl_compress.json").read_text())["options"]["method"] == method


@pytest.mark.usefixtures("_package")
def test_what_goes_wrong_there_is_one_line_and_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(LlmctlError, match="could not compress source: RuntimeError: this text is no good"):
        run(tmp_path, text="boom " * 100)
    assert not list(tmp_path.glob("*out*"))


@pytest.mark.usefixtures("_package")
def test_without_a_text_it_is_not_tried(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="--method awq needs text to learn from"):
        run(tmp_path, "awq", calibration=None)


@pytest.mark.usefixtures("_package")
def test_a_dry_run_starts_no_process(tmp_path: Path) -> None:
    told = run(tmp_path, text="boom " * 100, is_dry=True)
    assert told.bytes_after < told.bytes_before
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(("method", "extra"), [("gptq", "gptq"), ("awq", "awq")])
def test_without_the_package_the_extra_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, method: str, extra: str
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(UsageError) as refused:
        run(tmp_path, method)
    assert f"pip install 'llmctl[{extra}]'" in str(refused.value.hint)
