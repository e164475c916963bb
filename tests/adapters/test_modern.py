"""The modern families: well-known names lead to their rows, and their facts name types that exist.

What holds for every row (examples, ties, templates) is in test_data.py, renamed folders in test_renamed.py.
"""

import json
import tomllib
from pathlib import Path
from typing import Any

import pytest

from llmctl.adapters.match import match, resolve
from llmctl.adapters.registry import DATA, built_in
from llmctl.adapters.spec import NO_TEMPLATE, OF_TOKENIZER

KNOWN = """
meta-llama/Llama-3.1-8B-Instruct                            llama-3.1
meta-llama/Meta-Llama-3.1-405B-Instruct-FP8                 llama-3.1
META-LLAMA/LLAMA-3.1-8B-INSTRUCT/                           llama-3.1
neuralmagic/Meta-Llama-3.1-8B-Instruct-quantized.w4a16      llama-3.1
bartowski/Meta-Llama-3.1-8B-Instruct-GGUF                   llama-3.1
mlx-community/Meta-Llama-3.1-8B-Instruct-4bit               llama-3.1
meta-llama/Llama-3.2-1B                                     llama-3.2
unsloth/Llama-3.2-3B-Instruct-unsloth-bnb-4bit              llama-3.2
meta-llama/Llama-3.2-11B-Vision-Instruct                    llama-3.2-vision
unsloth/Llama-3.2-90B-Vision-Instruct-bnb-4bit              llama-3.2-vision
meta-llama/Llama-3.3-70B-Instruct                           llama-3.3
casperhansen/llama-3.3-70b-instruct-awq                     llama-3.3
meta-llama/Llama-4-Maverick-17B-128E-Instruct-FP8           llama-4
meta-llama/Llama-Guard-3-8B                                 llama-guard-3
meta-llama/Llama-Guard-3-11B-Vision                         llama-guard-3-vision
meta-llama/Llama-Guard-4-12B                                llama-guard-4
meta-llama/LlamaGuard-7b                                    llama-guard
facebook/opt-125m                                           opt
Qwen/Qwen1.5-14B-Chat-GPTQ-Int4                             qwen1.5
Qwen/CodeQwen1.5-7B-Chat                                    codeqwen1.5
Qwen/Qwen2-1.5B-Instruct                                    qwen2
Qwen/Qwen2-57B-A14B-Instruct                                qwen2-moe
Qwen/Qwen2-VL-7B-Instruct-AWQ                               qwen2-vl
Qwen/Qwen2.5-7B-Instruct-AWQ                                qwen2.5
Qwen/Qwen2.5-7B-Instruct-1M                                 qwen2.5
Qwen/Qwen2.5-14B-Instruct-GGUF                              qwen2.5
unsloth/Qwen2.5-Coder-32B-Instruct-bnb-4bit                 qwen2.5-coder
Qwen/Qwen2.5-Math-72B-Instruct                              qwen2.5-math
Qwen/Qwen2.5-Math-PRM-7B                                    qwen2.5-math-reward
Qwen/Qwen2.5-VL-72B-Instruct-AWQ                            qwen2.5-vl
Qwen/Qwen2.5-Omni-7B                                        qwen2.5-omni
Qwen/QwQ-32B-AWQ                                            qwq
Qwen/QVQ-72B-Preview                                        qvq
Qwen/Qwen3-0.6B                                             qwen3
Qwen/Qwen3-8B-FP8                                           qwen3
Qwen/Qwen3-14B-Base                                         qwen3-base
Qwen/Qwen3-235B-A22B-FP8                                    qwen3-moe
Qwen/Qwen3-30B-A3B-Base                                     qwen3-base
Qwen/Qwen3-4B-Instruct-2507-FP8                             qwen3-instruct-2507
Qwen/Qwen3-235B-A22B-Thinking-2507                          qwen3-thinking-2507
Qwen/Qwen3-Coder-480B-A35B-Instruct-FP8                     qwen3-coder
Qwen/Qwen3-Coder-Next                                       qwen3-coder-next
Qwen/Qwen3-Next-80B-A3B-Thinking                            qwen3-next
Qwen/Qwen3-VL-235B-A22B-Instruct                            qwen3-vl-moe
Qwen/Qwen3-Embedding-0.6B                                   qwen3-embedding
Qwen/Qwen3-Embedding-0.6B-GGUF                              qwen3-embedding
Qwen/Qwen3-Reranker-4B                                      qwen3-reranker
Qwen/Qwen3Guard-Gen-8B                                      qwen3guard
Qwen/Qwen3.5-9B                                             qwen3.5
Qwen/Qwen3.5-397B-A17B-FP8                                  qwen3.5-moe
Qwen/Qwen3.6-35B-A3B                                        qwen3.6
mistralai/Mistral-7B-Instruct-v0.3                          mistral-7b-v0.3
mistralai/Mistral-Nemo-Instruct-2407                        mistral-nemo
mistralai/Mistral-Small-Instruct-2409                       mistral-small-22b
mistralai/Mistral-Small-24B-Instruct-2501                   mistral-small-3
mistralai/Mistral-Small-3.2-24B-Instruct-2506               mistral-small-3.1
mistralai/Mistral-Large-Instruct-2411                       mistral-large
mistralai/Mistral-Large-3-675B-Instruct-2512                mistral-large-3
mistralai/Ministral-8B-Instruct-2410                        ministral-8b
mistralai/Ministral-3-14B-Instruct-2512                     ministral-3
mistralai/Codestral-22B-v0.1                                codestral
mistralai/Mamba-Codestral-7B-v0.1                           mamba-codestral
mistralai/Devstral-Small-2507                               devstral
mistralai/Devstral-Small-2-24B-Instruct-2512                devstral-2
mistralai/Magistral-Small-2509                              magistral
mistralai/Pixtral-Large-Instruct-2411                       pixtral
google/gemma-2-2b-it                                        gemma-2
google/gemma-3-27b-it-qat-q4_0-gguf                         gemma-3
google/gemma-3-270m-it                                      gemma-3-text
google/gemma-3-12b-pt                                       gemma-3-base
google/gemma-3n-E4B-it                                      gemma-3n
google/gemma-4-E4B-it                                       gemma-4
google/gemma-4-26B-A4B-it-qat-w4a16-ct                      gemma-4
google/codegemma-7b-it                                      codegemma
google/embeddinggemma-300m                                  embeddinggemma
google/medgemma-27b-text-it                                 medgemma
google/paligemma2-10b-mix-448                               paligemma
google/t5gemma-2-270m-270m                                  t5gemma-2
google-t5/t5-base                                           t5
microsoft/phi-1_5                                           phi-1
microsoft/phi-2                                             phi-2
microsoft/Phi-3-mini-128k-instruct                          phi-3
microsoft/Phi-3.5-mini-instruct                             phi-3.5-mini
microsoft/Phi-3.5-MoE-instruct                              phi-3.5-moe
microsoft/Phi-3.5-vision-instruct                           phi-3-vision
microsoft/phi-4                                             phi-4
microsoft/phi-4-gguf                                        phi-4
microsoft/Phi-4-mini-instruct                               phi-4-mini
microsoft/Phi-4-reasoning-plus                              phi-4-reasoning
microsoft/Phi-4-multimodal-instruct                         phi-4-multimodal
deepseek-ai/DeepSeek-V2-Lite-Chat                           deepseek-v2
deepseek-ai/DeepSeek-Coder-V2-Lite-Instruct                 deepseek-coder-v2
deepseek-ai/DeepSeek-V3-0324                                deepseek-v3
deepseek-ai/DeepSeek-V3.1-Terminus                          deepseek-v3.1
deepseek-ai/DeepSeek-V3.2-Exp                               deepseek-v3.2
deepseek-ai/DeepSeek-V4-Flash                               deepseek-v4
unsloth/DeepSeek-R1-0528-GGUF                               deepseek-r1
deepseek-ai/DeepSeek-R1-Distill-Llama-8B                    deepseek-r1-distill-llama
bartowski/DeepSeek-R1-Distill-Qwen-32B-GGUF                 deepseek-r1-distill-qwen
deepseek-ai/DeepSeek-R1-0528-Qwen3-8B                       deepseek-r1-0528-qwen3
THUDM/glm-4-9b-chat                                         glm-4
THUDM/GLM-4-32B-0414                                        glm-4-0414
zai-org/GLM-4.5-Air-FP8                                     glm-4.5
zai-org/GLM-4.6V-Flash                                      glm-4.6v
zai-org/GLM-4.7-Flash                                       glm-4.7-flash
zai-org/GLM-5                                               glm-5
01-ai/Yi-Coder-9B-Chat                                      yi-coder
internlm/internlm2_5-7b-chat-1m                             internlm2.5
internlm/internlm3-8b-instruct                              internlm3
OpenGVLab/InternVL3_5-8B                                    internvl3.5
tiiuae/falcon-mamba-7b                                      falcon-mamba
tiiuae/Falcon3-7B-Instruct                                  falcon-3
tiiuae/Falcon-H1-34B-Instruct-GPTQ-Int4                     falcon-h1
ibm-granite/granite-3.1-8b-instruct                         granite
ibm-granite/granite-3.1-3b-a800m-instruct                   granite-3-moe
ibm-granite/granite-3.3-2b-instruct                         granite-3.3
ibm-granite/granite-4.0-h-small                             granite-4
ibm-granite/granite-20b-code-instruct-8k                    granite-code
ibm-granite/granite-guardian-3.1-8b                         granite-guardian
HuggingFaceTB/SmolLM-135M-Instruct                          smollm
HuggingFaceTB/SmolLM2-360M-Instruct                         smollm2
HuggingFaceTB/SmolLM3-3B                                    smollm3
HuggingFaceTB/SmolVLM2-2.2B-Instruct                        smolvlm2
allenai/OLMo-2-1124-13B-Instruct                            olmo-2
allenai/Olmo-3-7B-Think                                     olmo-3
allenai/Llama-3.1-Tulu-3-70B                                tulu-3
openai/gpt-oss-120b                                         gpt-oss
openai-community/gpt2-large                                 gpt2
CohereForAI/c4ai-command-r-plus-4bit                        command-r-plus
CohereLabs/c4ai-command-r7b-12-2024                         command-r7b
CohereForAI/aya-expanse-32b                                 aya-expanse
moonshotai/Kimi-K2-Instruct-0905                            kimi-k2
MiniMaxAI/MiniMax-M2.5                                      minimax-m2
baidu/ERNIE-4.5-21B-A3B-PT                                  ernie-4.5-moe
tencent/Hunyuan-A13B-Instruct                               hunyuan-a13b
ByteDance-Seed/Seed-OSS-36B-Instruct                        seed-oss
LGAI-EXAONE/EXAONE-3.5-2.4B-Instruct-AWQ                    exaone-3.5
nvidia/Llama-3.1-Nemotron-70B-Instruct-HF                   llama-3.1-nemotron
nvidia/Llama-3_3-Nemotron-Super-49B-v1_5                    llama-nemotron
nvidia/NVIDIA-Nemotron-Nano-9B-v2                           nemotron-nano-2
nvidia/Mistral-NeMo-Minitron-8B-Instruct                    mistral-nemo-minitron
ai21labs/AI21-Jamba-1.5-Large                               jamba-1.5
state-spaces/mamba-2.8b-hf                                  mamba
state-spaces/mamba2-2.7b                                    mamba2
Zyphra/Zamba2-2.7B-instruct                                 zamba2
bigcode/starcoder2-15b-instruct-v0.1                        starcoder2-instruct
stabilityai/stablelm-2-zephyr-1_6b                          stablelm-2
RekaAI/reka-flash-3.1                                       reka-flash-3
NousResearch/Hermes-2-Pro-Llama-3-8B                        hermes-2-pro
NousResearch/Hermes-3-Llama-3.1-8B                          hermes-3
NousResearch/Hermes-4-14B-FP8                               hermes-4
NousResearch/DeepHermes-3-Llama-3-3B-Preview                deephermes-3
cognitivecomputations/dolphin-2.9-llama3-8b                 dolphin-2.9
cognitivecomputations/dolphin-2.9.3-mistral-7B-32k          dolphin-2.9
dphn/Dolphin3.0-Llama3.1-8B-GGUF                            dolphin-3
facebook/bart-large-cnn                                     bart
google-bert/bert-base-uncased                               bert
FacebookAI/xlm-roberta-base                                 xlm-roberta
sentence-transformers/all-MiniLM-L6-v2                      all-minilm
nomic-ai/nomic-embed-text-v1.5                              nomic-embed
intfloat/e5-mistral-7b-instruct                             e5-mistral
Alibaba-NLP/gte-Qwen2-7B-instruct                           gte-qwen2
jinaai/jina-embeddings-v3                                   jina-embeddings-v3
BAAI/bge-reranker-v2-m3                                     bge-reranker
cross-encoder/ms-marco-MiniLM-L-6-v2                        cross-encoder
/data/models/Qwen2.5-7B-Instruct/checkpoint-100             qwen2.5
/data/qwen3/gemma-3-4b-it                                   gemma-3
./out/Llama-3.2-1B-Instruct/lora/final                      llama-3.2
C:\\models\\Phi-4-mini-instruct\\                           phi-4-mini
models--Qwen--Qwen3-8B/snapshots/9c925d64d72725edaf899c6cb9c377fd0709d9c5 qwen3
~/.cache/hub/models--google--gemma-2-2b-it/snapshots/299a8560bedf22ed1c72a8a11e7dce4a7f9f51f8/ gemma-2
"""
NAMES = [tuple(line.rsplit(maxsplit=1)) for line in KNOWN.strip().splitlines()]

