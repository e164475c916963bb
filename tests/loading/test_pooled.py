"""What gives vectors and scores loads by an entry of its own, and chat keeps refusing it."""

import logging
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

from llmctl.core.errors import BadFileError, UsageError
from llmctl.core.progress import SilentProgress
from llmctl.loading import loader, pooled
from llmctl.loading.loader import LoadRequest
from llmctl.loading.planning.plan import PlanRequest
from llmctl.loading.pooled import LoadedPooled
from tests import tiny
from tests.engine.pooling import made


def loaded(folder: Path, *, task: Any = None, **options: Any) -> LoadedPooled:
    return pooled.load(LoadRequest(model=str(folder), **options), SilentProgress(), task=task)


def same(model: Any, want: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(tensor, want[name]) for name, tensor in model.state_dict().items())


def test_an_encoder_loads_here_and_chat_refuses_it(tmp_path: Path) -> None:
    folder = made.folder(tmp_path, made.model("bert"))
    model = loaded(folder)
    assert type(model.model) is transformers.BertModel
    assert (model.task, model.max_tokens, model.vocabulary_size) == ("embed", 130, tiny.VOCABULARY_SIZE)
    assert not model.model.training
    with pytest.raises(BadFileError, match="cannot chat"):
        loader.load(LoadRequest(model=str(folder)), SilentProgress())


@pytest.mark.parametrize("what", ["AutoModelForMaskedLM", "AutoModelForSequenceClassification"])
def test_a_head_that_is_not_needed_is_left_out_without_a_warning(
    what: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    source = made.model("bert", what=what)
    with caplog.at_level(logging.INFO, "llmctl"):
        model = loaded(made.folder(tmp_path, source), task="embed", row={"pooling": "cls"})
    assert same(model.model, source.bert.state_dict())
    assert (model.model.pooler is None) == (what == "AutoModelForMaskedLM")
    assert [each for each in caplog.records if each.levelno >= logging.WARNING] == []
    assert "vectors by cls, then normalise (its family's row)" in caplog.text


def test_a_decoder_loads_without_its_head(tmp_path: Path) -> None:
    source = made.model("qwen3", what="AutoModelForCausalLM")
    model = loaded(made.folder(tmp_path, source))
    assert type(model.model) is transformers.Qwen3Model
    assert same(model.model, source.model.state_dict())


@pytest.mark.parametrize("what", ["T5EncoderModel", "AutoModelForSeq2SeqLM"])
def test_of_a_pair_the_encoder_is_taken(what: str, tmp_path: Path) -> None:
    source = made.model("t5", what=what)
    model = loaded(made.folder(tmp_path, source))
    assert type(model.model) is transformers.T5EncoderModel
    assert torch.equal(
        model.model.encoder.block[1].layer[0].SelfAttention.q.weight,
        source.encoder.block[1].layer[0].SelfAttention.q.weight,
    )


def test_a_pair_whose_encoder_transformers_has_no_class_for_is_refused(tmp_path: Path) -> None:
    folder = tiny.folder(tmp_path, "bart")
    with pytest.raises(BadFileError, match="gives vectors of texts"):
        loaded(folder)


def test_scores_of_a_model_without_classifier_are_refused(tmp_path: Path) -> None:
    with pytest.raises(BadFileError, match="has no classifier"):
        loaded(made.folder(tmp_path, made.model("bert")), task="classify")


def test_a_classifier_that_lacks_its_head_is_refused(tmp_path: Path) -> None:
    folder = made.folder(tmp_path, made.model("bert", what="AutoModelForSequenceClassification"))
    tiny.edit_weights(folder, lambda tensors: tensors.pop("classifier.weight"))
    with pytest.raises(BadFileError, match=r"1 missing, the first classifier\.weight"):
        loaded(folder)


def test_code_of_a_repository_is_not_run_unasked(tmp_path: Path) -> None:
    folder = made.folder(tmp_path, made.model("bert"))
    tiny.edit_json(folder / "config.json", model_type="new", auto_map={"AutoModel": "modeling.NewModel"})
    with pytest.raises(UsageError, match="does not run unasked"):
        loaded(folder)


def test_an_adapter_that_loads_by_itself_is_refused() -> None:
    with pytest.raises(UsageError, match="loads by itself"):
        pooled.load(LoadRequest(model="demo", own_loader=lambda *_: (None, None)), SilentProgress())


@pytest.mark.parametrize(
    ("limits", "want"),
    [
        ({}, 130),
        ({"tokenizer": 100}, 100),
        ({"sentences": 64}, 64),
        ({"tokenizer": 10**30, "sentences": 512}, 130),
    ],
)
def test_the_smallest_limit_counts(limits: dict[str, int], want: int, tmp_path: Path) -> None:
    folder = made.folder(tmp_path, made.model("bert"))
    if "tokenizer" in limits:
        tiny.edit_json(folder / "tokenizer_config.json", model_max_length=limits["tokenizer"])
    if "sentences" in limits:
        tiny.edit_json(folder / "sentence_bert_config.json", max_seq_length=limits["sentences"])
    assert loaded(folder).max_tokens == want


def test_nothing_that_says_how_to_pool_is_told_aloud(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING, "llmctl"):
        loaded(made.folder(tmp_path, made.model("bert")))
    (warning,) = (each for each in caplog.records if each.levelno >= logging.WARNING)
    assert "vectors by mean, then normalise (nothing says otherwise)" in warning.getMessage()


@pytest.mark.parametrize("kind", ["bert", "roberta"])
def test_eight_bits_leave_the_numbers_of_positions_alone(kind: str, tmp_path: Path) -> None:
    folder = made.folder(tmp_path, made.model(kind, hidden_size=64, intermediate_size=128))
    request = LoadRequest(model=str(folder), plan=PlanRequest(device="cpu", quantization="8bit"))
    embeddings = pooled.load(request, SilentProgress()).model.embeddings
    assert embeddings.position_ids.tolist() == [list(range(130))]
    assert embeddings.token_type_ids.tolist() == [[0] * 130]
