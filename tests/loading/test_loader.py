"""Loading tiny model folders, whole and spoilt in the ways that would otherwise answer wrongly in silence."""

import json
import logging
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

from llmctl.core.errors import BadFileError, UsageError
from llmctl.core.progress import SilentProgress
from llmctl.core.types import SamplingParams
from llmctl.loading.loader import LoadedModel, LoadRequest, load
from llmctl.loading.planning import hardware
from llmctl.loading.planning.plan import PlanRequest
from tests import tiny


def loaded(folder: Path, **options: Any) -> LoadedModel:
    plan = PlanRequest(
        device="cpu", dtype=options.pop("dtype", "auto"), quantization=options.pop("quantization", None)
    )
    return load(LoadRequest(model=str(folder), plan=plan, **options), SilentProgress())


@pytest.fixture(scope="session")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.folder(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture
def folder(whole: Path, tmp_path: Path) -> Path:
    """A copy to spoil."""
    return Path(shutil.copytree(whole, tmp_path / "tiny"))


def test_a_folder_loads_with_its_own_weights(whole: Path) -> None:
    model = loaded(whole)
    want = tiny.model().state_dict()
    assert model.name == "tiny"
    assert not model.model.training
    assert all(torch.equal(tensor, want[name]) for name, tensor in model.model.state_dict().items())
    assert model.tokenizer.encode("hi") == tiny.tokenizer().encode("hi")
    assert model.tokenizer.chat_template == tiny.CHATML
    assert (model.context_length, model.vocabulary_size) == (256, tiny.VOCABULARY_SIZE)


def set_bf16(monkeypatch: pytest.MonkeyPatch, *, is_native: bool) -> None:
    monkeypatch.setattr(hardware, "cpu_flags", lambda: frozenset({"avx512_bf16"} if is_native else ()))


@pytest.mark.parametrize(
    ("stored", "is_native", "asked", "want"),
    [
        (torch.float32, True, "auto", torch.float32),
        (torch.bfloat16, True, "auto", torch.bfloat16),
        (torch.bfloat16, False, "auto", torch.float32),
        (torch.float16, True, "auto", torch.bfloat16),
        (torch.float32, True, "bfloat16", torch.bfloat16),
        (torch.bfloat16, False, "bfloat16", torch.bfloat16),
        (torch.bfloat16, True, "float32", torch.float32),
        (torch.float32, True, "float16", torch.float16),
    ],
)
def test_the_weights_have_the_dtype_of_the_plan(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    stored: torch.dtype,
    is_native: bool,
    asked: str,
    want: torch.dtype,
) -> None:
    set_bf16(monkeypatch, is_native=is_native)
    model = loaded(tiny.folder(tmp_path / "m", dtype=stored), dtype=asked)
    assert {parameter.dtype for parameter in model.model.parameters()} == {want}
    assert f"torch.{model.plan.dtype}" == str(want)


@pytest.mark.parametrize("kind", ["gpt2", "mamba", "gemma2"])
def test_other_architectures_load_too(tmp_path: Path, kind: str) -> None:
    model = loaded(tiny.folder(tmp_path / kind, kind))
    assert model.model.config.model_type == kind
    want = tiny.model(kind).state_dict()
    assert all(torch.equal(tensor, want[name]) for name, tensor in model.model.state_dict().items())


def test_tied_weights_that_are_stored_once_are_not_missing(tmp_path: Path) -> None:
    model = loaded(tiny.folder(tmp_path / "m", tie_word_embeddings=True)).model
    assert model.lm_head.weight is model.model.embed_tokens.weight


def test_a_missing_tensor_is_named_and_never_made_up(folder: Path) -> None:
    name = "model.layers.1.mlp.up_proj.weight"
    tiny.edit_weights(folder, lambda tensors: tensors.pop(name))
    with pytest.raises(BadFileError, match=f"lacks weights.*1 missing, the first {name}"):
        loaded(folder)


def test_a_checkpoint_of_another_depth_is_refused(folder: Path) -> None:
    tiny.edit_json(folder / "config.json", num_hidden_layers=3)
    with pytest.raises(BadFileError, match=r"missing, the first model\.layers\.2"):
        loaded(folder)


@pytest.mark.parametrize(
    "changes",
    [{"intermediate_size": 96}, {"vocab_size": 300}, {"hidden_size": 64}, {"num_key_value_heads": 4}],
)
def test_weights_of_another_shape_are_refused(folder: Path, changes: dict[str, int]) -> None:
    tiny.edit_json(folder / "config.json", **changes)
    with pytest.raises(BadFileError, match="tiny") as caught:
        loaded(folder)
    assert "random" not in caught.value.message


def test_spare_tensors_are_told_in_the_log(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    tiny.edit_weights(folder, lambda tensors: tensors.update({"spare.weight": torch.zeros(2)}))
    with caplog.at_level(logging.INFO, logger="llmctl"):
        loaded(folder)
    assert "1 tensors of the checkpoint are not used, the first is spare.weight" in caplog.text


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"model_type": "no_such_model"},
            "architecture 'no_such_model', which transformers .* does not know",
        ),
        ({"model_type": None}, "architecture None"),
        ({"model_type": ["llama"]}, "architecture"),
        (
            {"model_type": "clip", "architectures": ["CLIPModel"]},
            r"CLIPModel\) is not a model that continues",
        ),
        ({"architectures": ["LlamaModel"]}, r"\(LlamaModel\) is not a model that continues text"),
        ({"architectures": ["LlamaForTokenClassification"]}, r"Classification\) is not a model that"),
        ({"architectures": [["LlamaForCausalLM"], {}, None, "Odd"], "vocab_size": 7}, "has the shape"),
        ({"model_type": "t5", "architectures": None}, "lacks weights that its config asks for"),
        ({"model_type": "seamless_m4t", "architectures": None}, r"\(seamless_m4t\) is not a model that"),
        ({"quantization_config": {"quant_method": "awq", "bits": 4}}, r"\(AWQ\) does not say group_size"),
        ({"quantization_config": {"bits": 4}}, r"quantised by 'unknown'"),
        (
            {"model_type": "bart", "architectures": ["BartModel"], "tie_word_embeddings": None},
            "lacks weights that its config asks for",
        ),
        ({"is_encoder_decoder": True}, "not a model that continues text"),
        ({"num_attention_heads": "many"}, "does not load"),
        ({"hidden_act": "no_such_function"}, "does not load"),
        ({"num_attention_heads": 0}, "does not load"),
    ],
)
def test_a_config_that_cannot_be_run_is_a_bad_file(
    folder: Path, changes: dict[str, Any], message: str
) -> None:
    tiny.edit_json(folder / "config.json", **changes)
    with pytest.raises(BadFileError, match=message):
        loaded(folder)


