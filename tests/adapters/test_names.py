import pytest

from llmctl.adapters.names import deciding_part, normalise, occurs


@pytest.mark.parametrize(
    ("name", "part"),
    [
        ("lmsys/vicuna-7b-v1.5", "vicuna-7b-v1.5"),
        ("LMSYS/VICUNA-7B-V1.5//", "vicuna-7b-v1.5"),
        (" vicuna 7b_v1.5 ", "vicuna-7b-v1.5"),
        ("vicuna-7b-v1.5@main", "vicuna-7b-v1.5@main"),
        ("/ckpt/chatglm2/checkpoint-100", "chatglm2"),
        ("/x/vicuna/epoch-3/step_200/", "vicuna"),
        ("/x/vicuna/epoch=2-step=100.ckpt", "vicuna"),
        ("/x/vicuna/final", "vicuna"),
        ("/x/vicuna/merged_fp16", "vicuna"),
        ("/x/vicuna/lora/best", "vicuna"),
        ("/x/vicuna/pytorch_model.bin", "vicuna"),
        ("D:\\llama-2\\7b-chat", "llama-2"),
        ("C:\\models\\vicuna-v0\\ckpt", "vicuna-v0"),
        ("/home/alpaca/my-model", "my-model"),
        ("/x/llama-2/y", "y"),
        ("models--lmsys--vicuna-7b-v1.5", "vicuna-7b-v1.5"),
        ("~/.cache/hub/models--gpt2/snapshots/607a30d783dfa663caf39e06633721c8d4cfcd7e", "gpt2"),
        ("/c/models--meta-llama--Llama-2-7b-chat-hf/snapshots/main/", "llama-2-7b-chat-hf"),
        ("/c/models--a--b/snapshots/not-a-hash", "b"),
        ("/c/modelscope/Qwen/Qwen2___5-7B-Instruct", "qwen2.5-7b-instruct"),
        ("https://huggingface.co/lmsys/vicuna-7b-v1.5/tree/main", "vicuna-7b-v1.5"),
        ("s3://bucket/vicuna-7b-v1.5", "vicuna-7b-v1.5"),
        ("checkpoint-1000", "checkpoint-1000"),
        ("final/7b", "7b"),
        ("", ""),
        ("/", ""),
        ("//..\\.", ""),
        ("~", ""),
        ("/x/vicuna/lora/..", "vicuna"),
        ("../..", ""),
    ],
)
def test_the_last_part_that_is_more_than_a_stage_decides(name: str, part: str) -> None:
    assert deciding_part(name) == part


@pytest.mark.parametrize(
    ("literal", "part", "is_there"),
    [
        ("mpt", "mpt-7b-chat", True),
        ("mpt", "prompt-tuned-model", False),
        ("reka", "eureka-chatbot", False),
        ("hermes", "openhermes-2.5", False),
        ("chatglm", "chatglm2-6b", True),
        ("e5", "moe5-base", False),
        ("e5", "e5-large", True),
        ("llama-3", "llama-3.1-8b", True),
        ("llama-3", "llama-30b", False),
        ("gemma-2", "gemma-2b-it", False),
        ("gemma-2", "gemma-2-2b-it", True),
        ("8k", "phi-3-mini-128k", False),
        ("8k", "phi-3-mini-8k", True),
        ("solar", "solar10.7b", True),
        ("yi-34b", "yi-34b-chat", True),
        ("mpt", "prompt-mpt", True),
        ("glm", "chatglm-or-glm-4", True),
        ("qwen", "通义-qwen", True),
        ("qwen", "", False),
    ],
)
def test_a_literal_occurs_only_as_words_of_its_own(literal: str, part: str, is_there: bool) -> None:
    assert occurs(literal, part) is is_there


@pytest.mark.parametrize("text", ["Stable_Vicuna 13B", "a  b__c", "Ünïcode", "a___b"])
def test_what_is_normalised_stays_as_it_is(text: str) -> None:
    assert normalise(normalise(text)) == normalise(text)
