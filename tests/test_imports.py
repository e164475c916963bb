"""What is plain Python stays so: CLI, gateway and policy never import torch, directly or not."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
# Folders stand for all modules in them, those of tomorrow too.
PLAIN = (
    "llmctl/core",
    "llmctl/adapters",
    "llmctl/prompts",
    "llmctl/cli",
    "llmctl/services",
    "llmctl/sessions",
    "llmctl/loading/facts",
    "llmctl/loading/gguf",
    "llmctl/loading/hub",
    "llmctl/loading/planning",
    "llmctl/loading/checkpoint.py",
    "llmctl/bench/shapes.py",
    "llmctl/bench/timing.py",
    "llmctl/quant/foreign.py",
    "llmctl/quant/methods.py",
    "llmctl/engine/detokenize.py",
    "llmctl/engine/scheduling",
    "llmctl/engine/sampling/constraints.py",
    "llmctl/engine/pooling/batches.py",
    "llmctl/engine/pace.py",
    "llmctl/engine/generate/choose.py",
    "llmctl/engine/generate/job.py",
)
# The one module of the services that runs models.
EXEMPT = {"llmctl.services.worker.hosting"}
HEAVY = ("torch", "transformers", "numpy")
SCRIPT = """
import importlib, sys
for name in sys.argv[2:]:
    importlib.import_module(name)
    for heavy in sys.argv[1].split(","):
        if heavy in sys.modules:
            sys.exit(f"{name} imports {heavy}")
"""


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def modules_of(place: str) -> list[str]:
    path = ROOT / place
    return [module_name(file) for file in ([path] if path.is_file() else sorted(path.rglob("*.py")))]


def imported(*names: str) -> subprocess.CompletedProcess[str]:
    """Import modules one by one in a new process; it names the first that brings in something heavy."""
    command = [sys.executable, "-c", SCRIPT, ",".join(HEAVY), *names]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True)


def test_plain_modules_import_nothing_heavy() -> None:
    names = [name for place in PLAIN for name in modules_of(place) if name not in EXEMPT]
    assert {"llmctl.core.settings", "llmctl.cli.app", "llmctl.cli.chat.command"} <= set(names)
    ended = imported(*names)
    assert (ended.returncode, ended.stderr) == (0, "")


@pytest.mark.parametrize("place", PLAIN)
def test_every_plain_place_holds_modules(place: str) -> None:
    assert modules_of(place) != []


def test_a_module_that_imports_something_heavy_is_named() -> None:
    # safetensors.numpy stands for it: torch would do as well, but takes seconds.
    assert imported("llmctl.core.types", "safetensors.numpy").stderr == "safetensors.numpy imports numpy\n"