def test_a_model_saved_without_its_head_chats_where_that_is_the_table_of_tokens(tmp_path: Path) -> None:
    folder = tiny.folder(tmp_path / "m", tie_word_embeddings=True)
    tiny.edit_json(folder / "config.json", architectures=["LlamaModel"])
    assert loaded(folder).model.get_output_embeddings() is not None


@pytest.mark.parametrize("kind", ["bert", "roberta"])
def test_an_encoder_is_not_a_model_that_continues_text(folder: Path, kind: str) -> None:
    tiny.edit_json(folder / "config.json", model_type=kind, architectures=["SomeForMaskedLM"])
    with pytest.raises(BadFileError, match="not a model that continues text"):
        loaded(folder)


def test_a_decoder_of_an_encoders_family_does_continue_text(folder: Path) -> None:
    tiny.edit_json(folder / "config.json", model_type="bert", is_decoder=True)
    with pytest.raises(BadFileError, match="lacks weights"):
        loaded(folder)


def test_an_empty_quantization_config_means_none(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    (folder / "config.json").write_text(json.dumps({**config, "quantization_config": None}), encoding="utf-8")
    assert loaded(folder).vocabulary_size == tiny.VOCABULARY_SIZE


REMOTE_CONFIG = """
import pathlib
from transformers import LlamaConfig
pathlib.Path({marker!r}).write_text("ran")
print("remote code says hello")
class OwnConfig(LlamaConfig):
    model_type = "own_model"
"""
REMOTE_MODEL = """
from transformers import LlamaForCausalLM
from .configuration_own import OwnConfig
class OwnForCausalLM(LlamaForCausalLM):
    config_class = OwnConfig
"""


@pytest.fixture
def remote(folder: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A model with code of its own, which leaves a file `ran` beside the folder when it runs."""
    # transformers reads the place of its copies of such code when it is imported.
    monkeypatch.setattr("transformers.dynamic_module_utils.HF_MODULES_CACHE", str(tmp_path / "modules"))
    marker = str(folder.parent / "ran")
    (folder / "configuration_own.py").write_text(REMOTE_CONFIG.format(marker=marker), encoding="utf-8")
    (folder / "modeling_own.py").write_text(REMOTE_MODEL, encoding="utf-8")
    auto_map = {
        "AutoConfig": "configuration_own.OwnConfig",
        "AutoModelForCausalLM": "modeling_own.OwnForCausalLM",
    }
    tiny.edit_json(folder / "config.json", model_type="own_model", auto_map=auto_map)
    return folder


def test_code_of_the_repository_is_not_run_unasked(remote: Path) -> None:
    with pytest.raises(UsageError, match="code from its own repository") as caught:
        loaded(remote)
    assert "--trust-remote-code" in str(caught.value.hint)
    assert not (remote.parent / "ran").exists()


def test_code_of_the_repository_runs_when_it_is_trusted(
    remote: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    model = loaded(remote, trust_remote_code=True)
    assert type(model.model).__name__ == "OwnForCausalLM"
    assert (remote.parent / "ran").exists()
    assert capfd.readouterr().out == ""


def test_a_known_architecture_never_runs_code_of_the_repository(remote: Path) -> None:
    tiny.edit_json(remote / "config.json", model_type="llama")
    assert type(loaded(remote).model).__name__ == "LlamaForCausalLM"
    assert not (remote.parent / "ran").exists()


def test_a_tokenizers_code_is_not_run_unasked(folder: Path, tmp_path: Path) -> None:
    code = f"import pathlib\npathlib.Path({str(tmp_path / 'ran')!r}).write_text('ran')\nclass Own: pass\n"
    (folder / "tokenization_own.py").write_text(code, encoding="utf-8")
    (folder / "tokenizer.json").unlink()
    tiny.edit_json(
        folder / "tokenizer_config.json",
        tokenizer_class="OwnTokenizer",
        auto_map={"AutoTokenizer": ["tokenization_own.Own", None]},
    )
    with pytest.raises(UsageError, match="code from its own repository") as caught:
        loaded(folder)
    assert "--trust-remote-code" in str(caught.value.hint)
    assert not (tmp_path / "ran").exists()


def without_tokenizer(folder: Path) -> None:
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (folder / name).unlink()


def with_broken_tokenizer(folder: Path) -> None:
    (folder / "tokenizer.json").write_text("{", encoding="utf-8")


def with_foreign_tokenizer(folder: Path) -> None:
    (folder / "tokenizer.json").write_text('{"version": "1.0"}', encoding="utf-8")


@pytest.mark.parametrize("spoil", [without_tokenizer, with_broken_tokenizer, with_foreign_tokenizer])
def test_a_model_without_a_tokenizer_that_works_is_refused(
    folder: Path, spoil: Callable[[Path], None]
) -> None:
    spoil(folder)
    with pytest.raises(BadFileError, match=r"the tokenizer of tiny is empty|tiny has no tokenizer") as caught:
        loaded(folder)
    assert "tokenizer.json" in str(caught.value.hint)


def sampling_of(folder: Path, **generation: Any) -> SamplingParams:
    (folder / "generation_config.json").write_text(json.dumps(generation), encoding="utf-8")
    return loaded(folder).default_sampling


@pytest.mark.parametrize(
    ("generation", "want"),
    [
        ({}, SamplingParams(temperature=0.7)),
        ({"do_sample": False}, SamplingParams(temperature=0.0)),
        ({"do_sample": True, "temperature": 0.6, "top_p": 0.9}, SamplingParams(temperature=0.6, top_p=0.9)),
        (
            {"temperature": 0.5, "top_k": 20, "min_p": 0.1, "repetition_penalty": 1.1},
            SamplingParams(temperature=0.5, top_k=20, min_p=0.1, repetition_penalty=1.1),
        ),
        ({"temperature": None, "top_k": None}, SamplingParams(temperature=0.7)),
    ],
)
def test_the_makers_recommendation_is_the_default(
    folder: Path, generation: dict[str, Any], want: SamplingParams
) -> None:
    assert sampling_of(folder, **generation) == want


def test_odd_recommendations_are_left_out_with_a_warning(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    found = sampling_of(folder, do_sample=True, temperature=-3, top_p=7, top_k=5, repetition_penalty=0)
    assert found == SamplingParams(temperature=0.7, top_k=5)
    warned = [record.getMessage() for record in caplog.records if record.name.startswith("llmctl")]
    assert [message.split()[1] for message in warned] == ["temperature", "top_p", "repetition_penalty"]


def test_an_answer_ends_with_the_end_tokens_of_all_three_places(folder: Path) -> None:
    tiny.edit_json(folder / "config.json", eos_token_id=7)
    tiny.edit_json(folder / "generation_config.json", eos_token_id=[8, 9])
    assert loaded(folder).end_ids == {7, 8, 9, tiny.EOS}


@pytest.mark.parametrize("odd", [None, -1, [-1, None], []])
def test_end_tokens_that_are_none_are_left_out(folder: Path, odd: Any) -> None:
    tiny.edit_json(folder / "config.json", eos_token_id=7)
    config = json.dumps({"eos_token_id": odd})
    (folder / "generation_config.json").write_text(config, encoding="utf-8")
    assert loaded(folder).end_ids == {7, tiny.EOS}


def test_neither_loading_nor_refusing_prints_anything(
    folder: Path, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    loaded(folder)
    tiny.edit_weights(folder, lambda tensors: tensors.pop("lm_head.weight"))
    with pytest.raises(BadFileError):
        loaded(folder)
    assert capfd.readouterr() == ("", "")
    # transformers' own handler writes to the stderr that it found when it was imported.
    assert [record.getMessage() for record in caplog.records if record.name.startswith("transformers")] == []


def test_loading_leaves_the_logging_of_transformers_as_it_was(whole: Path) -> None:
    library = transformers.utils.logging
    library.set_verbosity_warning()
    library.enable_progress_bar()
    loaded(whole)
    assert library.get_verbosity() == logging.WARNING
    assert library.is_progress_bar_enabled()


def test_the_plans_reasons_are_told_in_the_log(whole: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, logger="llmctl"):
        model = loaded(whole)
    said = {record.getMessage() for record in caplog.records}
    assert {*model.plan.reasons, f"{model.name} takes about {model.plan.size}"} <= said


def test_the_real_model_of_the_shared_folder_tells_its_story(shared: Path) -> None:
    model = loaded(shared / "assets/stories260K")
    assert model.end_ids == {1, 2}
    assert model.default_sampling == SamplingParams(temperature=0.0)
    assert model.context_length == 512
    ids = torch.tensor([model.tokenizer.encode("Once upon a time")])
    said = model.tokenizer.decode(model.model.generate(ids, do_sample=False, max_new_tokens=12)[0])
    assert said.startswith("<s> Once upon a time, there was a little girl named Lily")


def test_a_config_with_fewer_layers_than_the_weights_is_refused(folder: Path) -> None:
    tiny.edit_json(folder / "config.json", num_hidden_layers=1)
    with pytest.raises(BadFileError, match=r"layer 1 .* its config 1 layers"):
        loaded(folder)


def test_packed_weights_that_no_config_explains_are_refused(folder: Path) -> None:
    tiny.edit_weights(
        folder,
        lambda tensors: tensors.update({name: each.to(torch.int8) for name, each in tensors.items()}),
    )
    with pytest.raises(BadFileError, match=r"quantised \(I8, which the config does not explain"):
        loaded(folder)


def test_a_recommended_penalty_holds_for_a_greedy_model_too(folder: Path) -> None:
    tiny.edit_json(folder / "generation_config.json", do_sample=False, repetition_penalty=1.5, top_p=0.5)
    assert loaded(folder).default_sampling == SamplingParams(temperature=0.0, repetition_penalty=1.5)


def test_a_wrong_shape_names_the_tensor(folder: Path) -> None:
    tiny.edit_weights(
        folder,
        lambda tensors: tensors.update({"model.norm.weight": tensors["model.norm.weight"][:5].clone()}),
    )
    words = r"model\.norm\.weight of the checkpoint tiny has the shape \[5\], its config asks for \[32\]"
    with pytest.raises(BadFileError, match=words):
        loaded(folder)


@pytest.mark.parametrize("kind", ["t5", "bart", "t5gemma", "led"])
def test_a_model_with_encoder_and_decoder_loads_as_one(tmp_path: Path, kind: str) -> None:
    model = loaded(tiny.folder(tmp_path / kind, kind))
    assert (model.generates, type(model.model).__name__) == (
        "encoder-decoder",
        type(tiny.model(kind)).__name__,
    )
    want = tiny.model(kind).state_dict()
    assert all(torch.equal(tensor, want[name]) for name, tensor in model.model.state_dict().items())
    assert model.vocabulary_size == tiny.VOCABULARY_SIZE
    assert model.end_ids == {tiny.EOS}


@pytest.mark.parametrize(
    ("kind", "changes", "lengths"),
    [
        ("t5", {"n_positions": 512}, (512, 512)),
        ("bart", {}, (256, 256)),
        ("led", {}, (256, 64)),
        ("t5gemma", {}, (256, 256)),
    ],
)
def test_encoder_and_decoder_have_lengths_of_their_own(
    tmp_path: Path, kind: str, changes: dict[str, int], lengths: tuple[int, int]
) -> None:
    model = loaded(tiny.folder(tmp_path / kind, kind, **changes))
    assert (model.context_length, model.answer_length) == lengths


def test_a_causal_model_has_one_length_for_both(whole: Path) -> None:
    model = loaded(whole)
    assert (model.generates, model.answer_length, model.block_length) == ("causal", None, None)


def test_a_family_may_ask_for_jacobi_decoding(whole: Path) -> None:
    model = loaded(whole, generates="jacobi", row={"jacobi_tokens": 16})
    assert (model.generates, model.block_length) == ("jacobi", 16)
    assert loaded(whole, generates="causal").generates == "causal"


@pytest.mark.parametrize(
    ("kind", "asked", "is_made"),
    [
        ("llama", "encoder-decoder", "causal"),
        ("t5", "jacobi", "encoder-decoder"),
        ("t5", "causal", "encoder-decoder"),
    ],
)
def test_a_family_and_a_config_that_contradict_each_other_are_told(
    tmp_path: Path, kind: str, asked: str, is_made: str
) -> None:
    with pytest.raises(UsageError, match=f"m is said to generate as '{asked}', but.* makes it '{is_made}'"):
        loaded(tiny.folder(tmp_path / "m", kind), generates=asked)


def test_a_model_of_a_family_that_does_not_generate_is_refused(whole: Path) -> None:
    with pytest.raises(UsageError, match="tiny belongs to a family that does not generate text"):
        loaded(whole, generates="none")


@pytest.mark.parametrize(
    ("kind", "changes", "name", "num_layers"),
    [
        ("t5", {"num_layers": 1}, "encoder.block.1", 1),
        ("t5", {"num_layers": 1, "num_decoder_layers": 2}, "encoder.block.1", 1),
        ("t5", {"num_decoder_layers": 1}, "decoder.block.1", 1),
        ("bart", {"decoder_layers": 1}, "decoder.layers.1", 1),
        ("bart", {"encoder_layers": 1}, "encoder.layers.1", 1),
    ],
)
def test_a_pair_with_fewer_layers_than_its_weights_is_refused(
    tmp_path: Path, kind: str, changes: dict[str, int], name: str, num_layers: int
) -> None:
    folder = tiny.folder(tmp_path / "m", kind)
    tiny.edit_json(folder / "config.json", **changes)
    with pytest.raises(BadFileError, match=rf"layer 1 \(.*{name}\..*its config {num_layers} layers"):
        loaded(folder)


def test_a_pair_is_greedy_unless_its_makers_draw(tmp_path: Path) -> None:
    folder = tiny.folder(tmp_path / "m", "t5")
    assert sampling_of(folder) == SamplingParams(temperature=0.0)
    assert sampling_of(folder, do_sample=True, temperature=0.5) == SamplingParams(temperature=0.5)


@pytest.mark.parametrize("place", ["config.json", "generation_config.json"])
def test_recommendations_that_are_not_followed_are_told(
    tmp_path: Path, place: str, caplog: pytest.LogCaptureFixture
) -> None:
    folder = tiny.folder(tmp_path / "m", "bart")
    tiny.edit_json(folder / place, num_beams=4, no_repeat_ngram_size=3, min_length=0)
    with caplog.at_level(logging.INFO, logger="llmctl"):
        loaded(folder)
    assert "m recommends num_beams 4, no_repeat_ngram_size 3, which llmctl does not do" in caplog.text


def with_own_code(folder: Path, *, base: str, model_type: str, auto_class: str) -> Path:
    """Give a model folder code of its own, in one file, that only inherits from `base` of transformers."""
    config_class, model_class = f"{base.partition('For')[0]}Config", base
    code = (
        f"import transformers\n"
        f"class OwnConfig(transformers.{config_class}):\n    model_type = {model_type!r}\n"
        f"class OwnModel(transformers.{model_class}):\n"
        f"    config_class = OwnConfig\n"
    )
    (folder / f"own_{model_type}.py").write_text(code, encoding="utf-8")
    auto_map = {"AutoConfig": f"own_{model_type}.OwnConfig", auto_class: f"own_{model_type}.OwnModel"}
    tiny.edit_json(folder / "config.json", model_type=model_type, auto_map=auto_map)
    return folder


@pytest.fixture
def _own_modules(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("transformers.dynamic_module_utils.HF_MODULES_CACHE", str(tmp_path / "modules"))


@pytest.mark.usefixtures("_own_modules")
def test_trusted_code_of_a_pair_loads_as_one(tmp_path: Path) -> None:
    folder = with_own_code(
        tiny.folder(tmp_path / "m", "t5"),
        base="T5ForConditionalGeneration",
        model_type="codet5p",
        auto_class="AutoModelForSeq2SeqLM",
    )
    model = loaded(folder, trust_remote_code=True)
    assert (model.generates, type(model.model).__name__) == ("encoder-decoder", "OwnModel")
    # Its decoder goes on from the prompt, so that both share one length.
    assert model.answer_length is None


# ChatGLM stands there as a pair, which it is not; the first of its name as nothing but a model.
@pytest.mark.usefixtures("_own_modules")
@pytest.mark.parametrize("auto_class", ["AutoModelForSeq2SeqLM", "AutoModel"])
def test_code_that_calls_itself_a_pair_and_is_none_stays_causal(tmp_path: Path, auto_class: str) -> None:
    folder = with_own_code(
        tiny.folder(tmp_path / "m"),
        base="LlamaForCausalLM",
        model_type=f"own{len(auto_class)}",
        auto_class=auto_class,
    )
    model = loaded(folder, trust_remote_code=True)
    assert (model.generates, type(model.model).__name__) == ("causal", "OwnModel")


def test_a_buffer_that_no_checkpoint_has_is_made_beside_packed_weights(tmp_path: Path) -> None:
    config = transformers.GPTNeoConfig(
        vocab_size=tiny.VOCABULARY_SIZE,
        hidden_size=64,
        num_layers=2,
        num_heads=4,
        attention_types=[[["global", "local"], 1]],
        max_position_embeddings=64,
        bos_token_id=tiny.BOS,
        eos_token_id=tiny.EOS,
    )
    transformers.GPTNeoForCausalLM(config).save_pretrained(tmp_path)
    tiny.tokenizer().save_pretrained(tmp_path)
    dense, packed = loaded(tmp_path), loaded(tmp_path, quantization="int8")
    wanted = dict(dense.model.named_buffers())
    assert any("bias" in name for name in wanted)
    for name, buffer in packed.model.named_buffers():
        assert torch.equal(buffer, wanted[name]), name
