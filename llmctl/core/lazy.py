"""Names that are imported on use, so that `llmctl --help` never pays for torch."""

import importlib
from typing import Any


def load(target: str) -> Any:
    """Import `package.module:attribute` and return the attribute."""
    module_name, _, attribute = target.partition(":")
    return getattr(importlib.import_module(module_name), attribute)
