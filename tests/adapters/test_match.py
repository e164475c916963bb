import json
from pathlib import Path
from typing import Any

import pytest

from llmctl.adapters.facts import Facts
from llmctl.adapters.match import BY_BOTH, BY_FACTS, BY_NAME, Match, TieError, match, resolve
from llmctl.adapters.spec import PLUGIN_RANK, USER_RANK
from tests.adapters.rows import ROWS, row

LLAMA_2 = {"model_type": "llama", "vocab_size": 32000, "max_position_embeddings": 4096}


def matched(name: str, facts: Facts | None = None) -> tuple[str | None, tuple[str, ...]]:
    found = match(name, facts, ROWS)
    return found.family.id if found.family else None, found.matched_by


def facts_of(**config: Any) -> Facts:
    return Facts(config=config)


@pytest.mark.parametrize(
    ("name", "family", "reasons"),
    [
        ("lmsys/vicuna-7b-v1.5", "vicuna", ['name contains "vicuna"']),
        ("/x/Vicuna/checkpoint-7/", "vicuna", ['name contains "vicuna"']),
        ("oasst-x-pythia", "oasst-pythia", ['name contains "oasst" and "pythia"']),
        ("Bard", "bard", ['name is "bard"']),
        ("bard-2", None, []),
        ("my-model", None, []),
        ("", None, []),
    ],
)
def test_a_name_alone_tells_the_family_and_why(name: str, family: str | None, reasons: list[str]) -> None:
    assert matched(name) == (family, tuple(reasons))


def test_facts_alone_tell_the_family_and_why() -> None:
    assert matched("zzz", Facts(config=LLAMA_2)) == (
        "llama-2",
        (
            "config.json: model_type llama",
            "config.json: vocab_size 32000",
            "config.json: max_position_embeddings 4096",
        ),
    )


def test_a_name_and_a_fitting_type_count_as_both() -> None:
    found = match("vicuna", Facts(config=LLAMA_2), ROWS)
    assert found.matched_by == ('name contains "vicuna"', "config.json: model_type llama")
    assert [(c.family, c.evidence) for c in found.candidates] == [
        ("vicuna", BY_BOTH),
        ("llama-2", BY_FACTS),
        ("llama-family", BY_FACTS),
    ]


def test_a_type_that_does_not_fit_rules_a_name_out() -> None:
    family, reasons = matched("vicuna-7b", facts_of(model_type="mistral"))
    assert (family, reasons) == (None, ())
    assert matched("mistral-7b", facts_of(model_type="mistral"))[0] == "mistral"


def test_a_config_without_a_type_rules_nothing_out() -> None:
    assert matched("vicuna-7b", facts_of(vocab_size=3))[0] == "vicuna"
    assert matched("vicuna-7b", facts_of(model_type=3))[0] == "vicuna"


def test_facts_that_do_not_hold_leave_the_name() -> None:
    found = match("chatml-8b", facts_of(model_type="qwen2"), ROWS)
    assert [(c.family, c.evidence, c.why) for c in found.candidates] == [
        ("chatml-llama", BY_NAME, 'name contains "chatml"')
    ]


def test_tokens_are_found_in_the_tokenizer_and_in_its_template() -> None:
    facts = Facts(
        config={"model_type": "llama"}, tokens=frozenset({"<|im_start|>"}), chat_template="a <|im_end|> b"
    )
    assert matched("zzz", facts) == (
        "chatml-llama",
        ("config.json: model_type llama", "tokenizer has <|im_start|>", "tokenizer has <|im_end|>"),
    )


@pytest.mark.parametrize(
    ("rows", "name", "winner"),
    [
        ([row("a", "hermes-2-pro"), row("b", "llama-3")], "hermes-2-pro-llama-3-8b", "a"),
        ([row("a", "llava"), row("b", "mistral")], "llava-v1.6-mistral-7b", "b"),
        ([row("a", "x", origin_rank=PLUGIN_RANK), row("b", "x-longer")], "x-longer", "a"),
        (
            [row("a", "x", origin_rank=USER_RANK), row("b", "x-longer", origin_rank=PLUGIN_RANK)],
            "x-longer",
            "a",
        ),
    ],
)
@pytest.mark.parametrize("step", [1, -1])
def test_the_order_of_rows_means_nothing(rows: list[Any], name: str, winner: str, step: int) -> None:
    found = match(name, None, rows[::step])
    assert found.family is not None
    assert found.family.id == winner