# Types that a config.json names and whose code is not in transformers but in the model's own repository.
REMOTE = """
InternLMXComposer InternLMXComposer2 NVLM_D arctic bailing_moe bailing_moe_v2 chatglm cost_wise_gemma deci
deepseek deepseek_vl_v2 dots_ocr ernie4_5_moe_vl grok-1 hf_olmo hunyuan hymba hyperclovax_vlm internlm2
internlmxcomposer2 interns1 interns1_pro internvl_chat jais jina_bert jina_embeddings_v4 kimi_k2 kimi_k3
kimi_vl llama_bidirec llava_qwen mimo minicpm minicpmo minicpmv minimax_m1 minimax_text_01 minimax_vl_01
mixformer-sequential mobilellm molmo moondream1 moondream3 multi_modality nemotron-nas new nvembed openelm
orion ouro ovis phi-msft phi3_v phi3small phi4flash phi4mm plamo2 qwen rwkv5 rwkv6 rwkv7 skywork solar
stablelm_epoch step3_text step3_vl stripedhyena telechat ultravox xverse
"""
REMOTE_TYPES = frozenset(REMOTE.split())
REMOTE_ARCHITECTURES = frozenset(
    {
        "DeepseekOCRForCausalLM",
        "InternLM2ForRewardModel",
        "Qwen2ForProcessRewardModel",
        "Qwen2ForRewardModel",
    }
)

