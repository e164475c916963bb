"""The card keeps what its maker said, names the model that was compressed, and stays a card to the hub."""

from pathlib import Path

import pytest
from huggingface_hub import ModelCard

from llmctl.artifacts.compress.card import Origin, card_of
from llmctl.artifacts.compress.request import Compressed

RESULT = Compressed(
    name="a/b",
    target=Path("out"),
    method="int4",
    group_size=64,
    bytes_before=1000,
    bytes_after=300,
    num_compressed=3,
    dense={"lm_head": "it is to stay as it is"},
    carried=(),
    notices=("a/b: a word of warning",),
)
FRONT = "license: apache-2.0\nbase_model:\n- x/y\n- x/z\nbase_model_relation: finetune\nlanguage:\n- de\n"


def fields(card: str) -> dict[str, object]:
    found: dict[str, object] = ModelCard(card, ignore_metadata_errors=False).data.to_dict()
    return found


def card(commit: str | None, text: str) -> str:
    return card_of(RESULT, Origin(name="a/b", commit=commit, card=text, files={}))


@pytest.mark.parametrize("ends", ["\n", "\r\n"])
def test_a_model_of_the_hub_is_named_as_the_base_and_its_licence_stays(ends: str) -> None:
    written = card("0" * 40, f"---\n{FRONT}---\n# words\n".replace("\n", ends))
    assert fields(written) == {
        "license": "apache-2.0",
        "language": ["de"],
        "base_model": "a/b",
        "base_model_relation": "quantized",
    }
    assert "## The card of the original\n\n# words" in written
    assert "a/b: a word of warning.\n" in written


def test_a_folder_keeps_the_base_that_its_card_names() -> None:
    assert fields(card(None, f"---\n{FRONT}---\n"))["base_model"] == ["x/y", "x/z"]
    assert card(None, "no front matter").startswith("# a/b, compressed\n")
    assert fields(card("0" * 40, ""))["base_model"] == "a/b"
