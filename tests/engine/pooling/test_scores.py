"""Scores of classifiers and rerankers are those of the class's own forward over one input at a time."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from llmctl.core.errors import BadFileError, ContextOverflowError, UsageError
from tests import tiny
from tests.engine.pooling import made

ENCODERS = ("bert", "roberta", "xlm-roberta", "distilbert", "modernbert", "deberta-v2")
PACKED = ("qwen3", "gemma2", "llama")
OWN_HEADS = ("gpt2", "bloom")


def classifier(kind: str, **changes: Any) -> Any:
    return made.model(kind, what="AutoModelForSequenceClassification", num_labels=3, **changes)


def wanted(model: Any, tokenizer: Any, inputs: Any = made.PAIRS) -> Tensor:
    rows = []
    for each in inputs:
        given = tokenizer(*([each] if isinstance(each, str) else each), return_tensors="pt")
        with torch.no_grad():
            rows.append(model(**given).logits[0])
    return torch.stack(rows)


@pytest.mark.parametrize("kind", [*ENCODERS, *PACKED, *OWN_HEADS])
@pytest.mark.parametrize("pad_token_id", [0, None])
def test_a_class_scores_as_its_own_forward_does(kind: str, pad_token_id: int | None, tmp_path: Path) -> None:
    if pad_token_id is None and kind in ("roberta", "xlm-roberta"):
        # They count positions by it.
        pad_token_id = 1
    model = classifier(kind, pad_token_id=pad_token_id)
    opened = made.opened(made.folder(tmp_path, model))
    tokenizer = made.tokenizer(has_types=kind == "bert")
    for inputs in (made.PAIRS, made.PAIRS[::-1], made.PAIRS[:1]):
        scores = opened.score(inputs)
        torch.testing.assert_close(scores.logits, wanted(model, tokenizer, inputs), atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(scores.values, scores.logits.softmax(1))
    is_single = pad_token_id is None and kind not in PACKED
    assert opened.way == ("packed" if kind in PACKED else "single" if is_single else "padded")
    assert opened.score(made.PAIRS).labels == ("LABEL_0", "LABEL_1", "LABEL_2")


def test_padding_tokens_at_the_end_of_a_text_are_passed_over_as_the_class_does(tmp_path: Path) -> None:
    # Qwen ends texts with its padding token.
    model = classifier("qwen3", pad_token_id=tiny.EOS)
    opened = made.opened(made.folder(tmp_path, model))
    want = wanted(model, made.tokenizer(), made.TEXTS)
    torch.testing.assert_close(opened.score(made.TEXTS).logits, want, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    ("num_labels", "words", "activation"),
    [
        (1, {}, "sigmoid"),
        (3, {}, "softmax"),
        (3, {"problem_type": "multi_label_classification"}, "sigmoid"),
        (3, {"problem_type": "regression"}, "none"),
        (1, {"sentence_transformers": {"activation_fn": "torch.nn.modules.linear.Identity"}}, "none"),
        (1, {"sbert_ce_default_activation_function": "torch.nn.modules.linear.Identity"}, "none"),
    ],
)
def test_the_config_says_what_makes_scores_of_logits(
    num_labels: int, words: dict[str, Any], activation: str, tmp_path: Path
) -> None:
    model = made.model("bert", what="AutoModelForSequenceClassification", num_labels=num_labels)
    folder = made.folder(tmp_path, model)
    tiny.edit_json(folder / "config.json", **words)
    scores = made.opened(folder).score(made.PAIRS)
    want = {"sigmoid": scores.logits.sigmoid(), "softmax": scores.logits.softmax(1), "none": scores.logits}
    torch.testing.assert_close(scores.values, want[activation])
    assert scores.values.shape == (3, num_labels)


def test_an_activation_that_llmctl_does_not_know_is_refused(tmp_path: Path) -> None:
    folder = made.folder(tmp_path, classifier("bert"))
    tiny.edit_json(folder / "config.json", sentence_transformers={"activation_fn": "my.Step"})
    with pytest.raises(BadFileError, match=r"my\.Step"):
        made.opened(folder)


def test_a_classifier_gives_no_vectors_and_an_encoder_no_scores(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="is a classifier"):
        made.opened(made.folder(tmp_path / "one", classifier("bert"))).embed(["hi"])
    with pytest.raises(UsageError, match="no scores"):
        made.opened(made.folder(tmp_path / "two", made.model("bert"))).score(["hi"])


def test_a_pair_that_is_too_long_or_empty_is_refused(tmp_path: Path) -> None:
    opened = made.opened(made.folder(tmp_path, classifier("bert")))
    with pytest.raises(ContextOverflowError, match=r"input 1 has 153 tokens, .* at most 130"):
        opened.score([("a", "b"), ("a" * 100, "b" * 50)])
    with pytest.raises(UsageError, match="input 0 is empty"):
        opened.score([("", "")])


def test_the_head_stays_exact_where_the_rest_takes_eight_bits(tmp_path: Path) -> None:
    model = classifier("bert", hidden_size=64, intermediate_size=128)
    opened = made.opened(made.folder(tmp_path, model), quantization="8bit")
    assert type(opened.loaded.model.classifier) is torch.nn.Linear
    assert type(opened.loaded.model.bert.pooler.dense) is torch.nn.Linear
    query = opened.loaded.model.bert.encoder.layer[0].attention.self.query
    assert type(query) is not torch.nn.Linear
    got, want = opened.score(made.PAIRS).values, wanted(model, made.tokenizer(has_types=True)).softmax(1)
    torch.testing.assert_close(got, want, atol=0.05, rtol=0)
