"""Families of the tests' own, which rank above all others, so that no other row can change an answer."""

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import Ended, Llmctl

ROWS = """
[[family]]
id = "quokka"
title = "Quokka"
about = "Small and friendly."
template = "vicuna_v1.1"
examples = ["island/quokka-7b"]
[family.match]
names = ["quokka"]
[family.stop]
strings = ["###"]
token_ids = [7]
[family.loading]
use_fast = false

[[family]]
id = "quokka-2"
template = "tokenizer"
note = "Needs a hug."
examples = ["island/quokka-2-7b"]
[family.match]
names = ["quokka-2"]

[[family]]
id = "wombat-a"
kind = "embedding"
generates = "none"
template = "none"
examples = ["island/wombat-embed"]
[family.match]
names = ["wombat"]

[[family]]
id = "wombat-b"
template = "none"
examples = ["island/wombat-base"]
[family.match]
names = ["wombat"]

[[family]]
id = "bilby"
template = "vicuna_v1.1"
template_wins = true
[family.match]
names = ["bilby"]
[family.facts]
config = { bilby = true }
"""


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    path = tmp_path / "rows.toml"
    path.write_text(ROWS)
    return path


Models = Callable[..., Ended]


@pytest.fixture
def models(llmctl: Llmctl, rows: Path) -> Models:
    """Run `llmctl models` with the rows above: `models("match", "quokka")`."""

    def run(command: str, *args: str, stdin: bytes = b"") -> Ended:
        return llmctl("models", command, "--adapter-file", str(rows), *args, stdin=stdin)

    return run