# FastChat has these families' format too: it serves where a tokenizer has no template.
NAMED = {
    "gemma-2": "gemma",
    "mythomax": "alpaca",
    "platypus2": "alpaca",
    "qwen1.5": "qwen-7b-chat",
    "qwen2": "qwen-7b-chat",
    "qwen2.5": "qwen-7b-chat",
    "qwen2.5-coder": "qwen-7b-chat",
}

MODERN_IDS = {
    row["id"]
    for path in DATA.glob("*.toml")
    if not path.stem.endswith(("-classic", "-api"))
    for row in tomllib.loads(path.read_text(encoding="utf-8"))["family"]
}
MODERN = [family for family in built_in() if family.id in MODERN_IDS]
by_family = pytest.mark.parametrize("family", MODERN, ids=lambda family: family.id)


@pytest.mark.parametrize(("name", "family"), NAMES, ids=[name for name, _ in NAMES])
def test_a_well_known_name_leads_to_its_family(name: str, family: str) -> None:
    found = match(name, None, built_in())
    assert found.family is not None, found.near
    assert found.family.id == family, found.candidates[:3]


@pytest.mark.parametrize(
    "name",
    ["my-bertha-7b", "prompt-tuned", "t55-model", "optimist-7b", "scaled-1b", "/llama-3.2/my-experiment"],
)
def test_a_name_that_only_looks_like_a_family_has_none(name: str) -> None:
    assert match(name, None, built_in()).family is None


