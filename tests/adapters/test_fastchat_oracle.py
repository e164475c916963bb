"""FastChat's own answers for 621 names against ours: equal, or in the reviewed table with a reason.

The table is `fastchat_deviations.toml`; the oracle is what FastChat 0.2.36 answered when it ran.
"""

import json
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from llmctl.adapters.match import Match, TieError, match, resolve
from llmctl.adapters.registry import built_in
from llmctl.adapters.spec import NO_TEMPLATE, OF_TOKENIZER, Family
from llmctl.prompts import library
from tests.conftest import SHARED

ORACLE = SHARED / "oracle/fastchat_oracle.json"
MAX_DEVIATIONS = 200
MAX_REASONS = 6
TABLE = tomllib.loads((Path(__file__).parent / "fastchat_deviations.toml").read_text(encoding="utf-8"))
REASONS: dict[str, str] = TABLE["reasons"]
DEVIATIONS: dict[str, tuple[str, ...]] = {
    name: tuple(answer) for reason in REASONS for name, answer in TABLE[reason].items()
}
"""Our family and template by name; without them where no family fits."""
TRICKY = {
    "prompt-tuned-model": None,
    "gpt-prompt-7b": None,
    "gemmalicious": None,
    "moe5-base": None,
    "my-model": None,
    "checkpoint-1000": None,
    "/home/alpaca/my-model": None,
    "eureka-chatbot": "arena-preview",
    "Hermes-2-Pro-Llama-3-8B": "hermes-2-pro",
    "/home/vicuna/llama-2-7b-chat": "llama-2",
    "llava-v1.6-mistral-7b": "llava-mistral",
    "/ckpt/chatglm2/checkpoint-100": "chatglm2",
    "stable_vicuna_13b": "stable-vicuna",
    "models--lmsys--vicuna-7b-v1.5": "vicuna",
    "C:\\models\\vicuna-v0\\ckpt": "vicuna-v0",
    "COMMAND-R": "command-r-api",
}


@dataclass(frozen=True)
class Answer:
    """What decides a prompt: the template by name and where the answer stops."""

    template: str | None
    stop: tuple[str, ...]
    stop_token_ids: tuple[int, ...]


def oracle() -> dict[str, Any]:
    """Empty without ../shared; pytest skips what is parametrised by it then."""
    return json.loads(ORACLE.read_text(encoding="utf-8")) if ORACLE.is_file() else {}


MODELS: list[dict[str, Any]] = oracle().get("models", [])
REGISTRY: list[str] = list(oracle().get("registry", {}))
of_models = pytest.mark.parametrize("row", MODELS, ids=[row["model_path"] for row in MODELS])


def of_fastchat(row: dict[str, Any]) -> Answer:
    stop = row["stop_str"] or ()
    return Answer(
        row["template"], (stop,) if isinstance(stop, str) else tuple(stop), tuple(row["stop_token_ids"] or ())
    )


def of_family(family: Family) -> Answer:
    if family.template in (OF_TOKENIZER, NO_TEMPLATE):
        return Answer(family.template, family.stop, family.stop_token_ids)
    template = library.find(family.template)
    return Answer(
        family.template,
        (*template.stop, *(text for text in family.stop if text not in template.stop)),
        (*template.stop_token_ids, *(i for i in family.stop_token_ids if i not in template.stop_token_ids)),
    )


def ours(row: dict[str, Any], folder: Path) -> Match:
    """By the name alone; a PEFT adapter is written to disk as FastChat saw it."""
    if "fixture" not in row:
        return match(row["model_path"], None, built_in())
    path = folder / row["model_path"]
    path.mkdir(parents=True)
    for name, content in row["fixture"].items():
        (path / name).write_text(json.dumps(content), encoding="utf-8")
    return resolve(str(path), built_in())


@of_models
def test_a_name_gets_fastchats_template_and_stop_rules_or_stands_in_the_table(
    row: dict[str, Any], tmp_path: Path
) -> None:
    try:
        family = ours(row, tmp_path).family
    except TieError as error:
        pytest.fail(str(error))
    is_equal = family is not None and of_family(family) == of_fastchat(row)
    if row["model_path"] not in DEVIATIONS:
        assert is_equal, f"{row['template']}, not {family and (family.id, of_family(family))}"
    else:
        assert not is_equal, "FastChat's answer is ours: the row of the table is not needed any more"
        assert DEVIATIONS[row["model_path"]] == ((family.id, family.template) if family else ())


@pytest.mark.skipif(not MODELS, reason="../shared is absent")
def test_the_table_holds_only_names_of_the_oracle() -> None:
    assert DEVIATIONS.keys() <= {row["model_path"] for row in MODELS}


def test_the_table_is_short_and_gives_few_reasons() -> None:
    assert len(DEVIATIONS) == sum(len(TABLE[reason]) for reason in REASONS) <= MAX_DEVIATIONS
    assert TABLE.keys() == {"reasons", *REASONS}
    assert len(REASONS) <= MAX_REASONS
    assert all(TABLE[reason] for reason in REASONS)


@pytest.mark.parametrize(("name", "family"), TRICKY.items())
def test_a_tricky_name_is_not_taken_in(name: str, family: str | None) -> None:
    found = match(name, None, built_in()).family
    assert (found.id if found else None) == family


@pytest.mark.parametrize("name", REGISTRY)
def test_every_name_of_fastchats_registry_is_of_a_family(name: str) -> None:
    assert match(name, None, built_in()).family is not None


def test_hermes_2_pro_speaks_chatml_whatever_it_was_built_from() -> None:
    family = match("NousResearch/Hermes-2-Pro-Llama-3-8B", None, built_in()).family
    assert family is not None
    assert family.template not in ("llama-3", NO_TEMPLATE)
