"""Makes or applies a delta in a process of its own and prints what that took as JSON.

    python -m tests.artifacts.delta.measured pair FOLDER GIGABYTES
    python -m tests.artifacts.delta.measured make|apply|make-add|apply-add FOLDER

Memory is RssAnon + RssShmem, sampled, above that of the process with torch imported.
"""

import json
import os
import shutil
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from safetensors.torch import save_file

from tests.loading.measured import Peak, held_bytes

ROWS, WIDTH = 8192, 4096
TENSOR_BYTES = 2 * ROWS * WIDTH
"""64 MiB, the largest."""


def write_pair(folder: Path, gigabytes: float) -> None:
    """A base of random bfloat16 and a light fine-tune of it: most numbers a step away or none."""
    count = round(gigabytes * 1e9 / TENSOR_BYTES)
    generator = torch.Generator().manual_seed(0)
    for name in ("base", "target"):
        (folder / name).mkdir(parents=True, exist_ok=True)
        (folder / name / "config.json").write_text("{}")
        (folder / name / "tokenizer.json").write_text("{}")
    shards = [range(start, min(start + 16, count)) for start in range(0, count, 16)]
    weight_map = {}
    for number, shard in enumerate(shards, 1):
        file = f"model-{number:05}-of-{len(shards):05}.safetensors"
        base, target = {}, {}
        for index in shard:
            weight = torch.randn(ROWS, WIDTH, generator=generator).mul_(0.02)
            base[f"layers.{index}.weight"] = weight.bfloat16()
            weight = base[f"layers.{index}.weight"].float()
            update = torch.randn(ROWS, WIDTH, generator=generator).mul_(2e-5)
            target[f"layers.{index}.weight"] = weight.add_(update).bfloat16()
        save_file(base, folder / "base" / file)
        save_file(target, folder / "target" / file)
        weight_map |= dict.fromkeys(base, file)
    for name in ("base", "target"):
        (folder / name / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))


def work_of(name: str, folder: Path) -> Callable[[], object]:
    """The run to measure."""
    from llmctl.artifacts.delta import apply, apply_add, make, make_add, opened, results
    from llmctl.artifacts.delta.find import find
    from llmctl.artifacts.stream.source import Source
    from llmctl.core.progress import SilentProgress

    silent, out = SilentProgress(), folder / name
    base, target = Source.open(folder / "base"), Source.open(folder / "target")
    wish = results.Wish(out=out, overwrite=True)
    apply_wish = apply.Wish(out=out, overwrite=True)
    if name == "make":
        return lambda: make.make(base, target, wish, silent)
    if name == "make-add":
        return lambda: make_add.make_add(base, target, wish, silent)
    if name == "apply":
        return lambda: apply.apply(base, opened.Delta.open(folder / "make"), apply_wish, silent)
    found = find(str(folder / "make-add"), revision=None, progress=silent)
    return lambda: apply_add.apply_add(base, found, apply_wish, silent)


def copied_s(folder: Path) -> float:
    """Seconds that a copy of both inputs takes until it is on the disk."""
    started = time.monotonic()
    for name in ("base", "target"):
        place = shutil.copytree(folder / name, folder / f"copy-{name}")
        for file in place.iterdir():
            with file.open("rb") as opened:
                os.fsync(opened.fileno())
    taken = time.monotonic() - started
    for name in ("base", "target"):
        shutil.rmtree(folder / f"copy-{name}")
    return taken


def main(name: str, folder: Path, *rest: str) -> None:
    if name == "pair":
        write_pair(folder, float(rest[0]))
        return
    if name == "copy":
        sys.stdout.write(json.dumps({"seconds": copied_s(folder)}))
        return
    idle = held_bytes()
    work = work_of(name, folder)
    started = time.monotonic()
    with Peak() as peak:
        work()
    taken = time.monotonic() - started
    size = sum(file.stat().st_size for file in (folder / name).glob("*.safetensors"))
    sys.stdout.write(json.dumps({"peak": peak.most - idle, "seconds": taken, "bytes": size}))


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), *sys.argv[3:])