def test_every_model_type_and_architecture_is_one_that_exists() -> None:
    from transformers.models.auto import modeling_auto
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING_NAMES

    mappings = [table for name, table in vars(modeling_auto).items() if name.endswith("_MAPPING_NAMES")]
    classes = {
        name
        for table in mappings
        for value in table.values()
        for name in (value if isinstance(value, tuple | list) else (value,))
    }
    types = {
        model_type
        for family in MODERN
        for model_type in (*family.name_rule.model_types, *family.fact_rule.model_type)
    }
    architectures = {name for family in MODERN for name in family.fact_rule.architectures}
    assert types - CONFIG_MAPPING_NAMES.keys() == REMOTE_TYPES
    assert architectures - classes == REMOTE_ARCHITECTURES


@by_family
def test_a_row_allows_the_types_of_its_own_facts(family: Any) -> None:
    allowed = family.name_rule.model_types
    assert not allowed or set(family.fact_rule.model_type) <= set(allowed)


@by_family
def test_a_row_that_needs_foreign_code_says_so(family: Any) -> None:
    types = {*family.name_rule.model_types}
    if types and types <= REMOTE_TYPES:
        assert family.loading.get("trust_remote_code") is True


def test_nearly_all_chat_families_leave_the_template_to_the_tokenizer() -> None:
    named = {
        family.id: family.template for family in MODERN if family.template not in (OF_TOKENIZER, NO_TEMPLATE)
    }
    assert named == NAMED


