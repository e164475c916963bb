"""Facts of a checkpoint from its config and headers: parameters, packing, licence."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from llmctl.core.errors import BadFileError
from llmctl.demo import MODELS
from llmctl.loading.facts.describe import describe
from llmctl.loading.facts.licence import licence_of
from llmctl.loading.facts.quantisation import Quantisation
from tests.conftest import ROOT
from tests.loading.headers import LLAMA_8B, TABLE, Tensors, llama_8b, write_model


def test_the_demo_is_told_as_its_card_tells_it() -> None:
    found = describe(MODELS["demo"], name="demo")
    assert (found.num_parameters, found.checkpoint.bytes_by_dtype) == (2_295_552, {"BF16": 4_591_104})
    assert (found.shape.num_layers, found.shape.num_heads, found.shape.num_kv_heads) == (3, 4, 2)
    assert (found.shape.hidden_size, found.shape.head_size, found.shape.vocabulary_size) == (256, 64, 2048)
    assert (found.context_length, found.licence, found.quantisation) == (1024, "apache-2.0", None)
    assert (found.checkpoint.name, found.architecture) == ("demo", "LlamaForCausalLM")


def test_matrices_are_counted_apart_from_tables_and_vectors(tmp_path: Path) -> None:
    found = describe(llama_8b(tmp_path / "m"))
    assert found.num_parameters == 8_030_261_248
    assert found.num_parameters - found.facts.num_body_parameters == 2 * TABLE + 4096 * 65


GPTQ: Tensors = {
    "model.embed_tokens.weight": ("F16", (100, 64)),
    "model.layers.0.up.qweight": ("I32", (8, 64)),
    "model.layers.0.up.qzeros": ("I32", (1, 8)),
    "model.layers.0.up.scales": ("F16", (1, 64)),
    "model.layers.0.up.g_idx": ("I32", (64,)),
}
NF4: Tensors = {
    "model.embed_tokens.weight": ("F16", (100, 64)),
    "model.layers.0.up.weight": ("U8", (2048, 1)),
    "model.layers.0.up.weight.absmax": ("F32", (64,)),
    "model.layers.0.up.weight.quant_map": ("F32", (16,)),
    "model.layers.0.up.weight.quant_state.bitsandbytes__nf4": ("U8", (80,)),
}
FP8: Tensors = {
    "model.embed_tokens.weight": ("BF16", (100, 64)),
    "model.layers.0.up.weight": ("F8_E4M3", (64, 64)),
    "model.layers.0.up.weight_scale_inv": ("F32", (1, 1)),
}
W4A16: Tensors = {
    "model.embed_tokens.weight": ("BF16", (100, 64)),
    "model.layers.0.up.weight_packed": ("I32", (64, 8)),
    "model.layers.0.up.weight_scale": ("BF16", (64, 1)),
    "model.layers.0.up.weight_shape": ("I32", (2,)),
}


@pytest.mark.parametrize(
    ("tensors", "told", "method", "bits"),
    [
        (GPTQ, {"quant_method": "gptq", "bits": 4}, "gptq", 4),
        (GPTQ, {"quant_method": "awq", "w_bit": 4}, "awq", 4),
        (NF4, {"quant_method": "bitsandbytes", "load_in_4bit": True}, "bitsandbytes", 4),
        (FP8, {"quant_method": "fp8"}, "fp8", 8),
        (
            W4A16,
            {
                "quant_method": "compressed-tensors",
                "config_groups": {"group_0": {"weights": {"num_bits": 4}}},
            },
            "compressed-tensors",
            4,
        ),
    ],
)
def test_packed_weights_are_unpacked_in_the_count(
    tmp_path: Path, tensors: Tensors, told: dict[str, Any], method: str, bits: int
) -> None:
    found = describe(write_model(tmp_path / "m", {**LLAMA_8B, "quantization_config": told}, tensors))
    assert found.quantisation is not None
    assert (found.quantisation.method, found.quantisation.bits) == (method, bits)
    # Small floats are made dense while they are read.
    assert found.quantisation.is_decoded == (method == "fp8")
    assert found.num_parameters == 100 * 64 + 64 * 64


def test_the_users_words_go_before_those_of_the_files(tmp_path: Path) -> None:
    folder = write_model(tmp_path / "m", {**LLAMA_8B, "quantization_config": {"quant_method": "gptq"}}, GPTQ)
    silent, told = describe(folder).quantisation, describe(folder, formats={"bits": 4}).quantisation
    assert silent is not None
    assert told is not None
    assert (silent.title, told.title) == ("GPTQ", "GPTQ, 4 bits")


@pytest.mark.parametrize(
    ("file", "told", "title"),
    [
        ("quantize_config.json", '{"bits": 4, "group_size": 128}', "GPTQ, 4 bits, groups of 128"),
        ("quant_config.json", '{"w_bit": 4, "q_group_size": 64}', "AWQ, 4 bits, groups of 64"),
    ],
)
def test_an_older_tools_file_tells_the_quantisation_too(
    tmp_path: Path, file: str, told: str, title: str
) -> None:
    folder = write_model(tmp_path / "m", LLAMA_8B, GPTQ)
    (folder / file).write_text(told)
    found = describe(folder).quantisation
    assert found is not None
    assert found.title == title


def test_a_tied_head_that_lies_in_the_file_is_counted_once(tmp_path: Path) -> None:
    tensors: Tensors = {
        "model.embed_tokens.weight": ("BF16", (100, 64)),
        "lm_head.weight": ("BF16", (100, 64)),
        "model.layers.0.up.weight": ("BF16", (64, 64)),
    }
    tied = describe(write_model(tmp_path / "tied", {**LLAMA_8B, "tie_word_embeddings": True}, tensors)).facts
    apart = describe(write_model(tmp_path / "apart", LLAMA_8B, tensors)).facts
    assert (tied.num_head_parameters, apart.num_head_parameters) == (0, 6400)
    assert apart.num_parameters - tied.num_parameters == 6400


def test_a_quantised_checkpoint_is_one_of_16_bits_whatever_its_scales_are(tmp_path: Path) -> None:
    tensors: Tensors = {**FP8, "model.norm.weight": ("F32", (64 * 64 * 9,))}
    told = {"quantization_config": {"quant_method": "fp8"}}
    assert (
        describe(write_model(tmp_path / "m", {**LLAMA_8B, **told}, tensors)).facts.stored_dtype == "bfloat16"
    )
    assert describe(
        write_model(tmp_path / "n", LLAMA_8B, {"a.weight": ("F32", (8, 8))})
    ).facts.stored_dtype == ("float32")


def test_packing_that_the_config_keeps_to_itself_is_seen_in_the_tensors(tmp_path: Path) -> None:
    found = describe(write_model(tmp_path / "m", LLAMA_8B, FP8))
    assert found.quantisation == Quantisation(method="F8_E4M3, which the config does not explain", bits=None)


@pytest.mark.parametrize(
    "told", [7, "gptq", {"bits": "four"}, {"bits": 0}, {"config_groups": [1]}, {"bits": 99}]
)
def test_a_strange_quantisation_config_is_no_failure(tmp_path: Path, told: Any) -> None:
    found = describe(write_model(tmp_path / "m", {**LLAMA_8B, "quantization_config": told}, GPTQ))
    assert found.quantisation is not None
    assert found.quantisation.bits is None


def test_a_folder_that_is_no_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadFileError, match="is empty"):
        describe(tmp_path)


@pytest.mark.parametrize(
    ("files", "licence"),
    [
        ({}, None),
        ({"README.md": "---\nlicense: mit\n---\n# x"}, "mit"),
        ({"README.md": "---\ntags:\n- a\nlicense: \"apache-2.0\" # really\n---\n"}, "apache-2.0"),
        ({"README.md": "---\nlicense: other\nlicense_name: qwen\n---\n"}, "qwen"),
        ({"README.md": "---\nlicense: other\n---\n", "LICENSE": "X"}, "other"),
        ({"README.md": "license: mit"}, None),
        ({"README.md": "# no front matter", "LICENSE": "\n  Apache License\n  Version 2.0, January 2004"},
         "apache-2.0"),
        ({"LICENSE.txt": "MIT License\n\nCopyright"}, "mit"),
        ({"LICENSE": "LLAMA 3.1 COMMUNITY LICENSE\nLlama"}, "LLAMA 3.1 COMMUNITY LICENSE"),
    ],
)  # fmt: skip
def test_the_licence_is_the_cards_or_what_the_text_says(
    tmp_path: Path, files: dict[str, str], licence: str | None
) -> None:
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    assert licence_of(tmp_path) == licence


def test_describing_imports_nothing_heavy() -> None:
    program = (
        "import sys; from pathlib import Path;"
        "import llmctl.loading.planning.fit, llmctl.loading.planning.accelerators;"
        "from llmctl.loading.facts.describe import describe; describe(Path(sys.argv[1]));"
        "print({'torch', 'transformers', 'numpy', 'huggingface_hub', 'httpx2'} & set(sys.modules))"
    )
    command = [sys.executable, "-c", program, str(MODELS["demo"])]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert (ended.stdout, ended.stderr) == ("set()\n", "")
