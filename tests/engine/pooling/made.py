"""Tiny random encoders and decoders as folders, for vectors and scores, and what their own code gives."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import transformers
from tokenizers import processors
from torch import Tensor

from llmctl.core.progress import SilentProgress
from llmctl.engine.pooling.model import PooledModel, load_pooled
from llmctl.loading.loader import LoadRequest
from llmctl.loading.planning.plan import PlanRequest
from tests import tiny

_ENCODER = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 64,
    "max_position_embeddings": 130,
    "pad_token_id": 0,
    "initializer_range": 0.3,
}
_SHIFTED = {**_ENCODER, "pad_token_id": 1}
ENCODERS: Mapping[str, Mapping[str, Any]] = {
    "bert": _ENCODER,
    "roberta": _SHIFTED,
    "xlm-roberta": _SHIFTED,
    "mpnet": _SHIFTED,
    "distilbert": {"dim": 32, "n_layers": 2, "n_heads": 4, "hidden_dim": 64, "initializer_range": 0.3},
    "modernbert": {**_ENCODER, "local_attention": 16},
    "nomic_bert": _ENCODER,
    "gte": _ENCODER,
    "deberta-v2": _ENCODER,
    "fnet": _ENCODER,
    "t5": tiny.PAIRS["t5"],
    # A decoder that looks ahead, as EmbeddingGemma is.
    "gemma3_text": {
        **_ENCODER,
        "num_key_value_heads": 2,
        "head_dim": 8,
        "query_pre_attn_scalar": 8,
        "sliding_window": 8,
        "use_bidirectional_attention": True,
    },
}
TEXTS = ("hello there", "a", "some text that goes on and on for a bit, yes it does", "xyz xyz xyz")
PAIRS = (("what is it?", "a thing"), "one text alone", ("q", "an answer that is longer than its question"))


def tokenizer(*, has_types: bool = False) -> Any:
    """Bytes, with a first and a last token, and a third one between two texts."""
    made = tiny.tokenizer(None)
    made.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>",
        pair="<s> $A </s> $B:1 </s>:1",
        special_tokens=[("<s>", tiny.BOS), ("</s>", tiny.EOS)],
    )
    if has_types:
        made.model_input_names = ["input_ids", "token_type_ids", "attention_mask"]
    return made


def config(kind: str, **changes: Any) -> Any:
    """Of a tiny encoder, or of a decoder of `tests.tiny`."""
    if kind in tiny.CONFIGS:
        return tiny.config(kind, **changes)
    values = {"vocab_size": tiny.VOCABULARY_SIZE, "bos_token_id": tiny.BOS, "eos_token_id": tiny.EOS}
    return transformers.AutoConfig.for_model(kind, **{**values, **ENCODERS[kind], **changes})


def model(kind: str, *, what: str = "AutoModel", **changes: Any) -> Any:
    """A tiny random model in float32; `what` is a class of transformers that makes it."""
    own = config(kind, **changes)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        maker = getattr(transformers, what)
        made = maker(own) if what == "T5EncoderModel" else maker.from_config(own)
    return made.float().eval()


def folder(path: Path, made: Any, tokens: Any = None) -> Path:
    """Write a model and a tokenizer, by default that of `tokenizer`."""
    made.save_pretrained(path)
    own = tokens or tokenizer(has_types=made.config.model_type == "bert")
    own.save_pretrained(path)
    if tokens is None:
        tiny.edit_json(path / "tokenizer_config.json", model_input_names=own.model_input_names)
    return path


def opened(path: Path, **options: Any) -> PooledModel:
    """The folder, opened as llmctl opens it; `options` are those of the plan, and `row`."""
    row = options.pop("row", {})
    plan = PlanRequest(device="cpu", **options)
    return load_pooled(LoadRequest(model=str(path), plan=plan, row=row), SilentProgress())


def states(made: Any, ids: Sequence[int], **more: Any) -> Tensor:
    """What the model's own forward gives for one text alone, [L, H]."""
    given = torch.tensor([list(ids)])
    with torch.no_grad():
        out = made(input_ids=given, attention_mask=torch.ones_like(given), **more)
    found: Tensor = out.last_hidden_state[0]
    return found


def with_modules(path: Path, *modules: tuple[str, Mapping[str, Any]], **files: Any) -> Path:
    """Add what sentence-transformers writes: (class, config) for each module after the model itself.

    `files` are further JSON files by their stems.
    """
    listed = [{"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Transformer"}]
    for number, (kind, own) in enumerate(modules, start=1):
        place = f"{number}_{kind}"
        (path / place).mkdir()
        (path / place / "config.json").write_text(json.dumps(own), encoding="utf-8")
        kind = f"sentence_transformers.models.{kind}"
        listed.append({"idx": number, "name": str(number), "path": place, "type": kind})
    (path / "modules.json").write_text(json.dumps(listed), encoding="utf-8")
    for stem, value in files.items():
        (path / f"{stem}.json").write_text(json.dumps(value), encoding="utf-8")
    return path
