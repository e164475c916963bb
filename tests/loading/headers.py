"""Model folders of any size that take no space: real headers before weights that are a hole in the file."""

import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

BITS = {"F32": 32, "BF16": 16, "F16": 16, "I32": 32, "U8": 8, "I8": 8, "F8_E4M3": 8}
Tensors = Mapping[str, tuple[str, tuple[int, ...]]]


def write_weights(path: Path, tensors: Tensors) -> None:
    """A safetensors file with these (dtype, shape) by name."""
    header, offset = {}, 0
    for name, (dtype, shape) in tensors.items():
        end = offset + math.prod(shape) * BITS[dtype] // 8
        header[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [offset, end]}
        offset = end
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text)
    os.truncate(path, 8 + len(text) + offset)


def write_model(folder: Path, config: Mapping[str, Any], tensors: Tensors) -> Path:
    """A folder with a config and weights."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config))
    write_weights(folder / "model.safetensors", tensors)
    return folder


LLAMA_8B = {
    "model_type": "llama",
    "architectures": ["LlamaForCausalLM"],
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "hidden_size": 4096,
    "vocab_size": 128256,
    "max_position_embeddings": 131072,
}
"""Llama 3.1 8B."""
TABLE, MATRIX = 128256 * 4096, 6_979_321_856


def llama_8b(folder: Path, dtype: str = "BF16") -> Path:
    """A checkpoint of Llama 3.1 8B's measures; all layers in one matrix."""
    tensors = {
        "model.embed_tokens.weight": (dtype, (128256, 4096)),
        "model.layers.0.mlp.up_proj.weight": (dtype, (4096, MATRIX // 4096)),
        "model.norm.weight": (dtype, (4096 * 65,)),
        "lm_head.weight": (dtype, (128256, 4096)),
    }
    return write_model(folder, LLAMA_8B, tensors)
