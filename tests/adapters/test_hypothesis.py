"""Whatever the name, the configuration or the order: an answer or our error, and soon."""

import contextlib
import json
import random
import string
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from llmctl.adapters.facts import Facts, read_facts
from llmctl.adapters.match import Match, TieError, match, resolve
from llmctl.adapters.names import deciding_part, normalise, occurs
from llmctl.adapters.registry import built_in
from llmctl.core.errors import BadFileError
from tests.adapters.rows import ROWS

FAMILIES = (*ROWS, *(family for family in built_in() if family.id not in {row.id for row in ROWS}))
WORDS = sorted({literal for row in FAMILIES for entry in row.name_rule.names for literal in entry})
MAX_CPU_S = 1.0
"""Generous beside the 2 ms that a match takes; a square in the length of a name would be minutes."""

characters = st.characters(codec=None, categories=None)
words = st.sampled_from(
    [*WORDS, "-", "_", "/", "\\", ".", "7b", "checkpoint-1", "models--", "final", " ", "\0"]
)
names = st.text(characters, max_size=60) | st.lists(words, max_size=8).map("".join)
scalars = (
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(characters, max_size=8)
    | st.sampled_from(["llama", "mistral", "<|im_start|>", "LlamaForCausalLM"])
)  # fmt: skip
KEYS = """
    model_type architectures vocab_size rope_scaling rope_parameters rope_theta type rope_type text_config
    added_tokens_decoder additional_special_tokens extra_special_tokens added_tokens content eos_token
    name template chat_template base_model_name_or_path
"""
keys = st.sampled_from(KEYS.split()) | st.text(characters, max_size=5)
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(keys, inner, max_size=4),
    max_leaves=12,
)
objects = st.dictionaries(keys, values, max_size=8)
quick = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])


def answer(name: str, facts: Facts | None, rows: Any = FAMILIES) -> tuple[Any, ...]:
    """What matching says, as far as it must not depend on chance: a family or the tied ones, and why."""
    try:
        found: Match = match(name, facts, rows)
    except TieError as error:
        found = error.match
    family = found.family.id if found.family else None
    return family, found.matched_by, [(c.family, c.rank, c.reasons) for c in found.candidates], found.near


@quick
@given(name=names)
def test_no_name_breaks_matching(name: str) -> None:
    answer(name, None)


@quick
@given(name=names, seed=st.integers())
def test_the_order_of_rows_means_nothing(name: str, seed: int) -> None:
    rows = list(FAMILIES)
    random.Random(seed).shuffle(rows)
    assert answer(name, None, rows) == answer(name, None)


@quick
@given(name=names, seed=st.integers(), num_slashes=st.integers(0, 3))
def test_case_and_trailing_slashes_mean_nothing(name: str, seed: int, num_slashes: int) -> None:
    chance = random.Random(seed)
    other = "".join(c.swapcase() if c in string.ascii_letters and chance.random() < 0.5 else c for c in name)
    assert answer(other + "/" * num_slashes, None) == answer(name, None)


@quick
@given(
    name=names,
    config=objects,
    tokens=st.frozensets(st.text(characters, max_size=5)),
    template=st.none() | st.text() | st.dictionaries(st.text(), st.text()),
    base=st.none() | names,
)
def test_no_configuration_breaks_matching(
    name: str, config: Any, tokens: frozenset[str], template: Any, base: str | None
) -> None:
    facts = Facts(
        config=config, tokens=tokens, chat_template=template, is_peft=base is not None, peft_base=base
    )
    rows = list(FAMILIES)
    assert answer(name, facts, rows[::-1]) == answer(name, facts, rows)


FILES = ("config", "tokenizer_config", "tokenizer", "special_tokens_map", "adapter_config", "added_tokens")


@settings(
    max_examples=100,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
@given(files=st.dictionaries(st.sampled_from(FILES), objects | values), raw=st.binary(max_size=60))
def test_no_file_of_a_folder_breaks_matching(tmp_path: Path, files: dict[str, Any], raw: bytes) -> None:
    for name in FILES:
        (tmp_path / f"{name}.json").unlink(missing_ok=True)
    for name, value in files.items():
        (tmp_path / f"{name}.json").write_text(json.dumps(value))
    (tmp_path / "chat_template.jinja").write_bytes(raw)
    with contextlib.suppress(BadFileError, TieError):
        read_facts(tmp_path)
        resolve(str(tmp_path), FAMILIES)


def test_deeply_nested_json_is_an_error_of_ours(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"a":' * 50_000 + "1" + "}" * 50_000)
    with pytest.raises(BadFileError, match=r"config\.json is not valid JSON"):
        resolve(str(tmp_path), FAMILIES)


@pytest.mark.parametrize(
    "name",
    [
        "a" * 100_000, "/" * 100_000, "-" * 100_000, "mpt" * 33_000, "mpt-" * 25_000, "vicuna " * 15_000,
        "\0" * 100_000, "\ud800" * 100_000, "checkpoint-1/" * 8_000, "models--" * 12_000, "1" * 100_000,
        "checkpoint" + "1" * 100_000 + "x", ("a" * 300 + "/") * 300, "İ" * 100_000, "llama-" + "0" * 100_000,
    ],
)  # fmt: skip
def test_a_very_long_name_is_soon_answered(name: str) -> None:
    start = time.process_time()
    answer(name, None)
    assert time.process_time() - start < MAX_CPU_S


@quick
@given(name=names)
def test_the_deciding_part_is_normalised_and_has_no_separator(name: str) -> None:
    part = deciding_part(name)
    assert normalise(part) == part
    assert not {"/", "\\"} & set(part)


@quick
@given(literal=st.sampled_from(WORDS), before=st.text(characters), behind=st.text(characters))
def test_a_literal_between_separators_always_occurs(literal: str, before: str, behind: str) -> None:
    assert occurs(literal, f"{before}-{literal}-{behind}")
    assert not occurs(literal, f"x{literal}") or not literal[0].isascii()
