"""The process in which gptqmodel works: `packages` starts it, with what is to be done as JSON on stdin."""

import importlib
import json
import sys
from typing import Any


def main() -> None:
    """Quantise a folder into another."""
    order = json.load(sys.stdin)
    package: Any = importlib.import_module("gptqmodel")
    kinds: Any = importlib.import_module("gptqmodel.quantization")
    is_awq = order["method"] == "awq"
    config = package.QuantizeConfig(
        bits=4,
        group_size=order["group_size"],
        method=kinds.METHOD.AWQ if is_awq else kinds.METHOD.GPTQ,
        format=kinds.FORMAT.GEMM if is_awq else kinds.FORMAT.GPTQ,
        dynamic={f"-:.*(?:{pattern})": {} for pattern in order["skip"]} or None,
    )
    model = package.GPTQModel.load(order["folder"], config)
    # By itself it takes a backend for AWQ that wants a GPU.
    options = {"backend": package.BACKEND.AWQ_TORCH} if is_awq and not _has_gpu() else {}
    model.quantize(order["texts"], batch_size=1, **options)
    model.save(order["target"], max_shard_size=order["max_shard_bytes"])


def _has_gpu() -> bool:
    torch: Any = importlib.import_module("torch")
    return bool(torch.cuda.is_available())


if __name__ == "__main__":
    main()
