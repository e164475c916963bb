"""A folder that is called by nonsense is known by its configuration, as transformers' own classes write it.

The cases are data: a configuration class, the architecture, what to change in it, and the family.
"""

import json
import tomllib
from pathlib import Path
from typing import Any

import pytest

from llmctl.adapters.match import resolve
from llmctl.adapters.registry import built_in

NUM_ARCHITECTURES = 45
FILE = Path(__file__).parent / "renamed.toml"
CASES: list[dict[str, Any]] = tomllib.loads(FILE.read_text(encoding="utf-8"))["case"] if FILE.exists() else []


def test_there_are_enough_architectures() -> None:
    assert len({case["architecture"] for case in CASES}) >= NUM_ARCHITECTURES


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case['architecture']}-{case['family']}")
def test_a_renamed_folder_is_known_by_its_configuration(case: dict[str, Any], tmp_path: Path) -> None:
    import transformers

    config = getattr(transformers, case["config"])(**case.get("changes", {}))
    config.architectures = [case["architecture"]]
    folder = tmp_path / "zzz"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(config.to_dict(), default=str), encoding="utf-8")
    found = resolve(str(folder), built_in())
    assert found.family is not None
    assert found.family.id == case["family"], found.candidates
    assert all(reason.startswith("config.json: ") for reason in found.matched_by)
