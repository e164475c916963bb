"""Loads a model in a process of its own, lets it say one token, and prints what that took as JSON.

    python -m tests.loading.measured FOLDER [QUANTIZATION]

Memory is RssAnon + RssShmem, sampled, above that of the idle process with torch and transformers imported.
"""

import json
import sys
import threading
import time
from pathlib import Path

import psutil


def held_bytes() -> int:
    """Memory that is this process's own; mapped files are not."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return sum(1024 * int(line.split()[1]) for line in lines if line.startswith(("RssAnon", "RssShmem")))


class Peak:
    """The most memory seen between entering and leaving."""

    def __init__(self) -> None:
        self.most = 0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch)

    def _watch(self) -> None:
        while not self._stop.wait(0.005):
            self.most = max(self.most, held_bytes())

    def __enter__(self) -> "Peak":
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._stop.set()
        self._thread.join()


def main(folder: str, quantization: str | None) -> None:
    # As whoever started it counts.
    started = psutil.Process().create_time()
    import torch
    import transformers  # noqa: F401  # part of the idle process

    from llmctl.core.progress import SilentProgress
    from llmctl.loading.loader import LoadRequest, load
    from llmctl.loading.planning.plan import PlanRequest

    idle = held_bytes()
    with Peak() as peak, torch.no_grad():
        plan = PlanRequest(device="cpu", dtype="bfloat16", quantization=quantization)
        loaded = load(LoadRequest(model=folder, plan=plan), SilentProgress())
        loaded_s = time.time() - started
        token = int(loaded.model(torch.tensor([[1, 2, 3]])).logits[0, -1].argmax())
        first_s = time.time() - started
        # As it is kept, every weight read: a page that nobody touched costs nothing.
        for parameter in loaded.model.parameters():
            parameter.sum()
    sys.stdout.write(
        json.dumps({"peak": peak.most - idle, "loaded_s": loaded_s, "first_token_s": first_s, "token": token})
    )


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2] if len(sys.argv) > 2 else None)
