"""Packs weights into 4-bit floats in groups with a scale, from the definition of e2m1 and e8m0."""

import json
import math
from pathlib import Path

import numpy as np
import torch

from tests import tiny
from tests.quant.formats.checkpoints import rewrite

VALUES = [0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0]


def pack(weight: torch.Tensor, group_size: int = 32) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Codes uint8 [..., N, K / 2], powers of two uint8 [..., N, G], the dense weight in float32."""
    rows = weight.double().numpy().reshape(-1, weight.shape[-1])
    codes = np.zeros((rows.shape[0], rows.shape[1] // 2), dtype=np.uint8)
    powers = np.zeros((rows.shape[0], rows.shape[1] // group_size), dtype=np.uint8)
    dense = np.zeros(rows.shape, dtype=np.float32)
    for row, numbers in enumerate(rows):
        for group in range(powers.shape[1]):
            part = numbers[group * group_size : (group + 1) * group_size]
            exponent = math.floor(math.log2(max(np.abs(part).max(), 1e-30) / 4.0))
            powers[row, group] = exponent + 127
            for place, number in enumerate(part):
                column = group * group_size + place
                code, dense[row, column] = _nearest(number, 2.0**exponent)
                codes[row, column // 2] |= code << (4 if column % 2 else 0)
    leading = weight.shape[:-1]
    return (
        torch.from_numpy(codes).view(*leading, -1),
        torch.from_numpy(powers).view(*leading, -1),
        torch.from_numpy(dense).view(weight.shape),
    )


def _nearest(number: float, scale: float) -> tuple[int, float]:
    code = min(range(8), key=lambda code: abs(abs(number) / scale - VALUES[code]))
    return (code | 8, -VALUES[code] * scale) if number < 0 else (code, VALUES[code] * scale)


def gpt_oss_folder(path: Path) -> Path:
    """A tiny dense gpt-oss: two layers of 32, two experts of 64."""
    import transformers

    config = transformers.AutoConfig.for_model(
        "gpt_oss",
        vocab_size=tiny.VOCABULARY_SIZE,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=8,
        num_local_experts=2,
        num_experts_per_tok=1,
        sliding_window=8,
        max_position_embeddings=256,
        initializer_range=0.3,
        bos_token_id=tiny.BOS,
        eos_token_id=tiny.EOS,
        pad_token_id=None,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = transformers.AutoModelForCausalLM.from_config(config)
    model.float().save_pretrained(path)
    tiny.tokenizer().save_pretrained(path)
    return path


def pack_folder(source: Path, target: Path) -> dict[str, torch.Tensor]:
    """Quantise the experts of a gpt-oss folder; the dense weights by name, experts as [E, K, N]."""

    def pack_one(name: str, weight: torch.Tensor) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
        codes, powers, dense = pack(weight.transpose(-1, -2).contiguous())
        parts = {f"{name}_blocks": codes.view(*powers.shape, 16), f"{name}_scales": powers}
        return parts, dense.transpose(-1, -2).contiguous()

    kind = json.loads((source / "config.json").read_text(encoding="utf-8"))["model_type"]
    if kind != "gpt_oss":
        raise ValueError(f"only gpt_oss has experts in MXFP4, not {kind}")
    config = {
        "quant_method": "mxfp4",
        "modules_to_not_convert": ["model.layers.*.self_attn", "model.embed_tokens", "lm_head"],
    }
    chosen = ("experts.gate_up_proj", "experts.down_proj")
    return rewrite(source, target, pack_one, config, lambda name, _: name.endswith(chosen))
