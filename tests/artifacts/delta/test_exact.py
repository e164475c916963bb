"""An exact delta gives the target back bit for bit, whatever the two checkpoints are, or refuses."""

import contextlib
import json
import tempfile
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file
from torch import Tensor

from llmctl.artifacts.delta import coding
from llmctl.artifacts.delta.apply import Wish as ApplyWish
from llmctl.artifacts.delta.apply import apply
from llmctl.artifacts.delta.make import make
from llmctl.artifacts.delta.opened import Delta
from llmctl.artifacts.delta.results import Result, Wish
from llmctl.artifacts.stream import digests
from llmctl.artifacts.stream.source import Source
from llmctl.core.errors import BadFileError, DoesNotFitError, UsageError
from llmctl.core.progress import SilentProgress
from llmctl.demo import MODELS
from tests.artifacts.delta.pairs import bits_of, changed, hashes_of, models, tensors, write

SILENT = SilentProgress()


def made(base: Path, target: Path, out: Path, **wish: Any) -> Result:
    return make(Source.open(base), Source.open(target), Wish(out=out, **wish), SILENT)


def applied(base: Path, delta: Path, out: Path, **wish: Any) -> Path:
    apply(Source.open(base), Delta.open(delta), ApplyWish(out=out, **wish), SILENT)
    return out


@settings(deadline=None, max_examples=60, suppress_health_check=list(HealthCheck))
@given(st.data())
def test_what_is_made_of_two_models_makes_one_of_the_other(data: st.DataObject) -> None:
    base = data.draw(models())
    target = data.draw(changed(base))
    shards = data.draw(st.integers(1, 3))
    with tempfile.TemporaryDirectory() as name, pytest.MonkeyPatch.context() as patch:
        # Waiting for the disk is most of what a folder costs.
        patch.setattr("os.fsync", lambda descriptor: None)
        patch.setattr(digests, "PIECE_BYTES", data.draw(st.sampled_from((8, 16, 4 << 20))))
        folder = Path(name)
        write(folder / "b", base, shards=min(shards, len(base)))
        write(folder / "t", target, shards=min(data.draw(st.integers(1, 3)), len(target)))
        made(folder / "b", folder / "t", folder / "d", max_shard_bytes=data.draw(st.sampled_from((1, 10**9))))
        applied(folder / "b", folder / "d", folder / "out")
        assert hashes_of(folder / "out") == hashes_of(folder / "t")
        applied(folder / "b", folder / "d", folder / "again", max_shard_bytes=20)
        assert bits_of(folder / "again") == bits_of(folder / "t")


@settings(deadline=None, max_examples=100)
@given(st.data(), st.sampled_from((1, 2, 4, 8)))
def test_pieces_come_back_whatever_their_bits(data: st.DataObject, width: int) -> None:
    target = data.draw(tensors((data.draw(st.integers(0, 9)) * width,), torch.uint8))
    base = data.draw(tensors((data.draw(st.integers(0, 9)) * width,), torch.uint8))[: target.numel()]
    coded = coding.encode(target, base, width) if target.numel() else b""
    if target.numel():
        assert torch.equal(coding.decode(coded, base, width, target.numel()), target)


def test_demo_base_and_its_delta_are_demo(tmp_path: Path) -> None:
    result = made(MODELS["demo-base"], MODELS["demo"], tmp_path / "d")
    assert result.fates.keys() <= {"changed", "same"}
    applied(MODELS["demo-base"], tmp_path / "d", tmp_path / "out")
    assert hashes_of(tmp_path / "out") == hashes_of(MODELS["demo"])


def random_model(seed: int = 0, rows: int = 40) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {
        "embed.weight": torch.randn(rows, 16, generator=generator).bfloat16(),
        "layer.weight": torch.randn(64, 16, generator=generator).bfloat16(),
        "norm.weight": torch.ones(16).bfloat16(),
    }


@pytest.fixture
def base(tmp_path: Path) -> Path:
    return write(tmp_path / "base", random_model())


@pytest.fixture
def target(tmp_path: Path) -> Path:
    model = random_model()
    model["layer.weight"] = (model["layer.weight"].float() * 1.01).bfloat16()
    model["embed.weight"] = torch.cat((model["embed.weight"], torch.ones(1, 16).bfloat16()))
    return write(tmp_path / "target", model)


def test_tensors_that_are_equal_cost_nothing(base: Path, tmp_path: Path) -> None:
    result = made(base, write(tmp_path / "t", random_model()), tmp_path / "d")
    assert result.fates == {"same": 3}
    assert Delta.open(tmp_path / "d").stored == {}


def test_a_vocabulary_that_grew_costs_its_new_rows(base: Path, target: Path, tmp_path: Path) -> None:
    result = made(base, target, tmp_path / "d")
    assert result.fates == {"resized": 1, "changed": 1, "same": 1}
    assert Delta.open(tmp_path / "d").stored["embed.weight"].coded.num_bytes < 100
    applied(base, tmp_path / "d", tmp_path / "out")
    assert hashes_of(tmp_path / "out") == hashes_of(target)


def test_another_base_is_refused_by_the_names_of_its_tensors(
    base: Path, target: Path, tmp_path: Path
) -> None:
    made(base, target, tmp_path / "d")
    other = random_model()
    other["norm.weight"][3] = 2
    write(tmp_path / "other", other)
    with pytest.raises(
        BadFileError, match=r"is not the base of .*: 1 of 3 tensors differ: norm\.weight$"
    ) as told:
        applied(tmp_path / "other", tmp_path / "d", tmp_path / "out")
    assert told.value.hint == f"it was made from {base.name}"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["base", "d", "other", "target"]