def test_a_tie_is_explained_and_carries_the_answer() -> None:
    with pytest.raises(TieError) as caught:
        match("llama-2-mistral", None, ROWS)
    assert caught.value.exit_code == 8
    assert "'llama-2-mistral' fits several families" in caught.value.message
    assert 'llama-2 (name contains "llama-2"); mistral (name contains "mistral")' in caught.value.message
    assert caught.value.match.family is None
    assert [c.family for c in caught.value.match.candidates] == ["llama-2", "mistral", "llama-family"]


def test_a_fact_breaks_a_tie() -> None:
    assert matched("llama-2-mistral", facts_of(model_type="mistral"))[0] == "mistral"


@pytest.mark.parametrize(
    ("name", "near"),
    [
        ("lmsys/vicunna-7b-v1.5", ("lmsys/vicuna-7b-v1.5",)),
        ("vicun-7b", ("lmsys/vicuna-7b-v1.5",)),
        ("vicun", ("vicuna",)),
        ("brad", ("bard",)),
        ("zzzz", ()),
        ("", ()),
        ("q", ()),
    ],
)
def test_an_unknown_name_is_told_what_is_near(name: str, near: tuple[str, ...]) -> None:
    assert match(name, None, ROWS).near == near


def test_a_name_that_matches_is_told_nothing_near() -> None:
    assert match("vicuna", None, ROWS).near == ()


# Adapters upon a base


def adapter(upon: str | None, **more: Any) -> Facts:
    return Facts(is_peft=True, peft_base=upon, **more)


def test_a_peft_folder_is_of_its_bases_family_by_whatever_name() -> None:
    assert matched("mistral-lora", adapter("lmsys/vicuna-7b-v1.5")) == (
        "vicuna",
        ("adapter_config.json: base model lmsys/vicuna-7b-v1.5", 'name contains "vicuna"'),
    )


def test_the_facts_of_a_base_count() -> None:
    family, reasons = matched("zzz", adapter("/gone/zzz", base=Facts(config=LLAMA_2)))
    assert family == "llama-2"
    assert reasons[:2] == ("adapter_config.json: base model /gone/zzz", "config.json: model_type llama")


def test_without_the_bases_files_those_beside_the_adapter_count() -> None:
    assert matched("zzz", adapter("/gone/zzz", config=LLAMA_2))[0] == "llama-2"


def test_adapters_upon_adapters_are_followed() -> None:
    assert matched("zzz", adapter("a", base=adapter("lmsys/vicuna")))[1][:2] == (
        "adapter_config.json: base model a",
        "adapter_config.json: base model lmsys/vicuna",
    )


def test_an_adapter_without_a_base_goes_by_its_own_name() -> None:
    assert matched("vicuna-lora", adapter(None)) == (
        "vicuna",
        ("adapter_config.json: no base model is named", 'name contains "vicuna"'),
    )


def test_an_unknown_base_is_not_guessed_from_the_adapters_name() -> None:
    found = match("vicuna-lora", adapter("somewhere/zzz"), ROWS)
    assert (found.family, found.part) == (None, "zzz")
    assert found.matched_by == ("adapter_config.json: base model somewhere/zzz",)


# Folders


def test_a_folder_is_looked_into(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "zzz"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(LLAMA_2))
    expected = "llama-2"
    found: list[Match] = [resolve(str(folder), ROWS), resolve("org/zzz", ROWS, folder=folder)]
    monkeypatch.chdir(folder)
    found.append(resolve(".", ROWS))
    assert [match.family.id if match.family else None for match in found] == [expected] * 3
    assert [match.name for match in found] == [str(folder), "org/zzz", "."]


def test_here_is_called_as_the_folder_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "vicuna-7b" / "checkpoint-3"
    folder.mkdir(parents=True)
    monkeypatch.chdir(folder)
    found = resolve(".", ROWS)
    assert (found.name, found.part) == (".", "vicuna-7b")
