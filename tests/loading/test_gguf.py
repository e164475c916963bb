"""GGUF files as llama.cpp's own writer makes them: read without torch, and loaded by transformers' reader."""

import math
import re
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import gguf
import pytest
import torch
import transformers
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from transformers.integrations.ggml import GGUF_CONFIG_MAPPING
from transformers.integrations.gguf import GGUF_CONFIG_ARCHS
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

from llmctl.core.errors import AmbiguousError, BadFileError, LlmctlError, NotFoundError
from llmctl.core.progress import SilentProgress
from llmctl.loading.checkpoint import Checkpoint, locate, open_folder
from llmctl.loading.facts.describe import describe
from llmctl.loading.gguf.head import _TYPES, read_gguf
from llmctl.loading.gguf.model import MODEL_TYPES, config_of, facts_of
from llmctl.loading.gguf.names import choose_gguf, find_gguf, split_name
from llmctl.loading.hub.local_models import find_here, is_path, local_models
from tests import tiny
from tests.loading.gguf_files import QUANTISED, write_llama

# What the forms may differ from the tiny model's own weights, of which the largest are near 1.5.
TOLERANCES = {"F32": 0.0, "F16": 1e-3, "BF16": 1e-2, "Q8_0": 1e-2}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One file of each kind, under the name that makers would give it."""
    path = tmp_path_factory.mktemp("gguf")
    for kind in TOLERANCES:
        write_llama(path / f"tiny-{kind}.gguf", kind=kind)
    return path


def find(model: str | Path) -> Checkpoint:
    return locate(str(model), revision=None, progress=SilentProgress())


def fails(kind: type[LlmctlError], model: str | Path, *words: str) -> None:
    with pytest.raises(LlmctlError) as caught:
        find(model)
    told = f"{caught.value.message} ({caught.value.hint})"
    assert type(caught.value) is kind, told
    assert [word for word in words if word not in told] == [], told


@pytest.mark.parametrize("kind", list(TOLERANCES))
def test_transformers_loads_what_was_located(folder: Path, kind: str) -> None:
    found = find(folder / f"tiny-{kind}.gguf")
    assert found.gguf is not None
    place: dict[str, Any] = {"gguf_file": found.gguf.name, "local_files_only": True}
    model, report = transformers.AutoModelForCausalLM.from_pretrained(
        found.folder, **place, dtype=torch.float32, output_loading_info=True
    )
    assert not report["missing_keys"]
    assert not report["unexpected_keys"]
    wanted = dict(tiny.model("llama").state_dict())
    off = max(float((tensor - wanted[name]).abs().max()) for name, tensor in model.state_dict().items())
    assert off <= TOLERANCES[kind]
    config = model.config.to_dict()
    assert {key: config.get(key, config["rope_parameters"].get(key)) for key in found.config} == {
        key: pytest.approx(value) for key, value in found.config.items()
    }
    tokenizer = transformers.AutoTokenizer.from_pretrained(found.folder, **place)
    assert (
        tokenizer("Hi<|im_end|>").input_ids == [*b"Hi", tiny.IM_END]
        or tokenizer.decode(tokenizer("Hi<|im_end|>").input_ids) == "Hi<|im_end|>"
    )
    assert tokenizer.chat_template == tiny.CHATML


def test_the_head_is_that_of_the_package_s_own_reader(folder: Path) -> None:
    for file in folder.iterdir():
        theirs, ours = gguf.GGUFReader(file), read_gguf(file)
        assert {
            name: (entry.dtype, entry.shape, entry.start, entry.num_bytes)
            for name, entry in ours.tensors.items()
        } == {
            tensor.name: (
                tensor.tensor_type.name,
                tuple(int(size) for size in reversed(tensor.shape)),
                int(tensor.data_offset),
                int(tensor.n_bytes),
            )
            for tensor in theirs.tensors
        }
        fields = {name: field for name, field in theirs.fields.items() if not name.startswith("GGUF.")}
        assert ours.metadata.keys() == fields.keys()
        assert ours.metadata["tokenizer.ggml.tokens"] == tiny.VOCABULARY_SIZE
        kept = read_gguf(file, keep=("tokenizer.ggml.tokens",)).metadata["tokenizer.ggml.tokens"]
        assert kept == fields["tokenizer.ggml.tokens"].contents()
        for name, value in ours.metadata.items():
            if not isinstance(fields[name].contents(), list):
                assert value == fields[name].contents()


def test_sizes_and_parameters_are_those_of_the_tensors(folder: Path) -> None:
    found = find(folder / "tiny-Q8_0.gguf")
    state = tiny.model("llama").state_dict()
    assert found.num_parameters == sum(tensor.numel() for tensor in state.values())
    packed = sum(
        entry.num_elements
        for name, entry in read_gguf(folder / "tiny-Q8_0.gguf").tensors.items()
        if any(part in name for part in QUANTISED)
    )
    assert found.bytes_by_dtype == {"Q8_0": packed // 32 * 34, "F32": (found.num_parameters - packed) * 4}
    assert (found.name, found.commit, found.weight_files) == ("tiny-Q8_0", None, (folder / "tiny-Q8_0.gguf",))


def test_the_facts_are_those_of_a_folder(folder: Path, tmp_path: Path) -> None:
    facts = facts_of(folder / "tiny-F32.gguf")
    own = facts_of(tiny.folder(tmp_path / "tiny"))
    assert facts.model_type == own.model_type == "llama"
    assert facts.chat_template == own.chat_template
    assert facts.special_tokens == own.special_tokens
    assert facts.tokens == set(tiny.SPECIALS)


def test_it_can_be_described(folder: Path) -> None:
    about = describe(folder / "tiny-Q8_0.gguf", name="tiny")
    shape = about.shape
    assert (shape.num_layers, shape.hidden_size, shape.num_heads, shape.num_kv_heads) == (2, 32, 4, 2)
    assert (about.context_length, shape.vocabulary_size) == (256, tiny.VOCABULARY_SIZE)
    assert about.num_parameters == about.checkpoint.num_parameters


def test_neither_torch_nor_the_package_is_needed_to_look_at_one(folder: Path) -> None:
    code = (
        "import sys; from llmctl.cli.app import run; code = run(sys.argv[1:]);"
        "assert not {'torch', 'transformers', 'gguf', 'numpy'} & set(sys.modules); sys.exit(code)"
    )
    path = str(folder / "tiny-Q8_0.gguf")
    for command in (["match", path], ["show", path, "--memory", "1GiB", "--device", "cpu"]):
        done = subprocess.run(
            [sys.executable, "-c", code, "models", *command], capture_output=True, text=True
        )
        assert done.returncode in (0, 3), done.stderr
        assert "Traceback" not in done.stderr
        assert path in done.stdout


# Which file


def test_a_folder_of_one_file_is_that_file(folder: Path, tmp_path: Path) -> None:
    file = tmp_path / "one" / "tiny-Q8_0.gguf"
    file.parent.mkdir()
    file.symlink_to(folder / "tiny-Q8_0.gguf")
    (tmp_path / "one" / "mmproj-F16.gguf").write_bytes(b"eyes")
    (tmp_path / "one" / "config.json").write_text("{}")
    assert find(tmp_path / "one").gguf == file
    assert open_folder(tmp_path / "one").gguf == file
    assert facts_of(tmp_path / "one").model_type == "llama"


def test_a_folder_of_several_names_them(folder: Path) -> None:
    fails(
        AmbiguousError,
        folder,
        "4 GGUF files",
        "tiny-BF16.gguf",
        "tiny-Q8_0.gguf",
        f"name one: {folder}/tiny-",
    )


def test_safetensors_go_before_gguf(folder: Path, tmp_path: Path) -> None:
    mixed = tiny.folder(tmp_path / "mixed")
    (mixed / "m.gguf").symlink_to(folder / "tiny-F32.gguf")
    assert find(mixed).gguf is None
    assert find_gguf(mixed) is None
    assert find(mixed / "m.gguf").gguf == mixed / "m.gguf"


@pytest.mark.parametrize(
    ("model", "parts"),
    [
        ("owner/name", ("owner/name", None)),
        ("owner/name:Q4_K_M", ("owner/name", "Q4_K_M")),
        ("owner/name:m-Q8_0.gguf", ("owner/name", "m-Q8_0.gguf")),
        ("owner/name/m-Q8_0.gguf", ("owner/name", "m-Q8_0.gguf")),
        ("owner/name/sub/m.gguf", ("owner/name/sub/m.gguf", None)),
        ("./m.gguf", ("./m.gguf", None)),
        ("http://host/a", ("http://host/a", None)),
    ],
)
def test_a_name_may_say_which_file(model: str, parts: tuple[str, str | None]) -> None:
    assert split_name(model) == parts


@pytest.mark.parametrize("model", ["{}:Q8_0", "{}:q8_0", "{}:tiny-Q8_0.gguf"])
def test_a_folder_s_file_goes_by_its_tag_too(folder: Path, model: str) -> None:
    name, file = model.format(folder), folder / "tiny-Q8_0.gguf"
    assert find(name).gguf == file
    assert find_here(name, {}) == file
    assert is_path(name)


def test_a_tag_that_no_file_of_a_folder_has_is_told_with_those_that_are_there(folder: Path) -> None:
    fails(NotFoundError, f"{folder}:Q2_K", f"{folder} has no GGUF file 'Q2_K'", "tiny-BF16.gguf")
    assert find_here(f"{folder}:Q2_K", {}) is None
    fails(NotFoundError, f"{folder}/none:Q2_K", "no such folder")


def test_a_tag_beside_a_folder_of_the_same_name_as_a_hub_id(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "owner").mkdir()
    (tmp_path / "owner" / "name").symlink_to(folder)
    # As with the plain name, what is here goes first.
    assert find("owner/name:Q8_0").gguf == Path("owner/name/tiny-Q8_0.gguf")
    (tmp_path / "odd:Q8_0").symlink_to(folder)
    (tmp_path / "odd").mkdir()
    fails(AmbiguousError, "./odd:Q8_0", "4 GGUF files")


FILES = [
    "a-Q4_K_M.gguf",
    "a-Q4_K_S.gguf",
    "a-q8_0.gguf",
    "a.IQ4_XS.gguf",
    "b-00001-of-00002.gguf",
    "imatrix.gguf",
]


@pytest.mark.parametrize(
    ("wanted", "file"),
    [
        ("Q4_K_M", FILES[0]),
        ("q4_k_s", FILES[1]),
        ("Q8_0", FILES[2]),
        ("iq4_xs", FILES[3]),
        (FILES[0], FILES[0]),
    ],
)
def test_a_tag_is_the_end_of_a_file_s_name(wanted: str, file: str) -> None:
    assert choose_gguf("m", FILES, wanted) == file


@pytest.mark.parametrize(
    ("wanted", "kind", "word"),
    [
        ("4_K_M", NotFoundError, "no GGUF file '4_K_M'"),
        ("imatrix.gguf", NotFoundError, "it has a-Q4_K_M.gguf"),
        (".*", NotFoundError, "no GGUF file"),
        ("b", BadFileError, "one part of a model that was split"),
        ("b-00001-of-00002.gguf", BadFileError, "llama-gguf-split --merge"),
        (None, BadFileError, "b-00001-of-00002.gguf"),
    ],
)
def test_what_fits_nothing_or_is_in_parts_is_told(
    wanted: str | None, kind: type[LlmctlError], word: str
) -> None:
    with pytest.raises(kind) as caught:
        choose_gguf("m", FILES, wanted)
    assert word in f"{caught.value.message} ({caught.value.hint})"


def test_what_was_downloaded_is_found_by_all_of_its_names(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    snapshot = tmp_path / "models--a--b" / "snapshots" / "0123"
    snapshot.mkdir(parents=True)
    environ = {"HF_HUB_CACHE": str(tmp_path), "HOME": str(tmp_path)}
    (snapshot / "m-Q8_0.gguf").symlink_to(folder / "tiny-Q8_0.gguf")
    assert local_models(environ)[2:] == ["a/b"]
    assert find_here("a/b", environ) == snapshot
    (snapshot / "m-F16.gguf").symlink_to(folder / "tiny-F16.gguf")
    assert local_models(environ)[2:] == ["a/b/m-F16.gguf", "a/b/m-Q8_0.gguf"]
    for name in ("a/b/m-Q8_0.gguf", "a/b:q8_0", "a/b:m-Q8_0.gguf"):
        assert find_here(name, environ) == snapshot / "m-Q8_0.gguf"
    assert find_here("a/b:Q2_K", environ) is None


# What cannot be read


def test_every_architecture_of_transformers_reader_is_known_and_no_other() -> None:
    renamed = {theirs: name for name, theirs in MODEL_TYPES.items()} | {
        "gemma3": "gemma3",
        "gemma4": "gemma4",
    }
    legacy = {renamed.get(name, name) for name in GGUF_CONFIG_MAPPING.keys() - {"general", "tokenizer"}}
    # transformers maps it and has no class of that name.
    assert "deci" not in CONFIG_MAPPING
    assert MODEL_TYPES.keys() == (legacy | GGUF_CONFIG_ARCHS.keys()) - {"deci"}
    assert set(MODEL_TYPES.values()) <= set(CONFIG_MAPPING.keys())


def test_another_architecture_is_refused_by_name_and_still_told_by_match(tmp_path: Path) -> None:
    file = write_llama(tmp_path / "x.gguf", architecture="rwkv7")
    fails(BadFileError, file, str(file), "'rwkv7'", "safetensors", "qwen3moe")
    assert facts_of(file).model_type == "rwkv7"
    assert config_of(read_gguf(file))["num_hidden_layers"] == 2


def test_the_sizes_of_blocks_are_the_package_s() -> None:
    theirs = {kind.value: (kind.name, *sizes) for kind, sizes in gguf.GGML_QUANT_SIZES.items()}
    # Never stored in a file; the package and llama.cpp disagree on it.
    assert {key: value for key, value in _TYPES.items() if value[0] != "Q8_1"}.items() <= theirs.items()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda data: b"", ["0 bytes"]),
        (lambda data: b"GGUF", ["its head cannot be read", "the file ends"]),
        (lambda data: b"NOPE" + data[4:], ["does not begin as GGUF files do"]),
        (lambda data: data[:-50_000], ["cut short", "bytes expected"]),
        (lambda data: data[:2000], ["the file ends"]),
        (lambda data: data[:4] + b"\x01\0\0\0" + data[8:], ["of version 1"]),
        (lambda data: data[:4] + b"\0\0\0\x03" + data[8:], ["big-endian"]),
        (lambda data: data[:8] + b"\xff" * 8 + data[16:], ["a count of"]),
        (lambda data: data[:16] + b"\xff" * 8 + data[24:], ["a count of"]),
    ],
)
def test_a_damaged_file_is_told_by_what_is_wrong(
    folder: Path, tmp_path: Path, change: Any, words: list[str]
) -> None:
    file = tmp_path / "x.gguf"
    file.write_bytes(change((folder / "tiny-F32.gguf").read_bytes()))
    fails(BadFileError, file, str(file), *words)


def with_value(file: Path, key: str, form: int, value: bytes, *, name: str | None = None) -> Path:
    """The file with a value of its head in another form; with `name` under that key."""
    data = file.read_bytes()
    at = data.index(len(key).to_bytes(8, "little") + key.encode()) + 8 + len(key)
    own = {4: 4, 6: 4}[int.from_bytes(data[at : at + 4], "little")]
    start = at if name is None else at - len(key) - 8
    head = b"" if name is None else len(name).to_bytes(8, "little") + name.encode()
    changed = data[:start] + head + form.to_bytes(4, "little") + value + data[at + 4 + own :] + bytes(64)
    file.with_stem("changed").write_bytes(changed)
    return file.with_stem("changed")


@pytest.mark.parametrize(
    ("key", "form", "value", "said"),
    [
        ("llama.block_count", 6, struct.pack("<f", math.inf), "inf"),
        ("llama.context_length", 6, struct.pack("<f", math.inf), "inf"),
        ("llama.context_length", 10, struct.pack("<Q", 2**62), str(2**62)),
        ("llama.attention.head_count", 5, struct.pack("<i", -4), "-4"),
        ("llama.embedding_length", 8, struct.pack("<Q", 2) + b"32", "32"),
        ("llama.embedding_length", 7, b"\1", "True"),
        ("llama.rope.freq_base", 6, struct.pack("<f", math.nan), "nan"),
    ],
)
def test_a_measure_that_no_model_has_is_told_with_its_key(
    tmp_path: Path, key: str, form: int, value: bytes, said: str
) -> None:
    file = with_value(write_llama(tmp_path / "m.gguf"), key, form, value)
    with pytest.raises(BadFileError, match=rf"changed\.gguf is damaged: {key} is '{said}', not a") as caught:
        config_of(read_gguf(file))
    assert "config.json" not in str(caught.value)


@pytest.mark.parametrize(
    ("form", "value", "said"),
    [
        (6, struct.pack("<f", math.inf), "inf"),
        (6, struct.pack("<f", 0.5), "0.5"),
        (5, struct.pack("<i", -32), "-32"),
        (4, struct.pack("<I", 24), "24"),
        (4, struct.pack("<I", 0), "0"),
    ],
)
def test_an_alignment_that_is_none_is_refused(tmp_path: Path, form: int, value: bytes, said: str) -> None:
    file = write_llama(tmp_path / "m.gguf")
    file = with_value(file, "llama.vocab_size", form, value, name="general.alignment")
    with pytest.raises(BadFileError, match=rf"general\.alignment is {re.escape(said)}, not a power of two"):
        read_gguf(file)


@pytest.mark.parametrize(
    ("kind", "ours", "theirs"),
    [
        ("tensor", b"blk.0.attn_k.weight", b"blk.0.attn_v.weight"),
        ("key", b"tokenizer.ggml.bos_token_id", b"tokenizer.ggml.eos_token_id"),
    ],
)
def test_a_name_that_is_there_twice_is_refused(tmp_path: Path, kind: str, ours: bytes, theirs: bytes) -> None:
    file = write_llama(tmp_path / "m.gguf")
    file.write_bytes(file.read_bytes().replace(theirs, ours, 1))
    with pytest.raises(
        BadFileError, match=f"m.gguf is damaged: .*the {kind} '{ours.decode()}' is there twice"
    ):
        read_gguf(file)


def test_a_name_of_several_lines_is_told_in_one(tmp_path: Path) -> None:
    file = write_llama(tmp_path / "m.gguf")
    data = file.read_bytes()
    at = data.index(b"general.name") + len("general.name")
    changed = data[:at].replace(b"general.name", b"general\nname") + (256).to_bytes(4, "little")
    file.write_bytes(changed + data[at + 4 :])
    with pytest.raises(BadFileError, match="general name is of the unknown type 256"):
        read_gguf(file)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(place=st.integers(0, 6000), byte=st.integers(0, 255), end=st.integers(0, 8000))
def test_whatever_byte_is_wrong_the_answer_is_a_head_or_one_line(
    folder: Path, tmp_path: Path, place: int, byte: int, end: int
) -> None:
    data = bytearray((folder / "tiny-Q8_0.gguf").read_bytes())
    data[place] = byte
    file = tmp_path / "x.gguf"
    file.write_bytes(data if end > 7000 else data[:end])
    told = ""
    try:
        facts_of(file)
        open_folder(file)
    except LlmctlError as error:
        told = error.message
    assert "\n" not in told
