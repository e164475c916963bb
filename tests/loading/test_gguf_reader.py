"""transformers reads GGUF files through a reader of llmctl's: as right as the package's own, and quick."""

from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import torch
from transformers import modeling_gguf_pytorch_utils

from llmctl.core.errors import BadFileError, UsageError
from llmctl.core.progress import SilentProgress
from llmctl.loading.gguf.head import read_gguf
from llmctl.loading.gguf_reader import Reader, handed_over
from llmctl.loading.loader import LoadRequest, load
from llmctl.loading.planning.request import PlanRequest
from tests import tiny
from tests.loading.gguf_files import write_llama

# The first number of a tensor, or the scale of its first block, little-endian.
NOT_A_NUMBER = {"F32": b"\0\0\xc0\x7f", "F16": b"\0\x7e", "BF16": b"\xc0\x7f", "Q8_0": b"\0\x7e"}
INFINITE = {"F32": b"\0\0\x80\x7f", "F16": b"\0\x7c", "BF16": b"\x80\x7f", "Q8_0": b"\0\x7c"}


def values(reader: Any) -> dict[str, list[Any]]:
    """What transformers makes of the head."""
    return {
        name: modeling_gguf_pytorch_utils.read_field(reader, name)
        for name in reader.fields
        if not name.startswith("GGUF.")
    }


@pytest.mark.parametrize("kind", ["F32", "F16", "BF16", "Q8_0"])
def test_it_gives_what_the_package_s_own_gives(tmp_path: Path, kind: str) -> None:
    file = write_llama(tmp_path / "m.gguf", kind=kind)
    theirs, ours = gguf.GGUFReader(file), Reader(str(file))
    assert values(ours) == values(theirs)
    assert len(values(ours)["tokenizer.ggml.tokens"]) == tiny.VOCABULARY_SIZE
    for their, our in zip(theirs.tensors, ours.tensors, strict=True):
        assert (our.name, our.tensor_type) == (their.name, their.tensor_type)
        assert (our.data.dtype, our.data.shape) == (their.data.dtype, their.data.shape)
        assert np.array_equal(our.data, their.data)


def test_settings_of_its_quantisation_are_refused(tmp_path: Path) -> None:
    file = write_llama(tmp_path / "m.gguf", kind="Q8_0")
    with pytest.raises(UsageError, match="--quant-config bits=4: m is a GGUF file"):
        load(LoadRequest(model=str(file), formats={"bits": 4}), SilentProgress())


def test_values_of_every_type_come_over(tmp_path: Path) -> None:
    writer = gguf.GGUFWriter(tmp_path / "m.gguf", "llama")
    writer.add_bool("x.yes", True)
    writer.add_int8("x.small", -3)
    writer.add_uint64("x.large", 2**63 + 1)
    writer.add_float32("x.half", 0.5)
    writer.add_float64("x.third", 1 / 3)
    writer.add_string("x.text", "ä\n€")
    writer.add_array("x.bools", [True, False])
    writer.add_array("x.numbers", list(range(5000)))
    writer.add_array("x.texts", ["", "a", "ü" * 300])
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    told = values(Reader(str(tmp_path / "m.gguf")))
    assert told == values(gguf.GGUFReader(tmp_path / "m.gguf"))
    assert (told["x.large"], told["x.texts"][2]) == ([2**63 + 1], "ü" * 300)


def loaded(file: Path, **wishes: Any) -> Any:
    return load(
        LoadRequest(model=str(file), plan=PlanRequest(device="cpu", **wishes)), SilentProgress()
    ).model


def test_a_model_loads_from_one_reading_of_its_head(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = write_llama(tmp_path / "m.gguf")
    made: list[str] = []
    own, bar = Reader.__init__, modeling_gguf_pytorch_utils.tqdm

    def counted(reader: Reader, path: str) -> None:
        made.append(path)
        own(reader, path)

    monkeypatch.setattr(Reader, "__init__", counted)
    monkeypatch.setattr(gguf.GGUFReader, "__init__", None)
    model = loaded(file)
    assert made == [str(file)]
    wanted = tiny.model("llama").state_dict()
    assert all(torch.equal(tensor, wanted[name]) for name, tensor in model.state_dict().items())
    monkeypatch.undo()
    # Whoever reads such files beside llmctl has the package's own reader again.
    assert isinstance(gguf.GGUFReader(file), gguf.GGUFReader)
    assert modeling_gguf_pytorch_utils.tqdm is bar


def test_an_error_gives_the_package_its_own_reader_back(tmp_path: Path) -> None:
    own = gguf.GGUFReader
    with pytest.raises(BadFileError, match=r"m\.gguf"), handed_over(tmp_path / "m.gguf"):
        gguf.GGUFReader(str(tmp_path / "m.gguf"))
    assert gguf.GGUFReader is own


@pytest.mark.parametrize("wishes", [{}, {"quantization": "int8"}, {"dtype": "float16"}], ids=str)
@pytest.mark.parametrize("kind", ["F32", "F16", "Q8_0"])
def test_a_number_that_is_none_is_refused_by_file_and_weight(
    tmp_path: Path, kind: str, wishes: dict[str, str]
) -> None:
    file = write_llama(tmp_path / "m.gguf", kind=kind)
    spoil(file, "blk.1.ffn_down.weight", NOT_A_NUMBER[kind])
    with pytest.raises(BadFileError, match=r"layers\.1\.mlp\.down_proj\.weight holds .* NaN") as caught:
        loaded(file, **wishes)
    assert caught.value.message.startswith(f"{file}: ")
    assert "download the model again" in str(caught.value.hint)


def test_an_infinite_number_is_refused(tmp_path: Path) -> None:
    file = write_llama(tmp_path / "m.gguf", kind="Q8_0")
    spoil(file, "blk.0.attn_v.weight", INFINITE["Q8_0"])
    with pytest.raises(BadFileError, match=r"v_proj\.weight holds 32 numbers that are NaN or infinite"):
        loaded(file, dtype="float32")


def spoil(file: Path, name: str, number: bytes) -> None:
    """Write `number` over the beginning of a tensor."""
    data = bytearray(file.read_bytes())
    start = read_gguf(file).tensors[name].start
    data[start : start + len(number)] = number
    file.write_bytes(data)
