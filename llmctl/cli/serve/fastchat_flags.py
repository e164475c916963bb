"""Flags of FastChat's workers that have no place here, each with what to do instead."""

from collections.abc import Mapping

_PACKED = (
    "llmctl reads packed checkpoints by themselves: give the folder as MODEL, and --quant-config {} "
    "where its files do not say it"
)
_EXLLAMA = "llmctl reads GPTQ files itself, and does not use the ExLlamaV2 package"
_XFT = "llmctl does not use xFasterTransformer: on a CPU it runs the ordinary checkpoint, see --dtype"
_PROXY = "let a proxy in front of the server speak TLS"
_OWN = "llmctl has an engine of its own, which decides this by itself"
_LATER_IMAGES = "images come with a later version"
_FILE = "the tokenizer is the one beside the weights"

_MODEL_WORKER: Mapping[str, str] = {
    "--ssl": _PROXY,
    "--ssl-keyfile": _PROXY,
    "--ssl-certfile": _PROXY,
    "--stream-interval": "each piece is sent when it is there",
    "--embed-in-truncate": "an input that is too long is refused, and never cut behind the client's back",
    "--gptq-ckpt": _PACKED.format("KEY=VALUE"),
    "--gptq-wbits": _PACKED.format("bits=N"),
    "--gptq-groupsize": _PACKED.format("group_size=N"),
    "--gptq-act-order": _PACKED.format("desc_act=true"),
    "--awq-ckpt": _PACKED.format("KEY=VALUE"),
    "--awq-wbits": _PACKED.format("bits=N"),
    "--awq-groupsize": _PACKED.format("group_size=N"),
    "--enable-exllama": _EXLLAMA,
    "--exllama-max-seq-len": f"{_EXLLAMA}; --context limits the context",
    "--exllama-gpu-split": f"{_EXLLAMA}; --num-gpus and --max-gpu-memory spread a model",
    "--exllama-cache-8bit": _EXLLAMA,
    "--enable-xft": _XFT,
    "--xft-max-seq-len": f"{_XFT}; --context limits the context",
    "--xft-dtype": _XFT,
    "--multimodal": _LATER_IMAGES,
    "--model-info-file": "models behind other people's APIs come with a later version",
}
"""Of model_worker, multi_model_worker and huggingface_api_worker."""
_ENGINE_WORKERS: Mapping[str, str] = {
    "--tensor-parallel-size": "--num-gpus N spreads a model",
    "--tp-size": "--num-gpus N spreads a model",
    "--tp": "--num-gpus N spreads a model",
    "--max-model-len": "--context TOKENS is the limit",
    "--context-length": "--context TOKENS is the limit",
    "--max-req-total-len": "--context TOKENS is the limit",
    "--max-req-input-len": "--context TOKENS limits prompt and answer together",
    "--gpu-memory-utilization": "--kv-memory SIZE is the memory for keys and values",
    "--mem-fraction-static": "--kv-memory SIZE is the memory for keys and values",
    "--max-total-token-num": "--kv-memory SIZE is the memory for keys and values",
    "--max-num-seqs": "--max-running N limits who runs at once",
    "--running-max-req-size": "--max-running N limits who runs at once",
    "--max-num-batched-tokens": "--max-step-tokens N limits a step",
    "--batch-max-tokens": "--max-step-tokens N limits a step",
    "--served-model-name": "write --model NAME=MODEL",
    "--model-dir": "the folder is MODEL",
    "--limit-model-concurrency": "--max-running N limits who runs at once",
    "--tokenizer": _FILE,
    "--tokenizer-path": _FILE,
    "--tokenizer-mode": _FILE,
    "--load-format": "weights are read from safetensors or GGUF files",
    "--load-way": "weights are read from safetensors or GGUF files",
    "--block-size": _OWN,
    "--swap-space": _OWN,
    "--enforce-eager": _OWN,
    "--disable-log-stats": "nothing is logged at every step; /metrics has the numbers",
    "--disable-log-requests": "no request is logged",
    "--log-stats-interval": "nothing is logged at every step; /metrics has the numbers",
    "--router-token-ratio": _OWN,
    "--router-max-new-token-len": _OWN,
    "--router-max-wait-tokens": _OWN,
    "--use-dynamic-prompt-cache": "prefixes are kept unless you say --no-prefix-cache",
    "--enable-prefix-caching": "prefixes are kept unless you say --no-prefix-cache",
    "--prompt-cache-strs": "prefixes are kept unless you say --no-prefix-cache",
    "--splitfuse-mode": "prompts are cut in steps of --max-step-tokens",
    "--splitfuse-block-size": "prompts are cut in steps of --max-step-tokens",
    "--enable-multimodal": _LATER_IMAGES,
    "--cache-capacity": _LATER_IMAGES,
    "--cache-reserved-ratio": _LATER_IMAGES,
    "--return-all-prompt-logprobs": "requests ask for them: prompt_logprobs",
    "--long-truncation-mode": "a prompt that is too long is refused, and never cut behind the client's back",
    "--eos-id": "end tokens are the model's; requests add theirs with stop_token_ids",
    "--mode": "--load-8bit, --load-4bit and --quantization pack the weights",
    "--worker-use-ray": _OWN,
    "--pipeline-parallel-size": "--num-gpus N spreads a model",
}
"""Of vllm_worker, sglang_worker, lightllm_worker, mlx_worker and dashinfer_worker."""

OF_WORKERS: Mapping[str, str] = {**_MODEL_WORKER, **_ENGINE_WORKERS}
