"""Compressed models by the judgement of others: plain transformers, the held-out set, the kernel, kill -9."""

import json
import random
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

from llmctl.artifacts.compress.request import CompressRequest
from llmctl.artifacts.compress.run import compress
from llmctl.core.progress import SilentProgress
from llmctl.demo import MODELS
from llmctl.demo.evaluate import answerer
from llmctl.demo.heldout import score_many
from llmctl.loading.loader import LoadRequest, load
from llmctl.loading.planning.request import PlanRequest
from tests import tiny

pytestmark = pytest.mark.heavy

_RUN = """
import sys, threading, time
from pathlib import Path
import torch
def now():
    lines = dict(line.split(":", 1) for line in open("/proc/self/status") if ":" in line)
    return sum(int(lines[key].split()[0]) << 10 for key in ("RssAnon", "RssShmem"))
idle, peak = now(), [0]
def watch():
    while True:
        peak[0] = max(peak[0], now())
        time.sleep(0.005)
threading.Thread(target=watch, daemon=True).start()
from llmctl.artifacts.compress.run import compress
from llmctl.artifacts.compress.request import CompressRequest
from llmctl.core.progress import SilentProgress
source, target, method = sys.argv[1:]
compress(
    CompressRequest(
        model=source, target=Path(target), method=method, evaluates=False, max_shard_bytes=200_000_000
    ),
    SilentProgress(),
)
print(peak[0] - idle)
"""


def run(target: Path, method: str, **changes: Any) -> Path:
    request = CompressRequest(model="demo", target=target, method=method, evaluates=False, **changes)
    compress(request, SilentProgress())
    return target


def loaded(folder: Path) -> Any:
    wish = LoadRequest(model=str(folder), plan=PlanRequest(device="cpu", dtype="float32"))
    return load(wish, SilentProgress())


@pytest.mark.filterwarnings("ignore:You passed .quantization_config.:UserWarning")
@pytest.mark.parametrize("method", ["int8", "int4", "fp8"])
def test_plain_transformers_says_the_same(tmp_path: Path, method: str) -> None:
    pytest.importorskip("compressed_tensors")
    folder = run(tmp_path / "out", method)
    ours = loaded(folder)
    # Otherwise the inputs of layers are rounded to 8-bit floats as well, which no CPU computes with.
    dense = {"quantization_config": transformers.CompressedTensorsConfig(dequantize=True)}
    theirs = transformers.AutoModelForCausalLM.from_pretrained(
        folder, dtype=torch.float32, **(dense if method == "fp8" else {})
    ).eval()
    talk = [{"role": "user", "content": "Tell me a story about Anna and a boat."}]
    text = ours.tokenizer.apply_chat_template(talk, add_generation_prompt=True, tokenize=False)
    ids = torch.tensor([ours.tokenizer(text, add_special_tokens=False)["input_ids"]])
    said = [model.generate(ids, max_new_tokens=64, do_sample=False) for model in (ours.model, theirs)]
    assert torch.equal(said[0], said[1])


@pytest.fixture(scope="module")
def dense_score() -> float:
    """Of the demo model as it is."""
    found = loaded(MODELS["demo"])
    return score_many(answerer(found.model, found.tokenizer))["all"]


@pytest.mark.parametrize(("method", "most"), [("int8", 0.01), ("int4", 0.06), ("fp8", 0.02), ("nf4", 0.06)])
def test_the_demo_model_loses_little_of_its_score(
    tmp_path: Path, dense_score: float, method: str, most: float
) -> None:
    found = loaded(run(tmp_path / "out", method))
    assert dense_score - score_many(answerer(found.model, found.tokenizer))["all"] <= most


@pytest.fixture(scope="module")
def gigabyte(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint of about that size in several shards."""
    folder = tmp_path_factory.mktemp("big") / "model"
    sizes = {"hidden_size": 2048, "intermediate_size": 8192, "num_hidden_layers": 5, "vocab_size": 32000}
    config = tiny.config(**sizes, num_attention_heads=16, num_key_value_heads=4)
    model = transformers.AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)
    model.save_pretrained(folder, max_shard_size="400MB")
    tiny.tokenizer().save_pretrained(folder)
    return folder


@pytest.mark.parametrize("method", ["int8", "int4", "fp8", "nf4"])
def test_memory_is_a_few_tensors_and_no_more(gigabyte: Path, tmp_path: Path, method: str) -> None:
    ended = subprocess.run(
        [sys.executable, "-c", _RUN, str(gigabyte), str(tmp_path / "out"), method],
        capture_output=True,
        text=True,
        check=True,
    )
    largest = 32000 * 2048 * 2
    assert int(ended.stdout) <= 3 * largest + 400_000_000


def whole(folder: Path) -> dict[str, bytes]:
    """All files but those that tell how long it took."""
    timed = ("README.md", "llmctl_compress.json")
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.name not in timed}


def test_who_is_killed_goes_on_and_ends_with_the_same_bytes(gigabyte: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-c", _RUN, str(gigabyte)]
    started = time.monotonic()
    subprocess.run([*command, str(tmp_path / "once"), "int4"], check=True, capture_output=True)
    seconds, expected = time.monotonic() - started, whole(tmp_path / "once")
    chance = random.Random(0)
    target = tmp_path / "out"
    for _ in range(10):
        process = subprocess.Popen(
            [*command, str(target), "int4"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        try:
            process.wait(chance.uniform(0.2, 0.8) * seconds)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        if target.exists():
            # It was renamed, and killed behind that or not at all: below it must be whole.
            break
    if not target.exists():
        subprocess.run([*command, str(target), "int4"], check=True, capture_output=True)
    assert whole(target) == expected
    assert json.loads((target / "llmctl_compress.json").read_text())["operation"] == "compress"
    # Who is killed behind the rename cannot take the empty place away.
    assert {path.name for path in tmp_path.iterdir()} <= {"once", "out", ".out.llmctl-part"}