def test_a_base_of_another_size_is_refused_before_anything_is_read(
    base: Path, target: Path, tmp_path: Path
) -> None:
    made(base, target, tmp_path / "d")
    write(tmp_path / "other", random_model(rows=39))
    with pytest.raises(BadFileError, match=r"1 of 3 tensors differ: embed\.weight"):
        applied(tmp_path / "other", tmp_path / "d", tmp_path / "out")


def test_a_delta_with_a_flipped_bit_anywhere_is_refused(base: Path, target: Path, tmp_path: Path) -> None:
    made(base, target, tmp_path / "d")
    file = tmp_path / "d" / "delta.safetensors"
    whole = file.read_bytes()
    for place in range(0, len(whole), 41):
        file.write_bytes(whole[:place] + bytes([whole[place] ^ 4]) + whole[place + 1 :])
        # What is not refused is in the header's blanks, or in what nobody reads of it.
        with contextlib.suppress(BadFileError):
            applied(base, tmp_path / "d", tmp_path / "out", overwrite=True)
            assert hashes_of(tmp_path / "out") == hashes_of(target)


def test_a_delta_that_is_cut_short_is_refused(base: Path, target: Path, tmp_path: Path) -> None:
    made(base, target, tmp_path / "d")
    file = tmp_path / "d" / "delta.safetensors"
    file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(BadFileError, match="cut short"):
        applied(base, tmp_path / "d", tmp_path / "out")


@pytest.mark.parametrize(
    ("key", "value"),
    [("version", 2), ("kind", "other"), ("tensors", {"x": {}}), ("base_name", None), ("files", [{}])],
)
def test_a_manifest_that_is_not_understood_is_refused(
    base: Path, target: Path, tmp_path: Path, key: str, value: object
) -> None:
    made(base, target, tmp_path / "d")
    file = tmp_path / "d" / "llmctl_delta.json"
    told = json.loads(file.read_text())
    file.write_text(json.dumps({**told, key: value}))
    if key == "base_name":
        file.write_text(json.dumps({name: each for name, each in told.items() if name != key}))
    with pytest.raises(BadFileError):
        Delta.open(tmp_path / "d")


def test_a_shard_that_ends_early_is_refused(base: Path, target: Path, tmp_path: Path) -> None:
    file = target / "model.safetensors"
    source = Source.open(target)
    file.write_bytes(file.read_bytes()[:-10])
    with pytest.raises(BadFileError, match="cut short"):
        Source.open(target)
    with pytest.raises(BadFileError, match="is damaged: it ends at byte"):
        make(Source.open(base), source, Wish(out=tmp_path / "d"), SILENT)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["base", "target"]


def test_what_is_excluded_stays_as_it_is_in_the_base(base: Path, target: Path, tmp_path: Path) -> None:
    model = random_model(1)
    model["rotary.inv_freq"] = torch.ones(3)
    write(tmp_path / "t", model)
    result = made(base, tmp_path / "t", tmp_path / "d", exclude=("embed", r"inv_freq$"))
    assert result.fates == {"excluded": 1, "changed": 1, "same": 1}
    assert "rotary.inv_freq" in result.notices[0]
    out = bits_of(applied(base, tmp_path / "d", tmp_path / "out"))
    assert out["embed.weight"] == bits_of(base)["embed.weight"]
    assert out["layer.weight"] == bits_of(tmp_path / "t")["layer.weight"]
    assert "rotary.inv_freq" not in out


def test_a_pattern_that_is_none_is_told(base: Path, target: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="is no regular expression"):
        made(base, target, tmp_path / "d", exclude=("*.weight",))


def test_pickles_are_taken_as_bases_and_targets(base: Path, tmp_path: Path) -> None:
    folder = tmp_path / "old"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    torch.save(random_model(1), folder / "pytorch_model.bin")
    target = Source.open(folder, takes_pickles=True)
    result = make(Source.open(base), target, Wish(out=tmp_path / "d"), SILENT)
    assert result.notices == (f"{folder} has no tokenizer, so the delta has none",)
    applied(base, tmp_path / "d", tmp_path / "out")
    save_file(random_model(1), tmp_path / "same.safetensors")
    assert bits_of(tmp_path / "out") == bits_of(write(tmp_path / "same", random_model(1)))


def test_a_full_disk_is_one_error_and_leaves_nothing(
    base: Path, target: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made(base, target, tmp_path / "d")
    before = hashes_of(base), hashes_of(tmp_path / "d")

    def full(*args: object) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.pwrite", full)
    with pytest.raises(DoesNotFitError, match="is full"):
        applied(base, tmp_path / "d", tmp_path / "out")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["base", "d", "target"]
    assert (hashes_of(base), hashes_of(tmp_path / "d")) == before


def test_a_dry_run_writes_nothing_and_says_the_same(base: Path, target: Path, tmp_path: Path) -> None:
    wish = Wish(out=tmp_path / "d")
    dry = make(Source.open(base), Source.open(target), wish, SILENT, is_dry=True)
    assert not (tmp_path / "d").exists()
    assert dry.seconds is None
    assert dry.carried == made(base, target, tmp_path / "d").carried
    apply(Source.open(base), Delta.open(tmp_path / "d"), ApplyWish(out=tmp_path / "o"), SILENT, is_dry=True)
    assert not (tmp_path / "o").exists()
