"""A checkpoint goes in and a smaller one comes out, which loads and says what it is of and what it cost."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from llmctl.artifacts.compress import formats
from llmctl.artifacts.compress.request import Compressed, CompressRequest
from llmctl.artifacts.compress.run import compress
from llmctl.core.errors import BadFileError, NotFoundError, UsageError
from llmctl.core.progress import SilentProgress
from llmctl.loading.loader import LoadRequest, load
from llmctl.loading.planning.request import PlanRequest
from llmctl.quant.formats.table import open_reader
from tests import tiny
from tests.quant.formats.checkpoints import read_folder

METHODS = ["int8", "int4", "fp8", "nf4"]


def run(source: Path | str, target: Path, method: str = "int4", **changes: Any) -> Compressed:
    request = CompressRequest(
        model=str(source), target=target, method=method, **{"evaluates": False, **changes}
    )
    return compress(request, SilentProgress())


def stored(folder: Path) -> dict[str, torch.Tensor]:
    found: dict[str, torch.Tensor] = {}
    for file in sorted(folder.glob("*.safetensors")):
        found |= load_file(file)
    return found


def config(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "config.json").read_text())
    return found


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """Rows of 64 numbers, which all methods can store."""
    return tiny.folder(tmp_path / "source", hidden_size=64, dtype=torch.bfloat16)


@pytest.mark.parametrize("method", METHODS)
def test_layers_are_what_their_rounding_says_and_the_rest_is_bit_for_bit(
    source: Path, tmp_path: Path, method: str
) -> None:
    made = run(source, tmp_path / "out", method)
    before = stored(source)
    layout = formats.Layout(method=method, group_size=made.group_size, dtype=torch.bfloat16)
    quantised, others = read_folder(tmp_path / "out", open_reader)
    assert len(quantised) == made.num_compressed == 14
    for name, weight in quantised.items():
        parts = formats.parts_of(name, before[name], layout)
        reader = open_reader(formats.config_of(layout, []), parts)
        roles = {part.role: parts[key] for key in parts if (part := reader.part(key))}
        expected = reader.decode(name, roles, torch.float32)
        assert torch.equal(weight, expected if isinstance(expected, torch.Tensor) else expected.dequantize())
    assert set(others) == set(before) - set(quantised)
    assert all(torch.equal(others[name], before[name]) for name in others)
    assert made.bytes_after < 0.75 * made.bytes_before


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("kind", ["llama", "mixtral"])
def test_what_was_written_loads_as_what_it_stands_for(tmp_path: Path, kind: str, method: str) -> None:
    source = tiny.folder(tmp_path / "source", kind, hidden_size=64)
    run(source, tmp_path / "out", method)
    quantised, _ = read_folder(tmp_path / "out", open_reader)
    # The dense weights that the packed ones stand for.
    tiny.edit_weights(source, lambda found: found.update(quantised))
    ids = torch.randint(0, 256, (1, 40), generator=torch.Generator().manual_seed(0))

    def logits(folder: Path) -> torch.Tensor:
        wish = LoadRequest(model=str(folder), plan=PlanRequest(device="cpu", dtype="float32"))
        with torch.no_grad():
            found: torch.Tensor = load(wish, SilentProgress()).model(ids).logits
        return found

    expected, found = logits(source), logits(tmp_path / "out")
    # Kernels for 8 bits round what they multiply as well.
    tolerance = {"int8": 0.15, "int4": 0.02, "fp8": 1e-5, "nf4": 0.02}[method]
    assert float((found - expected).norm() / expected.norm()) < tolerance


def test_what_is_no_weight_comes_along_and_is_listed(source: Path, tmp_path: Path) -> None:
    (source / "README.md").write_text("---\nlicense: mit\nbase_model: a/b\n---\n# mine\n\nwords of mine\n")
    (source / "LICENSE").write_text("do what you like")
    made = run(source, tmp_path / "out")
    assert {"LICENSE", "tokenizer.json", "generation_config.json"} <= set(made.carried)
    for name in made.carried:
        assert (tmp_path / "out" / name).read_bytes() == (source / name).read_bytes()
    kept = config(tmp_path / "out")
    assert kept.pop("quantization_config")["quant_method"] == "compressed-tensors"
    assert kept == config(source)
    card = (tmp_path / "out" / "README.md").read_text()
    # A folder has no name that others know: what it is made of stays what its maker said.
    assert card.startswith("---\nlicense: mit\nbase_model: a/b\n---\n")
    assert "words of mine" in card


def test_shards_are_as_large_as_was_asked(source: Path, tmp_path: Path) -> None:
    run(source, tmp_path / "one")
    run(source, tmp_path / "many", max_shard_bytes=30_000)
    assert len(list((tmp_path / "many").glob("model-*.safetensors"))) > 1
    one, many = stored(tmp_path / "one"), stored(tmp_path / "many")
    assert set(one) == set(many)
    assert all(torch.equal(one[name], many[name]) for name in one)
    index = json.loads((tmp_path / "many" / "model.safetensors.index.json").read_text())
    assert set(index["weight_map"]) == set(many)


def test_skipped_layers_stay_and_are_named_in_the_config(source: Path, tmp_path: Path) -> None:
    run(source, tmp_path / "out", skip=(r"layers\.1\.",))
    assert "model.layers.1.mlp.up_proj.weight" in stored(tmp_path / "out")
    ignored = config(tmp_path / "out")["quantization_config"]["ignore"]
    assert "model.layers.1.mlp.up_proj" in ignored
    assert "lm_head" in ignored


def test_a_model_is_judged_before_and_after(source: Path, tmp_path: Path) -> None:
    made = run(source, tmp_path / "out", "int8", evaluates=True)
    assert made.evaluation is not None
    assert made.evaluation["greedy_tokens"] == 64
    assert made.evaluation["greedy_agreement"] <= 64
    before, after = made.evaluation["perplexity_before"], made.evaluation["perplexity_after"]
    assert before != after
    assert abs(after / before - 1) < 0.2
    provenance = json.loads((tmp_path / "out" / "llmctl_compress.json").read_text())
    assert provenance["result"]["evaluation"] == made.evaluation
    assert provenance["options"]["method"] == "int8"
    card = (tmp_path / "out" / "README.md").read_text()
    assert f"| {before:.3f} | {after:.3f} |" in card


def test_the_text_to_be_judged_on_can_be_chosen(source: Path, tmp_path: Path) -> None:
    text = tmp_path / "mine.txt"
    text.write_text("a few words " * 20)
    made = run(source, tmp_path / "out", evaluates=True, evaluation=text)
    assert made.evaluation is not None
    assert made.evaluation["text"] == "mine.txt"
    # After the token that the tokenizer begins with.
    assert made.evaluation["tokens"] == 240


def test_a_model_that_cannot_be_judged_is_compressed_all_the_same_and_that_is_said(
    source: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("WARNING", "llmctl")
    for path in source.glob("tokenizer*"):
        path.unlink()
    made = run(source, tmp_path / "out", evaluates=True)
    assert made.evaluation is None
    assert made.not_evaluated
    assert "source has no tokenizer" in caplog.text
    assert "source is not evaluated" in caplog.text
    assert "Not evaluated" in (tmp_path / "out" / "README.md").read_text()


def test_a_text_that_was_calibrated_on_makes_the_model_better_at_it(tmp_path: Path) -> None:
    text = tmp_path / "text.txt"
    text.write_text(Path(__file__).read_text()[:3000])
    plain = run("demo", tmp_path / "plain", evaluates=True, evaluation=text)
    learned = run("demo", tmp_path / "learned", evaluates=True, evaluation=text, calibration=text)
    assert plain.evaluation is not None
    assert learned.evaluation is not None
    assert learned.evaluation["kl_divergence"] < 0.7 * plain.evaluation["kl_divergence"]
    provenance = json.loads((tmp_path / "learned" / "llmctl_compress.json").read_text())
    assert provenance["calibration"]["name"] == "text.txt"
    assert stored(tmp_path / "plain").keys() == stored(tmp_path / "learned").keys()


def test_a_dry_run_tells_the_sizes_and_writes_nothing(source: Path, tmp_path: Path) -> None:
    told = run(source, tmp_path / "out", is_dry=True)
    assert told.seconds is None
    assert [path.name for path in tmp_path.iterdir()] == ["source"]
    assert run(source, tmp_path / "out").bytes_after == told.bytes_after


def test_a_folder_that_is_there_is_not_replaced_unasked(source: Path, tmp_path: Path) -> None:
    run(source, tmp_path / "out")
    with pytest.raises(UsageError, match="exists"):
        run(source, tmp_path / "out", "int8")
    run(source, tmp_path / "out", "int8", overwrite=True)
    assert config(tmp_path / "out")["quantization_config"]["format"] == "int-quantized"


def test_numbers_that_are_none_are_named_and_nothing_is_left(source: Path, tmp_path: Path) -> None:
    name = "model.layers.1.mlp.up_proj.weight"
    tiny.edit_weights(source, lambda found: found[name][0, :1].fill_(torch.nan))
    with pytest.raises(
        BadFileError, match=r"layers\.1\.mlp\.up_proj\.weight: a weight is not a finite number"
    ):
        run(source, tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["source"]


def test_what_is_compressed_already_is_refused(source: Path, tmp_path: Path) -> None:
    run(source, tmp_path / "out")
    with pytest.raises(UsageError, match="out is quantised already"):
        run(tmp_path / "out", tmp_path / "again")


@pytest.mark.parametrize(
    ("wish", "said"),
    [
        ({"method": "int3"}, "--method must be one of int8, int4, fp8, nf4, gptq, awq, not 'int3'"),
        ({"group_size": 48}, "--group-size must be one of 32, 64, 128, not 48"),
        ({"method": "int8", "group_size": 64}, "the groups of int8 are given"),
        ({"skip": ("(",)}, "--skip '\\(' is no regular expression"),
        ({"method": "fp8", "calibration": Path(__file__)}, "--calibration does not go with fp8"),
        ({"evaluation": Path(__file__)}, "--eval and --no-eval do not go together"),
        ({"method": "gptq", "calibration": Path(__file__)}, "gptqmodel, which is not installed"),
    ],
)
def test_wishes_that_cannot_be_met_are_refused(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, wish: dict[str, Any], said: str
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(UsageError, match=said):
        run(source, tmp_path / "out", **wish)


def test_a_text_that_is_not_there_is_told(source: Path, tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="--calibration: no such file"):
        run(source, tmp_path / "out", calibration=tmp_path / "absent.txt")


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "holds no text"),
        (b" \n\t\n", "holds no text"),
        (b"\xff\xfe", "is not text in UTF-8"),
        (b"ELF\0\0", "it holds zero bytes"),
        (b"a few words", "mine.txt has 11 tokens, and a model is judged on 32 at the least"),
    ],
)
def test_a_text_that_says_nothing_is_refused_before_anything_is_written(
    source: Path, tmp_path: Path, data: bytes, said: str
) -> None:
    text = tmp_path / "mine.txt"
    text.write_bytes(data)
    with pytest.raises(BadFileError, match=said):
        run(source, tmp_path / "out", evaluates=True, evaluation=text)
    assert {path.name for path in tmp_path.iterdir()} == {"source", "mine.txt"}


def test_a_model_whose_memory_does_not_suffice_to_run_is_compressed_all_the_same(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*args: Any, **kwargs: Any) -> None:
        raise torch.OutOfMemoryError

    monkeypatch.setattr("llmctl.artifacts.compress.evaluate._logits", full)
    made = run(source, tmp_path / "out", evaluates=True)
    assert made.not_evaluated == "source loads, but its memory does not suffice to run it"


def test_a_model_that_says_no_numbers_is_not_judged(source: Path, tmp_path: Path) -> None:
    # Each of them is a number.
    tiny.edit_weights(source, lambda found: found["model.norm.weight"].fill_(3e38))
    made = run(source, tmp_path / "out", evaluates=True)
    assert made.not_evaluated is not None
    assert "no numbers (NaN)" in made.not_evaluated


def test_a_name_that_the_packed_numbers_need_and_another_tensor_has_is_told(
    source: Path, tmp_path: Path
) -> None:
    name = "model.layers.0.mlp.up_proj.weight_shape"
    tiny.edit_weights(source, lambda found: found.update({name: torch.ones(2)}))
    with pytest.raises(BadFileError, match=r"source holds a tensor .*up_proj\.weight_shape"):
        run(source, tmp_path / "out")


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (
            lambda tensors: tensors.pop("model.layers.1.mlp.up_proj.weight"),
            "1 missing, the first model.layers.1",
        ),
        (
            lambda tensors: tensors.update({"model.layers.0.mlp.up_proj.weight": torch.zeros(32, 64)}),
            r"has the shape \[32, 64\], and the config asks for",
        ),
        (
            lambda tensors: tensors["model.embed_tokens.weight"].view(-1)[:3].fill_(torch.nan),
            "embed_tokens.weight holds 3 numbers that are NaN",
        ),
    ],
)
def test_a_model_that_could_not_be_loaded_is_not_made_smaller(
    source: Path, tmp_path: Path, change: Any, told: str
) -> None:
    tiny.edit_weights(source, change)
    with pytest.raises(BadFileError, match=told):
        run(source, tmp_path / "out", "int8")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["source"]


def test_both_are_judged_in_the_same_numbers(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = tiny.folder(tmp_path / "whole", hidden_size=64, dtype=torch.float32)
    tiny.edit_json(folder / "config.json", dtype="float32")
    with caplog.at_level("INFO", "llmctl"):
        run(folder, tmp_path / "out", "int8", evaluates=True)
    numbers = [message.split()[1].rstrip(":") for message in caplog.messages if message.startswith("dtype ")]
    assert numbers[0] == numbers[1]
