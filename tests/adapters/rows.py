"""Small rows for tests that must not lean on the built-in data."""

from typing import Any

from llmctl.adapters.spec import Family, read_rows

TOML = """
[[family]]
id = "vicuna"
template = "vicuna_v1.1"
examples = ["lmsys/vicuna-7b-v1.5"]
[family.match]
names = ["vicuna"]
model_types = ["llama"]

[[family]]
id = "llama-2"
template = "llama-2"
examples = ["meta-llama/Llama-2-7b-chat-hf"]
[family.match]
names = ["llama-2"]
model_types = ["llama"]
[family.facts]
model_type = ["llama"]
config = { vocab_size = 32000, max_position_embeddings = { min = 4096, max = 8192 } }

[[family]]
id = "llama-family"
template = "tokenizer"
examples = ["someone/llama-7b"]
[family.match]
names = ["llama"]
model_types = ["llama"]
[family.facts]
model_type = ["llama"]

[[family]]
id = "mistral"
template = "mistral"
examples = ["mistralai/Mistral-7B-Instruct-v0.1"]
[family.match]
names = ["mistral"]
model_types = ["mistral"]

[[family]]
id = "oasst-pythia"
template = "oasst_pythia"
examples = ["OpenAssistant/oasst-sft-1-pythia-12b"]
[family.match]
names = [["oasst", "pythia"]]

[[family]]
id = "bard"
kind = "api"
generates = "none"
template = "bard"
examples = ["bard"]
[family.match]
exact = ["bard"]

[[family]]
id = "chatml-llama"
template = "tokenizer"
examples = ["someone/chatml-8b"]
[family.match]
names = ["chatml"]
[family.facts]
model_type = ["llama"]
tokens = ["<|im_start|>", "<|im_end|>"]
"""

ROWS = read_rows(TOML, where="rows.toml")


def row(family_id: str, name: str, **options: Any) -> Family:
    """A family that is recognised by one literal."""
    text = f'[[family]]\nid = "{family_id}"\ntemplate = "tokenizer"\n[family.match]\nnames = ["{name}"]\n'
    (family,) = read_rows(text, where="row.toml", **options)
    return family