LLAMA_3_1 = {
    "model_type": "llama",
    "vocab_size": 128256,
    "hidden_size": 4096,
    "max_position_embeddings": 131072,
    "rope_scaling": {"rope_type": "llama3", "factor": 8.0},
}
R1_TOKENS = [
    {"content": text, "special": True} for text in ("<｜User｜>", "<｜Assistant｜>", "<think>", "</think>")
]


def folder(path: Path, name: str, config: dict[str, Any], tokens: list[Any]) -> str:
    (path / name).mkdir()
    (path / name / "config.json").write_text(json.dumps(config), encoding="utf-8")
    added = {str(number): token for number, token in enumerate(tokens)}
    (path / name / "tokenizer_config.json").write_text(
        json.dumps({"added_tokens_decoder": added}), encoding="utf-8"
    )
    return str(path / name)


@pytest.mark.parametrize(
    ("name", "config", "tokens", "family"),
    [
        ("zzz", LLAMA_3_1, [], "llama-3.1"),
        ("zzz", LLAMA_3_1, R1_TOKENS, "deepseek-r1-distill-llama"),
        ("zzz", {"model_type": "qwen2"}, R1_TOKENS, "deepseek-r1-distill-qwen"),
        ("zzz", {"model_type": "qwen3"}, R1_TOKENS, "deepseek-r1-0528-qwen3"),
        ("zzz", {"model_type": "llama"}, [], "llama-family"),
        ("zzz", {"model_type": "qwen2"}, [], "qwen2-family"),
        ("zzz", {"model_type": "mistral", "vocab_size": 32002}, [], "mistral-family"),
        # The name tells more than facts that several generations share.
        ("Llama-3.3-70B-Instruct", LLAMA_3_1 | {"hidden_size": 8192}, [], "llama-3.3"),
        ("Qwen2.5-0.5B-Instruct", {"model_type": "qwen2"}, [], "qwen2.5"),
        # A name that the configuration contradicts does not count.
        ("qwen3-distilled", LLAMA_3_1, [], "llama-3.1"),
        ("gemma-3-4b-it", {"model_type": "qwen3"}, [], "qwen3"),
    ],
)
def test_facts_and_name_are_weighed(
    tmp_path: Path, name: str, config: dict[str, Any], tokens: list[Any], family: str
) -> None:
    found = resolve(folder(tmp_path, name, config, tokens), built_in())
    assert found.family is not None
    assert found.family.id == family, found.candidates
