"""Merged weights are peft's own, to the last digits of float32, for every semantic of its LoRA."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from llmctl.core.errors import BadFileError
from llmctl.loading.adapted import skeleton
from llmctl.lora import updates
from llmctl.lora.checkpoint import open_adapter
from llmctl.lora.plan import plan_merge
from tests import tiny
from tests.lora import made

peft = pytest.importorskip("peft")
pytestmark = pytest.mark.filterwarnings("ignore")

QV = ["q_proj", "v_proj"]
TIED: dict[str, Any] = {"tie_word_embeddings": True}


@dataclass(frozen=True)
class Case:
    name: str
    config: dict[str, Any]
    kind: str = "llama"
    changes: dict[str, Any] = field(default_factory=dict)


CASES = [
    Case("plain", {"target_modules": QV}),
    Case("velora", {"target_modules": QV, "velora_config": {"num_groups": 4}}),
    Case("rank stabilised", {"target_modules": QV, "use_rslora": True}),
    Case("dora", {"target_modules": QV, "use_dora": True}),
    Case(
        "ranks and alphas by pattern",
        {
            "target_modules": QV,
            "rank_pattern": {"layers.0.self_attn.q_proj": 8, ".*v_proj": 2},
            "alpha_pattern": {"v_proj": 5, "q_proj|k_proj": 3},
        },
    ),
    Case("an expression", {"target_modules": r".*\.layers\.1\..*(up|down)_proj"}),
    Case("all linear layers", {"target_modules": "all-linear"}),
    Case("one layer", {"target_modules": QV, "layers_to_transform": 0}),
    Case("layers of a list", {"target_modules": QV, "layers_to_transform": [1], "layers_pattern": "layers"}),
    Case("one excluded", {"target_modules": QV, "exclude_modules": ["layers.0.self_attn.q_proj"]}),
    Case("excluded by expression", {"target_modules": QV, "exclude_modules": r".*layers\.0\..*"}),
    Case(
        "layers the other way round", {"target_modules": ["c_attn", "c_proj"], "fan_in_fan_out": True}, "gpt2"
    ),
    Case("the same with dora", {"target_modules": ["c_attn", "c_fc"], "use_dora": True}, "gpt2"),
    Case("all biases", {"target_modules": ["c_attn"], "bias": "all"}, "gpt2"),
    Case("biases of adapted layers", {"target_modules": ["c_attn"], "bias": "lora_only"}, "gpt2"),
    Case("biases of its own", {"target_modules": ["q_proj"], "lora_bias": True}, "qwen2"),
    Case("a table", {"target_modules": ["embed_tokens", "q_proj"]}),
    Case("a table and the head with dora", {"target_modules": ["embed_tokens", "lm_head"], "use_dora": True}),
    Case("a tied table", {"target_modules": ["embed_tokens"]}, changes=TIED),
    Case("a tied head", {"target_modules": ["lm_head"]}, changes=TIED),
    Case("both of a tied pair", {"target_modules": ["embed_tokens", "lm_head"]}, changes=TIED),
    Case(
        "both of a tied pair with dora",
        {"target_modules": ["embed_tokens", "lm_head"], "use_dora": True},
        changes=TIED,
    ),
    Case(
        "a tied head as a parameter",
        {"target_modules": QV, "target_parameters": ["lm_head.weight"]},
        changes=TIED,
    ),
    Case("saved", {"target_modules": QV, "modules_to_save": ["lm_head", "embed_tokens", "input_layernorm"]}),
    Case("a saved block", {"target_modules": QV, "modules_to_save": ["mlp"]}),
    Case("a saved table, tied", {"target_modules": QV, "modules_to_save": ["embed_tokens"]}, changes=TIED),
    Case("a saved head, tied", {"target_modules": QV, "modules_to_save": ["lm_head"]}, changes=TIED),
    Case(
        "saved and kept tied",
        {"target_modules": QV, "modules_to_save": ["embed_tokens"], "ensure_weight_tying": True},
        changes=TIED,
    ),
    Case(
        "a table that is saved since the head is",
        {
            "target_modules": ["q_proj", "embed_tokens"],
            "modules_to_save": ["lm_head"],
            "ensure_weight_tying": True,
        },
        changes=TIED,
    ),
    Case(
        "a saved block and all biases",
        {"target_modules": ["c_attn"], "modules_to_save": ["mlp"], "bias": "all"},
        "gpt2",
    ),
    Case(
        "tokens of a tied head",
        {"target_modules": QV, "trainable_token_indices": {"lm_head": [3]}},
        changes=TIED,
    ),
    Case(
        "the same tokens of both of a tied pair",
        {"target_modules": QV, "trainable_token_indices": {"lm_head": [3, 5], "embed_tokens": [5, 6]}},
        changes=TIED,
    ),
    Case("tokens", {"target_modules": QV, "trainable_token_indices": [3, 5, 200]}),
    Case("a token that is named twice", {"target_modules": QV, "trainable_token_indices": [3, 3, 7]}),
    Case("tokens, tied", {"target_modules": QV, "trainable_token_indices": [3, 5, 200]}, changes=TIED),
    Case(
        "tokens of two tables",
        {"target_modules": QV, "trainable_token_indices": {"lm_head": [3, 5], "embed_tokens": [1]}},
    ),
    Case(
        "experts as parameters",
        {"target_modules": QV, "target_parameters": ["mlp.experts.gate_up_proj", "mlp.experts.down_proj"]},
        "mixtral",
    ),
    Case(
        "experts of a rank of their own",
        {
            "target_modules": [],
            "target_parameters": ["experts.down_proj", "experts.gate_up_proj"],
            "rank_pattern": {"experts.down_proj": 2},
        },
        "qwen2_moe",
    ),
    Case("a router as a parameter", {"target_modules": QV, "target_parameters": ["gate.weight"]}, "mixtral"),
    Case("experts by their older names", {"target_modules": ["w1", "w2", "w3"]}, "mixtral"),
    Case("joined projections", {"target_modules": ["qkv_proj", "gate_up_proj"]}, "phi3"),
    Case("encoder and decoder", {"target_modules": ["q", "v"]}, "t5"),
]


def trained(folder: Path, case: Case) -> None:
    """An adapter that peft saved, none of its numbers as it began."""
    config = peft.LoraConfig(**{"r": 4, "lora_alpha": 8, **case.config})
    model = peft.get_peft_model(tiny.model(case.kind, **case.changes), config)
    generator = torch.Generator().manual_seed(1)
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data += torch.randn(parameter.shape, generator=generator) * 0.1
    model.save_pretrained(folder)


@pytest.mark.parametrize("block", [1 << 23, 100], ids=["whole", "cut"])
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_the_merge_is_pefts(case: Case, block: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(updates, "_BLOCK", block)
    trained(tmp_path / "adapter", case)
    base = made.stored(tmp_path / "base", case.kind, **case.changes)
    loaded = peft.PeftModel.from_pretrained(tiny.model(case.kind, **case.changes), tmp_path / "adapter")
    loaded.merge_and_unload().save_pretrained(tmp_path / "theirs")
    theirs = load_file(tmp_path / "theirs/model.safetensors")
    plan = made.planned(tmp_path / "adapter", base, case.kind, **case.changes)
    ours = made.merged(plan, base)
    assert ours.keys() == theirs.keys()
    for name, wanted in theirs.items():
        assert float((ours[name] - wanted).abs().max()) <= 1e-6, name
    changed = {name for name in theirs if name not in base or not torch.equal(theirs[name], base[name])}
    assert changed == set(plan.changes)


@pytest.mark.parametrize("target", ["embed_tokens", "lm_head"])
def test_a_change_that_was_saved_for_both_of_a_tied_pair_is_made_once(target: str, tmp_path: Path) -> None:
    # merge_and_unload of peft 0.21 adds it twice, unlike its own forward pass.
    case = Case("", {"target_modules": [target], "ensure_weight_tying": True}, changes=TIED)
    trained(tmp_path / "adapter", case)
    base = made.stored(tmp_path / "base", **TIED)
    loaded = peft.PeftModel.from_pretrained(tiny.model(**TIED), tmp_path / "adapter").eval()
    plan = made.planned(tmp_path / "adapter", base, **TIED)
    assert not plan.resolved.notices
    ours = tiny.model(**TIED)
    ours.load_state_dict(made.merged(plan, base), strict=False)
    ids = torch.arange(3, 40).unsqueeze(0)
    with torch.no_grad():
        assert float((ours(ids).logits - loaded(ids).logits).abs().max()) < 1e-4


def test_a_head_that_classifies_goes_along(tmp_path: Path) -> None:
    config = tiny.config("llama", num_labels=3, pad_token_id=0)
    model = tiny.transformers.LlamaForSequenceClassification(config)
    model.save_pretrained(tmp_path / "base")
    own = peft.get_peft_model(model, peft.LoraConfig(task_type="SEQ_CLS", r=4, target_modules=["q_proj"]))
    own.save_pretrained(tmp_path / "adapter")
    assert len(open_adapter(tmp_path / "adapter").config.saved) > 1
    own.merge_and_unload().save_pretrained(tmp_path / "theirs")
    base, theirs = (load_file(tmp_path / name / "model.safetensors") for name in ("base", "theirs"))
    shapes = {name: tuple(each.shape) for name, each in base.items()}
    plan = plan_merge(open_adapter(tmp_path / "adapter"), skeleton(type(model), config), shapes)
    assert "score.weight" in plan.changes
    ours = made.merged(plan, base)
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


def test_layers_within_a_module_whose_parameter_is_changed_are_found(tmp_path: Path) -> None:
    # merge_and_unload of peft 0.21 leaves the layers within wrapped.
    trained(
        tmp_path / "adapter",
        Case("", {"target_modules": ["in_proj"], "target_parameters": ["mixer.A_log"]}, "mamba"),
    )
    base = made.stored(tmp_path / "base", "mamba")
    ours = tiny.model("mamba")
    ours.load_state_dict(made.merged(made.planned(tmp_path / "adapter", base, "mamba"), base), strict=False)
    loaded = peft.PeftModel.from_pretrained(tiny.model("mamba"), tmp_path / "adapter").eval()
    ids = torch.arange(3, 40).unsqueeze(0)
    with torch.no_grad():
        wanted, plain = loaded(ids).logits, tiny.model("mamba")(ids).logits
        assert float((ours(ids).logits - wanted).abs().max()) < 1e-4
    assert float((plain - wanted).abs().max()) > 1e-2


@pytest.mark.parametrize("config", [{"use_dora": True}, {"alpha_pattern": {"embed_tokens": 3}}])
def test_two_changes_of_a_pair_that_is_kept_tied_are_refused(config: dict[str, Any], tmp_path: Path) -> None:
    wish = {"target_modules": ["embed_tokens"], "ensure_weight_tying": True, **config}
    trained(tmp_path / "adapter", Case("", wish, changes=TIED))
    with pytest.raises(BadFileError, match="ensure_weight_tying=true and changes lm_head") as caught:
        made.planned(tmp_path / "adapter", made.stored(tmp_path / "base", **TIED), **TIED)
    assert "unmerged" in str(caught.value.hint)
