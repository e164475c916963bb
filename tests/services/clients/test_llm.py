"""The command `llm` against a fleet."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import pytest

from tests.services.clients.fleet import ANSWER, ASKED, MODEL, Fleet

pytestmark = [
    pytest.mark.heavy,
    pytest.mark.skipif(find_spec("llm") is None, reason="llm is not installed"),
]
MODELS = """\
- model_id: chat
  model_name: {model}
  api_base: {url}
  supports_tools: true
  supports_schema: true
- model_id: text
  model_name: {model}
  api_base: {url}
  completion: true
"""
Llm = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def llm(fleet: Fleet, tmp_path: Path) -> Llm:
    """Run `llm`, which knows the fleet."""
    (tmp_path / "extra-openai-models.yaml").write_text(MODELS.format(model=MODEL, url=fleet.url))

    def run(*words: str) -> subprocess.CompletedProcess[str]:
        env = {**os.environ, "LLM_USER_PATH": str(tmp_path), "OPENAI_API_KEY": "any"}
        command = [sys.executable, "-m", "llm", *words]
        return subprocess.run(command, env=env, capture_output=True, text=True, timeout=60)

    return run


@pytest.mark.parametrize("flags", [(), ("--no-stream",)])
def test_an_answer_comes_with_its_counts(llm: Llm, flags: tuple[str, ...]) -> None:
    ended = llm("-m", "chat", *flags, "-o", "temperature", "0", ASKED)
    assert (ended.returncode, ended.stdout.strip()) == (0, ANSWER), ended.stderr
    (logged,) = json.loads(llm("logs", "--json").stdout)
    assert (logged["input_tokens"], logged["output_tokens"]) == (18, 8)


def test_a_conversation_goes_on(llm: Llm) -> None:
    assert llm("-m", "chat", "-s", "Answer.", "-o", "temperature", "0", ASKED).stdout.strip()
    ended = llm("-c", "-o", "max_tokens", "8", "And of Spain?")
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.strip()


@pytest.mark.parametrize("flags", [(), ("--no-stream",)])
def test_texts_are_continued(llm: Llm, flags: tuple[str, ...]) -> None:
    words = ("-o", "temperature", "0", "-o", "max_tokens", "3", "The capital of France is")
    ended = llm("-m", "text", *flags, *words)
    assert ended.returncode == 0, ended.stderr
    assert "Paris" in ended.stdout


def test_what_comes_later_is_told_as_that(llm: Llm) -> None:
    tools = llm("-m", "chat", "-T", "llm_version", "Which version?")
    assert tools.returncode != 0
    assert "tools" in tools.stderr
    schema = llm("-m", "chat", "--schema", "name str", "A dog")
    assert schema.returncode != 0
    assert "response_format" in schema.stderr
