"""The demo models that ship with llmctl: a small chat model and the base it was trained from."""

from __future__ import annotations

from pathlib import Path

_ROOT = Path(__file__).parent / "models"
MODELS: dict[str, Path] = {"demo": _ROOT / "demo", "demo-base": _ROOT / "demo-base"}
